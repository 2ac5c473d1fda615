/** What an object of the store holds, decompressed. */
import type { ObjectStore, StoredObject } from "../providers/object_store.ts";
import {
  type CompressionName,
  type DecompressOptions,
  decompressStream,
} from "./compression/table.ts";

export interface ContentOptions extends Pick<DecompressOptions, "threads" | "signal"> {
  /** Sees, or counts, what is stored on its way to the decompressor. */
  readonly through?:
    | ((body: AsyncIterable<Uint8Array>, object: StoredObject) => AsyncIterable<Uint8Array>)
    | undefined;
}

/**
 * Asks for the object only when the first byte is wanted, so that no answer is left lying. Chunks may be overwritten or taken
 * away once the next is asked for.
 * @param compression null when the object is stored as it is
 * @throws what `ObjectStore.get` and its body do; CorruptDataError; the signal's reason
 */
export async function* storedContent(
  store: ObjectStore,
  key: string,
  compression: CompressionName | null,
  { through = (body) => body, threads, signal }: ContentOptions,
): AsyncGenerator<Uint8Array, void, void> {
  // Decompressors keep what they read.
  const { object, body } = await store.get(key, { reuse: compression === null, signal });
  const stored = through(body, object);
  if (compression === null) yield* stored;
  else yield* decompressStream(compression, stored, { reuse: true, threads, signal });
}
