/** The files of a directory tree in the order in which a base backup stores them. */
import { lstatSync, type Stats } from "node:fs";
import { lstat, stat } from "node:fs/promises";
import type { Exclusions } from "./exclusions.ts";
import { displayPath, fsPath, readDirectory, readLinkTarget } from "./raw_names.ts";

/** Something to store. `path` is relative to the root (`.` is the root itself), `absolute` is where it is. */
export type WalkEntry =
  | { readonly kind: "file"; readonly path: string; readonly absolute: string }
  | {
    readonly kind: "directory";
    readonly path: string;
    readonly absolute: string;
    readonly stats: Stats;
  }
  | {
    readonly kind: "symlink";
    readonly path: string;
    readonly absolute: string;
    readonly stats: Stats;
    readonly target: string;
  };

export interface WalkOptions {
  readonly exclusions: Exclusions;
  /** Is the root itself an entry? */
  readonly includeRoot: boolean;
  readonly signal: AbortSignal;
  /** Told what is not stored although no rule leaves it out. */
  readonly onSkipped: (message: string) => void;
}

/**
 * Walk from the top down: each directory, then its files, then its subdirectories. At any time it holds the
 * names of one directory and of the subdirectories still to visit. What vanishes meanwhile is left out.
 *
 * Links to directories are not followed. Where a link stands for a directory that is stored empty anyway
 * (`pg_wal` on another disk) it becomes that empty directory; other links to directories are left out, and told.
 * Sockets, FIFOs and devices are left out.
 *
 * @param root absolute path of a directory, not a symlink
 * @throws errors of the file system other than "not there", naming the path
 */
export async function* walk(root: string, options: WalkOptions): AsyncGenerator<WalkEntry> {
  const { exclusions, signal } = options;
  const pending = ["."];
  for (let path = pending.pop(); path !== undefined; path = pending.pop()) {
    signal.throwIfAborted();
    const absolute = path === "." ? root : `${root}/${path}`;
    const stats = await unlessGone(() => lstat(fsPath(absolute)), absolute);
    if (stats === undefined) {
      if (path === ".") {
        throw new Error(`Cannot read directory ${displayPath(root)}: it is not there`);
      }
      continue;
    }
    const directory: WalkEntry = { kind: "directory", path, absolute, stats };
    if (path !== "." && exclusions.empties(path)) {
      yield directory;
      continue;
    }
    const names = await unlessGone(() => readDirectory(absolute), absolute);
    if (names === undefined) continue;
    if (path !== "." || options.includeRoot) yield directory;
    const subdirectories: string[] = [];
    for (const name of names) {
      const child = path === "." ? name : `${path}/${name}`;
      if (exclusions.rejects(child)) continue;
      const childAbsolute = `${root}/${child}`;
      const kind = await kindOf(childAbsolute);
      switch (kind) {
        case "file":
          yield { kind, path: child, absolute: childAbsolute };
          break;
        case "directory":
          subdirectories.push(child);
          break;
        case "symlink": {
          const entry = await linkEntry(child, childAbsolute, options);
          if (entry !== undefined) yield entry;
          break;
        }
        case "special":
          // Sockets are common (a server with its socket in the data directory) and never wanted.
          options.onSkipped(`${displayPath(childAbsolute)} is a socket, FIFO or device`);
          break;
        case undefined:
          break;
      }
    }
    // Visited from the end, so that the order is that of the directory.
    for (let i = subdirectories.length - 1; i >= 0; i--) pending.push(subdirectories[i] ?? "");
  }
}

/** What `action` gives, or undefined when the file is not there any more. */
export async function unlessGone<T>(
  action: () => Promise<T> | T,
  path: string,
): Promise<T | undefined> {
  try {
    return await action();
  } catch (error) {
    const code = error instanceof Error && "code" in error ? error.code : undefined;
    if (code !== "ENOENT" && code !== "ENOTDIR") throw unreadable(path, error);
    if (path.includes("\ufffd")) {
      // A runtime that can't name files in bytes (Deno) would drop them from the backup without a word.
      throw new Error(
        `Cannot read ${
          displayPath(path)
        }: its name is not UTF-8, which this runtime does not support`,
      );
    }
    return undefined;
  }
}

/** The error that fails a backup because of a file. */
export function unreadable(path: string, error: unknown): Error {
  const reason = error instanceof Error ? error.message : String(error);
  // The runtime repeats the path: `EACCES: permission denied, open '/data/x'`.
  const short = reason.replace(/, \w+ '.*'$/s, "");
  return new Error(`Cannot read ${displayPath(path)}: ${short}`, { cause: error });
}

/** Synchronous in itself: a look at what the system has at hand is a tenth of a trip to another thread. */
async function kindOf(absolute: string): Promise<WalkEntry["kind"] | "special" | undefined> {
  const stats = await unlessGone(() => lstatSync(fsPath(absolute)), absolute);
  if (stats === undefined) return undefined;
  if (stats.isFile()) return "file";
  if (stats.isDirectory()) return "directory";
  return stats.isSymbolicLink() ? "symlink" : "special";
}

async function linkEntry(
  path: string,
  absolute: string,
  { exclusions, onSkipped }: WalkOptions,
): Promise<WalkEntry | undefined> {
  const behind = await statThroughLink(absolute);
  if (behind?.isDirectory()) {
    if (exclusions.empties(path)) return { kind: "directory", path, absolute, stats: behind };
    onSkipped(`${displayPath(absolute)} is a link to a directory that is no tablespace`);
    return undefined;
  }
  const stats = await unlessGone(() => lstat(fsPath(absolute)), absolute);
  const target = await unlessGone(() => readLinkTarget(absolute), absolute);
  if (stats === undefined || target === undefined) return undefined;
  return { kind: "symlink", path, absolute, stats, target };
}

/** What a link leads to; undefined when that can't be told (it leads nowhere, or where we may not look). */
async function statThroughLink(absolute: string): Promise<Stats | undefined> {
  try {
    return await stat(fsPath(absolute));
  } catch {
    return undefined;
  }
}
