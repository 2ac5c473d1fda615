/**
 * A store in a local directory: `file:///backups/pg`. The directory is the "bucket", every object is a
 * plain file at its key, so the tree can be looked at, or copied to a bucket as it is.
 *
 * Objects appear whole or not at all and are on disk when a call returns. Files named
 * `.barman-cloud.*.tmp` are being written, or were when their process died; they are never listed
 * and are removed by later backups and deletions once nobody has written to them for a day.
 */
import { stat } from "node:fs/promises";
import {
  type Cancellable,
  type MultipartUpload,
  type ObjectContent,
  type ObjectStore,
  type PutOptions,
  StoreError,
  type StoreLimits,
} from "../object_store.ts";
import { withBandwidthOf } from "../bandwidth.ts";
import type { OpenedStore, StoreOptions } from "../open.ts";
import { deleteFiles, removeStaleTemporaries } from "./delete.ts";
import { makeRoot } from "./durable.ts";
import { fileError, hasCode } from "./errors.ts";
import { listFiles } from "./list.ts";
import { startMultipartFile } from "./multipart.ts";
import { headFile, readFile } from "./read.ts";
import { listTemporaries, removeTemporary } from "./uploads.ts";
import { directoryOfUrl } from "./url.ts";
import { putFile } from "./write.ts";

const MiB = 1024 * 1024;

/** The file system has no such limits; these keep memory and the number of parts in bounds. */
const LIMITS: StoreLimits = {
  maxParts: 50_000,
  minPartSize: 1,
  maxPartSize: 1024 * MiB,
  maxObjectSize: 50_000 * 1024 * MiB,
  maxPutSize: 100 * MiB,
  maxDeleteBatch: 1000,
};

/**
 * Open the directory of a `file://` URL. Nothing is touched yet.
 * @throws {StoreError} kind `invalid` for a URL that names no absolute directory.
 */
// deno-lint-ignore require-await -- the signature is that of all providers
export async function openFileStore(url: string, options: StoreOptions): Promise<OpenedStore> {
  const root = directoryOfUrl(url);
  return {
    store: withBandwidthOf(fileStore(root, options.onNotice), options),
    location: { provider: "local", url, prefix: "" },
  };
}

function fileStore(root: string, onNotice?: (message: string) => void): ObjectStore {
  const description = `directory ${root}`;
  const unfinished = new Set<MultipartUpload>();
  let cleaned = false;
  const put = async (key: string, body: Uint8Array | ObjectContent, options?: PutOptions) => {
    if (body.length > LIMITS.maxPutSize) {
      throw new StoreError(
        "invalid",
        `Cannot write ${key} in ${description} at once: it has ${body.length} bytes, more than ` +
          LIMITS.maxPutSize,
        { key },
      );
    }
    await putFile(root, key, body, options);
  };
  return {
    provider: "local",
    description,
    limits: LIMITS,
    capabilities: { createOnlyPut: true, createOnlyMultipart: true, tags: false },
    bucketExists: (options) => rootExists(root, options),
    async createBucket(options) {
      options?.signal?.throwIfAborted();
      try {
        await makeRoot(root);
      } catch (error) {
        throw fileError(`Cannot create ${description}`, undefined, error);
      }
    },
    list: (prefix, options) => listFiles({ root, onNotice }, prefix, options),
    head: (key, options) => headFile(root, key, options),
    get: (key, options) => readFile(root, key, options),
    put,
    putContent: put,
    async startMultipart(key, options: PutOptions = {}) {
      const upload = await startMultipartFile(root, key, LIMITS, options);
      unfinished.add(upload);
      if (!cleaned) {
        cleaned = true;
        await cleanBeside(root, key, onNotice);
      }
      return tracked(upload, unfinished);
    },
    listUploads: (prefix, options) => listTemporaries(root, prefix, options),
    removeUpload: (upload, options) => removeTemporary(root, upload, options),
    deleteMany(keys, options) {
      return deleteFiles(root, keys, options);
    },
    async close() {
      for (const upload of unfinished) await upload.abort();
      unfinished.clear();
    },
  };
}

async function rootExists(root: string, options: Cancellable = {}): Promise<boolean> {
  options.signal?.throwIfAborted();
  let isDirectory: boolean;
  try {
    isDirectory = (await stat(root)).isDirectory();
  } catch (error) {
    if (hasCode(error, "ENOENT")) return false;
    throw fileError(`Cannot use ${root} as a local store`, undefined, error);
  }
  options.signal?.throwIfAborted();
  if (isDirectory) return true;
  throw new StoreError("invalid", `Cannot use ${root} as a local store: it is not a directory`);
}

/** Leftovers of others are no reason to fail this upload. */
async function cleanBeside(
  root: string,
  key: string,
  onNotice: ((message: string) => void) | undefined,
): Promise<void> {
  try {
    await removeStaleTemporaries(root, key);
  } catch (error) {
    const why = error instanceof Error ? error.message : String(error);
    onNotice?.(`Could not remove old temporary files in directory ${root}: ${why}`);
  }
}

/** An upload that its store forgets once it has ended. */
function tracked(upload: MultipartUpload, unfinished: Set<MultipartUpload>): MultipartUpload {
  return {
    key: upload.key,
    uploadPart: (number, body, options) => upload.uploadPart(number, body, options),
    async complete(parts, options) {
      const completed = await upload.complete(parts, options);
      unfinished.delete(upload);
      return completed;
    },
    async abort(options) {
      await upload.abort(options);
      unfinished.delete(upload);
    },
  };
}
