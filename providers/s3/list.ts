import { compareKeys } from "../key_order.ts";
import { requireAnswers } from "../listed_entries.ts";
import { type ListEntry, type ListOptions, StoreError } from "../object_store.ts";
import type { Listing } from "./api.ts";
import type { S3Session } from "./session.ts";

/** Empty pages in a row after which a listing is given up; a store may send a few. */
const MAX_EMPTY_PAGES = 1000;

/**
 * All pages of ListObjectsV2, objects and groups of each in key order; Amazon's directory buckets give pages in no
 * order.
 */
export async function* listObjects(
  session: S3Session,
  prefix: string,
  options: ListOptions = {},
): AsyncGenerator<ListEntry> {
  const { delimiter, startAfter, signal } = options;
  const action = prefix === "" ? "list objects" : `list ${prefix}`;
  let token: string | undefined;
  const seen = new Set<string>();
  let emptyPages = 0;
  let last: string | undefined;
  for (;;) {
    const page = await session.call({ action, signal }, (api, sendOptions) =>
      api.listObjectsV2({
        Bucket: session.bucket,
        Prefix: prefix,
        // Keys may hold characters that XML can't.
        EncodingType: "url",
        Delimiter: delimiter,
        StartAfter: token === undefined ? startAfter : undefined,
        ContinuationToken: token,
      }, sendOptions));
    if (!isListing(page)) {
      throw new StoreError(
        "unavailable",
        `Cannot ${action} in ${session.description}: the answer is no listing (empty, or of something else)`,
      );
    }
    const entries = entriesOf(page);
    requireAnswers(entries, { prefix, action, where: session.description });
    for (const entry of entries) {
      const name = nameOf(entry);
      // A group that spans pages is told with each; StartAfter inside of a group may bring it again.
      if (name === last || (startAfter !== undefined && compareKeys(name, startAfter) <= 0)) {
        continue;
      }
      last = name;
      yield entry;
    }
    if (page.IsTruncated !== true) return;

    token = page.NextContinuationToken;
    emptyPages = entries.length === 0 ? emptyPages + 1 : 0;
    if (token === undefined || seen.has(token) || emptyPages > MAX_EMPTY_PAGES) {
      const why = token === undefined
        ? "it says that more follows, but not where"
        : emptyPages > MAX_EMPTY_PAGES
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

/**
 * An empty body would pass for a listing of nothing, and a short listing for deleted backups; "nothing is there" may
 * end a recovery, so it must have been said.
 */
function isListing(
  { IsTruncated, Name, Prefix, KeyCount, MaxKeys }: Listing,
): boolean {
  return [IsTruncated, Name, Prefix, KeyCount, MaxKeys].some((element) => element !== undefined);
}

function entriesOf(page: Listing): ListEntry[] {
  const decoded = (text: string) => page.EncodingType === "url" ? decodeUrl(text) : text;
  const entries: ListEntry[] = [];
  for (const { Key, Size, ETag, LastModified } of page.Contents ?? []) {
    entries.push({
      kind: "object",
      key: decoded(Key ?? ""),
      size: Size ?? 0,
      ...(ETag === undefined ? {} : { etag: ETag }),
      ...(LastModified === undefined ? {} : { lastModified: LastModified }),
    });
  }
  for (const { Prefix } of page.CommonPrefixes ?? []) {
    entries.push({ kind: "prefix", prefix: decoded(Prefix ?? "") });
  }
  return entries.sort((a, b) => compareKeys(nameOf(a), nameOf(b)));
}

function nameOf(entry: ListEntry): string {
  return entry.kind === "object" ? entry.key : entry.prefix;
}

/** S3 writes a blank as `+`. What is not valid UTF-8 stays encoded: such a key can't be named anyway. */
function decodeUrl(text: string): string {
  return text.replaceAll("+", " ").replace(/(?:%[0-9a-f]{2})+/gi, (run) => {
    try {
      return decodeURIComponent(run);
    } catch {
      return run;
    }
  });
}
