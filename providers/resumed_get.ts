/** A body that breaks goes on where it broke. */
import {
  type GetOptions,
  isStoreError,
  type ObjectReader,
  type ObjectStore,
  type StoredObject,
  StoreError,
} from "./object_store.ts";
import { Attempts, repeat, type Retry } from "./retry_attempts.ts";

/** `get` of a store; later failures of its body are repeated too, for the rest of it, of the same object only. */
export async function resumedGet(
  store: ObjectStore,
  retry: Retry,
  key: string,
  options: GetOptions = {},
): Promise<ObjectReader> {
  const first = await repeat(retry, `read ${key}`, options, () => store.get(key, options));
  return { object: first.object, body: resumedBody(store, retry, first, options) };
}

function resumedBody(
  store: ObjectStore,
  retry: Retry,
  first: ObjectReader,
  options: GetOptions,
): AsyncIterableIterator<Uint8Array> {
  const { key, size, etag } = first.object;
  const end = Math.min(options.end ?? size, size);
  const attempts = new Attempts(retry, `read ${key}`, options.signal);
  let position = options.start ?? 0;
  let source: AsyncIterator<Uint8Array> | undefined = first.body[Symbol.asyncIterator]();
  let ended = false;

  const next = async (): Promise<IteratorResult<Uint8Array>> => {
    for (;;) {
      if (ended) return { done: true, value: undefined };
      try {
        source ??= await reopened();
        const result = await source.next();
        if (!result.done) {
          position += result.value.length;
          if (result.value.length > 0) attempts.progress();
          return result;
        }
        if (position < end) throw endedEarly(store, first.object, position);
        ended = true;
      } catch (error) {
        source = undefined;
        // All bytes came; how the connection ended after them does not matter.
        if (position >= end && isStoreError(error) && error.retryable) ended = true;
        else await attempts.pauseAfter(error).catch(fail);
      }
    }
  };
  const fail = (error: unknown): never => {
    ended = true;
    throw error;
  };
  const reopened = async (): Promise<AsyncIterator<Uint8Array>> => {
    const again = await store.get(key, {
      signal: options.signal,
      start: position,
      end,
      etag: etag ?? options.etag,
      reuse: options.reuse,
    }).catch((error) => {
      // The other object is shorter, which versitygw looks at before the etag.
      throw isStoreError(error, "invalid") && error.code === "InvalidRange"
        ? replaced(error)
        : error;
    });
    const body = again.body[Symbol.asyncIterator]();
    if (isSameObject(first.object, again.object)) return body;
    await body.return?.();
    throw replaced();
  };
  const replaced = (cause?: unknown) =>
    new StoreError("changed", `Cannot go on reading ${key}: it was replaced in the meantime`, {
      key,
      cause,
    });
  return {
    [Symbol.asyncIterator]() {
      return this;
    },
    next,
    async return() {
      ended = true;
      await source?.return?.();
      return { done: true, value: undefined };
    },
  };
}

function isSameObject(a: StoredObject, b: StoredObject): boolean {
  if (a.size !== b.size) return false;
  if (a.etag !== undefined || b.etag !== undefined) return a.etag === b.etag;
  return a.lastModified?.getTime() === b.lastModified?.getTime();
}

function endedEarly(store: ObjectStore, object: StoredObject, position: number): StoreError {
  return new StoreError(
    "unreachable",
    `Cannot read ${object.key} in ${store.description}: the answer ended at byte ${position} of ` +
      object.size,
    { key: object.key },
  );
}
