/** Multipart uploads that nobody has completed or aborted (yet). */
import {
  type Cancellable,
  isStoreError,
  StoreError,
  type UnfinishedUpload,
} from "../object_store.ts";
import type { S3Session } from "./session.ts";

/**
 * All pages of ListMultipartUploads, without the URL encoding of keys, which Ceph announces and does not do; the parts of each upload tell when something last
 * happened.
 */
export async function* listUploads(
  session: S3Session,
  prefix: string,
  { signal }: Cancellable = {},
): AsyncGenerator<UnfinishedUpload> {
  const context = { action: `list unfinished uploads of ${prefix || "the bucket"}`, signal };
  let marker: { KeyMarker?: string; UploadIdMarker?: string } = {};
  for (const seen = new Set<string>();;) {
    const page = await session.call(
      context,
      (api, send) =>
        api.listMultipartUploads({ Bucket: session.bucket, Prefix: prefix, ...marker }, send),
    );
    const { Uploads = [], Bucket, IsTruncated, MaxUploads } = page;
    if ([Bucket, IsTruncated, MaxUploads].every((told) => told === undefined)) {
      throw new StoreError(
        "unavailable",
        `Cannot ${context.action} in ${session.description}: the answer is no listing (empty, or of something else)`,
      );
    }
    for (const { Key: key, UploadId, Initiated } of Uploads) {
      // Not every store filters.
      if (key === undefined || UploadId === undefined || !key.startsWith(prefix)) continue;
      const parts = await partsOf(session, key, UploadId, { signal });
      if (parts === null) continue;
      const lastActivity = latest(Initiated, parts.last);
      yield {
        key,
        id: UploadId,
        size: parts.size,
        ...(lastActivity === undefined ? {} : { lastActivity }),
      };
    }
    if (IsTruncated !== true) return;
    const { NextKeyMarker = "", NextUploadIdMarker } = page;
    const place = `${NextKeyMarker}\n${NextUploadIdMarker}`;
    if (NextKeyMarker === "" || seen.has(place)) {
      throw new StoreError(
        "other",
        `Cannot ${context.action} in ${session.description}: the store's listing does not end`,
      );
    }
    seen.add(place);
    marker = {
      KeyMarker: NextKeyMarker,
      ...(NextUploadIdMarker === undefined ? {} : { UploadIdMarker: NextUploadIdMarker }),
    };
  }
}

/** @returns null when the upload is gone by now */
async function partsOf(
  session: S3Session,
  key: string,
  uploadId: string,
  { signal }: Cancellable,
): Promise<{ readonly size: number; readonly last: Date | undefined } | null> {
  const context = { action: `list the parts of the unfinished upload of ${key}`, key, signal };
  const target = { Bucket: session.bucket, Key: key, UploadId: uploadId };
  let size = 0;
  let last: Date | undefined;
  let after: string | undefined;
  for (;;) {
    try {
      const page = await session.call(context, (api, send) =>
        api.listParts({
          ...target,
          ...(after === undefined ? {} : { PartNumberMarker: after }),
        }, send));
      for (const { Size = 0, LastModified } of page.Parts ?? []) {
        size += Size;
        last = latest(last, LastModified);
      }
      const next = page.NextPartNumberMarker;
      if (page.IsTruncated !== true || next === undefined || next === after) return { size, last };
      after = next;
    } catch (error) {
      if (isStoreError(error, "not-found")) return null;
      throw error;
    }
  }
}

function latest(a: Date | undefined, b: Date | undefined): Date | undefined {
  if (a === undefined || b === undefined) return a ?? b;
  return a > b ? a : b;
}

/** The contract of `ObjectStore.removeUpload`, and of `MultipartUpload.abort`. */
export async function removeUpload(
  session: S3Session,
  { key, id }: Pick<UnfinishedUpload, "key" | "id">,
  { signal }: Cancellable = {},
): Promise<undefined> {
  const context = { action: `remove the unfinished upload of ${key}`, key, signal };
  const target = { Bucket: session.bucket, Key: key, UploadId: id };
  try {
    await session.call(context, (api, send) => api.abortMultipartUpload(target, send));
  } catch (error) {
    // Gone already: completed, or aborted before.
    if (!isStoreError(error, "not-found")) throw error;
  }
}
