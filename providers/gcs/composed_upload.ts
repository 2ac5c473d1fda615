/**
 * Objects in parts for emulators that lack the XML API's multipart uploads (fake-gcs-server does):
 * temporary objects that are composed in the end. Never used on Google's own service; multipart.ts
 * says why it would be the worse way there.
 */
import { randomUUID } from "node:crypto";
import {
  type Cancellable,
  isStoreError,
  type MultipartUpload,
  type PutOptions,
  StoreError,
  type UnfinishedUpload,
  type UploadedPart,
} from "../object_store.ts";
import { deleteObjects } from "./delete.ts";
import { requirePartNumber, requireParts } from "./limits.ts";
import { listObjects } from "./list.ts";
import { objectPath } from "./paths.ts";
import { headObject } from "./read.ts";
import type { GcsSession } from "./session.ts";
import {
  CONTENT_TYPE,
  metadataOf,
  putObject,
  requireFree,
  writeQuery,
  type WriteSettings,
} from "./write.ts";

/** Of temporary objects: `.barman-cloud-parts/UUID/KEY/NUMBER`. */
const DIRECTORY = ".barman-cloud-parts/";
/** Most objects that one request composes. */
const MOST_SOURCES = 32;

/** Temporary objects, one upload after the other. */
export async function* listComposedUploads(
  session: GcsSession,
  prefix: string,
  options: Cancellable,
): AsyncGenerator<UnfinishedUpload> {
  let found: { key: string; id: string; size: number; lastActivity?: Date } | undefined;
  for await (const entry of listObjects(session, DIRECTORY, options)) {
    if (entry.kind !== "object") continue;
    const [uuid = "", encodedKey = ""] = entry.key.slice(DIRECTORY.length).split("/");
    const key = decodeURIComponent(encodedKey);
    if (!key.startsWith(prefix)) continue;
    const id = `${DIRECTORY}${uuid}/`;
    if (found?.id !== id) {
      if (found !== undefined) yield found;
      found = { key, id, size: 0 };
    }
    found.size += entry.size;
    const { lastModified } = entry;
    if (lastModified === undefined) continue;
    if (found.lastActivity === undefined || found.lastActivity < lastModified) {
      found.lastActivity = lastModified;
    }
  }
  if (found !== undefined) yield found;
}

/** @returns false for an upload that is not made of temporary objects */
export async function removeComposedUpload(
  session: GcsSession,
  { id }: Pick<UnfinishedUpload, "id">,
  options: Cancellable,
): Promise<boolean> {
  if (!id.startsWith(DIRECTORY)) return false;
  const keys: string[] = [];
  for await (const entry of listObjects(session, id, options)) {
    if (entry.kind === "object") keys.push(entry.key);
  }
  const [failure] = await deleteObjects(session, keys, options);
  if (failure !== undefined) throw failure.error;
  return true;
}

export function startComposedUpload(
  session: GcsSession,
  settings: WriteSettings,
  key: string,
  options: PutOptions,
): MultipartUpload {
  const directory = `${DIRECTORY}${randomUUID()}/${encodeURIComponent(key)}/`;
  /** Etags by number, as sent last. */
  const sent = new Map<number, string>();
  const temporary = new Set<string>();
  let gone = false;

  const nameOf = (number: number) => `${directory}${number}`;
  const requireOpen = (action: string) => {
    if (!gone) return;
    throw new StoreError(
      "not-found",
      `Cannot ${action} in ${session.description}: the multipart upload is no longer there`,
      { key },
    );
  };
  const cleanUp = async (callOptions: Cancellable) => {
    gone = true;
    const failures = await deleteObjects(session, [...temporary], callOptions);
    const [first] = failures;
    if (first !== undefined) throw first.error;
    temporary.clear();
  };

  const compose = async (
    sources: readonly string[],
    name: string,
    last: boolean,
    { signal }: Cancellable,
  ) => {
    const context = {
      action: `finish writing ${key}`,
      key,
      signal,
      precondition: last && options.createOnly === true ? "exists" : undefined,
      missing: "upload",
    } as const;
    const query = new URLSearchParams(writeQuery(settings, last && options.createOnly === true));
    await session.text(context, {
      method: "POST",
      path: `${objectPath(session.bucket, name)}/compose?${query}`,
      headers: { "content-type": "application/json" },
      body: JSON.stringify({
        sourceObjects: sources.map((source) => ({ name: source })),
        destination: { contentType: CONTENT_TYPE, ...(last ? metadataOf(options.tags) : {}) },
      }),
    });
  };

  return {
    key,
    async uploadPart(number, body, callOptions = {}) {
      const action = `write part ${number} of ${key}`;
      requirePartNumber(session, { action, key }, number);
      requireOpen(action);
      const name = nameOf(number);
      temporary.add(name);
      await putObject(session, { kmsKeyName: settings.kmsKeyName }, name, body, {
        signal: callOptions.signal,
      });
      const { etag = "" } = await headObject(session, name, callOptions);
      sent.set(number, etag);
      return { number, size: body.length, etag };
    },

    async complete(parts: readonly UploadedPart[], callOptions = {}) {
      const context = { action: `finish writing ${key}`, key, signal: callOptions.signal };
      callOptions.signal?.throwIfAborted();
      requireOpen(context.action);
      requireParts(session, context, parts);
      for (const { number, etag } of parts) {
        if (sent.get(number) === etag) continue;
        throw new StoreError(
          "invalid",
          `Cannot ${context.action} in ${session.description}: part ${number} was not sent so`,
          { key },
        );
      }
      if (options.createOnly === true) await requireFree(session, context);
      let names = [...parts].sort((a, b) => a.number - b.number).map(({ number }) =>
        nameOf(number)
      );
      for (let level = 1; names.length > MOST_SOURCES; level++) {
        const joined: string[] = [];
        for (let at = 0; at < names.length; at += MOST_SOURCES) {
          const name = `${directory}joined-${level}-${joined.length}`;
          temporary.add(name);
          await compose(names.slice(at, at + MOST_SOURCES), name, false, callOptions);
          joined.push(name);
        }
        names = joined;
      }
      await compose(names, key, true, callOptions);
      await cleanUp(callOptions);
      return {};
    },

    async abort(callOptions = {}) {
      try {
        await cleanUp(callOptions);
      } catch (error) {
        if (!isStoreError(error, "not-found")) throw error;
      }
    },
  };
}
