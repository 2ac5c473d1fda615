/**
 * The one interface through which everything else in this project talks to a store, and the errors
 * that a store may answer with. A provider knows nothing of PostgreSQL, of argv or of stdout.
 *
 * `tests/conformance/` states the contract as tests and runs it on every provider.
 */

/** The values of `--cloud-provider`; `local` is ours, the others are Barman's. */
export const PROVIDER_NAMES = [
  "aws-s3",
  "azure-blob-storage",
  "google-cloud-storage",
  "local",
] as const;
export type ProviderName = (typeof PROVIDER_NAMES)[number];

/** What a store tells about an object without its content. */
export interface StoredObject {
  readonly key: string;
  /** Bytes. */
  readonly size: number;
  /** Opaque version of the content; two reads with the same etag read the same bytes. */
  readonly etag?: string;
  readonly lastModified?: Date;
}

/** One line of a listing: an object, or (only with a delimiter) a group of keys ("directory"). */
export type ListEntry =
  | ({ readonly kind: "object" } & StoredObject)
  /** `prefix` is the whole key prefix and ends with the delimiter. */
  | { readonly kind: "prefix"; readonly prefix: string };

/** Sizes and counts that a store allows. All sizes in bytes. */
export interface StoreLimits {
  /** Most parts of one multipart upload. Part numbers are 1..maxParts. */
  readonly maxParts: number;
  /** Smallest part, the last one excepted. */
  readonly minPartSize: number;
  /** Largest part. */
  readonly maxPartSize: number;
  /** Largest object. */
  readonly maxObjectSize: number;
  /** Largest body of `put`; above it callers use `startMultipart`. */
  readonly maxPutSize: number;
  /** Most keys in one request of `deleteMany` (which makes as many requests as needed). */
  readonly maxDeleteBatch: number;
}

/** What differs between stores, said in advance instead of by failing late. */
export interface StoreCapabilities {
  /** `put` with `createOnly` is atomic: of several writers exactly one wins. */
  readonly createOnlyPut: boolean;
  /** The same for `complete` of a multipart upload. */
  readonly createOnlyMultipart: boolean;
  /** Tags are stored with objects. */
  readonly tags: boolean;
  /**
   * It is not known whether the store honours the condition of a `createOnly` put or ignores it, so each put first
   * looks whether the key is there; see `PutOptions.conditionKept`.
   */
  readonly looksFirst?: boolean;
}

export interface Cancellable {
  /** Ends the call; it then rejects with the signal's reason. */
  readonly signal?: AbortSignal | undefined;
}

/** A tag is a pair of key and value. An empty list is not the same as none: S3 then sends an empty set. */
export type Tags = ReadonlyArray<readonly [key: string, value: string]>;

export interface ListOptions extends Cancellable {
  /** With a delimiter (only `/` is used) the listing stops at it and groups what is below. */
  readonly delimiter?: "/" | undefined;
  /** Keys after this one only (exclusive), in byte order. */
  readonly startAfter?: string | undefined;
}

export interface GetOptions extends Cancellable {
  /** First byte wanted; 0 when absent. Behind the end it is refused (`invalid`, with the code `InvalidRange`). */
  readonly start?: number | undefined;
  /** First byte not wanted any more (exclusive); the object's end when absent. */
  readonly end?: number | undefined;
  /** Answer only if the object still has this etag, else a `StoreError` of kind `changed`. */
  readonly etag?: string | undefined;
  /** Chunks of the body may be overwritten or taken away once the next is asked for, which saves memory. */
  readonly reuse?: boolean | undefined;
}

/** The content of an object (or of a range of it) as it arrives. */
export interface ObjectReader {
  /** The whole object, also when a range was asked for. */
  readonly object: StoredObject;
  /**
   * The bytes, in order. Iterating once; leaving the loop early closes the connection. A body that
   * ends before the announced length rejects with a retryable `StoreError`, never ends quietly.
   */
  readonly body: AsyncIterable<Uint8Array>;
}

export interface PutOptions extends Cancellable {
  readonly tags?: Tags | undefined;
  /**
   * Fail with kind `exists` if the key is there. Atomic where `capabilities.createOnlyPut` (for
   * multipart: `createOnlyMultipart`) says so; elsewhere checked before writing.
   */
  readonly createOnly?: boolean | undefined;
  /**
   * The caller knows that this store honours the condition of a `createOnly` put, or has just looked itself: the put
   * does not look first, which spares a request where `capabilities.looksFirst`.
   */
  readonly conditionKept?: boolean | undefined;
}

/** Content of an object that is not in memory as a whole. */
export interface ObjectContent {
  /** Bytes. */
  readonly length: number;
  /**
   * The bytes from the beginning; called as often as they are needed (to sum them up before they are sent, for another
   * attempt). A chunk may be overwritten once the next is asked for. Rejects rather than give another number of bytes,
   * and before the last of them.
   */
  read(): AsyncIterable<Uint8Array>;
}

/** What `complete` needs to know of a part. */
export interface UploadedPart {
  /** 1..limits.maxParts */
  readonly number: number;
  readonly size: number;
  readonly etag: string;
  /** What the store has found the part's checksum to be, where it has to be named again; in the store's own form. */
  readonly checksum?: string | undefined;
}

/** What a store's answer to `complete` tells of the object that it made. */
export interface CompletedObject {
  /**
   * The `etag` that `head` must tell from now on; absent where the answer does not tell, or was lost. Where the store
   * makes it of the parts' checksums it is computed of them, not taken from the answer.
   */
  readonly etag?: string | undefined;
}

/**
 * An object being written in parts. Nothing is visible under the key before `complete`. Parts may be
 * sent in any order and several at once; sending a number again replaces that part.
 */
export interface MultipartUpload {
  readonly key: string;
  uploadPart(number: number, body: Uint8Array, options?: Cancellable): Promise<UploadedPart>;
  /** Makes the object of the parts in order of their numbers. At least one part is needed. */
  complete(parts: readonly UploadedPart[], options?: Cancellable): Promise<CompletedObject>;
  /** Removes what was sent. Safe to call twice, and after a failed `complete`. */
  abort(options?: Cancellable): Promise<void>;
}

/** What was sent of an object that is not there (yet): by somebody at work, or left by a process that died. */
export interface UnfinishedUpload {
  /** The object's; in a directory the temporary file's, which does not tell whose it is. */
  readonly key: string;
  /** Tells it from others of the same key; opaque. */
  readonly id: string;
  /** When it began or the last part arrived; absent where the store does not tell (Azure). */
  readonly lastActivity?: Date;
  /** Bytes that are there. */
  readonly size: number;
}

export interface DeleteFailure {
  readonly key: string;
  readonly error: StoreError;
}

export interface DeleteOptions extends Cancellable {
  /** Keys per request: 1..limits.maxDeleteBatch; the maximum when absent. */
  readonly batchSize?: number | undefined;
}

export interface ObjectStore {
  readonly provider: ProviderName;
  /** What errors and logs call it: `bucket "b" at http://…`, `directory /x`. Holds no secret. */
  readonly description: string;
  readonly limits: StoreLimits;
  readonly capabilities: StoreCapabilities;

  /**
   * Reach the store and look whether the bucket (container, directory) is there.
   * @returns false when the store answered that there is none.
   * @throws {StoreError} kind `unreachable` when there was no answer; others as answered.
   */
  bucketExists(options?: Cancellable): Promise<boolean>;
  /** Make the bucket; one that is there already and ours is fine. */
  createBucket(options?: Cancellable): Promise<void>;

  /**
   * Objects whose key starts with `prefix` (no implied slash), in ascending byte order of UTF-8, across all
   * pages. With a delimiter, prefixes come in the same order among the objects.
   */
  list(prefix: string, options?: ListOptions): AsyncIterable<ListEntry>;
  /** @throws {StoreError} kind `not-found`, and the others. */
  head(key: string, options?: Cancellable): Promise<StoredObject>;
  /** @throws {StoreError} kind `not-found`, and the others. Resolves when the first answer is there. */
  get(key: string, options?: GetOptions): Promise<ObjectReader>;
  /** Write a whole object at once; an existing one is replaced unless `createOnly`. */
  put(key: string, body: Uint8Array, options?: PutOptions): Promise<void>;
  /** The same with little memory. Absent where a store needs it all at once. */
  putContent?(key: string, content: ObjectContent, options?: PutOptions): Promise<void>;
  startMultipart(key: string, options?: PutOptions): Promise<MultipartUpload>;
  /**
   * Uploads in parts that were neither completed nor aborted, of keys that start with `prefix`: those of other processes
   * and programs too. In no particular order.
   */
  listUploads(prefix: string, options?: Cancellable): AsyncIterable<UnfinishedUpload>;
  /**
   * Remove what was sent; one that is gone is fine. Whoever was still at work on it fails.
   * @returns undefined when it is gone, else why it stays
   */
  removeUpload(upload: UnfinishedUpload, options?: Cancellable): Promise<string | undefined>;
  /**
   * Delete objects; keys that are not there are fine. Every batch is tried.
   * @returns the keys that are still there, and why.
   */
  deleteMany(keys: readonly string[], options?: DeleteOptions): Promise<readonly DeleteFailure[]>;
  /**
   * What keeps an object from being deleted. Absent where the store has no such thing.
   * @throws {StoreError} kind `not-found`, and the others.
   */
  objectLock?(key: string, options?: Cancellable): Promise<ObjectLock>;
  /** Give back connections. Nothing else may be called afterwards. */
  close(): Promise<void>;
}

/** S3's object lock on the current version of an object. */
export interface ObjectLock {
  /** Deleting is refused before that time; null without retention. */
  readonly retainUntil: Date | null;
  readonly legalHold: boolean;
}

/** Why a store did not do what was asked. */
export type StoreErrorKind =
  /** The store said that this key is not there. */
  | "not-found"
  /** `createOnly` and the key is there. */
  | "exists"
  /** The object is no longer the one that was asked for (`GetOptions.etag`). */
  | "changed"
  /** Wrong, missing or expired credentials, or no permission. */
  | "denied"
  /** The bucket, container or root directory is not there. */
  | "no-bucket"
  /** No (whole) answer: DNS, refused, reset, time-out, TLS, body cut short. */
  | "unreachable"
  /** The store answered that it can't now: throttling, 5xx. */
  | "unavailable"
  /** The request can't be right: bad name, wrong region, clock skew, not supported. */
  | "invalid"
  | "other";

export interface StoreErrorDetails {
  readonly key?: string | undefined;
  readonly cause?: unknown;
  /** Defaults to true for `unreachable` and `unavailable`, else false. */
  readonly retryable?: boolean | undefined;
  /** The store's own code (`AccessDenied`), for logs. */
  readonly code?: string | undefined;
  /** Milliseconds that the store asked to wait (Retry-After). */
  readonly retryAfter?: number | undefined;
}

/** The only error class that a store throws, besides the reason of an `AbortSignal`. */
export class StoreError extends Error {
  override readonly name = "StoreError";
  readonly kind: StoreErrorKind;
  readonly key: string | undefined;
  readonly code: string | undefined;
  readonly retryable: boolean;
  readonly retryAfter: number | undefined;

  /** @param message one line: what was attempted on what, why it failed, what to do. No secrets. */
  constructor(kind: StoreErrorKind, message: string, details: StoreErrorDetails = {}) {
    super(message, details.cause === undefined ? undefined : { cause: details.cause });
    this.kind = kind;
    this.key = details.key;
    this.code = details.code;
    this.retryable = details.retryable ?? (kind === "unreachable" || kind === "unavailable");
    this.retryAfter = details.retryAfter;
  }
}

/** Narrow an unknown error to a `StoreError` of one of the given kinds. */
export function isStoreError(error: unknown, ...kinds: StoreErrorKind[]): error is StoreError {
  return error instanceof StoreError && (kinds.length === 0 || kinds.includes(error.kind));
}
