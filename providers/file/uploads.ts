/** Temporary files: objects being written, or left by writers that died. */
import type { Dirent } from "node:fs";
import { lstat, readdir } from "node:fs/promises";
import type { Cancellable, UnfinishedUpload } from "../object_store.ts";
import { removeFileAndEmptyDirectories } from "./delete.ts";
import { requireRoot } from "./durable.ts";
import { fileError, hasCode } from "./errors.ts";
import { isTemporaryName } from "./keys.ts";

/**
 * The contract of `ObjectStore.listUploads`. A temporary file does not tell which object it will be, so its own path
 * stands for the key. Symbolic links to directories are followed as listings of objects do, but not twice.
 */
export async function* listTemporaries(
  root: string,
  prefix: string,
  { signal }: Cancellable = {},
): AsyncGenerator<UnfinishedUpload> {
  signal?.throwIfAborted();
  try {
    await requireRoot(root);
    yield* walk(root, prefix, "", [], signal);
  } catch (error) {
    signal?.throwIfAborted();
    throw fileError(`Cannot look for temporary files in directory ${root}`, undefined, error);
  }
}

async function* walk(
  root: string,
  prefix: string,
  directory: string,
  above: readonly string[],
  signal: AbortSignal | undefined,
): AsyncGenerator<UnfinishedUpload> {
  signal?.throwIfAborted();
  const path = `${root}/${directory}`;
  const facts = await statIfThere(`${path}.`);
  const identity = `${facts?.dev}:${facts?.ino}`;
  if (facts === undefined || above.includes(identity)) return;
  for (const entry of await entriesOf(path)) {
    const key = directory + entry.name;
    if (isTemporaryName(entry.name)) {
      const stats = key.startsWith(prefix) ? await statIfThere(`${root}/${key}`) : undefined;
      if (stats?.isFile() !== true) continue;
      yield { key, id: String(stats.ino), size: stats.size, lastActivity: stats.mtime };
    } else if (entry.isDirectory() || entry.isSymbolicLink()) {
      const below = `${key}/`;
      if (!below.startsWith(prefix) && !prefix.startsWith(below)) continue;
      yield* walk(root, prefix, below, [...above, identity], signal);
    }
  }
}

async function entriesOf(path: string): Promise<Dirent[]> {
  try {
    return await readdir(path, { withFileTypes: true });
  } catch (error) {
    if (hasCode(error, "ENOENT", "ENOTDIR")) return [];
    throw error;
  }
}

async function statIfThere(path: string) {
  try {
    return await lstat(path);
  } catch (error) {
    if (hasCode(error, "ENOENT", "ENOTDIR")) return undefined;
    throw error;
  }
}

/** The contract of `ObjectStore.removeUpload`. */
export async function removeTemporary(
  root: string,
  { key }: UnfinishedUpload,
  { signal }: Cancellable = {},
): Promise<undefined> {
  signal?.throwIfAborted();
  try {
    await removeFileAndEmptyDirectories(root, `${root}/${key}`);
  } catch (error) {
    throw fileError(`Cannot remove the temporary file ${key} in directory ${root}`, key, error);
  }
}
