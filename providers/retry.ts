/**
 * Trying again what a store could not do for a passing reason. The providers' own retries should be
 * off beneath this wrapper, or attempts multiply.
 */
import { setTimeout as timer } from "node:timers/promises";
import { compareKeys } from "./key_order.ts";
import {
  type Cancellable,
  type CompletedObject,
  type DeleteFailure,
  type DeleteOptions,
  type GetOptions,
  isStoreError,
  type ListEntry,
  type ListOptions,
  type MultipartUpload,
  type ObjectReader,
  type ObjectStore,
  type StoredObject,
  StoreError,
  type UnfinishedUpload,
  type UploadedPart,
} from "./object_store.ts";

export interface RetryPolicy {
  /** How often a request is sent at most, the first time included. At least 1. */
  readonly attempts: number;
  /** Longest pause before the second attempt, in milliseconds; doubled before each further one. */
  readonly baseDelayMs: number;
  /** Longest pause. A store that asks for a longer one (Retry-After) gets it. */
  readonly maxDelayMs: number;
  /**
   * No new attempt begins later than this after the first failure, in milliseconds. Reading a body
   * and listing count afresh after each progress.
   */
  readonly maxTotalMs: number;
  /** A number in [0, 1): the pause is this part of the longest one ("full jitter"). */
  readonly random: () => number;
  /** Milliseconds of a clock that does not jump. */
  readonly now: () => number;
  /** Rejects with the signal's reason when aborted. */
  readonly sleep: (ms: number, signal: AbortSignal | undefined) => Promise<void>;
}

const DEFAULT_POLICY: RetryPolicy = {
  attempts: 5,
  baseDelayMs: 500,
  maxDelayMs: 20_000,
  maxTotalMs: 10 * 60_000,
  random: Math.random,
  now: () => performance.now(),
  sleep: abortableSleep,
};

/**
 * A store that repeats what failed with a retryable `StoreError`, after a pause that grows.
 *
 * - A body that breaks goes on where it broke, of the same object only (kind `changed` otherwise).
 * - A listing goes on after the last entry that was handed out.
 * - `deleteMany` repeats the keys that failed for a passing reason.
 * - When an answer was lost, `put` and `complete` with `createOnly` may find their own object: they
 *   then fail with `exists`, and the caller has to compare. `complete` without it looks whether the
 *   object is there in the right size. A lost answer to `startMultipart` leaves an empty upload behind.
 *
 * @param onNotice told of each repetition: `Trying again to write k in 1.2 s (2 of 5): reason`
 */
export function withRetry(
  store: ObjectStore,
  policy: Partial<RetryPolicy> = {},
  onNotice?: (message: string) => void,
): ObjectStore {
  const retry: Retry = { policy: { ...DEFAULT_POLICY, ...policy }, onNotice };
  const where = store.description;
  const { objectLock, putContent } = store;
  return {
    provider: store.provider,
    description: where,
    limits: store.limits,
    capabilities: store.capabilities,
    bucketExists: (options) =>
      repeat(retry, `look for ${where}`, options, () => store.bucketExists(options)),
    createBucket: (options) =>
      repeat(retry, `create ${where}`, options, () => store.createBucket(options)),
    list: (prefix, options) => resumedList(store, retry, prefix, options),
    head: (key, options) =>
      repeat(retry, `look for ${key}`, options, () => store.head(key, options)),
    get: (key, options) => resumedGet(store, retry, key, options),
    put: (key, body, options) =>
      repeat(retry, `write ${key}`, options, () => store.put(key, body, options)),
    ...(putContent === undefined ? {} : {
      putContent: (key, content, options) =>
        repeat(
          retry,
          `write ${key}`,
          options,
          () => putContent.call(store, key, content, options),
        ),
    }),
    async startMultipart(key, options) {
      const upload = await repeat(
        retry,
        `begin writing ${key}`,
        options,
        () => store.startMultipart(key, options),
      );
      return retriedUpload(store, retry, upload, options?.createOnly ?? false);
    },
    listUploads: (prefix, options) => repeatedUploads(store, retry, prefix, options),
    removeUpload: (upload, options) =>
      repeat(
        retry,
        `remove the unfinished upload of ${upload.key}`,
        options,
        () => store.removeUpload(upload, options),
      ),
    deleteMany: (keys, options) => retriedDelete(store, retry, keys, options),
    ...(objectLock === undefined ? {} : {
      objectLock: (key, options) =>
        repeat(
          retry,
          `look for a lock on ${key}`,
          options,
          () => objectLock.call(store, key, options),
        ),
    }),
    close: () => store.close(),
  };
}

interface Retry {
  readonly policy: RetryPolicy;
  readonly onNotice: ((message: string) => void) | undefined;
}

/** Counts attempts of one thing, and pauses between them. */
class Attempts {
  readonly #retry: Retry;
  readonly #what: string;
  readonly #signal: AbortSignal | undefined;
  #failed = 0;
  #firstFailure = 0;

  constructor(retry: Retry, what: string, signal: AbortSignal | undefined) {
    this.#retry = retry;
    this.#what = what;
    this.#signal = signal;
  }

  /** Something was got: count afresh. */
  progress(): void {
    this.#failed = 0;
  }

  /** Pause after a failure, or throw it when it is final. */
  async pauseAfter(error: unknown): Promise<void> {
    this.#signal?.throwIfAborted();
    const { policy, onNotice } = this.#retry;
    if (!isStoreError(error) || !error.retryable) throw error;
    if (this.#failed === 0) this.#firstFailure = policy.now();
    this.#failed++;
    const pause = this.#pause(error);
    const late = policy.now() - this.#firstFailure + pause > policy.maxTotalMs;
    if (this.#failed >= policy.attempts || late) throw givenUp(error, this.#failed);
    const seconds = (pause / 1000).toFixed(1);
    onNotice?.(
      `Trying again to ${this.#what} in ${seconds} s ` +
        `(${this.#failed + 1} of ${policy.attempts}): ${error.message}`,
    );
    await policy.sleep(pause, this.#signal);
  }

  #pause(error: StoreError): number {
    const { baseDelayMs, maxDelayMs, random } = this.#retry.policy;
    const longest = Math.min(maxDelayMs, baseDelayMs * 2 ** (this.#failed - 1));
    return Math.max(random() * longest, error.retryAfter ?? 0);
  }
}

/** The last failure, as it was; how often it was tried is added once there was more than one attempt. */
function givenUp(error: StoreError, attempts: number): StoreError {
  if (attempts === 1) return error;
  return new StoreError(error.kind, `${error.message} (tried ${attempts} times)`, {
    key: error.key,
    code: error.code,
    retryable: error.retryable,
    retryAfter: error.retryAfter,
    cause: error,
  });
}

async function repeat<T>(
  retry: Retry,
  what: string,
  options: Cancellable | undefined,
  call: () => Promise<T>,
): Promise<T> {
  const attempts = new Attempts(retry, what, options?.signal);
  for (;;) {
    try {
      return await call();
    } catch (error) {
      await attempts.pauseAfter(error);
    }
  }
}

function resumedList(
  store: ObjectStore,
  retry: Retry,
  prefix: string,
  options: ListOptions = {},
): AsyncGenerator<ListEntry> {
  const attempts = new Attempts(retry, `list ${prefix} in ${store.description}`, options.signal);
  let last: string | undefined;
  return repeated(
    attempts,
    () => store.list(prefix, { ...options, startAfter: last ?? options.startAfter }),
    (entry) => {
      const key = entry.kind === "object" ? entry.key : entry.prefix;
      // A group comes again as long as one key in it is after its own prefix.
      if (last !== undefined && compareKeys(key, last) <= 0) return false;
      last = key;
      attempts.progress();
      return true;
    },
  );
}

/** From the beginning after a failure, since there is no place to go on from; each upload is told once. */
function repeatedUploads(
  store: ObjectStore,
  retry: Retry,
  prefix: string,
  options: Cancellable = {},
): AsyncGenerator<UnfinishedUpload> {
  const what = `list unfinished uploads in ${store.description}`;
  const told = new Set<string>();
  return repeated(
    new Attempts(retry, what, options.signal),
    () => store.listUploads(prefix, options),
    ({ key, id }) => {
      const name = `${key}\n${id}`;
      if (told.has(name)) return false;
      told.add(name);
      return true;
    },
  );
}

/** What `isNew` of a listing that is opened once more after each failure. */
async function* repeated<T>(
  attempts: Attempts,
  open: () => AsyncIterable<T>,
  isNew: (entry: T) => boolean,
): AsyncGenerator<T> {
  for (;;) {
    const source = open()[Symbol.asyncIterator]();
    let ended = false;
    try {
      for (;;) {
        const next = await nextOf(source);
        if (next.failed) {
          ended = true;
          await attempts.pauseAfter(next.error);
          break;
        }
        if (next.result.done) {
          ended = true;
          return;
        }
        if (isNew(next.result.value)) yield next.result.value;
      }
    } finally {
      if (!ended) await source.return?.();
    }
  }
}

/** So that an error of the source is told from one that the consumer throws into a generator. */
type Next<T> =
  | { readonly failed: false; readonly result: IteratorResult<T> }
  | { readonly failed: true; readonly error: unknown };

async function nextOf<T>(source: AsyncIterator<T>): Promise<Next<T>> {
  try {
    return { failed: false, result: await source.next() };
  } catch (error) {
    return { failed: true, error };
  }
}

async function resumedGet(
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
    });
    const body = again.body[Symbol.asyncIterator]();
    if (isSameObject(first.object, again.object)) return body;
    await body.return?.();
    throw new StoreError(
      "changed",
      `Cannot go on reading ${key}: it was replaced in the meantime`,
      {
        key,
      },
    );
  };
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

function retriedUpload(
  store: ObjectStore,
  retry: Retry,
  upload: MultipartUpload,
  createOnly: boolean,
): MultipartUpload {
  const { key } = upload;
  return {
    key,
    uploadPart: (number, body, options) =>
      repeat(
        retry,
        `write part ${number} of ${key}`,
        options,
        () => upload.uploadPart(number, body, options),
      ),
    complete: (parts, options) => retriedComplete(store, retry, upload, parts, createOnly, options),
    abort: (options) =>
      repeat(retry, `remove the unfinished upload of ${key}`, options, async () => {
        try {
          await upload.abort(options);
        } catch (error) {
          if (!isStoreError(error, "not-found")) throw error;
        }
      }),
  };
}

async function retriedComplete(
  store: ObjectStore,
  retry: Retry,
  upload: MultipartUpload,
  parts: readonly UploadedPart[],
  createOnly: boolean,
  options: Cancellable | undefined,
): Promise<CompletedObject> {
  let answerLost = false;
  return await repeat(retry, `finish writing ${upload.key}`, options, async () => {
    try {
      return await upload.complete(parts, options);
    } catch (error) {
      if (isStoreError(error) && error.retryable) answerLost = true;
      if (!answerLost || !isStoreError(error, "not-found")) throw error;
      await requireCompleted(store, upload.key, parts, createOnly, error, options);
      return {};
    }
  });
}

/** The upload is gone after an answer was lost: because it was completed, or for another reason? */
async function requireCompleted(
  store: ObjectStore,
  key: string,
  parts: readonly UploadedPart[],
  createOnly: boolean,
  gone: StoreError,
  options: Cancellable | undefined,
): Promise<void> {
  let there: StoredObject;
  try {
    there = await store.head(key, options);
  } catch (error) {
    throw isStoreError(error, "not-found") ? gone : error;
  }
  if (createOnly) {
    throw new StoreError(
      "exists",
      `Cannot write ${key} in ${store.description}: it is there, and the answer that would tell ` +
        "whether this upload made it was lost",
      { key, cause: gone },
    );
  }
  const size = parts.reduce((sum, part) => sum + part.size, 0);
  if (there.size !== size) throw gone;
}

async function retriedDelete(
  store: ObjectStore,
  retry: Retry,
  keys: readonly string[],
  options: DeleteOptions | undefined,
): Promise<readonly DeleteFailure[]> {
  const attempts = new Attempts(retry, `delete from ${store.description}`, options?.signal);
  const final: DeleteFailure[] = [];
  for (let left = keys;;) {
    let failures: readonly DeleteFailure[];
    try {
      failures = await store.deleteMany(left, options);
    } catch (error) {
      await attempts.pauseAfter(error);
      continue;
    }
    final.push(...failures.filter(({ error }) => !error.retryable));
    const passing = failures.filter(({ error }) => error.retryable);
    const [first] = passing;
    if (first === undefined) return final;
    left = passing.map(({ key }) => key);
    try {
      await attempts.pauseAfter(longestWait(passing, first).error);
    } catch (error) {
      options?.signal?.throwIfAborted();
      if (!isStoreError(error)) throw error;
      return [...final, ...passing];
    }
  }
}

/** The failure that asks for the longest pause speaks for all. */
function longestWait(failures: readonly DeleteFailure[], first: DeleteFailure): DeleteFailure {
  return failures.reduce(
    (a, b) => (b.error.retryAfter ?? 0) > (a.error.retryAfter ?? 0) ? b : a,
    first,
  );
}

async function abortableSleep(ms: number, signal: AbortSignal | undefined): Promise<void> {
  try {
    await timer(ms, undefined, signal === undefined ? {} : { signal });
  } catch (error) {
    signal?.throwIfAborted();
    throw error;
  }
}
