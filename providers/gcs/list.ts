import { compareKeys } from "../key_order.ts";
import { newEntries, requireAnswers } from "../listed_entries.ts";
import { type ListEntry, type ListOptions, StoreError } from "../object_store.ts";
import { isRecord } from "./credentials.ts";
import { bucketPath, OBJECT_FIELDS, storedObject } from "./paths.ts";
import type { GcsSession } from "./session.ts";
import { notFromTheStore } from "./write.ts";

/** Empty pages in a row after which a listing is given up; the service may send a few. */
const MAX_EMPTY_PAGES = 1000;

/** All pages of objects.list, objects and groups merged in key order. */
export async function* listObjects(
  session: GcsSession,
  prefix: string,
  options: ListOptions = {},
): AsyncGenerator<ListEntry> {
  const { delimiter, startAfter, signal } = options;
  const action = prefix === "" ? "list objects" : `list ${prefix}`;
  let token: string | undefined;
  const seen = new Set<string>();
  let emptyPages = 0;
  const isNew = newEntries(startAfter, { action, where: session.description });
  for (;;) {
    const query = new URLSearchParams({
      prefix,
      fields: `kind,items(${OBJECT_FIELDS}),prefixes,nextPageToken`,
      maxResults: "1000",
    });
    if (delimiter !== undefined) query.set("delimiter", delimiter);
    // Inclusive; what is not wanted of it is dropped below.
    if (startAfter !== undefined) query.set("startOffset", startAfter);
    if (token !== undefined) query.set("pageToken", token);
    const context = { action, signal, missing: "bucket" } as const;
    const page = await session.json(context, {
      method: "GET",
      path: `${bucketPath(session.bucket)}/o?${query}`,
    });
    // An empty answer must not pass for an empty bucket.
    if (!isRecord(page) || page["kind"] !== "storage#objects") {
      throw notFromTheStore(session, context);
    }
    const entries = entriesOf(page);
    requireAnswers(entries, { prefix, action, where: session.description });
    for (const entry of entries) if (isNew(entry)) yield entry;
    const next = page["nextPageToken"];
    if (typeof next !== "string" || next === "") return;

    token = next;
    emptyPages = entries.length === 0 ? emptyPages + 1 : 0;
    if (seen.has(token) || emptyPages > MAX_EMPTY_PAGES) {
      const why = emptyPages > MAX_EMPTY_PAGES
        ? `it sent ${emptyPages} empty pages`
        : "it sends the same page again";
      throw new StoreError(
        "other",
        `Cannot ${action} in ${session.description}: the store's listing does not end: ${why}`,
      );
    }
    seen.add(token);
  }
}

function entriesOf(page: Readonly<Record<string, unknown>>): ListEntry[] {
  const entries: ListEntry[] = [];
  const { items, prefixes } = page;
  for (const item of Array.isArray(items) ? items : []) {
    const object = storedObject(item);
    entries.push({ kind: "object", ...object ?? { key: "", size: 0 } });
  }
  for (const prefix of Array.isArray(prefixes) ? prefixes : []) {
    entries.push({ kind: "prefix", prefix: typeof prefix === "string" ? prefix : "" });
  }
  return entries.sort((a, b) => compareKeys(nameOf(a), nameOf(b)));
}

function nameOf(entry: ListEntry): string {
  return entry.kind === "object" ? entry.key : entry.prefix;
}
