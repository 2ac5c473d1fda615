/** `put`, and the pieces that multipart uploads share with it. */
import type { FileHandle } from "node:fs/promises";
import { type ObjectContent, type PutOptions, StoreError } from "../object_store.ts";
import { commit, openTemporary, unlinkIfThere } from "./durable.ts";
import { fileError, hasCode } from "./errors.ts";
import { pathOfKey } from "./keys.ts";

/** Bytes handed to the system at once: an abort is noticed between two of them. */
const WRITE_SIZE = 4 * 1024 * 1024;

/** The contract of `ObjectStore.put`. */
export async function putFile(
  root: string,
  key: string,
  body: Uint8Array | ObjectContent,
  options: PutOptions = {},
): Promise<void> {
  const { signal, createOnly = false } = options;
  signal?.throwIfAborted();
  const target = pathOfKey(root, key);
  try {
    const file = await openTemporary(root, target);
    try {
      try {
        if (body instanceof Uint8Array) await writeAll(file.handle, body, 0, signal);
        else await writeContent(file.handle, body, signal);
      } catch (error) {
        await file.handle.close();
        throw error;
      }
      await commit(root, file, target, createOnly);
    } catch (error) {
      await unlinkIfThere(file.path);
      throw error;
    }
  } catch (error) {
    signal?.throwIfAborted();
    throw writeError(root, key, error);
  }
}

async function writeContent(
  handle: FileHandle,
  content: ObjectContent,
  signal: AbortSignal | undefined,
): Promise<void> {
  let position = 0;
  for await (const chunk of content.read()) {
    await writeAll(handle, chunk, position, signal);
    position += chunk.length;
  }
}

/** Write all bytes at a position. Nothing is being written any more when it rejects. */
export async function writeAll(
  handle: FileHandle,
  body: Uint8Array,
  position: number,
  signal: AbortSignal | undefined,
): Promise<void> {
  for (let written = 0; written < body.length;) {
    signal?.throwIfAborted();
    const length = Math.min(WRITE_SIZE, body.length - written);
    const { bytesWritten } = await handle.write(body, written, length, position + written);
    written += bytesWritten;
  }
  signal?.throwIfAborted();
}

/** What a failed write of an object means. */
export function writeError(root: string, key: string, error: unknown): StoreError {
  if (error instanceof StoreError) return error;
  const action = `Cannot write ${key} in directory ${root}`;
  if (hasCode(error, "EEXIST")) {
    return new StoreError("exists", `${action}: it is there already`, {
      key,
      code: "EEXIST",
      cause: error,
    });
  }
  if (hasCode(error, "ENOENT")) {
    return new StoreError("other", `${action}: something removed its temporary file`, {
      key,
      code: "ENOENT",
      cause: error,
    });
  }
  return fileError(action, key, error);
}
