/** Looking at and reading the files that are objects. */
import type { BigIntStats } from "node:fs";
import { type FileHandle, open, stat } from "node:fs/promises";
import {
  type Cancellable,
  type GetOptions,
  type ObjectReader,
  type StoredObject,
  StoreError,
} from "../object_store.ts";
import { fileError, hasCode } from "./errors.ts";
import { requireRoot } from "./durable.ts";
import { pathOfKey } from "./keys.ts";

/** Bytes read at once. Measured: larger pieces gain little, smaller ones lose a lot. */
const CHUNK_SIZE = 512 * 1024;

/** What is known of a file without reading it. The etag changes with every write of the key. */
export function describeFile(key: string, stats: BigIntStats): StoredObject {
  return {
    key,
    size: Number(stats.size),
    etag: [stats.size, stats.mtimeNs, stats.ino].map((part) => part.toString(16)).join("-"),
    lastModified: new Date(Number(stats.mtimeMs)),
  };
}

export async function headFile(
  root: string,
  key: string,
  options: Cancellable = {},
): Promise<StoredObject> {
  options.signal?.throwIfAborted();
  const path = pathOfKey(root, key);
  try {
    const stats = await stat(path, { bigint: true });
    options.signal?.throwIfAborted();
    requireFile(root, key, stats);
    return describeFile(key, stats);
  } catch (error) {
    options.signal?.throwIfAborted();
    throw await readError(root, key, error);
  }
}

export async function readFile(
  root: string,
  key: string,
  options: GetOptions = {},
): Promise<ObjectReader> {
  const { signal, reuse = false } = options;
  signal?.throwIfAborted();
  const path = pathOfKey(root, key);
  let handle: FileHandle;
  try {
    // Opening a named pipe would wait for its other end for ever.
    requireFile(root, key, await stat(path, { bigint: true }));
    handle = await open(path, "r");
  } catch (error) {
    throw await readError(root, key, error);
  }
  try {
    const object = describeFile(key, await handle.stat({ bigint: true }));
    signal?.throwIfAborted();
    requireEtag(root, object, options.etag);
    const [start, end] = rangeWithin(root, object, options);
    return { object, body: bodyOf({ handle, root, object, start, end, reuse, signal }) };
  } catch (error) {
    await handle.close();
    signal?.throwIfAborted();
    throw fileError(`Cannot read ${key} in directory ${root}`, key, error);
  }
}

/** A missing file, or its whole store? "Not found" may end a recovery, so it must be true. */
async function readError(root: string, key: string, error: unknown): Promise<StoreError> {
  const action = `Cannot read ${key} in directory ${root}`;
  if (!hasCode(error, "ENOENT", "ENOTDIR")) return fileError(action, key, error);
  try {
    await requireRoot(root);
  } catch (rootError) {
    return fileError(action, key, rootError);
  }
  return notFound(root, key, error);
}

function notFound(root: string, key: string, cause?: unknown): StoreError {
  const message = `Cannot read ${key} in directory ${root}: there is no such file`;
  return new StoreError("not-found", message, { key, code: "ENOENT", cause });
}

function requireFile(root: string, key: string, stats: BigIntStats): void {
  if (stats.isFile()) return;
  if (stats.isDirectory()) throw notFound(root, key);
  throw new StoreError(
    "invalid",
    `Cannot read ${key} in directory ${root}: it is not a regular file`,
    { key },
  );
}

function requireEtag(root: string, object: StoredObject, etag: string | undefined): void {
  if (etag === undefined || etag === object.etag) return;
  throw new StoreError(
    "changed",
    `Cannot read ${object.key} in directory ${root}: it was replaced in the meantime`,
    { key: object.key },
  );
}

function rangeWithin(
  root: string,
  object: StoredObject,
  options: GetOptions,
): [start: number, end: number] {
  const { start = 0, end = object.size } = options;
  const wholeObject = start === 0 && options.end === undefined;
  if (wholeObject || (start >= 0 && start < end && start < object.size)) {
    return [start, Math.min(end, object.size)];
  }
  throw new StoreError(
    "invalid",
    `Cannot read bytes ${start} to ${end} of ${object.key} in directory ${root}: ` +
      `it has ${object.size} bytes`,
    { key: object.key, code: "InvalidRange" },
  );
}

interface OpenBody {
  readonly handle: FileHandle;
  readonly root: string;
  readonly object: StoredObject;
  readonly start: number;
  readonly end: number;
  readonly reuse: boolean;
  readonly signal: AbortSignal | undefined;
}

/** Not a generator: leaving one that was never begun would not run its `finally`. */
function bodyOf(body: OpenBody): AsyncIterableIterator<Uint8Array> {
  const { handle, signal, end } = body;
  let position = body.start;
  let memory = new Uint8Array(0);
  let closing: Promise<void> | undefined;
  const close = (): Promise<void> => {
    signal?.removeEventListener("abort", onAbort);
    return closing ??= handle.close();
  };
  const onAbort = (): void => {
    close().catch(() => {
      // The reader is told the signal's reason; a failed close of a file opened for reading loses nothing.
    });
  };
  signal?.addEventListener("abort", onAbort);
  const done = async (): Promise<IteratorResult<Uint8Array>> => {
    await close();
    return { done: true, value: undefined };
  };
  return {
    [Symbol.asyncIterator]() {
      return this;
    },
    async next() {
      signal?.throwIfAborted();
      if (closing !== undefined || position >= end) return await done();
      const wanted = Math.min(CHUNK_SIZE, end - position);
      if (!body.reuse || memory.length < wanted) memory = new Uint8Array(wanted);
      try {
        const { bytesRead } = await handle.read(memory, 0, wanted, position);
        if (bytesRead === 0) throw cutShort(body, position);
        position += bytesRead;
        if (position >= end) await close();
        return { done: false, value: memory.subarray(0, bytesRead) };
      } catch (error) {
        await close();
        signal?.throwIfAborted();
        throw fileError(
          `Cannot read ${body.object.key} in directory ${body.root}`,
          body.object.key,
          error,
        );
      }
    },
    return: done,
  };
}

function cutShort(body: OpenBody, position: number): StoreError {
  const { key, size } = body.object;
  return new StoreError(
    "unreachable",
    `Cannot read ${key} in directory ${body.root}: it ended at byte ${position} of ${size}; ` +
      "something shortened the file while it was read",
    { key },
  );
}
