/** Removing objects, the directories that they leave empty, and what dead writers left behind. */
import type { Dirent } from "node:fs";
import { readdir, rmdir, stat, unlink } from "node:fs/promises";
import { dirname } from "node:path";
import type { DeleteFailure, DeleteOptions } from "../object_store.ts";
import { ageOf, requireRoot, syncDirectory, unlinkIfThere } from "./durable.ts";
import { fileError, hasCode } from "./errors.ts";
import { isReservedName, pathOfKey } from "./keys.ts";

const UNLINKS_AT_ONCE = 16;
/** A temporary file that nobody wrote to for so long belongs to a process that died. */
const STALE_MS = 24 * 60 * 60 * 1000;

/** The contract of `ObjectStore.deleteMany`. */
export async function deleteFiles(
  root: string,
  keys: readonly string[],
  options: DeleteOptions = {},
): Promise<readonly DeleteFailure[]> {
  const { signal } = options;
  signal?.throwIfAborted();
  const failures: DeleteFailure[] = [];
  const touched = new Set<string>();
  try {
    await requireRoot(root);
  } catch (error) {
    throw fileError(`Cannot delete from directory ${root}`, undefined, error);
  }
  for (let i = 0; i < keys.length; i += UNLINKS_AT_ONCE) {
    signal?.throwIfAborted();
    await Promise.all(
      keys.slice(i, i + UNLINKS_AT_ONCE).map(async (key) => {
        try {
          const path = pathOfKey(root, key);
          await unlinkObject(path);
          touched.add(dirname(path));
        } catch (error) {
          const action = `Cannot delete ${key} in directory ${root}`;
          failures.push({ key, error: fileError(action, key, error) });
        }
      }),
    );
  }
  try {
    for (const directory of touched) await tidyUpwards(root, directory);
  } catch (error) {
    throw fileError(`Cannot delete from directory ${root}`, undefined, error);
  }
  return failures;
}

/**
 * Remove temporary files of dead writers in the directory of a key and in those beside it: a killed
 * backup leaves its archive under a backup id that nobody writes to any more.
 */
export async function removeStaleTemporaries(root: string, key: string): Promise<void> {
  const directory = dirname(pathOfKey(root, key));
  if (directory === root) {
    await removeStaleIn(root);
    return;
  }
  const above = dirname(directory);
  await removeStaleIn(above);
  for (const entry of await entriesIfThere(above)) {
    if (!entry.isDirectory()) continue;
    const beside = `${above}/${entry.name}`;
    if (await removeStaleIn(beside) > 0) await tidyUpwards(root, beside);
  }
}

/** Remove a file that may be gone already, and the directories that are empty without it. */
export async function removeFileAndEmptyDirectories(root: string, path: string): Promise<void> {
  await unlinkIfThere(path);
  await tidyUpwards(root, dirname(path));
}

/** Removing a key that is a directory is fine: there is no object of that name. */
async function unlinkObject(path: string): Promise<void> {
  try {
    await unlink(path);
  } catch (error) {
    if (hasCode(error, "ENOENT", "ENOTDIR", "EISDIR")) return;
    if (hasCode(error, "EPERM", "ENOTEMPTY") && (await stat(path)).isDirectory()) return;
    throw error;
  }
}

/**
 * Remove a directory if it is empty, and then those above it, but not the root. A writer whose new
 * directory is taken away makes it again, and one that is in use is not empty.
 */
async function tidyUpwards(root: string, directory: string): Promise<void> {
  for (let path = directory; path !== root; path = dirname(path)) {
    if (!await removeIfEmpty(path)) return await syncIfThere(path);
  }
  await syncIfThere(root);
}

/** @returns true when it is gone */
async function removeIfEmpty(path: string): Promise<boolean> {
  for (let attempt = 0;; attempt++) {
    try {
      await rmdir(path);
      return true;
    } catch (error) {
      if (hasCode(error, "ENOENT")) return true;
      // A symbolic link, a mount point or a directory that we may not remove stays.
      if (hasCode(error, "ENOTDIR", "EBUSY", "EACCES", "EPERM", "EROFS")) return false;
      if (!hasCode(error, "ENOTEMPTY", "EEXIST")) throw error;
    }
    if (attempt > 0 || await removeStaleIn(path) === 0) return false;
  }
}

async function removeStaleIn(directory: string): Promise<number> {
  let removed = 0;
  for (const entry of await entriesIfThere(directory)) {
    if (!isReservedName(entry.name)) continue;
    const path = `${directory}/${entry.name}`;
    const age = await ageOf(path);
    if (age === undefined || age < STALE_MS) continue;
    try {
      await unlinkIfThere(path);
      removed++;
    } catch (error) {
      // Another user's leftover is that user's to remove.
      if (!hasCode(error, "EACCES", "EPERM")) throw error;
    }
  }
  return removed;
}

async function entriesIfThere(directory: string): Promise<Dirent[]> {
  try {
    return await readdir(directory, { withFileTypes: true });
  } catch (error) {
    if (hasCode(error, "ENOENT", "ENOTDIR", "EACCES")) return [];
    throw error;
  }
}

async function syncIfThere(path: string): Promise<void> {
  try {
    await syncDirectory(path);
  } catch (error) {
    if (!hasCode(error, "ENOENT", "ENOTDIR", "EACCES")) throw error;
  }
}
