/** Keep annotations: small objects beside a backup that protect it from deletion. */
import { type Cancellable, isStoreError, type ObjectStore } from "../../providers/object_store.ts";
import type { ServerLayout } from "../layout.ts";
import { mapInParallel } from "../parallel.ts";
import { CATALOGUE_CONCURRENCY } from "./catalogue.ts";
import { NotText, readText } from "./small_object.ts";

/** `full`: with all WAL from it to the present. `standalone`: with the WAL between its begin and end. */
export type KeepTarget = "full" | "standalone";

const KEEP = "keep";
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
  const failures = await store.deleteMany(layout.annotationSpellings(id, KEEP), options);
  const [failure] = failures;
  if (failure !== undefined) throw failure.error;
}

/** What a listing of everything below `base/` tells. */
export interface BaseListing {
  /** Names of the directories that hold anything. */
  readonly ids: ReadonlySet<string>;
  /** Annotations that exist: backup id to keys, ours first. */
  readonly keepKeys: ReadonlyMap<string, readonly string[]>;
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
  const keepKeys = new Map<string, string[]>();
  const tail = `ID/annotations/${KEEP}`;
  for (const spelling of layout.annotationSpellings("ID", KEEP)) {
    const base = spelling.slice(0, -tail.length);
    const isOwnBase = base === layout.base;
    for await (const entry of store.list(base, options)) {
      if (entry.kind !== "object") continue;
      const [id = "", kind, name, ...rest] = entry.key.slice(base.length).split("/");
      // An object directly below base/ is no backup.
      if (kind === undefined) continue;
      if (isOwnBase) ids.add(id);
      if (kind !== "annotations" || name !== KEEP || rest.length > 0) continue;
      const keys = keepKeys.get(id);
      if (keys === undefined) keepKeys.set(id, [entry.key]);
      else keys.push(entry.key);
    }
  }
  return { ids, keepKeys };
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
    if (isStoreError(error, "not-found")) return null;
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
    if (isStoreError(error, "not-found")) return false;
    throw error;
  }
}
