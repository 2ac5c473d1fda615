import { Buffer } from "node:buffer";
import { createHash } from "node:crypto";
import {
  type Cancellable,
  type CompletedObject,
  isStoreError,
  type MultipartUpload,
  type PutOptions,
  StoreError,
  type Tags,
  type UploadedPart,
} from "../object_store.ts";
import { type BlockIds, claimBlockIds } from "./block_ids.ts";
import { discardBlocks } from "./discard.ts";
import { bareEtag } from "./list.ts";
import { headBlob } from "./read.ts";
import type { AzureSession, RequestContext } from "./session.ts";

/** Azure's limit of blocks in a blob. */
export const MAX_PARTS = 50_000;

export interface WriteSettings {
  readonly encryptionScope: string | undefined;
  readonly onNotice: ((message: string) => void) | undefined;
}

/**
 * An object in parts: each is a block, and a block list makes the object of them. Nothing of it is
 * visible before, and what is never made an object is dropped by Azure after a week.
 */
export async function startBlockUpload(
  session: AzureSession,
  settings: WriteSettings,
  key: string,
  options: PutOptions = {},
): Promise<MultipartUpload> {
  const begin = { action: `begin writing ${key}`, key, signal: options.signal };
  if (options.createOnly === true) await requireFree(session, begin);
  const ids = await claimBlockIds(session, key, begin, settings.encryptionScope);
  const upload: Upload = { session, settings, key, options, ids, sent: new Set() };
  let ended: "completed" | "aborted" | undefined;
  let discarded = false;

  const requireOpen = (action: string) => {
    if (ended === undefined) return;
    throw new StoreError(
      "not-found",
      `Cannot ${action} in ${session.description}: the upload has been ${ended}`,
      { key },
    );
  };
  return {
    key,
    uploadPart(number, body, cancellable) {
      const action = `write part ${number} of ${key}`;
      return attempt(() => {
        requireOpen(action);
        return uploadPart(upload, action, number, body, cancellable);
      });
    },
    async complete(parts, cancellable) {
      const action = `finish writing ${key}`;
      requireOpen(action);
      const completed = await complete(upload, action, parts, cancellable);
      ended = "completed";
      return completed;
    },
    async abort(cancellable) {
      if (ended === "completed" || discarded) return;
      ended = "aborted";
      cancellable?.signal?.throwIfAborted();
      if (upload.sent.size > 0) await discard(upload, cancellable);
      discarded = true;
    },
  };
}

interface Upload {
  readonly session: AzureSession;
  readonly settings: WriteSettings;
  readonly key: string;
  readonly options: PutOptions;
  readonly ids: BlockIds;
  /** Numbers of the parts that arrived. */
  readonly sent: Set<number>;
}

/** What throws at once rejects, too. */
// deno-lint-ignore require-await -- that is the point
async function attempt<T>(call: () => Promise<T>): Promise<T> {
  return call();
}

async function uploadPart(
  { session, settings, key, ids, sent }: Upload,
  action: string,
  number: number,
  body: Uint8Array,
  { signal }: Cancellable = {},
): Promise<UploadedPart> {
  if (!Number.isInteger(number) || number < 1 || number > MAX_PARTS) {
    throw new StoreError(
      "invalid",
      `Cannot ${action} in ${session.description}: part numbers are 1 to ${MAX_PARTS}`,
      { key },
    );
  }
  const id = ids.of(number);
  // Azure takes no empty block; the list simply leaves it out.
  if (body.length > 0) {
    await session.call(
      { action, key, signal },
      (send) =>
        session.blob(key).stageBlock(id, body, body.length, {
          ...transferCheck(body),
          ...encryption(settings),
          ...send,
        }),
    );
  } else signal?.throwIfAborted();
  sent.add(number);
  return { number, size: body.length, etag: id };
}

async function complete(
  { session, settings, key, options, ids, sent }: Upload,
  action: string,
  parts: readonly UploadedPart[],
  { signal }: Cancellable = {},
): Promise<CompletedObject> {
  const refuse = (reason: string) =>
    new StoreError("invalid", `Cannot ${action} in ${session.description}: ${reason}`, { key });
  if (parts.length === 0) throw refuse("an upload needs a part");
  const missing = parts.find(({ number }) => !sent.has(number));
  if (missing !== undefined) throw refuse(`part ${missing.number} was not sent`);
  const blocks = [...parts].sort((a, b) => a.number - b.number)
    .filter(({ size }) => size > 0).map(({ number }) => ids.of(number));
  const context: RequestContext = {
    action,
    key,
    signal,
    precondition: "exists",
    tagged: hasTags(options.tags),
  };
  try {
    const { etag } = await session.call(
      context,
      (send) =>
        session.blob(key).commitBlockList(blocks, { ...writeOptions(settings, options), ...send }),
    );
    return etag === undefined ? {} : { etag: bareEtag(etag) };
  } catch (error) {
    if (!isStoreError(error) || error.code !== "InvalidBlockList") throw error;
    throw new StoreError(
      "not-found",
      `Cannot ${action} in ${session.description}: its parts are no longer there, because another ` +
        "write of this key was finished in the meantime",
      { key, code: error.code, cause: error },
    );
  }
}

async function discard(upload: Upload, { signal }: Cancellable = {}): Promise<void> {
  const { session, key, ids, settings } = upload;
  const context = { action: `remove the unfinished upload of ${key}`, key, signal };
  const kept = await discardBlocks(session, key, ids.isOurs, context);
  if (kept !== undefined) {
    settings.onNotice?.(
      `The parts of the unfinished upload of ${key} in ${session.description} stay until Azure ` +
        `removes them after a week: ${kept}`,
    );
  }
}

/** What Put Blob and Put Block List have in common. */
export function writeOptions(settings: WriteSettings, options: PutOptions) {
  return {
    ...encryption(settings),
    ...(hasTags(options.tags) ? { tags: Object.fromEntries(options.tags ?? []) } : {}),
    ...(options.createOnly === true ? { conditions: { ifNoneMatch: "*" } } : {}),
    blobHTTPHeaders: { blobContentType: "application/octet-stream" },
  };
}

export function hasTags(tags: Tags | undefined): boolean {
  return tags !== undefined && tags.length > 0;
}

/**
 * The body's MD5, which Azure compares. Some machines in FIPS mode have none; the data then goes
 * without.
 */
export function transferCheck(
  body: Uint8Array,
): { readonly transactionalContentMD5?: Uint8Array<ArrayBuffer> } {
  try {
    return { transactionalContentMD5: Buffer.from(createHash("md5").update(body).digest()) };
  } catch {
    return {};
  }
}

function encryption({ encryptionScope }: WriteSettings): { readonly encryptionScope?: string } {
  return encryptionScope === undefined ? {} : { encryptionScope };
}

async function requireFree(
  session: AzureSession,
  context: RequestContext & { readonly key: string },
): Promise<void> {
  try {
    await headBlob(session, context.key, { signal: context.signal });
  } catch (error) {
    // Who may write but not look is told at the end.
    if (isStoreError(error, "not-found", "denied")) return;
    throw error;
  }
  throw new StoreError(
    "exists",
    `Cannot ${context.action} in ${session.description}: an object with this key is there already`,
    { key: context.key },
  );
}
