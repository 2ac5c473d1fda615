/** Files that appear whole or not at all and are still there after a power cut. */
import { type FileHandle, link, lstat, mkdir, open, rename, stat, unlink } from "node:fs/promises";
import { setTimeout as sleep } from "node:timers/promises";
import { createHash } from "node:crypto";
import { basename, dirname, join } from "node:path";
import { StoreError } from "../object_store.ts";
import { hasCode } from "./errors.ts";
import { temporaryName } from "./keys.ts";

/** Backups hold everything that the database holds: nothing for others than owner and group. */
const FILE_MODE = 0o640;
const DIRECTORY_MODE = 0o750;
/** A directory older than this was written to disk by the kernel's own flushing. */
const YOUNG_DIRECTORY_MS = 60_000;
/** Concurrent deleters may remove a new directory before it is used; each time it is made again. */
const MAX_DIRECTORY_RACES = 1000;
/** A lock is held for a few file calls; an older one was left by a process that died. */
const STALE_LOCK_MS = 60_000;
const LOCK_POLL_MS = 20;

export interface TemporaryFile {
  readonly path: string;
  readonly handle: FileHandle;
}

/**
 * Open a new temporary file next to where the object will be, making the directories between.
 * @throws {StoreError} kind `no-bucket` when the root is missing: it is never made here, or a backup
 *   would fill the disk below an unmounted mount point.
 */
export async function openTemporary(root: string, target: string): Promise<TemporaryFile> {
  const directory = dirname(target);
  for (let races = 0;; races++) {
    const path = join(directory, temporaryName());
    try {
      return { path, handle: await open(path, "wx+", FILE_MODE) };
    } catch (error) {
      if (!hasCode(error, "ENOENT") || races >= MAX_DIRECTORY_RACES) throw error;
      await makeDirectories(root, directory);
    }
  }
}

/**
 * Give a complete temporary file its name, durably. The handle is closed whatever happens; after a
 * failure the temporary file is still there.
 * @param createOnly fail with `EEXIST` if the name is taken; of several writers exactly one wins.
 */
export async function commit(
  root: string,
  file: TemporaryFile,
  target: string,
  createOnly: boolean,
): Promise<void> {
  try {
    await file.handle.sync();
  } finally {
    await file.handle.close();
  }
  await publish(root, file.path, target, createOnly);
}

/** The second half of `commit`, for a file whose content is on disk. */
export async function publish(
  root: string,
  path: string,
  target: string,
  createOnly: boolean,
): Promise<void> {
  if (createOnly) await renameExclusively(path, target);
  else await rename(path, target);
  await syncDirectories(root, dirname(target));
}

/** Remove a file that may be gone already. */
export async function unlinkIfThere(path: string): Promise<void> {
  try {
    await unlink(path);
  } catch (error) {
    if (!hasCode(error, "ENOENT")) throw error;
  }
}

/** Write a directory's entries to disk. */
export async function syncDirectory(path: string): Promise<void> {
  const handle = await open(path, "r");
  try {
    await handle.sync();
  } catch (error) {
    // Some network file systems refuse it for directories; they have no other way to ask.
    if (!hasCode(error, "EINVAL", "ENOTSUP", "EOPNOTSUPP")) throw error;
  } finally {
    await handle.close();
  }
}

/**
 * Make the root directory and its parents.
 */
export async function makeRoot(root: string): Promise<void> {
  const first = await mkdir(root, { recursive: true, mode: DIRECTORY_MODE });
  if (first === undefined) return;
  const above = dirname(first);
  for (let path = root; path !== above; path = dirname(path)) {
    await syncDirectory(path);
  }
  await syncDirectory(above);
}

/**
 * The rename that refuses to replace. Hard links do it atomically; where the file system has none
 * (FAT, some network and FUSE file systems) a lock file keeps our own writers apart.
 * @param linkFile for tests
 */
export async function renameExclusively(
  from: string,
  to: string,
  linkFile: (from: string, to: string) => Promise<void> = link,
): Promise<void> {
  try {
    await linkFile(from, to);
  } catch (error) {
    if (!hasCode(error, "EPERM", "ENOTSUP", "EOPNOTSUPP", "ENOSYS", "EMLINK", "EINVAL")) {
      throw error;
    }
    return await renameUnderLock(from, to);
  }
  await unlinkIfThere(from);
}

async function renameUnderLock(from: string, to: string): Promise<void> {
  const name = createHash("sha256").update(basename(to)).digest("hex").slice(0, 32);
  const lock = join(dirname(to), `.barman-cloud.${name}.lock`);
  await takeLock(lock);
  try {
    if (await isThere(to)) {
      throw Object.assign(new Error(`${to} is there already`), { code: "EEXIST" });
    }
    await rename(from, to);
  } finally {
    await unlinkIfThere(lock);
  }
}

async function takeLock(lock: string): Promise<void> {
  const deadline = Date.now() + 2 * STALE_LOCK_MS;
  for (;;) {
    try {
      return await (await open(lock, "wx", FILE_MODE)).close();
    } catch (error) {
      if (!hasCode(error, "EEXIST")) throw error;
    }
    const age = await ageOf(lock);
    if (age !== undefined && age > STALE_LOCK_MS) await unlinkIfThere(lock);
    if (Date.now() > deadline) {
      throw new StoreError("unavailable", `Cannot take the lock ${lock}: another writer holds it`);
    }
    await sleep(LOCK_POLL_MS);
  }
}

/** Milliseconds since a file was last written to; undefined when there is none. */
export async function ageOf(path: string): Promise<number | undefined> {
  try {
    return Date.now() - (await lstat(path)).mtimeMs;
  } catch (error) {
    if (hasCode(error, "ENOENT")) return undefined;
    throw error;
  }
}

async function isThere(path: string): Promise<boolean> {
  return await ageOf(path) !== undefined;
}

async function makeDirectories(root: string, directory: string): Promise<void> {
  for (const path of directoriesBetween(root, directory).slice(1)) {
    try {
      await mkdir(path, DIRECTORY_MODE);
    } catch (error) {
      // A concurrent deleter took the parent away: the caller begins again.
      if (hasCode(error, "ENOENT")) return await requireRoot(root);
      if (!hasCode(error, "EEXIST")) throw error;
    }
  }
  await requireRoot(root);
}

/** @throws {StoreError} kind `no-bucket` when the root directory is missing. */
export async function requireRoot(root: string): Promise<void> {
  try {
    if ((await stat(root)).isDirectory()) return;
  } catch (error) {
    if (hasCode(error, "ENOENT")) throw missingRoot(root);
    throw error;
  }
  throw new StoreError("invalid", `Cannot use ${root} as a local store: it is not a directory`);
}

export function missingRoot(root: string): StoreError {
  return new StoreError(
    "no-bucket",
    `Directory ${root} does not exist: mount it, or create it with mkdir or ` +
      "barman-cloud-check-wal-archive",
    { code: "ENOENT" },
  );
}

/**
 * Sync the directory of a new file, and upwards while directories are so young that their own entry
 * may not be on disk. It makes no difference who made them: another writer may have died in between.
 */
async function syncDirectories(root: string, directory: string): Promise<void> {
  for (const path of directoriesBetween(root, directory).reverse()) {
    try {
      await syncDirectory(path);
      if (path === root) return;
      const { birthtimeMs } = await stat(path);
      if (birthtimeMs > 0 && Date.now() - birthtimeMs > YOUNG_DIRECTORY_MS) return;
    } catch (error) {
      // Somebody has already deleted the new object, and the directory with it.
      if (!hasCode(error, "ENOENT") || path === root) throw error;
    }
  }
}

/** The root, and each directory below it down to the given one. */
function directoriesBetween(root: string, directory: string): string[] {
  const paths = [root];
  let path = root;
  for (const name of directory.slice(root.length).split("/")) {
    if (name === "") continue;
    path = `${path}/${name}`;
    paths.push(path);
  }
  return paths;
}
