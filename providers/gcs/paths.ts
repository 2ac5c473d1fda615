/** Addresses of buckets and objects, and the fields of an object that we ask for. */
import type { StoredObject } from "../object_store.ts";
import { isRecord } from "./credentials.ts";

/** The JSON API wants names encoded whole, slashes too. */
export function bucketPath(bucket: string): string {
  return `/storage/v1/b/${encoded(bucket)}`;
}

export function objectPath(bucket: string, key: string): string {
  return `${bucketPath(bucket)}/o/${encoded(key)}`;
}

/** Of the XML API, for what is about the whole bucket. */
export function bucketXmlPath(bucket: string): string {
  return `/${encoded(bucket)}`;
}

/** Of the XML API, where parts are. */
export function xmlPath(bucket: string, key: string): string {
  return `/${encoded(bucket)}/${key.split("/").map(encoded).join("/")}`;
}

/** RFC 3986; Google asks for these five too. Half of a surrogate pair is sent as U+FFFD. */
function encoded(text: string): string {
  return encodeURIComponent(text.toWellFormed()).replace(
    /[!'()*]/g,
    (sign) => `%${sign.charCodeAt(0).toString(16).toUpperCase()}`,
  );
}

export const OBJECT_FIELDS = "name,size,generation,updated";

/**
 * An object of the JSON API. The generation is its etag: Google's own changes with the metadata too,
 * and is another one in each API.
 * @returns undefined when it is none
 */
export function storedObject(resource: unknown): StoredObject | undefined {
  if (!isRecord(resource)) return undefined;
  const { name, size, generation, updated } = resource;
  if (typeof name !== "string") return undefined;
  const modified = typeof updated === "string" ? new Date(updated) : undefined;
  return {
    key: name,
    size: Number(size ?? 0),
    ...(typeof generation === "string" ? { etag: generation } : {}),
    ...(modified === undefined || Number.isNaN(modified.getTime())
      ? {}
      : { lastModified: modified }),
  };
}
