import type { BlobItem, BlobPrefix } from "@azure/storage-blob";
import { compareKeys } from "../key_order.ts";
import { newEntries, requireAnswers } from "../listed_entries.ts";
import { type ListEntry, type ListOptions, StoreError } from "../object_store.ts";
import type { AzureSession } from "./session.ts";

/** Empty pages in a row after which a listing is given up; Azure sends them now and then. */
const MAX_EMPTY_PAGES = 1000;

/**
 * All pages of List Blobs, objects and groups merged in key order.
 *
 * Azure's marker is opaque and there is no "start after", so what comes before is read and dropped.
 */
export async function* listBlobs(
  session: AzureSession,
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
    const page = await nextPage(session, prefix, delimiter, token, { action, signal });
    requireAnswers(page.entries, { prefix, action, where: session.description });
    for (const entry of page.entries) if (isNew(entry)) yield entry;
    token = page.token;
    if (token === undefined) return;

    emptyPages = page.entries.length === 0 ? emptyPages + 1 : 0;
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

/** @throws {StoreError} kind `no-bucket`, and the others. */
export async function firstPageIsThere(
  session: AzureSession,
  prefix: string,
  signal: AbortSignal | undefined,
): Promise<void> {
  await session.call({ action: "look for the container", signal }, async (send) => {
    await session.container.listBlobsFlat({ prefix, ...send }).byPage({ maxPageSize: 1 }).next();
  });
}

interface Page {
  readonly entries: ListEntry[];
  readonly token: string | undefined;
}

async function nextPage(
  session: AzureSession,
  prefix: string,
  delimiter: "/" | undefined,
  token: string | undefined,
  context: { readonly action: string; readonly signal: AbortSignal | undefined },
): Promise<Page> {
  const settings = token === undefined ? {} : { continuationToken: token };
  const page = await session.call(context, async (send) => {
    const options = { prefix, includeMetadata: true, ...send };
    const pages = delimiter === undefined
      ? session.container.listBlobsFlat(options).byPage(settings)
      : session.container.listBlobsByHierarchy(delimiter, options).byPage(settings);
    const { value } = await pages.next();
    return value;
  });
  if (page === undefined) return { entries: [], token: undefined };
  const { segment, continuationToken } = page;
  const groups = "blobPrefixes" in segment ? segment.blobPrefixes ?? [] : [];
  const objects = segment.blobItems.filter((item: BlobItem) => !isDirectory(item)).map(objectEntry);
  const entries = [...objects, ...groups.map(groupEntry)];
  entries.sort((a, b) => compareKeys(nameOf(a), nameOf(b)));
  return { entries, token: continuationToken || undefined };
}

function objectEntry({ name, properties }: BlobItem): ListEntry {
  return {
    kind: "object",
    key: name,
    size: properties.contentLength ?? 0,
    etag: bareEtag(properties.etag),
    lastModified: properties.lastModified,
  };
}

/** Accounts with a hierarchical namespace list directories among the blobs, empty and marked so. */
function isDirectory({ metadata }: BlobItem): boolean {
  return Object.entries(metadata ?? {}).some(([name, value]) =>
    name.toLowerCase() === "hdi_isfolder" && value === "true"
  );
}

function groupEntry({ name }: BlobPrefix): ListEntry {
  return { kind: "prefix", prefix: name };
}

/** Headers have the quotes that belong to an etag, listings do not. */
export function bareEtag(etag: string): string {
  return etag.replace(/^"(.*)"$/, "$1");
}

function nameOf(entry: ListEntry): string {
  return entry.kind === "object" ? entry.key : entry.prefix;
}
