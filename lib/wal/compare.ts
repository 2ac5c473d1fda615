/** Is what the archive holds under a file's name the same as the file? */
import { Buffer } from "node:buffer";
import { CorruptDataError } from "../compression/corrupt_data_error.ts";
import { stripSuffix } from "../compression/table.ts";
import { storedContent } from "../stored_content.ts";
import { type Cancellable, isStoreError, type ObjectStore } from "../../providers/object_store.ts";
import { type LocalFile, openLocalFile } from "./local_file.ts";

export type Comparison =
  /** Bytes of both. */
  | { readonly kind: "same"; readonly size: number }
  /** `reason` completes "KEY is there and …". */
  | { readonly kind: "different"; readonly reason: string };

/**
 * Compare an object, decompressed as its suffix says, with a local file. Ends at the first difference.
 * @throws {StoreError} also when the object is gone by now; an Error that names the file if it can't be read
 */
export async function compareWithObject(
  store: ObjectStore,
  key: string,
  path: string,
  options: Cancellable,
): Promise<Comparison> {
  const { signal } = options;
  const { compression } = stripSuffix(key);
  const file = await openLocalFile(path);
  try {
    return await compare(storedContent(store, key, compression, { signal }), file);
  } catch (error) {
    if (!(error instanceof CorruptDataError) || isStoreError(error)) throw error;
    return { kind: "different", reason: `is damaged (${error.message})` };
  } finally {
    await file.close();
  }
}

async function compare(
  content: AsyncIterable<Uint8Array>,
  file: LocalFile,
): Promise<Comparison> {
  const local = file.read(true);
  let chunk: Uint8Array = new Uint8Array(0);
  let position = 0;
  try {
    for await (let theirs of content) {
      while (theirs.length > 0) {
        if (chunk.length === 0) {
          const { done, value } = await local.next();
          if (done) return { kind: "different", reason: `has more than ${file.size} bytes` };
          chunk = value;
        }
        const length = Math.min(chunk.length, theirs.length);
        if (Buffer.compare(chunk.subarray(0, length), theirs.subarray(0, length)) !== 0) {
          return {
            kind: "different",
            reason: `differs from it between bytes ${position} and ${position + length}`,
          };
        }
        position += length;
        chunk = chunk.subarray(length);
        theirs = theirs.subarray(length);
      }
    }
  } finally {
    await local.return();
  }
  return position === file.size
    ? { kind: "same", size: position }
    : { kind: "different", reason: `has only ${position} of ${file.size} bytes` };
}
