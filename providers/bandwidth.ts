/** Not sending faster than asked: `--max-bandwidth`. */
import { setTimeout as timer } from "node:timers/promises";
import type { MultipartUpload, ObjectStore } from "./object_store.ts";
import type { StoreOptions } from "./open.ts";

/** What the limit needs of the world; given so that tests can set it. */
export interface BandwidthClock {
  /** Milliseconds of a clock that does not jump. */
  readonly now: () => number;
  /** Rejects with the signal's reason when aborted. */
  readonly sleep: (ms: number, signal: AbortSignal | undefined) => Promise<void>;
}

const REAL_CLOCK: BandwidthClock = {
  now: () => performance.now(),
  async sleep(ms, signal) {
    try {
      await timer(ms, undefined, signal === undefined ? {} : { signal });
    } catch (error) {
      signal?.throwIfAborted();
      throw error;
    }
  },
};

/** The store with the limit of `--max-bandwidth`, if there is one. */
export function withBandwidthOf(
  store: ObjectStore,
  { maxBandwidth }: Pick<StoreOptions, "maxBandwidth">,
): ObjectStore {
  return maxBandwidth === undefined ? store : withBandwidthLimit(store, maxBandwidth);
}

/**
 * A store that takes at most so many bytes a second, all its uploads together. A part is handed over
 * as one, when the time of those before it has passed: the rate holds on average, not within a part.
 * Whole objects (`put`) count and do not wait: next to parts they are small, and the metadata of a
 * backup that was stopped must be stored while there is time.
 * Put it beneath `withRetry`, so that what is sent again counts too.
 *
 * @param bytesPerSecond above 0
 */
export function withBandwidthLimit(
  store: ObjectStore,
  bytesPerSecond: number,
  clock: BandwidthClock = REAL_CLOCK,
): ObjectStore {
  if (!(bytesPerSecond > 0)) {
    throw new RangeError(`Bandwidth must be above 0 bytes a second, not ${bytesPerSecond}`);
  }
  const turn = turnstile(bytesPerSecond, clock);
  const { objectLock, putContent } = store;
  return {
    provider: store.provider,
    description: store.description,
    limits: store.limits,
    capabilities: store.capabilities,
    bucketExists: (options) => store.bucketExists(options),
    createBucket: (options) => store.createBucket(options),
    list: (prefix, options) => store.list(prefix, options),
    head: (key, options) => store.head(key, options),
    get: (key, options) => store.get(key, options),
    async put(key, body, options) {
      options?.signal?.throwIfAborted();
      turn.count(body.length);
      await store.put(key, body, options);
    },
    ...(putContent === undefined ? {} : {
      async putContent(key, content, options) {
        options?.signal?.throwIfAborted();
        turn.count(content.length);
        await putContent.call(store, key, content, options);
      },
    }),
    async startMultipart(key, options) {
      return limitedUpload(await store.startMultipart(key, options), turn);
    },
    listUploads: (prefix, options) => store.listUploads(prefix, options),
    removeUpload: (upload, options) => store.removeUpload(upload, options),
    deleteMany: (keys, options) => store.deleteMany(keys, options),
    ...(objectLock === undefined
      ? {}
      : { objectLock: (key, options) => objectLock.call(store, key, options) }),
    close: () => store.close(),
  };
}

interface Turn {
  /** Resolves when a body of that size may go. */
  wait(bytes: number, signal: AbortSignal | undefined): Promise<void>;
  /** A body of that size goes now; those after it wait the longer. */
  count(bytes: number): void;
}

function limitedUpload(upload: MultipartUpload, turn: Turn): MultipartUpload {
  return {
    key: upload.key,
    async uploadPart(number, body, options) {
      await turn.wait(body.length, options?.signal);
      return await upload.uploadPart(number, body, options);
    },
    complete: (parts, options) => upload.complete(parts, options),
    abort: (options) => upload.abort(options),
  };
}

/** Lets bodies through in the order in which they came, each after the time of those before it. */
function turnstile(bytesPerSecond: number, clock: BandwidthClock): Turn {
  let freeAt = -Infinity;
  const durationOf = (bytes: number) => bytes / bytesPerSecond * 1000;
  return {
    async wait(bytes, signal) {
      signal?.throwIfAborted();
      const now = clock.now();
      const mine = Math.max(now, freeAt);
      const duration = durationOf(bytes);
      freeAt = mine + duration;
      if (mine <= now) return;
      try {
        await clock.sleep(mine - now, signal);
      } catch (error) {
        freeAt -= duration;
        throw error;
      }
    },
    count(bytes) {
      freeAt = Math.max(clock.now(), freeAt) + durationOf(bytes);
    },
  };
}
