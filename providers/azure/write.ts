import {
  type PutOptions,
  StoreError,
  type StoreLimits,
  type UploadedPart,
} from "../object_store.ts";
import {
  hasTags,
  MAX_PARTS,
  startBlockUpload,
  transferCheck,
  writeOptions,
  type WriteSettings,
} from "./block_upload.ts";
import type { UploadSizes } from "./config.ts";
import type { AzureSession } from "./session.ts";

const MiB = 1024 ** 2;
/** Azure's limit of a body that is sent at once. */
const MAX_SINGLE_PUT = 5000 * MiB;
/** Milliseconds that removing the blocks of a failed `put` may take. */
const DISCARD_TIMEOUT_MS = 10_000;

/** Azure's, but for the smallest part: Azure has none, Barman does. */
export const LIMITS: StoreLimits = {
  maxParts: MAX_PARTS,
  minPartSize: 64 * 1024,
  maxPartSize: 4000 * MiB,
  maxObjectSize: MAX_PARTS * 4000 * MiB,
  maxPutSize: MAX_SINGLE_PUT,
  maxDeleteBatch: 256,
};

/** Up to `singlePut` bytes in one request, above it in blocks. */
export async function putBlob(
  session: AzureSession,
  settings: WriteSettings,
  sizes: UploadSizes,
  key: string,
  body: Uint8Array,
  options: PutOptions = {},
): Promise<void> {
  if (body.length > LIMITS.maxPutSize) {
    throw new StoreError(
      "invalid",
      `Cannot write ${key} in ${session.description} at once: it has ${body.length} bytes, more ` +
        `than ${LIMITS.maxPutSize}`,
      { key },
    );
  }
  if (body.length > Math.min(sizes.singlePut, MAX_SINGLE_PUT)) {
    return await putInBlocks(session, settings, sizes, key, body, options);
  }
  const context = {
    action: `write ${key}`,
    key,
    signal: options.signal,
    precondition: "exists",
    tagged: hasTags(options.tags),
  } as const;
  await session.call(context, (send) =>
    session.blob(key).upload(body, body.length, {
      ...writeOptions(settings, options),
      ...transferCheck(body),
      ...send,
    }));
}

async function putInBlocks(
  session: AzureSession,
  settings: WriteSettings,
  sizes: UploadSizes,
  key: string,
  body: Uint8Array,
  options: PutOptions,
): Promise<void> {
  const blockSize = Math.min(
    Math.max(sizes.block, Math.ceil(body.length / MAX_PARTS)),
    LIMITS.maxPartSize,
  );
  const upload = await startBlockUpload(session, settings, key, options);
  const parts: UploadedPart[] = [];
  let next = 0;
  let failed = false;
  // After a failure no block is begun, but those under way are let arrive, or they could do so after
  // the others were removed.
  const worker = async () => {
    while (!failed && next * blockSize < body.length) {
      const index = next++;
      const block = body.subarray(index * blockSize, (index + 1) * blockSize);
      try {
        parts.push(await upload.uploadPart(index + 1, block, { signal: options.signal }));
      } catch (error) {
        failed = true;
        throw error;
      }
    }
  };
  try {
    const ended = await Promise.allSettled(Array.from({ length: sizes.concurrency }, worker));
    const failure = ended.find((end) => end.status === "rejected");
    if (failure !== undefined) throw failure.reason;
    await upload.complete(parts, { signal: options.signal });
  } catch (error) {
    try {
      await upload.abort({ signal: AbortSignal.timeout(DISCARD_TIMEOUT_MS) });
    } catch (left) {
      settings.onNotice?.(
        `Could not remove the blocks of ${key} after a failure: ${
          left instanceof Error ? left.message : left
        }`,
      );
    }
    throw error;
  }
}
