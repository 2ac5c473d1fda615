import { readBody } from "../body.ts";
import {
  type Cancellable,
  type GetOptions,
  isStoreError,
  type ObjectLock,
  type ObjectReader,
  type StoredObject,
  StoreError,
} from "../object_store.ts";
import type { ObjectHead } from "./api.ts";
import { noProof, type RequestContext, type S3Session } from "./session.ts";

/** @returns false when the store answered that there is no such bucket. */
export async function bucketExists(
  session: S3Session,
  options: Cancellable = {},
): Promise<boolean> {
  try {
    const context = { action: "look for the bucket", signal: options.signal };
    await session.call(
      context,
      (api, send) => api.headBucket({ Bucket: session.bucket }, send),
    );
    return true;
  } catch (error) {
    if (isStoreError(error, "not-found", "no-bucket")) return false;
    throw error;
  }
}

export async function headObject(
  session: S3Session,
  key: string,
  options: Cancellable = {},
): Promise<StoredObject> {
  const answer = await headOf(session, `look for ${key}`, key, options);
  if (answer.ETag === undefined) throw noProof(session, { action: `look for ${key}`, key });
  return storedObject(key, answer.ContentLength ?? 0, answer);
}

/**
 * The lock on the current version of an object, in one request: retention of either mode, and legal hold. S3 tells
 * them only to whom may read them (s3:GetObjectRetention, s3:GetObjectLegalHold); to others an object looks unlocked.
 * @throws {StoreError} kind `not-found`, and the others
 */
export async function objectLock(
  session: S3Session,
  key: string,
  options: Cancellable = {},
): Promise<ObjectLock> {
  const action = `look for a lock on ${key}`;
  const {
    ObjectLockRetainUntilDate: until,
    ObjectLockLegalHoldStatus: hold,
    ObjectLockMode: mode,
  } = await headOf(session, action, key, options);
  if (until === undefined ? mode !== undefined : Number.isNaN(until.getTime())) {
    throw new StoreError(
      "other",
      `Cannot ${action} in ${session.description}: the store says that it is locked, but not until when`,
      { key },
    );
  }
  return { retainUntil: until ?? null, legalHold: hold === "ON" };
}

async function headOf(
  session: S3Session,
  action: string,
  key: string,
  options: Cancellable,
): Promise<ObjectHead> {
  const context = { action, key, signal: options.signal };
  try {
    return await session.call(
      context,
      (api, send) =>
        api.headObject({ Bucket: session.bucket, Key: key, ...session.customerKey }, send),
    );
  } catch (error) {
    if (!isStoreError(error, "not-found") || error.code === "NoSuchKey") throw error;
    // The answer to HEAD has no body, so no word on what is missing.
    if (await bucketIsMissing(session, options)) {
      throw new StoreError(
        "no-bucket",
        `Cannot ${context.action} in ${session.description}: the bucket does not exist`,
        { key, cause: error, code: "NoSuchBucket" },
      );
    }
    throw error;
  }
}

/** Whoever may not look at the bucket is taken to have one. */
async function bucketIsMissing(session: S3Session, options: Cancellable): Promise<boolean> {
  try {
    return !(await bucketExists(session, options));
  } catch (error) {
    if (isStoreError(error, "denied", "invalid")) return false;
    throw error;
  }
}

export async function getObject(
  session: S3Session,
  key: string,
  options: GetOptions = {},
): Promise<ObjectReader> {
  const { start = 0, end, etag, signal } = options;
  const context: RequestContext = {
    action: `read ${key}`,
    key,
    signal,
    precondition: "changed",
  };
  if (start < 0 || (end !== undefined && end <= start)) {
    throw new StoreError(
      "invalid",
      `Cannot read ${key} in ${session.description}: bytes ${start} to ${end} are no range`,
      { key },
    );
  }
  const isRange = start > 0 || end !== undefined;
  const answer = await session.call(context, (api, send) =>
    api.getObject({
      Bucket: session.bucket,
      Key: key,
      Range: isRange ? `bytes=${start}-${end === undefined ? "" : end - 1}` : undefined,
      IfMatch: etag,
      ...session.customerKey,
    }, send));
  const body = answer.Body;
  if (body === undefined || !isReadable(body)) {
    throw new StoreError("other", `Cannot read ${key} in ${session.description}: it sent no body`, {
      key,
    });
  }
  if (answer.ETag === undefined) {
    body.destroy();
    throw noProof(session, context);
  }
  const length = answer.ContentLength;
  const range = /^bytes (\d+)-\d+\/(\d+)$/.exec(answer.ContentRange ?? "");
  if (isRange && (range === null || Number(range[1]) !== start)) {
    body.destroy();
    throw new StoreError(
      "invalid",
      `Cannot read ${key} in ${session.description}: the store ignores ranges`,
      { key },
    );
  }
  const size = range === null ? length ?? 0 : Number(range[2]);
  return {
    object: storedObject(key, size, answer),
    body: readBody(body, {
      context,
      where: session.description,
      expected: length,
      reuse: options.reuse,
      storeError: (error) => session.storeError(error, context),
    }),
  };
}

/** What the SDK gives in a server's runtime: a Node stream. */
interface Readable extends AsyncIterable<Uint8Array> {
  destroy(): void;
  on(event: "error", listener: () => void): unknown;
}

function isReadable(body: object): body is Readable {
  return Symbol.asyncIterator in body && "destroy" in body;
}

function storedObject(
  key: string,
  size: number,
  answer: { readonly ETag?: string | undefined; readonly LastModified?: Date | undefined },
): StoredObject {
  const { ETag, LastModified } = answer;
  return {
    key,
    size,
    ...(ETag === undefined ? {} : { etag: ETag }),
    ...(LastModified === undefined ? {} : { lastModified: LastModified }),
  };
}
