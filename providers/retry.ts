/**
 * Trying again what a store could not do for a passing reason. The providers' own retries should be
 * off beneath this wrapper, or attempts multiply.
 */
import {
  type Cancellable,
  type CompletedObject,
  type DeleteFailure,
  type DeleteOptions,
  isStoreError,
  type MultipartUpload,
  type ObjectStore,
  type StoredObject,
  StoreError,
  type UploadedPart,
} from "./object_store.ts";
import { resumedGet } from "./resumed_get.ts";
import { repeatedUploads, resumedList } from "./resumed_list.ts";
import {
  Attempts,
  DEFAULT_POLICY,
  repeat,
  type Retry,
  type RetryPolicy,
} from "./retry_attempts.ts";

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
