/** Keep annotations: small objects beside a backup that protect it from deletion. */
import { setTimeout as timer } from "node:timers/promises";
import {
  type Cancellable,
  isStoreError,
  type ListEntry,
  type ObjectStore,
  type StoredObject,
} from "../../providers/object_store.ts";
import type { ServerLayout } from "../layout.ts";
import { mapInParallel } from "../parallel.ts";
import { allArchives, backupArchives } from "./archives.ts";
import { CATALOGUE_CONCURRENCY, type CatalogueEntry, listBackupObjects } from "./catalogue.ts";
import {
  archivesOfMark,
  DELETION_MARK_LIFETIME_MS,
  isDeletionMark,
  listDeletionMarks,
} from "./deletion_mark.ts";
import { NotText, readText } from "./small_object.ts";

/** `full`: with all WAL from it to the present. `standalone`: with the WAL between its begin and end. */
export type KeepTarget = "full" | "standalone";

const KEEP = "keep";
/** Between two looks at a deletion that is at work, milliseconds. */
const POLL_MS = 500;
/** Anything longer was not written by us or Barman, but still protects. */
const MAX_SIZE = 64 * 1024;

/**
 * What the annotation of a backup holds: its first line without blanks around it. An empty one protects too and
 * counts as `full` (Barman lets a policy delete such a backup). Both spellings of the key are looked at.
 * @returns null when there is none
 */
export async function readKeep(
  store: ObjectStore,
  layout: ServerLayout,
  id: string,
  options: Cancellable = {},
): Promise<string | null> {
  for (const key of layout.annotationSpellings(id, KEEP)) {
    const value = await readAnnotation(store, key, options);
    if (value !== null) return value;
  }
  return null;
}

/** The backup can't be kept: it is being deleted, or partly deleted. */
export class KeepRefused extends Error {
  override readonly name = "KeepRefused";
}

export interface KeepOptions extends Cancellable {
  /** How long to wait for a deletion that is at work, milliseconds; a minute when absent. */
  readonly patienceMs?: number | undefined;
}

/**
 * Keep a backup, for certain: when this resolves no deletion has begun or will begin while the annotation is there (see
 * deletion_mark.ts).
 * @param info of the backup, which is there and DONE
 * @throws {KeepRefused} {StoreError}
 */
export async function keepBackup(
  store: ObjectStore,
  layout: ServerLayout,
  { id, info }: CatalogueEntry,
  target: KeepTarget,
  options: KeepOptions = {},
): Promise<void> {
  const { signal, patienceMs = 60_000 } = options;
  await writeKeep(store, layout, id, target, options);
  const end = performance.now() + patienceMs;
  // A deletion that is at work either sees the annotation and gives up, or has looked before and finishes.
  for (let mark = await deletionOf(store, layout, { id, info }, options); mark !== null;) {
    if (performance.now() > end) {
      throw new KeepRefused(
        `Cannot tell whether backup ${id} is kept: it is being deleted (${mark}), which has not ended yet; look again ` +
          "with --status, and whether the backup is there",
      );
    }
    await sleep(Math.min(POLL_MS, patienceMs), signal);
    mark = await deletionOf(store, layout, { id, info }, options);
  }
  // After the marks: a deletion takes its mark away when backup.info is gone.
  if (await exists(store, layout.backupInfo(id), options)) return;
  await releaseKeep(store, layout, id, options);
  throw new KeepRefused(`Cannot keep backup ${id}: it has just been deleted`);
}

/**
 * The mark of a deletion that is at work. What dead ones left is removed.
 * @throws {KeepRefused} when the backup is half deleted
 */
async function deletionOf(
  store: ObjectStore,
  layout: ServerLayout,
  { id, info }: CatalogueEntry,
  options: Cancellable,
): Promise<string | null> {
  const marks = await listDeletionMarks(store, layout, id, options);
  if (marks.length === 0) return null;
  const dead: string[] = [];
  for (const { key, age } of await agesOf(store, layout, id, marks, options)) {
    const archives = await archivesOfMark(store, key, options);
    if (archives !== null) {
      if (age < DELETION_MARK_LIFETIME_MS) return key;
      const objects = await listBackupObjects(store, layout, id, options);
      if (allArchives(backupArchives(layout.backup(id), objects, info)).length < archives) {
        // Or it could not be deleted any more.
        await releaseKeep(store, layout, id, options);
        throw new KeepRefused(
          `Cannot keep backup ${id}: a part of it was deleted by a process that did not finish; ` +
            `barman-cloud-backup-delete --backup-id ${id} finishes it (if you know that all of it is there, delete ${key})`,
        );
      }
    }
    dead.push(key);
  }
  // Where they may not be deleted they do no harm.
  await store.deleteMany(dead, options);
  return null;
}

/** Milliseconds by the store's clock: that of the annotation, which has just been written. */
async function agesOf(
  store: ObjectStore,
  layout: ServerLayout,
  id: string,
  marks: readonly StoredObject[],
  options: Cancellable,
): Promise<{ readonly key: string; readonly age: number }[]> {
  const [annotation = ""] = layout.annotationSpellings(id, KEEP);
  const { lastModified: now = new Date() } = await store.head(annotation, options);
  return marks.map(({ key, lastModified = now }) => ({
    key,
    age: now.getTime() - lastModified.getTime(),
  }));
}

async function sleep(ms: number, signal: AbortSignal | undefined): Promise<void> {
  try {
    await timer(ms, undefined, signal === undefined ? {} : { signal });
  } catch (error) {
    signal?.throwIfAborted();
    throw error;
  }
}

/**
 * Write the annotation where Barman reads it for the same URL. If it also exists under the other spelling that gets
 * the same value, so that nobody reads a stale one.
 */
export async function writeKeep(
  store: ObjectStore,
  layout: ServerLayout,
  id: string,
  target: KeepTarget,
  options: Cancellable = {},
): Promise<void> {
  const body = new TextEncoder().encode(target);
  const [own, ...others] = layout.annotationSpellings(id, KEEP);
  if (own !== undefined) await store.put(own, body, options);
  for (const key of others) {
    if (await exists(store, key, options)) await store.put(key, body, options);
  }
}

/** Remove the annotation under every spelling. One that is not there is fine. */
export async function releaseKeep(
  store: ObjectStore,
  layout: ServerLayout,
  id: string,
  options: Cancellable = {},
): Promise<void> {
  const [own = "", ...others] = layout.annotationSpellings(id, KEEP);
  const keys = [own];
  // MinIO takes both for one object, and waits for itself when it is to delete both at once.
  for (const key of others) if (await exists(store, key, options)) keys.push(key);
  const [failure] = await store.deleteMany(keys, options);
  if (failure !== undefined) throw failure.error;
}

/** What a listing of everything below `base/` tells. */
export interface BaseListing {
  /** Names of the directories that hold anything. */
  readonly ids: ReadonlySet<string>;
  /** Those of them that have a backup.info. */
  readonly complete: ReadonlySet<string>;
  /** Annotations that exist: backup id to keys, ours first. */
  readonly keepKeys: ReadonlyMap<string, readonly string[]>;
  /** Marks of deletions (see deletion_mark.ts): backup id to keys. */
  readonly deletionMarks: ReadonlyMap<string, readonly string[]>;
}

/**
 * List backups and keep annotations with as few requests as there are pages of keys: a backup has a handful of
 * objects, so this is far cheaper than asking for each annotation. Memory grows with backups, not with objects.
 */
export async function listBase(
  store: ObjectStore,
  layout: ServerLayout,
  options: Cancellable = {},
): Promise<BaseListing> {
  const ids = new Set<string>();
  const complete = new Set<string>();
  const keepKeys = new Map<string, string[]>();
  const deletionMarks = new Map<string, string[]>();
  const addTo = (map: Map<string, string[]>, id: string, key: string) => {
    map.set(id, [...map.get(id) ?? [], key]);
  };
  const tail = `ID/annotations/${KEEP}`;
  for (const spelling of layout.annotationSpellings("ID", KEEP)) {
    const base = spelling.slice(0, -tail.length);
    const isOwnBase = base === layout.base;
    const list = isOwnBase ? store.list(base, options) : listWhereTaken(store, base, options);
    for await (const entry of list) {
      if (entry.kind !== "object") continue;
      const [id = "", kind, name, ...rest] = entry.key.slice(base.length).split("/");
      // An object directly below base/ is no backup.
      if (kind === undefined) continue;
      if (isOwnBase) {
        ids.add(id);
        if (entry.key === layout.backupInfo(id)) complete.add(id);
        if (isDeletionMark(layout, id, entry.key)) addTo(deletionMarks, id, entry.key);
      }
      if (kind !== "annotations" || name !== KEEP || rest.length > 0) continue;
      addTo(keepKeys, id, entry.key);
    }
  }
  return { ids, complete, keepKeys, deletionMarks };
}

/** Nothing where the store takes no such keys. */
async function* listWhereTaken(
  store: ObjectStore,
  prefix: string,
  options: Cancellable,
): AsyncGenerator<ListEntry> {
  try {
    yield* store.list(prefix, options);
  } catch (error) {
    if (!isNoKey(error, prefix)) throw error;
  }
}

/** MinIO refuses keys with an empty component, as Barman's spelling has one: then it has no object under them. */
function isNoKey(error: unknown, key: string): boolean {
  return isStoreError(error, "invalid") && key.includes("//");
}

/** The values of the annotations that a listing found: backup id to value. */
export async function readKeeps(
  store: ObjectStore,
  { keepKeys }: BaseListing,
  options: Cancellable = {},
): Promise<Map<string, string>> {
  const keeps = new Map<string, string>();
  await mapInParallel(keepKeys, CATALOGUE_CONCURRENCY, async ([id, keys]) => {
    for (const key of keys) {
      const value = await readAnnotation(store, key, options);
      if (value === null) continue;
      keeps.set(id, value);
      return;
    }
  });
  return keeps;
}

async function readAnnotation(
  store: ObjectStore,
  key: string,
  options: Cancellable,
): Promise<string | null> {
  try {
    const [line = ""] = (await readText(store, key, MAX_SIZE, options)).split("\n", 1);
    return line.trim() || "full";
  } catch (error) {
    if (isStoreError(error, "not-found") || isNoKey(error, key)) return null;
    // It is there, and what it says nobody knows: the stronger of the two.
    if (error instanceof NotText) return "full";
    throw error;
  }
}

async function exists(store: ObjectStore, key: string, options: Cancellable): Promise<boolean> {
  try {
    await store.head(key, options);
    return true;
  } catch (error) {
    if (isStoreError(error, "not-found") || isNoKey(error, key)) return false;
    throw error;
  }
}
