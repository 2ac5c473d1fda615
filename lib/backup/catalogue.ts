/** The base backups of one server, as their backup.info objects tell. */
import {
  type Cancellable,
  isStoreError,
  type ObjectStore,
  type StoredObject,
} from "../../providers/object_store.ts";
import type { ServerLayout } from "../layout.ts";
import { mapInParallel } from "../parallel.ts";
import { type BackupInfo, MalformedBackupInfo, parseBackupInfo } from "./backup_info.ts";
import { NotText, readText } from "./small_object.ts";

export interface CatalogueEntry {
  /** The directory's name: `20260115T103000`. */
  readonly id: string;
  readonly info: BackupInfo;
}

export interface UnreadableBackup {
  readonly id: string;
  /** Why, as one line. */
  readonly reason: string;
}

export interface Catalogue {
  /** In ascending order of ids. */
  readonly backups: readonly CatalogueEntry[];
  /** Backups whose backup.info is there and can't be used, in ascending order of ids. */
  readonly unreadable: readonly UnreadableBackup[];
  /** Directories without backup.info, in ascending order: backups that are being taken, or were not finished. */
  readonly unfinished: readonly string[];
}

/** A name or shortcut that no backup answers to, or several. */
export class UnknownBackup extends Error {
  override readonly name = "UnknownBackup";
}

/** A backup.info that is there and can't be used. */
export class UnreadableBackupInfo extends Error {
  override readonly name = "UnreadableBackupInfo";
  readonly id: string;
  readonly reason: string;
  /**
   * True when that lies in the object itself (malformed, in an archive storage class) and a catalogue without it
   * tells all that can be known; false when the store refused, which may pass.
   */
  readonly permanent: boolean;
  constructor(id: string, error: Error) {
    super(`Cannot read backup.info of ${id}: ${error.message}`, { cause: error });
    this.id = id;
    this.reason = error.message;
    this.permanent = !isStoreError(error) ||
      (error.code !== undefined && ARCHIVED_CODES.includes(error.code));
  }
}

/** What S3 and Azure answer for an object in an archive storage class. */
const ARCHIVED_CODES: readonly string[] = ["InvalidObjectState", "BlobArchived"];

/** Real ones have a few KiB; thousands of tablespaces make a megabyte. */
const MAX_INFO_SIZE = 4 * 1024 * 1024;
/** All that are held at the same time: some thirty thousand backups. */
const MAX_CATALOGUE_SIZE = 128 * 1024 * 1024;

/** Requests at once. Each holds one small object. */
export const CATALOGUE_CONCURRENCY = 16;

/**
 * Read all backup.info objects. Directories without one are unfinished or half-deleted backups and are
 * left out. When the *store* fails or refuses nothing is returned: a short catalogue looks like deleted
 * backups to those who act on it.
 * @throws {StoreError} when the store did not answer, or the bucket is not there
 * @throws {UnreadableBackupInfo} when the store refused one object
 */
export async function loadCatalogue(
  store: ObjectStore,
  layout: ServerLayout,
  options: Cancellable = {},
): Promise<Catalogue> {
  const ids: string[] = [];
  for await (const entry of store.list(layout.base, { ...options, delimiter: "/" })) {
    if (entry.kind === "prefix") ids.push(entry.prefix.slice(layout.base.length, -1));
  }
  return await loadBackups(store, layout, ids, options);
}

/** Read the backup.info objects of the given ids, whatever their order; see `loadCatalogue`. */
export async function loadBackups(
  store: ObjectStore,
  layout: ServerLayout,
  ids: Iterable<string>,
  options: Cancellable = {},
): Promise<Catalogue> {
  const sorted = [...ids].sort();
  const room: Room = { left: MAX_CATALOGUE_SIZE };
  const backups: CatalogueEntry[] = [];
  const unreadable: UnreadableBackup[] = [];
  const unfinished: string[] = [];
  const results = await mapInParallel(sorted, CATALOGUE_CONCURRENCY, async (id) => {
    try {
      return await loadBackupInfo(store, layout, id, options, room);
    } catch (error) {
      if (error instanceof UnreadableBackupInfo && error.permanent) return error;
      throw error;
    }
  });
  for (const [index, result] of results.entries()) {
    const id = sorted[index] ?? "";
    if (result instanceof UnreadableBackupInfo) unreadable.push({ id, reason: result.reason });
    else if (result !== null) backups.push({ id, info: result });
    else unfinished.push(id);
  }
  return { backups, unreadable, unfinished };
}

/** What a catalogue may still take. Characters. */
interface Room {
  left: number;
}

/**
 * Read one backup.info.
 * @returns null when there is none
 * @throws {UnreadableBackupInfo} {StoreError} when the store did not answer, or the bucket is not there
 */
export async function loadBackupInfo(
  store: ObjectStore,
  layout: ServerLayout,
  id: string,
  options: Cancellable = {},
  room: Room = { left: MAX_INFO_SIZE },
): Promise<BackupInfo | null> {
  try {
    const text = await readText(store, layout.backupInfo(id), MAX_INFO_SIZE, options);
    room.left -= text.length;
    if (room.left < 0) {
      throw new NotText(
        `with it the catalogue has more than the ${MAX_CATALOGUE_SIZE} bytes that are allowed`,
      );
    }
    return parseBackupInfo(text);
  } catch (error) {
    if (isStoreError(error, "not-found")) return null;
    // The others tell about the store as a whole and name no backup.
    const aboutObject = isStoreError(error, "denied", "invalid", "other") ||
      error instanceof MalformedBackupInfo || error instanceof NotText;
    if (!aboutObject) throw error;
    throw new UnreadableBackupInfo(id, error);
  }
}

/** `YYYYMMDDTHHMMSS`: taken as an id without looking it up. */
export function isBackupId(text: string): boolean {
  return /^\d{8}T\d{6}$/.test(text);
}

/**
 * The id that a BACKUP_ID argument means: an id itself (there or not), else a shortcut (`first`/`oldest`,
 * `last`/`latest`: of all readable backups; `last-failed`), else a backup's name.
 * @param load is only called when the argument is no id
 * @throws {UnknownBackup} when nothing answers to it, or several backups have the name
 */
export async function resolveBackupId(
  argument: string,
  load: () => Promise<Catalogue>,
): Promise<string> {
  if (isBackupId(argument)) return argument;
  const { backups } = await load();
  const shortcut = shortcutOf(argument, backups);
  if (shortcut !== undefined) return shortcut.id;
  const named = backups.filter(({ info }) => info.backupName === argument);
  const [only] = named;
  if (only === undefined) {
    throw new UnknownBackup(
      `Unknown backup '${argument}': it is no backup id, no shortcut with a match and no backup's name`,
    );
  }
  if (named.length > 1) {
    const ids = named.map(({ id }) => id).join(", ");
    throw new UnknownBackup(`Several backups are named '${argument}' (${ids}): give the id`);
  }
  return only.id;
}

function shortcutOf(
  word: string,
  backups: readonly CatalogueEntry[],
): CatalogueEntry | undefined {
  switch (word) {
    case "first":
    case "oldest":
      return backups[0];
    case "last":
    case "latest":
      return backups.at(-1);
    case "last-failed":
      return backups.findLast(({ info }) => info.status === "FAILED");
  }
  return undefined;
}

/** Objects directly below a backup's directory, in listing order. */
export async function listBackupObjects(
  store: ObjectStore,
  layout: ServerLayout,
  id: string,
  options: Cancellable = {},
): Promise<StoredObject[]> {
  const objects: StoredObject[] = [];
  for await (const entry of store.list(layout.backup(id), { ...options, delimiter: "/" })) {
    if (entry.kind === "object") objects.push(entry);
  }
  return objects;
}
