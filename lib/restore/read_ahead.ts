/** An object in several ranges at once: stores give a connection only so much, and more to several. */
import {
  isStoreError,
  type ObjectReader,
  type ObjectStore,
  type StoredObject,
} from "../../providers/object_store.ts";

/** Bytes of a range. */
export const RANGE = 4 * 1024 ** 2;
/** Ranges under way or waiting for their turn, all of which may be in memory. */
export const AT_ONCE = 3;

/**
 * The content of an object, in order. What is small, local, or of a store without ranges comes as one.
 * @throws {StoreError} as `get`: kind `changed` when the object is replaced meanwhile; the signal's reason
 */
export async function* readAhead(
  store: ObjectStore,
  { key, size }: Pick<StoredObject, "key" | "size">,
  { signal }: { readonly signal: AbortSignal },
): AsyncGenerator<Uint8Array, void, void> {
  const first = size <= RANGE || store.provider === "local" ? null : await firstRange(
    store,
    key,
    signal,
  );
  if (first === null) {
    yield* (await store.get(key, { signal })).body;
    return;
  }
  const stop = new AbortController();
  const stopped = AbortSignal.any([signal, stop.signal]);
  const { size: whole, etag } = first.object;
  const waiting: Promise<Uint8Array[]>[] = [];
  let next = RANGE;
  const begin = () => {
    if (next >= whole) return;
    const [start, end] = [next, Math.min(next + RANGE, whole)];
    next = end;
    const range = store.get(key, { start, end, etag, signal: stopped })
      .then(({ body }) => Array.fromAsync(body));
    // A failure is seen when its turn comes.
    range.catch(() => undefined);
    waiting.push(range);
  };
  try {
    while (waiting.length < AT_ONCE - 1 && next < whole) begin();
    yield* first.body;
    for (let range = waiting.shift(); range !== undefined; range = waiting.shift()) {
      const chunks = await range;
      begin();
      // Given back one by one.
      for (let chunk = chunks.shift(); chunk !== undefined; chunk = chunks.shift()) yield chunk;
    }
  } finally {
    stop.abort(new Error("The rest is not wanted any more"));
    await Promise.allSettled(waiting);
  }
}

/** Null where the store has no ranges. */
async function firstRange(
  store: ObjectStore,
  key: string,
  signal: AbortSignal,
): Promise<ObjectReader | null> {
  try {
    return await store.get(key, { end: RANGE, signal });
  } catch (error) {
    if (isStoreError(error, "invalid")) return null;
    throw error;
  }
}
