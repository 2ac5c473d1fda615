import {
  type DeleteFailure,
  type DeleteOptions,
  isStoreError,
  StoreError,
} from "../object_store.ts";
import { wantsContentMd5 } from "./errors.ts";
import type { S3Session } from "./session.ts";

/** Single deletions under way at once, where a store has no usable bulk deletion. */
const SINGLE_AT_ONCE = 8;

/** Every batch is tried; what is still there afterwards is returned with the reason. */
export async function deleteObjects(
  session: S3Session,
  keys: readonly string[],
  maxBatch: number,
  options: DeleteOptions = {},
): Promise<readonly DeleteFailure[]> {
  const batchSize = Math.max(1, Math.min(options.batchSize ?? maxBatch, maxBatch));
  const failures: DeleteFailure[] = [];
  let oneByOne = false;
  for (let at = 0; at < keys.length; at += batchSize) {
    const batch = keys.slice(at, at + batchSize);
    try {
      failures.push(...await (oneByOne ? deleteSingly : deleteBatch)(session, batch, options));
    } catch (error) {
      options.signal?.throwIfAborted();
      if (!isStoreError(error)) throw error;
      if (!oneByOne && wantsContentMd5(error)) {
        oneByOne = true;
        at -= batchSize;
        continue;
      }
      failures.push(...batch.map((key) => ({ key, error })));
    }
  }
  return failures;
}

async function deleteBatch(
  session: S3Session,
  keys: readonly string[],
  { signal }: DeleteOptions,
): Promise<DeleteFailure[]> {
  const context = { action: `delete ${named(keys)}`, signal };
  const { Errors = [] } = await session.call(context, (api, send) =>
    api.deleteObjects({
      Bucket: session.bucket,
      Delete: { Objects: keys.map((Key) => ({ Key })), Quiet: true },
    }, send));
  const failures: DeleteFailure[] = [];
  for (const { Key, Code, Message } of Errors) {
    if (Code === "NoSuchKey") continue;
    const told = Object.assign(new Error(Message ?? Code ?? "no reason given"), {
      Code,
      $metadata: { httpStatusCode: statusOf(Code) },
    });
    // Without a key the whole batch is meant.
    for (const key of Key === undefined ? keys : [Key]) {
      const error = session.storeError(told, { action: `delete ${key}`, key });
      if (error instanceof StoreError) failures.push({ key, error });
    }
  }
  return failures;
}

/** The status that a single request would have had. */
function statusOf(code: string | undefined): number {
  if (code === "AccessDenied") return 403;
  if (code === "InternalError" || code === "ServiceUnavailable" || code === "SlowDown") return 503;
  return 400;
}

async function deleteSingly(
  session: S3Session,
  keys: readonly string[],
  { signal }: DeleteOptions,
): Promise<DeleteFailure[]> {
  const failures: DeleteFailure[] = [];
  const queue = keys.values();
  const worker = async () => {
    for (const key of queue) {
      const context = { action: `delete ${key}`, key, signal };
      try {
        await session.call(
          context,
          (api, send) => api.deleteObject({ Bucket: session.bucket, Key: key }, send),
        );
      } catch (error) {
        if (isStoreError(error, "not-found")) continue;
        if (!isStoreError(error)) throw error;
        failures.push({ key, error });
      }
    }
  };
  await Promise.all(Array.from({ length: SINGLE_AT_ONCE }, worker));
  return failures;
}

function named(keys: readonly string[]): string {
  const [first = "nothing"] = keys;
  return keys.length <= 1 ? first : `${first} and ${keys.length - 1} more`;
}
