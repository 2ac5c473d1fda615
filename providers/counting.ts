/** How many calls and bytes a piece of work makes; for tests and benchmarks. */
import type { MultipartUpload, ObjectReader, ObjectStore } from "./object_store.ts";

export type CountedCall =
  | Exclude<
    keyof ObjectStore,
    "provider" | "description" | "limits" | "capabilities" | "putContent" | "close"
  >
  | "uploadPart"
  | "complete"
  | "abort";

export interface StoreCounts {
  /** Calls begun, by kind; kinds that were not called are absent. A listing counts once. */
  readonly calls: Partial<Record<CountedCall, number>>;
  /** Bytes handed to `put`, `putContent` (which counts as a `put`) and `uploadPart`. */
  readonly bytesSent: number;
  /** Bytes that came out of bodies. */
  readonly bytesReceived: number;
}

/**
 * A store that counts what goes through it.
 * @returns the store, and a function that tells the counts so far.
 */
export function withCounting(
  store: ObjectStore,
): { readonly store: ObjectStore; readonly counts: () => StoreCounts } {
  const calls: Partial<Record<CountedCall, number>> = {};
  let bytesSent = 0;
  let bytesReceived = 0;
  const count = (call: CountedCall): void => {
    calls[call] = (calls[call] ?? 0) + 1;
  };
  const countedUpload = (upload: MultipartUpload): MultipartUpload => ({
    key: upload.key,
    uploadPart(number, body, options) {
      count("uploadPart");
      bytesSent += body.length;
      return upload.uploadPart(number, body, options);
    },
    complete(parts, options) {
      count("complete");
      return upload.complete(parts, options);
    },
    abort(options) {
      count("abort");
      return upload.abort(options);
    },
  });
  const { objectLock, putContent } = store;
  const countedReader = ({ object, body }: ObjectReader): ObjectReader => ({
    object,
    body: passing(body, (bytes) => bytesReceived += bytes),
  });
  return {
    counts: () => ({ calls: { ...calls }, bytesSent, bytesReceived }),
    store: {
      provider: store.provider,
      description: store.description,
      limits: store.limits,
      capabilities: store.capabilities,
      bucketExists(options) {
        count("bucketExists");
        return store.bucketExists(options);
      },
      createBucket(options) {
        count("createBucket");
        return store.createBucket(options);
      },
      list(prefix, options) {
        count("list");
        return store.list(prefix, options);
      },
      head(key, options) {
        count("head");
        return store.head(key, options);
      },
      async get(key, options) {
        count("get");
        return countedReader(await store.get(key, options));
      },
      put(key, body, options) {
        count("put");
        bytesSent += body.length;
        return store.put(key, body, options);
      },
      ...(putContent === undefined ? {} : {
        putContent(key, content, options) {
          count("put");
          bytesSent += content.length;
          return putContent.call(store, key, content, options);
        },
      }),
      async startMultipart(key, options) {
        count("startMultipart");
        return countedUpload(await store.startMultipart(key, options));
      },
      listUploads(prefix, options) {
        count("listUploads");
        return store.listUploads(prefix, options);
      },
      removeUpload(upload, options) {
        count("removeUpload");
        return store.removeUpload(upload, options);
      },
      deleteMany(keys, options) {
        count("deleteMany");
        return store.deleteMany(keys, options);
      },
      ...(objectLock === undefined ? {} : {
        objectLock(key, options) {
          count("objectLock");
          return objectLock.call(store, key, options);
        },
      }),
      close: () => store.close(),
    },
  };
}

function passing(
  body: AsyncIterable<Uint8Array>,
  seen: (bytes: number) => void,
): AsyncIterableIterator<Uint8Array> {
  const source = body[Symbol.asyncIterator]();
  return {
    [Symbol.asyncIterator]() {
      return this;
    },
    async next() {
      const result = await source.next();
      if (!result.done) seen(result.value.length);
      return result;
    },
    async return() {
      await source.return?.();
      return { done: true, value: undefined };
    },
  };
}
