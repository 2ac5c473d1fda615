import { Buffer } from "node:buffer";
import { createHash, randomUUID } from "node:crypto";
import { isStoreError, type PutOptions, StoreError, type Tags } from "../object_store.ts";
import { isRecord } from "./credentials.ts";
import { headObject } from "./read.ts";
import type { GcsSession, RequestContext } from "./session.ts";

export const CONTENT_TYPE = "application/octet-stream";

/** What is asked for on every write. */
export interface WriteSettings {
  /** `projects/P/locations/L/keyRings/R/cryptoKeys/K` */
  readonly kmsKeyName: string | undefined;
}

/**
 * Write a whole object: one request of the JSON API with what is to be known of it and its bytes.
 * The service compares the MD5 that we send with what it received, before anything is visible.
 */
export async function putObject(
  session: GcsSession,
  settings: WriteSettings,
  key: string,
  body: Uint8Array,
  options: PutOptions = {},
): Promise<void> {
  const context = {
    action: `write ${key}`,
    key,
    signal: options.signal,
    precondition: options.createOnly === true ? "exists" : undefined,
    missing: "bucket",
  } as const;
  options.signal?.throwIfAborted();
  const resource = {
    name: key,
    contentType: CONTENT_TYPE,
    md5Hash: md5(body),
    ...metadataOf(options.tags),
  };
  const boundary = `barman-cloud-${randomUUID()}`;
  const query = new URLSearchParams({
    uploadType: "multipart",
    fields: "generation",
    ...writeQuery(settings, options.createOnly === true),
  });
  const answer = await session.json(context, {
    method: "POST",
    path: `/upload/storage/v1/b/${encodeURIComponent(session.bucket)}/o?${query}`,
    headers: { "content-type": `multipart/related; boundary=${boundary}` },
    body: Buffer.concat([
      Buffer.from(
        `--${boundary}\r\nContent-Type: application/json; charset=UTF-8\r\n\r\n` +
          `${JSON.stringify(resource)}\r\n--${boundary}\r\nContent-Type: ${CONTENT_TYPE}\r\n\r\n`,
      ),
      body,
      Buffer.from(`\r\n--${boundary}--\r\n`),
    ]),
  });
  // Any web server may answer 200: only a generation says that an object was stored.
  if (!isRecord(answer) || typeof answer["generation"] !== "string") {
    throw notFromTheStore(session, context);
  }
}

/** A successful answer that Google would not give: that of a login page, say, or of a proxy. */
export function notFromTheStore(session: GcsSession, context: RequestContext): StoreError {
  return new StoreError(
    "unreachable",
    `Cannot ${context.action} in ${session.description}: the answer is not that of Google Cloud Storage; ` +
      "is there a proxy or a login page in between?",
    { key: context.key },
  );
}

/** Generation 0 is that of an object that is not there. */
export function writeQuery(
  { kmsKeyName }: WriteSettings,
  createOnly: boolean,
): Record<string, string> {
  return {
    ...(kmsKeyName ? { kmsKeyName } : {}),
    ...(createOnly ? { ifGenerationMatch: "0" } : {}),
  };
}

/** Barman's tags are custom metadata here; Google's labels are for buckets only. */
export function metadataOf(tags: Tags | undefined): { metadata?: Record<string, string> } {
  return tags === undefined || tags.length === 0 ? {} : { metadata: Object.fromEntries(tags) };
}

export function md5(bytes: Uint8Array): string {
  return createHash("md5").update(bytes).digest("base64");
}

/** @throws {StoreError} kind `exists` */
export async function requireFree(
  session: GcsSession,
  context: RequestContext & { readonly key: string },
): Promise<void> {
  try {
    await headObject(session, context.key, { signal: context.signal });
  } catch (error) {
    if (isStoreError(error, "not-found")) return;
    throw error;
  }
  throw new StoreError(
    "exists",
    `Cannot ${context.action} in ${session.description}: an object with this key is there already`,
    { key: context.key },
  );
}
