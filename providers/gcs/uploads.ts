/**
 * Multipart uploads of the XML API that nobody has completed or aborted (yet).
 *
 * - https://cloud.google.com/storage/docs/xml-api/get-bucket-uploads
 * - https://cloud.google.com/storage/docs/xml-api/get-object-multipart
 */
import { type Cancellable, isStoreError, type UnfinishedUpload } from "../object_store.ts";
import { listComposedUploads, removeComposedUpload } from "./composed_upload.ts";
import { elementOf, refusesRequest } from "./errors.ts";
import { bucketXmlPath, xmlPath } from "./paths.ts";
import type { GcsSession } from "./session.ts";
import { notFromTheStore } from "./write.ts";

/** The contract of `ObjectStore.listUploads`. */
export async function* listUploads(
  session: GcsSession,
  prefix: string,
  options: Cancellable = {},
): AsyncGenerator<UnfinishedUpload> {
  try {
    yield* listXmlUploads(session, prefix, options);
  } catch (error) {
    // An emulator that has no such uploads, see `startMultipart`.
    if (session.isGoogle || !refusesRequest(error)) throw error;
    yield* listComposedUploads(session, prefix, options);
  }
}

async function* listXmlUploads(
  session: GcsSession,
  prefix: string,
  { signal }: Cancellable,
): AsyncGenerator<UnfinishedUpload> {
  const action = `list unfinished uploads of ${prefix || "the bucket"}`;
  const context = { action, signal, missing: "bucket" } as const;
  let marker: Record<string, string> = {};
  for (const seen = new Set<string>();;) {
    const query = new URLSearchParams({ prefix, "encoding-type": "url", ...marker });
    const { text } = await session.text(context, {
      method: "GET",
      path: `${bucketXmlPath(session.bucket)}?uploads&${query}`,
    });
    if (!text.includes("<ListMultipartUploadsResult")) {
      if (session.isGoogle) throw notFromTheStore(session, context);
      return yield* listComposedUploads(session, prefix, { signal });
    }
    const isEncoded = elementOf(text, "EncodingType") === "url";
    const keyIn = (xml: string, name: string) => {
      const key = elementOf(xml, name) ?? "";
      return isEncoded ? decoded(key) : key;
    };
    for (const upload of elementsIn(text, "Upload")) {
      const key = keyIn(upload, "Key");
      const id = elementOf(upload, "UploadId") ?? "";
      if (key === "" || id === "" || !key.startsWith(prefix)) continue;
      const parts = await partsOf(session, key, id, { signal });
      if (parts === null) continue;
      const lastActivity = latest([elementOf(upload, "Initiated"), ...parts.modified]);
      yield { key, id, size: parts.size, ...(lastActivity === null ? {} : { lastActivity }) };
    }
    const keyMarker = keyIn(text, "NextKeyMarker");
    const idMarker = elementOf(text, "NextUploadIdMarker") ?? "";
    const place = `${keyMarker}\n${idMarker}`;
    if (elementOf(text, "IsTruncated") !== "true") return;
    if (keyMarker === "" || seen.has(place)) throw notFromTheStore(session, context);
    seen.add(place);
    marker = { "key-marker": keyMarker, "upload-id-marker": idMarker };
  }
}

/** @returns null when the upload is gone by now */
async function partsOf(
  session: GcsSession,
  key: string,
  id: string,
  { signal }: Cancellable,
): Promise<{ readonly size: number; readonly modified: string[] } | null> {
  const action = `list the parts of the unfinished upload of ${key}`;
  const context = { action, key, signal, missing: "upload" } as const;
  let size = 0;
  const modified: string[] = [];
  for (let after = "";;) {
    const query = new URLSearchParams({
      uploadId: id,
      ...(after === "" ? {} : { "part-number-marker": after }),
    });
    let text: string;
    try {
      const path = `${xmlPath(session.bucket, key)}?${query}`;
      text = (await session.text(context, { method: "GET", path })).text;
    } catch (error) {
      if (isStoreError(error, "not-found")) return null;
      throw error;
    }
    if (!text.includes("<ListPartsResult")) throw notFromTheStore(session, context);
    for (const part of elementsIn(text, "Part")) {
      size += Number(elementOf(part, "Size") ?? 0);
      modified.push(elementOf(part, "LastModified") ?? "");
    }
    const next = elementOf(text, "NextPartNumberMarker") ?? "";
    if (elementOf(text, "IsTruncated") !== "true" || !(Number(next) > Number(after))) {
      return { size, modified };
    }
    after = next;
  }
}

function elementsIn(xml: string, name: string): string[] {
  return [...xml.matchAll(new RegExp(`<${name}>(.*?)</${name}>`, "gs"))].map(([, text = ""]) =>
    text
  );
}

function decoded(text: string): string {
  try {
    return decodeURIComponent(text.replaceAll("+", " "));
  } catch {
    return text;
  }
}

/** @returns null when none of the texts is a time */
function latest(times: readonly (string | undefined)[]): Date | null {
  const known = times.map((time) => Date.parse(time ?? "")).filter(Number.isFinite);
  return known.length === 0 ? null : new Date(Math.max(...known));
}

/** The contract of `ObjectStore.removeUpload`, and of `MultipartUpload.abort`. */
export async function removeUpload(
  session: GcsSession,
  upload: Pick<UnfinishedUpload, "key" | "id">,
  { signal }: Cancellable = {},
): Promise<undefined> {
  const { key, id } = upload;
  const action = `remove the unfinished upload of ${key}`;
  const context = { action, key, signal, missing: "upload" } as const;
  if (await removeComposedUpload(session, upload, context)) return;
  try {
    const path = `${xmlPath(session.bucket, key)}?uploadId=${encodeURIComponent(id)}`;
    const { status } = await session.text(context, { method: "DELETE", path });
    // The only success that Google documents; a page of some proxy has another.
    if (status !== 204) throw notFromTheStore(session, context);
  } catch (error) {
    // Gone already: completed, or aborted before.
    if (!isStoreError(error, "not-found")) throw error;
  }
}
