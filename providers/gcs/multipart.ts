/**
 * Objects in parts, through the multipart uploads of the XML API: parts in any order and at once, each
 * repeatable, at most in memory what is on its way, nothing visible before the end, and leftovers that
 * are no objects (an `AbortIncompleteMultipartUpload` rule of the bucket's lifecycle removes them).
 * Google's own parallel uploads use them too.
 *
 * Why not the others: a resumable session takes its chunks one after the other, so parts under way at
 * once would wait for each other in memory, and a part could not be sent again. Composing temporary
 * objects needs the permission to delete, shows them to everybody who lists, bills them (minimum
 * storage duration, soft delete), and leaves them behind for good under a retention policy.
 *
 * What it costs: no precondition on completing (so `createOnly` is looked up before), no MD5 of the
 * whole object (Google keeps the CRC-32C), and custom metadata as headers.
 */
import {
  type Cancellable,
  isStoreError,
  type MultipartUpload,
  type PutOptions,
  StoreError,
  type Tags,
  type UploadedPart,
} from "../object_store.ts";
import { startComposedUpload } from "./composed_upload.ts";
import { elementOf, refusesRequest } from "./errors.ts";
import { requirePartNumber, requireParts } from "./limits.ts";
import { objectPath, xmlPath } from "./paths.ts";
import { bucketIsMissing, headObject } from "./read.ts";
import type { GcsSession, RequestContext } from "./session.ts";
import { removeUpload } from "./uploads.ts";
import {
  CONTENT_TYPE,
  md5,
  metadataOf,
  notFromTheStore,
  requireFree,
  type WriteSettings,
} from "./write.ts";

/** What is learnt about an endpoint while it is used. */
export interface Learnt {
  /** An emulator that has no multipart uploads: the JSON API's composing stands in for them. */
  composes: boolean;
}

export async function startMultipart(
  session: GcsSession,
  settings: WriteSettings,
  learnt: Learnt,
  key: string,
  options: PutOptions = {},
): Promise<MultipartUpload> {
  const { signal } = options;
  signal?.throwIfAborted();
  const context = { action: `begin writing ${key}`, key, signal, missing: "bucket" } as const;
  if (options.createOnly === true) await requireFree(session, context);
  if (!learnt.composes) {
    try {
      return await startXmlUpload(session, settings, key, options, context);
    } catch (error) {
      if (session.isGoogle || !refusesRequest(error)) throw error;
      // An emulator that is called by a name it does not expect answers 404 to all that it lacks.
      if (isStoreError(error, "no-bucket") && await bucketIsMissing(session, context)) throw error;
      learnt.composes = true;
    }
  }
  return startComposedUpload(session, settings, key, options);
}

async function startXmlUpload(
  session: GcsSession,
  settings: WriteSettings,
  key: string,
  options: PutOptions,
  context: RequestContext,
): Promise<MultipartUpload> {
  const path = xmlPath(session.bucket, key);
  const { headers, others } = metadataHeaders(options.tags);
  const { text } = await session.text(context, {
    method: "POST",
    path: `${path}?uploads`,
    headers: {
      "content-type": CONTENT_TYPE,
      ...headers,
      ...(settings.kmsKeyName ? { "x-goog-encryption-kms-key-name": settings.kmsKeyName } : {}),
    },
  });
  const uploadId = elementOf(text, "UploadId");
  if (uploadId === undefined || uploadId === "") {
    throw new StoreError(
      "other",
      `Cannot begin writing ${key} in ${session.description}: the store gave no upload id`,
      { key },
    );
  }
  const target: Target = { session, key, path, uploadId: encodeURIComponent(uploadId) };
  const state = { completed: false, answerLost: false };
  return {
    key,
    uploadPart: (number, body, cancellable) => uploadPart(target, number, body, cancellable),
    async complete(parts, { signal } = {}) {
      const completion = {
        action: `finish writing ${key}`,
        key,
        signal,
        missing: "upload",
      } as const;
      if (!state.completed) {
        if (options.createOnly === true) await requireFree(session, completion);
        try {
          await complete(target, parts, completion);
        } catch (error) {
          if (isStoreError(error) && error.retryable) state.answerLost = true;
          // Whoever repeats this call finds out by itself whether it was completed, unless there is
          // something left to do then.
          const look = state.answerLost && others && isStoreError(error, "not-found");
          if (!look || !await isThere(target, parts, completion)) throw error;
        }
        state.completed = true;
      }
      if (others) await patchMetadata(target, options.tags, signal);
      return {};
    },
    abort: (cancellable) => removeUpload(session, { key, id: uploadId }, cancellable),
  };
}

interface Target {
  readonly session: GcsSession;
  readonly key: string;
  readonly path: string;
  /** As it is in a query. */
  readonly uploadId: string;
}

async function uploadPart(
  { session, key, path, uploadId }: Target,
  number: number,
  body: Uint8Array,
  { signal }: Cancellable = {},
): Promise<UploadedPart> {
  const context = {
    action: `write part ${number} of ${key}`,
    key,
    signal,
    missing: "upload",
  } as const;
  requirePartNumber(session, context, number);
  signal?.throwIfAborted();
  const { headers } = await session.text(context, {
    method: "PUT",
    path: `${path}?partNumber=${number}&uploadId=${uploadId}`,
    headers: { "content-type": CONTENT_TYPE, "content-md5": md5(body) },
    body,
  });
  const { etag } = headers;
  if (etag === undefined) {
    throw new StoreError(
      "other",
      `Cannot ${context.action} in ${session.description}: the store gave no ETag`,
      { key },
    );
  }
  return { number, size: body.length, etag };
}

async function complete(
  { session, path, uploadId }: Target,
  parts: readonly UploadedPart[],
  context: RequestContext,
): Promise<void> {
  requireParts(session, context, parts);
  const list = [...parts].sort((a, b) => a.number - b.number).map(({ number, etag }) =>
    `<Part><PartNumber>${number}</PartNumber><ETag>${escaped(etag)}</ETag></Part>`
  );
  const { text } = await session.text(context, {
    method: "POST",
    path: `${path}?uploadId=${uploadId}`,
    headers: { "content-type": "application/xml" },
    body: `<CompleteMultipartUpload>${list.join("")}</CompleteMultipartUpload>`,
    patient: true,
  });
  // S3's protocol allows for an error after the status has been sent; Google's follows it.
  const code = elementOf(text, "Code");
  if (code === undefined) {
    if (text.includes("<CompleteMultipartUploadResult")) return;
    throw notFromTheStore(session, context);
  }
  throw new StoreError(
    "unavailable",
    `Cannot ${context.action} in ${session.description}: the store failed (${code})`,
    { key: context.key, code },
  );
}

async function isThere(
  { session, key }: Target,
  parts: readonly UploadedPart[],
  { signal }: Cancellable,
): Promise<boolean> {
  try {
    const { size } = await headObject(session, key, { signal });
    return size === parts.reduce((sum, part) => sum + part.size, 0);
  } catch (error) {
    if (isStoreError(error, "not-found")) return false;
    throw error;
  }
}

/**
 * Headers are of ASCII and their names without case, metadata are neither.
 * @returns `others`: there are tags that headers can't hold as they are
 */
function metadataHeaders(
  tags: Tags | undefined,
): { readonly headers: Record<string, string>; readonly others: boolean } {
  const headers: Record<string, string> = {};
  let others = false;
  for (const [name, value] of tags ?? []) {
    const fits = /^[a-z0-9_.-]+$/.test(name) && /^[!-~]([ -~]*[!-~])?$/.test(value);
    if (fits) headers[`x-goog-meta-${name}`] = value;
    else others = true;
  }
  return { headers, others };
}

/** Metadata that no header can hold are set on the finished object. */
async function patchMetadata(
  { session, key }: Target,
  tags: Tags | undefined,
  signal: AbortSignal | undefined,
): Promise<void> {
  const context = { action: `set the tags of ${key}`, key, signal };
  await session.text(context, {
    method: "PATCH",
    path: `${objectPath(session.bucket, key)}?fields=generation`,
    headers: { "content-type": "application/json" },
    body: JSON.stringify(metadataOf(tags)),
  });
}

function escaped(text: string): string {
  return text.replaceAll("&", "&amp;").replaceAll("<", "&lt;").replaceAll(">", "&gt;");
}
