/**
 * Listing a directory tree as a flat, ordered set of keys. Only the names of the directories on the
 * way to the current key are in memory.
 */
import type { BigIntStats, Dirent } from "node:fs";
import { lstat, readdir, stat } from "node:fs/promises";
import { type ListEntry, type ListOptions, StoreError } from "../object_store.ts";
import { compareKeys } from "../key_order.ts";
import { fileError, hasCode } from "./errors.ts";
import { requireRoot } from "./durable.ts";
import { isPossibleDirectory, isReservedName } from "./keys.ts";
import { describeFile } from "./read.ts";

/** Files looked at (`stat`) at once. */
const STATS_AT_ONCE = 32;

export interface ListContext {
  readonly root: string;
  readonly onNotice?: ((message: string) => void) | undefined;
}

/** The contract of `ObjectStore.list`. Empty directories and files being written are left out. */
export async function* listFiles(
  context: ListContext,
  prefix: string,
  options: ListOptions = {},
): AsyncGenerator<ListEntry> {
  const { signal } = options;
  signal?.throwIfAborted();
  try {
    await requireRoot(context.root);
    const directory = prefix.slice(0, prefix.lastIndexOf("/") + 1);
    if (directory !== "" && !isPossibleDirectory(directory.slice(0, -1))) return;
    yield* walk({ ...context, ...options, prefix }, directory, []);
  } catch (error) {
    signal?.throwIfAborted();
    throw fileError(`Cannot list directory ${context.root}`, undefined, error);
  }
}

interface Walk extends ListContext, ListOptions {
  readonly prefix: string;
}

/** An entry of a directory, under the key by which it sorts: `a-b` comes before all of `a/`. */
interface Found {
  /** Ends with `/` if it is a directory. */
  readonly key: string;
}

/**
 * @param directory key of the directory with a trailing slash, or "" for the root
 * @param above identities of the directories it is in, to notice a symbolic link back to one of them
 */
async function* walk(
  search: Walk,
  directory: string,
  above: readonly string[],
): AsyncGenerator<ListEntry> {
  const { root, delimiter, prefix, signal } = search;
  const within = [...above, await identityOf(search, directory, above)];
  const found = await entriesOf(search, directory);
  for (let i = 0; i < found.length;) {
    signal?.throwIfAborted();
    const entry = found[i];
    if (entry === undefined) break;
    if (!entry.key.endsWith("/")) {
      const files = filesFrom(found, i);
      i += files.length;
      yield* describeFiles(root, files);
      continue;
    }
    i++;
    const grouped = delimiter !== undefined && entry.key.length > prefix.length &&
      entry.key.startsWith(prefix);
    if (!grouped) yield* walk(search, entry.key, within);
    else if (await holdsAnObject(search, entry.key, within)) {
      yield { kind: "prefix", prefix: entry.key };
    }
  }
}

async function holdsAnObject(
  search: Walk,
  directory: string,
  above: readonly string[],
): Promise<boolean> {
  for await (const _ of walk({ ...search, delimiter: undefined }, directory, above)) return true;
  return false;
}

/** The next run of files, short enough to look at them all at once. */
function filesFrom(found: readonly Found[], start: number): Found[] {
  const files: Found[] = [];
  for (let i = start; i < found.length && files.length < STATS_AT_ONCE; i++) {
    const entry = found[i];
    if (entry === undefined || entry.key.endsWith("/")) break;
    files.push(entry);
  }
  return files;
}

async function* describeFiles(
  root: string,
  files: readonly Found[],
): AsyncGenerator<ListEntry> {
  const stats = await Promise.all(files.map(({ key }) => statIfThere(`${root}/${key}`)));
  for (const [i, { key }] of files.entries()) {
    const seen = stats[i];
    if (seen?.isFile()) yield { kind: "object", ...describeFile(key, seen) };
  }
}

/** What of a directory can hold a wanted key, in order. */
async function entriesOf(search: Walk, directory: string): Promise<Found[]> {
  const path = `${search.root}/${directory}`;
  let names: Dirent[];
  try {
    names = await readdir(path, { withFileTypes: true });
  } catch (error) {
    // Deleted in the meantime, or the prefix goes through a file: nothing is there.
    if (hasCode(error, "ENOENT", "ENOTDIR")) return [];
    throw fileError(`Cannot list directory ${path}`, undefined, error);
  }
  const found: Found[] = [];
  for (const entry of names) {
    if (isReservedName(entry.name)) continue;
    const key = directory + entry.name;
    if (!mayMatch(search, key)) continue;
    const kind = await kindOf(search, entry, path);
    if (kind === "file" && key.startsWith(search.prefix) && isAfter(search, key)) {
      found.push({ key });
    } else if (kind === "directory" && mayHoldWanted(search, `${key}/`)) {
      found.push({ key: `${key}/` });
    }
  }
  return found.sort((a, b) => compareKeys(a.key, b.key));
}

function mayMatch({ prefix }: Walk, key: string): boolean {
  return key.startsWith(prefix) || prefix.startsWith(`${key}/`);
}

function mayHoldWanted(search: Walk, directory: string): boolean {
  if (!directory.startsWith(search.prefix) && !search.prefix.startsWith(directory)) return false;
  return isAfter(search, directory) || search.startAfter?.startsWith(directory) === true;
}

function isAfter({ startAfter }: Walk, key: string): boolean {
  return startAfter === undefined || compareKeys(key, startAfter) > 0;
}

async function kindOf(
  search: Walk,
  entry: Dirent,
  directory: string,
): Promise<"file" | "directory" | "none"> {
  // The runtimes replace bytes that are not UTF-8; such a name can't be opened and can't be a key.
  if (entry.name.includes("\ufffd") && !(await isThere(directory + entry.name))) {
    search.onNotice?.(
      `Ignoring a file in directory ${directory} whose name is not UTF-8: ${entry.name}`,
    );
    return "none";
  }
  if (entry.isFile()) return "file";
  if (entry.isDirectory()) return "directory";
  // A symbolic link, or a file system that does not tell types.
  const stats = await statIfThere(directory + entry.name);
  if (stats?.isDirectory()) return "directory";
  return stats?.isFile() ? "file" : "none";
}

async function identityOf(
  search: Walk,
  directory: string,
  above: readonly string[],
): Promise<string> {
  const path = `${search.root}/${directory}`;
  const stats = await statIfThere(path);
  const identity = stats === undefined ? path : `${stats.dev}:${stats.ino}`;
  if (above.includes(identity)) {
    throw new StoreError(
      "invalid",
      `Cannot list directory ${path}: it is a symbolic link to a directory that it is in`,
    );
  }
  return identity;
}

async function statIfThere(path: string): Promise<BigIntStats | undefined> {
  try {
    return await stat(path, { bigint: true });
  } catch (error) {
    if (hasCode(error, "ENOENT", "ENOTDIR")) return undefined;
    throw error;
  }
}

async function isThere(path: string): Promise<boolean> {
  try {
    await lstat(path);
    return true;
  } catch (error) {
    if (hasCode(error, "ENOENT", "ENOTDIR")) return false;
    throw error;
  }
}
