import { readBody } from "../body.ts";
import {
  type Cancellable,
  type GetOptions,
  isStoreError,
  type ObjectReader,
  type StoredObject,
  StoreError,
} from "../object_store.ts";
import { isVagueMissing } from "./errors.ts";
import { bucketPath, OBJECT_FIELDS, objectPath, storedObject } from "./paths.ts";
import type { GcsSession, RequestContext } from "./session.ts";

/**
 * Barman asks for the bucket itself, which roles for objects alone do not allow; then the first
 * line of a listing tells as much.
 * @returns false when the service answered that there is no such bucket.
 */
export async function bucketExists(
  session: GcsSession,
  { signal }: Cancellable = {},
): Promise<boolean> {
  const context = { action: "look for the bucket", signal, missing: "bucket" } as const;
  const path = bucketPath(session.bucket);
  try {
    await session.json(context, { method: "GET", path: `${path}?fields=name` });
    return true;
  } catch (error) {
    if (isStoreError(error, "no-bucket")) return false;
    if (!isStoreError(error, "denied")) throw error;
    try {
      const first = `${path}/o?maxResults=1&fields=nextPageToken`;
      await session.json(context, { method: "GET", path: first });
      return true;
    } catch (again) {
      if (isStoreError(again, "no-bucket")) return false;
      throw isStoreError(again, "denied") ? error : again;
    }
  }
}

export async function headObject(
  session: GcsSession,
  key: string,
  { signal }: Cancellable = {},
): Promise<StoredObject> {
  const context = { action: `look for ${key}`, key, signal };
  const resource = await orNoBucket(session, context, () =>
    session.json(context, {
      method: "GET",
      path: `${objectPath(session.bucket, key)}?fields=${OBJECT_FIELDS}`,
    }));
  const object = storedObject(resource);
  if (object !== undefined) return { ...object, key };
  throw new StoreError(
    "other",
    `Cannot look for ${key} in ${session.description}: the answer is no object`,
    { key },
  );
}

/** Not every 404 says whether it is the object or the bucket that is not there. */
export async function orNoBucket<T>(
  session: GcsSession,
  context: RequestContext,
  work: () => Promise<T>,
): Promise<T> {
  try {
    return await work();
  } catch (error) {
    if (!isVagueMissing(error) || !await bucketIsMissing(session, context)) throw error;
    throw noBucket(session, context, error);
  }
}

export function noBucket(
  session: GcsSession,
  { action, key }: RequestContext,
  cause: unknown,
): StoreError {
  return new StoreError(
    "no-bucket",
    `Cannot ${action} in ${session.description}: the bucket does not exist`,
    { key, cause },
  );
}

/** Whoever may not look at the bucket is taken to have one. */
export async function bucketIsMissing(
  session: GcsSession,
  { signal }: Cancellable,
): Promise<boolean> {
  try {
    return !(await bucketExists(session, { signal }));
  } catch (error) {
    if (isStoreError(error, "denied", "invalid")) return false;
    throw error;
  }
}

export async function getObject(
  session: GcsSession,
  key: string,
  options: GetOptions = {},
): Promise<ObjectReader> {
  const { start = 0, end, etag, signal } = options;
  const context: RequestContext = {
    action: `read ${key}`,
    key,
    signal,
    precondition: etag === undefined ? undefined : "changed",
  };
  const refuse = (why: string) =>
    new StoreError("invalid", `Cannot read ${key} in ${session.description}: ${why}`, { key });
  if (start < 0 || (end !== undefined && end <= start)) {
    throw refuse(`bytes ${start} to ${end} are no range`);
  }
  const isRange = start > 0 || end !== undefined;
  const condition = etag === undefined ? "" : `&ifGenerationMatch=${encodeURIComponent(etag)}`;
  const answer = await orNoBucket(session, context, () =>
    session.send(context, {
      method: "GET",
      path: `${objectPath(session.bucket, key)}?alt=media${condition}`,
      headers: {
        // An object that was stored with this encoding comes as it is, not unpacked.
        "accept-encoding": "gzip",
        ...(isRange ? { range: `bytes=${start}-${end === undefined ? "" : end - 1}` } : {}),
      },
    }));
  const { headers, body } = answer;
  const range = /^bytes (\d+)-\d+\/(\d+)$/.exec(headers["content-range"] ?? "");
  if (isRange && (range === null || Number(range[1]) !== start)) {
    body.destroy();
    throw refuse("the store ignores ranges");
  }
  const length = count(headers["content-length"]);
  const size = range === null
    ? length ?? count(headers["x-goog-stored-content-length"]) ?? 0
    : Number(range[2]);
  const modified = new Date(headers["last-modified"] ?? NaN);
  const generation = headers["x-goog-generation"];
  if (generation === undefined && headers["x-goog-hash"] === undefined) {
    body.destroy();
    throw new StoreError(
      "other",
      `Cannot read ${key} in ${session.description}: the answer has neither generation nor hash, so it is not ` +
        "Google's; look at proxies between",
      { key },
    );
  }
  if (etag !== undefined && generation !== undefined && generation !== etag) {
    body.destroy();
    throw new StoreError(
      "changed",
      `Cannot read ${key} in ${session.description}: the object was replaced in the meantime`,
      { key },
    );
  }
  return {
    object: {
      key,
      size,
      ...(generation === undefined ? {} : { etag: generation }),
      ...(Number.isNaN(modified.getTime()) ? {} : { lastModified: modified }),
    },
    body: readBody(body, {
      context,
      where: session.description,
      expected: length,
      reuse: options.reuse,
      storeError: (error) => session.storeError(error, context),
    }),
  };
}

function count(text: string | undefined): number | undefined {
  return text !== undefined && /^\d+$/.test(text) ? Number(text) : undefined;
}
