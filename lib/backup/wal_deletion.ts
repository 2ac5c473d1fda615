/**
 * Finds and deletes WAL by a rule. The archive's folders are listed once (256 segments of 16 MiB lie in each);
 * objects are listed only where the rule may find some, and streamed: memory does not grow with the archive.
 */
import type { Cancellable, DeleteFailure, ObjectStore } from "../../providers/object_store.ts";
import { stripSuffix } from "../compression/table.ts";
import type { Logger } from "../cli/log.ts";
import type { ServerLayout } from "../layout.ts";
import { mapInParallel } from "../parallel.ts";
import type { DeletionPrinter } from "./deletion_print.ts";
import { coversWalRule, judgeWalFolder, mayDeleteWal, type WalRule } from "./wal_cleanup.ts";

/** The archive's outline; `deleteWal` and `printWalDeletions` note in it what they have dealt with. */
export interface WalArchive {
  /** `PREFIX/SERVER/wals/` */
  readonly root: string;
  /** Names of folders and of objects directly below the root, in listing order; folders end in `/`. */
  entries: readonly string[];
  /** Only in a dry run: what these rules let go would be gone. */
  applied: readonly WalRule[];
}

/** Whole folders could not be deleted. */
export class WalFolderFailed extends Error {
  override readonly name = "WalFolderFailed";
}

/** Batches under way at once; each is at most `maxDeleteBatch` keys. */
const DELETE_CONCURRENCY = 4;
/** Keys named in one message. */
const NAMED_FAILURES = 20;

export async function listWalArchive(
  store: ObjectStore,
  layout: ServerLayout,
  options: Cancellable,
): Promise<WalArchive> {
  const root = layout.wals;
  const entries: string[] = [];
  for await (const entry of store.list(root, { ...options, delimiter: "/" })) {
    entries.push((entry.kind === "prefix" ? entry.prefix : entry.key).slice(root.length));
  }
  return { root, entries, applied: [] };
}

/**
 * Delete what the rule lets go.
 * @param batchSize keys a request; null for the store's maximum, which whole folders always take (as in Barman)
 * @throws {WalFolderFailed} when something in a folder that goes as a whole is still there
 */
export async function deleteWal(
  { store, log, signal }: {
    readonly store: ObjectStore;
    readonly log: Logger;
    readonly signal: AbortSignal;
  },
  archive: WalArchive,
  rule: WalRule,
  batchSize: number | null,
): Promise<void> {
  const failed: { whole: DeleteFailure[]; single: DeleteFailure[] } = { whole: [], single: [] };
  const count = { whole: 0, single: 0 };
  let deleted = 0;
  const batches = inBatches(
    walToDelete(store, archive, rule, "everything", { signal }),
    store.limits.maxDeleteBatch,
  );
  await mapInParallel(batches, DELETE_CONCURRENCY, async ({ kind, keys }) => {
    const size = kind === "single" ? batchSize ?? undefined : undefined;
    const failures = await store.deleteMany(keys, { signal, batchSize: size });
    deleted += keys.length - failures.length;
    count[kind] += failures.length;
    failed[kind].push(...failures.slice(0, NAMED_FAILURES - failed[kind].length));
  });
  forgetFolders(archive, rule);
  log.info(`Deleted ${deleted} WAL objects before ${rule.limit}`);
  if (count.single > 0) {
    log.error(
      `${messageOf(failed.single, count.single)}; a later deletion of a backup tries again`,
    );
  }
  if (count.whole > 0) throw new WalFolderFailed(messageOf(failed.whole, count.whole));
}

/** Print what `deleteWal` would delete. */
export async function printWalDeletions(
  store: ObjectStore,
  archive: WalArchive,
  rule: WalRule,
  printer: DeletionPrinter,
  options: Cancellable,
): Promise<void> {
  if (wholeFolders(store)) {
    for (const entry of archive.entries) {
      if (isWholeFolder(entry, rule)) printer.walFolder(archive.root + entry);
    }
  }
  for await (const { key } of walToDelete(store, archive, rule, "single", options)) {
    printer.wal(key);
  }
  // On S3 the next backup's lines name whole folders again, as Barman's do: it looks at the store, where they still are.
  if (!wholeFolders(store)) forgetFolders(archive, rule);
  archive.applied = [...archive.applied.filter((earlier) => !coversWalRule(rule, earlier)), rule];
}

/** Barman deletes whole folders on S3 only, so that is where strangers in them go too. */
function wholeFolders(store: ObjectStore): boolean {
  return store.provider === "aws-s3";
}

function isWholeFolder(entry: string, rule: WalRule): boolean {
  return entry.endsWith("/") && judgeWalFolder(rule, entry.slice(0, -1)) === "all";
}

interface DoomedWal {
  readonly key: string;
  /** `whole`: it goes with its folder, whatever it is. */
  readonly kind: "whole" | "single";
}

/** In listing order. `single` leaves out what goes with whole folders. */
async function* walToDelete(
  store: ObjectStore,
  { root, entries, applied }: WalArchive,
  rule: WalRule,
  wanted: "everything" | "single",
  options: Cancellable,
): AsyncGenerator<DoomedWal> {
  const goesWhole = (folder: string) => wholeFolders(store) && isWholeFolder(folder, rule);
  const mayGo = (key: string) => {
    const { name } = stripSuffix(key.slice(key.lastIndexOf("/") + 1));
    return mayDeleteWal(rule, name) && !applied.some((earlier) => mayDeleteWal(earlier, name));
  };
  const isWanted = (folder: string) => {
    const verdict = judgeWalFolder(rule, folder.slice(0, -1));
    return verdict === "some" ||
      (verdict === "all" && (wanted === "everything" || !wholeFolders(store)));
  };
  for (const part of listableParts(entries, isWanted)) {
    if (typeof part === "string") {
      if (mayGo(part)) yield { key: root + part, kind: "single" };
      continue;
    }
    const last = root + part.last;
    for await (const { key } of objectsOf(store, root, root + part.first, options)) {
      const folder = key.slice(root.length, key.indexOf("/", root.length) + 1);
      if (key > last && !key.startsWith(last)) break;
      if (part.folders.has(folder) && goesWhole(folder)) yield { key, kind: "whole" };
      // What arrived since the folders were listed is not in them and was not decided on.
      else if (part.folders.has(folder) && mayGo(key)) yield { key, kind: "single" };
    }
  }
}

/** Neighbouring folders, which are listed as one range because a page of a listing holds keys of several. */
interface FolderRange {
  readonly first: string;
  last: string;
  readonly folders: Set<string>;
}

/** Objects directly below the root, by name, and ranges of folders that are wanted. */
function listableParts(
  entries: readonly string[],
  isWanted: (folder: string) => boolean,
): (string | FolderRange)[] {
  const parts: (string | FolderRange)[] = [];
  let range: FolderRange | undefined;
  for (const entry of entries) {
    if (!entry.endsWith("/")) {
      parts.push(entry);
      range = undefined;
    } else if (!isWanted(entry)) range = undefined;
    else if (range !== undefined) {
      range.folders.add(entry);
      range.last = entry;
    } else {
      range = { first: entry, last: entry, folders: new Set([entry]) };
      parts.push(range);
    }
  }
  return parts;
}

async function* objectsOf(
  store: ObjectStore,
  prefix: string,
  startAfter: string,
  options: Cancellable,
): AsyncGenerator<{ readonly key: string }> {
  for await (const entry of store.list(prefix, { ...options, startAfter })) {
    if (entry.kind === "object") yield entry;
  }
}

/** Keys of one kind together, `size` at most. */
async function* inBatches(
  doomed: AsyncIterable<DoomedWal>,
  size: number,
): AsyncGenerator<{ readonly kind: DoomedWal["kind"]; readonly keys: readonly string[] }> {
  const waiting: Record<DoomedWal["kind"], string[]> = { whole: [], single: [] };
  for await (const { key, kind } of doomed) {
    waiting[kind].push(key);
    if (waiting[kind].length < size) continue;
    yield { kind, keys: waiting[kind] };
    waiting[kind] = [];
  }
  for (const kind of ["whole", "single"] as const) {
    if (waiting[kind].length > 0) yield { kind, keys: waiting[kind] };
  }
}

/** Later rules need not look again at folders of which nothing that a rule could let go is left. */
function forgetFolders(archive: WalArchive, rule: WalRule): void {
  archive.entries = archive.entries.filter((entry) => !isWholeFolder(entry, rule));
}

function messageOf(failures: readonly DeleteFailure[], count: number): string {
  const [first] = failures;
  const keys = failures.map(({ key }) => key).join(", ");
  const more = count > failures.length ? ` and ${count - failures.length} more` : "";
  return `Cannot delete ${keys}${more}: ${first?.error.message}`;
}
