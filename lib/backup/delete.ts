/** Deletes backups, and the WAL that no other backup needs. */
import {
  type Cancellable,
  isStoreError,
  type ObjectLock,
  type ObjectStore,
  type StoredObject,
} from "../../providers/object_store.ts";
import type { Logger } from "../cli/log.ts";
import type { ServerLayout } from "../layout.ts";
import { mapInParallel } from "../parallel.ts";
import {
  type Catalogue,
  CATALOGUE_CONCURRENCY,
  listBackupObjects,
  loadBackups,
  resolveBackupId,
  UnreadableBackupInfo,
} from "./catalogue.ts";
import { type BackupDeletion, deletionPlan } from "./deletion_plan.ts";
import { jsonPrinter, linesPrinter } from "./deletion_print.ts";
import {
  archivesOfMark,
  type DeletionMark,
  listDeletionMarks,
  markDeletion,
} from "./deletion_mark.ts";
import { listBase, readKeep, readKeeps } from "./keep.ts";
import { type RetentionPolicy, retentionReport } from "./retention.ts";
import { whoNeedsWal } from "./wal_wanted.ts";
import type { SnapshotsInfo } from "./snapshots_info.ts";
import { deleteWal, listWalArchive, printWalDeletions, type WalArchive } from "./wal_deletion.ts";

/** The deletion can't or must not be done, or only a part of it was. */
export class DeletionFailed extends Error {
  override readonly name = "DeletionFailed";
}

export interface DeletionContext {
  readonly store: ObjectStore;
  readonly layout: ServerLayout;
  readonly log: Logger;
  readonly signal: AbortSignal;
}

export type DeletionRequest =
  | { readonly kind: "backup"; readonly argument: string }
  | { readonly kind: "policy"; readonly policy: RetentionPolicy };

export interface PlanOptions {
  /** `--minimum-redundancy`, 0 or more. */
  readonly minimumRedundancy: number;
  readonly now: Date;
}

/**
 * Look at the store and decide what goes. Nothing is changed.
 * @returns an empty plan when there is nothing to delete
 * @throws {DeletionFailed} when a backup.info is unreadable, the backup is kept, or too few would be left
 * @throws {UnknownBackup} {MalformedPolicy} {StoreError}
 */
export async function planDeletion(
  { store, layout, log, signal }: DeletionContext,
  request: DeletionRequest,
  { minimumRedundancy, now }: PlanOptions,
): Promise<BackupDeletion[]> {
  const listing = await listBase(store, layout, { signal });
  const catalogue = await completeCatalogue(store, layout, listing.ids, { signal });
  const keeps = await readKeeps(store, listing, { signal });
  const ids = new Set<string>();
  if (request.kind === "backup") {
    const id = await resolveBackupId(request.argument, () => Promise.resolve(catalogue));
    const keep = keeps.get(id);
    if (keep !== undefined) {
      throw new DeletionFailed(
        `Cannot delete backup ${id}: it is kept (${keep}); release it with barman-cloud-backup-keep --release`,
      );
    }
    const count = catalogue.backups.length;
    if (minimumRedundancy > 0 && minimumRedundancy >= count) {
      throw new DeletionFailed(
        `Cannot delete backup ${id}: the minimum redundancy is ${minimumRedundancy} and there are ${count} backups`,
      );
    }
    if (catalogue.backups.some((backup) => backup.id === id)) ids.add(id);
    else log.warning(`Backup ${id} does not exist`);
  } else {
    const { policy } = request;
    if (policy.kind === "redundancy" && policy.count < minimumRedundancy) {
      log.warning(
        `The retention redundancy ${policy.count} is below the minimum redundancy: using ${minimumRedundancy}`,
      );
    }
    const options = { policy, keeps, minimumRedundancy, now };
    // Those that somebody deletes, or was killed while deleting, may be half gone: they stand for no other backup.
    const going = await withDeletionMarks(store, listing.deletionMarks, { signal });
    const whole = catalogue.backups.filter(({ id }) => !going.has(id));
    const amongWhole = retentionReport(whole, options);
    for (const [id, status] of retentionReport(catalogue.backups, options)) {
      const verdict = going.has(id) ? status : amongWhole.get(id) ?? status;
      log.info(`Backup ${id} is ${verdict}${going.has(id) ? ", and was begun to be deleted" : ""}`);
      if (verdict === "OBSOLETE") ids.add(id);
    }
  }
  const objects = new Map<string, StoredObject[]>();
  await mapInParallel(ids, CATALOGUE_CONCURRENCY, async (id) => {
    objects.set(id, await listBackupObjects(store, layout, id, { signal }));
  });
  const stopAtStandalone = request.kind === "backup";
  return deletionPlan({
    backups: catalogue.backups,
    keeps,
    ids,
    objects,
    layout,
    stopAtStandalone,
    countsDoneOnly: request.kind === "policy",
  });
}

/** Backups with marks of deletions that were not withdrawn. */
async function withDeletionMarks(
  store: ObjectStore,
  marks: ReadonlyMap<string, readonly string[]>,
  options: Cancellable,
): Promise<ReadonlySet<string>> {
  const ids = new Set<string>();
  await mapInParallel(marks, CATALOGUE_CONCURRENCY, async ([id, keys]) => {
    for (const key of keys) {
      if (await archivesOfMark(store, key, options) !== null) ids.add(id);
    }
  });
  return ids;
}

/** Without one of them nobody can tell which WAL is still needed. */
async function completeCatalogue(
  store: ObjectStore,
  layout: ServerLayout,
  ids: ReadonlySet<string>,
  options: Cancellable,
): Promise<Catalogue> {
  let catalogue: Catalogue;
  try {
    catalogue = await loadBackups(store, layout, ids, options);
  } catch (error) {
    if (!(error instanceof UnreadableBackupInfo)) throw error;
    throw new DeletionFailed(`${error.message}; nothing was deleted`, { cause: error });
  }
  const [first, ...others] = catalogue.unreadable;
  if (first !== undefined) {
    const more = others.length === 0
      ? ""
      : ` (and that of ${others.map(({ id }) => id).join(", ")})`;
    throw new DeletionFailed(
      `Cannot read backup.info of ${first.id}: ${first.reason}${more}; nothing was deleted`,
    );
  }
  return catalogue;
}

export interface ExecutionOptions {
  /** `--minimum-redundancy`, 0 or more: looked at once more before each deletion. */
  readonly minimumRedundancy: number;
  readonly now: () => Date;
  /** `--batch-size`; null for the store's maximum. */
  readonly batchSize: number | null;
  /** `--check-object-lock` */
  readonly checkObjectLock: boolean;
  /**
   * Deletes the disk snapshots of a backup; it is repeated as a whole if it fails. Calls `onBegun` before the first one
   * may be gone.
   */
  readonly deleteSnapshots: (
    id: string,
    snapshots: SnapshotsInfo,
    onBegun: () => void,
  ) => Promise<void>;
}

/**
 * Carry out a plan, backup after backup; the first failure ends it. Failures to delete WAL are logged: the next
 * deletion catches up.
 * @throws {DeletionFailed}, and what `deleteSnapshots` throws
 * @throws {StoreError} {WalFolderFailed} when WAL folders could not be listed or emptied
 */
export async function executeDeletion(
  context: DeletionContext,
  plan: readonly BackupDeletion[],
  options: ExecutionOptions,
): Promise<void> {
  const { store, layout, log, signal } = context;
  const walArchive = archiveWhenNeeded(store, layout, { signal });
  for (const deletion of plan) {
    const { id, archives, info, label, snapshots, wal } = deletion;
    for (const warning of deletion.warnings) log.warning(warning);
    if (options.checkObjectLock) await refuseLocked(context, deletion);
    const tars = archives.filter((key) => key !== layout.manifest(id) && key !== layout.record(id));
    const mark = await markDeletion(context, id, snapshots === null ? tars.length : null);
    await requireDeletable(context, deletion, mark, options);
    let begun = false;
    try {
      if (snapshots !== null) {
        await options.deleteSnapshots(id, snapshots, () => {
          begun = true;
        });
        begun = true;
        await renew(context, deletion, mark, options);
      }
      if (label !== null) await deleteObjects(context, id, [label], options.batchSize);
      await deleteObjects(context, id, archives, options.batchSize);
      begun = true;
      await mark?.renew();
      await deleteObjects(context, id, [info], options.batchSize);
    } catch (error) {
      if (!begun) await withdrawIfWhole(context, deletion, mark);
      throw error;
    }
    await removeMarks(context, id);
    log.info(`Deleted backup ${id}`);
    if (wal.kind === "leave") log.info(`WAL is left as it is: ${wal.reason}`);
    else {
      const wanted = await whoNeedsWal(context, wal.rule, deletion.catalogue, options.now());
      if (wanted !== null) log.info(`WAL is left as it is: ${wanted}; a later deletion removes it`);
      else await deleteWal(context, await walArchive(), wal.rule, options.batchSize);
    }
  }
}

/**
 * The last look before a backup is deleted, when everybody can see that it will be: what has changed since the plan was
 * made?
 * @throws {DeletionFailed} when it is kept by now, or too few others would be left
 */
async function requireDeletable(
  { store, layout, signal }: DeletionContext,
  { id, counted }: BackupDeletion,
  mark: DeletionMark | null,
  { minimumRedundancy }: ExecutionOptions,
): Promise<void> {
  let reason: string | null = null;
  try {
    const keep = await readKeep(store, layout, id, { signal });
    if (keep !== null) reason = `it has been kept meanwhile (${keep})`;
    else if (minimumRedundancy > 0) {
      const { complete, deletionMarks } = await listBase(store, layout, { signal });
      const left = counted.filter((other) => complete.has(other) && !deletionMarks.has(other));
      if (left.length < minimumRedundancy) {
        reason =
          `the minimum redundancy is ${minimumRedundancy}, and without those that are being deleted there ` +
          `would be ${left.length} backups`;
      }
    }
  } catch (error) {
    await mark?.withdraw();
    throw error;
  }
  if (reason === null) return;
  await mark?.withdraw();
  throw new DeletionFailed(
    `Cannot delete backup ${id}: ${reason}; nothing of it was deleted, run the command again for the others`,
  );
}

/** After a long step: if the mark may have looked dead meanwhile, a keep may have been let in. */
async function renew(
  context: DeletionContext,
  deletion: BackupDeletion,
  mark: DeletionMark | null,
  options: ExecutionOptions,
): Promise<void> {
  if (await mark?.renew()) await requireDeletable(context, deletion, mark, options);
}

/** When the store refused to delete anything, the backup is as good as before. */
async function withdrawIfWhole(
  { store, layout, signal, log }: DeletionContext,
  { id, archives }: BackupDeletion,
  mark: DeletionMark | null,
): Promise<void> {
  if (mark === null || signal.aborted) return;
  try {
    const there = new Set<string>();
    for (const { key } of await listBackupObjects(store, layout, id, { signal })) there.add(key);
    if (archives.every((key) => there.has(key))) await mark.withdraw();
  } catch (error) {
    log.info(
      `Cannot see what is left of backup ${id}: ${error instanceof Error ? error.message : error}`,
    );
  }
}

/** With the backup go all marks that are about it, also those of deletions that did not finish. */
async function removeMarks(
  { store, layout, signal, log }: DeletionContext,
  id: string,
): Promise<void> {
  const marks = await listDeletionMarks(store, layout, id, { signal });
  const keys = [...marks.map(({ key }) => key), layout.runningMark(id)];
  for (const { key, error } of await store.deleteMany(keys, { signal })) {
    log.warning(`Cannot delete ${key}, which does no harm: ${error.message}`);
  }
}

/**
 * Print what `executeDeletion` would do.
 * @param format `console` in Barman's words; `json` as one line
 */
export async function printDeletion(
  { store, layout, log, signal }: DeletionContext,
  plan: readonly BackupDeletion[],
  print: (text: string) => void,
  format: "console" | "json" = "console",
): Promise<void> {
  const walArchive = archiveWhenNeeded(store, layout, { signal });
  const output = inPieces(print);
  const printer = format === "json" ? jsonPrinter(output.print) : linesPrinter(output.print);
  try {
    for (const deletion of plan) {
      const { wal, warnings } = deletion;
      for (const warning of warnings) log.warning(warning);
      printer.backup(deletion);
      if (wal.kind === "leave") log.info(`WAL is left as it is: ${wal.reason}`);
      else await printWalDeletions(store, await walArchive(), wal.rule, printer, { signal });
      printer.endOfBackup();
    }
    printer.end();
  } finally {
    output.flush();
  }
}

/** Characters of a piece of output. */
const PIECE = 64 * 1024;

/** Joins short texts: a system call for each of a million keys would take most of the time. */
function inPieces(print: (text: string) => void) {
  let waiting = "";
  const flush = () => {
    if (waiting !== "") print(waiting);
    waiting = "";
  };
  return {
    flush,
    print(text: string) {
      waiting += text;
      if (waiting.length >= PIECE) flush();
    },
  };
}

function archiveWhenNeeded(
  store: ObjectStore,
  layout: ServerLayout,
  options: Cancellable,
): () => Promise<WalArchive> {
  let archive: WalArchive | undefined;
  return async () => archive ??= await listWalArchive(store, layout, options);
}

async function deleteObjects(
  { store, signal }: DeletionContext,
  id: string,
  keys: readonly string[],
  batchSize: number | null,
): Promise<void> {
  if (keys.length === 0) return;
  const failures = await store.deleteMany(keys, { signal, batchSize: batchSize ?? undefined });
  const [first] = failures;
  if (first === undefined) return;
  const count = failures.length === 1 ? "" : ` (and ${failures.length - 1} more)`;
  throw new DeletionFailed(
    `Cannot delete ${first.key}${count} of backup ${id}: ${first.error.message}; its WAL was not touched, ` +
      "run the command again",
    { cause: first.error },
  );
}

const UNLOCKED: ObjectLock = { retainUntil: null, legalHold: false };

/** All objects are looked at before the first is deleted (Barman looks batch by batch). */
async function refuseLocked(
  { store, log, signal }: DeletionContext,
  { id, archives, info, label }: BackupDeletion,
): Promise<void> {
  const { objectLock } = store;
  if (objectLock === undefined) {
    log.warning(`--check-object-lock has no effect: ${store.description} has no object lock`);
    return;
  }
  const now = Date.now();
  await mapInParallel(
    [...(label === null ? [] : [label]), ...archives, info],
    CATALOGUE_CONCURRENCY,
    async (key) => {
      const lock = await objectLock.call(store, key, { signal }).catch((error: unknown) => {
        signal.throwIfAborted();
        // A backup that failed early has none.
        if (key === label && isStoreError(error, "not-found")) return UNLOCKED;
        const reason = error instanceof Error ? error.message : String(error);
        throw new DeletionFailed(
          `Cannot delete backup ${id}: the lock of ${key} can't be read: ${reason}`,
          { cause: error },
        );
      });
      if (lock.legalHold) {
        throw new DeletionFailed(`Cannot delete backup ${id}: ${key} is under legal hold`);
      }
      if (lock.retainUntil !== null && lock.retainUntil.getTime() > now) {
        throw new DeletionFailed(
          `Cannot delete backup ${id}: ${key} is locked until ${lock.retainUntil.toISOString()}`,
        );
      }
    },
  );
}
