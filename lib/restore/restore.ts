/** Restores a base backup from its archives: plan, check, unpack several archives at once, complete, flush. */
import { crc32 } from "node:zlib";
import { backupArchives } from "../backup/archives.ts";
import type { BackupInfo } from "../backup/backup_info.ts";
import { listBackupObjects } from "../backup/catalogue.ts";
import { archiveMismatch, loadRecord, MalformedRecord } from "../backup/record.ts";
import type { Logger } from "../cli/log.ts";
import { CorruptDataError } from "../compression/corrupt_data_error.ts";
import type { ServerLayout } from "../layout.ts";
import { mapInParallel } from "../parallel.ts";
import type { ProgressListener } from "../progress.ts";
import { storedContent } from "../stored_content.ts";
import { TarError } from "../tar/reader.ts";
import { isStoreError, type ObjectStore } from "../../providers/object_store.ts";
import { completePgdata, directoryFactsLike } from "./complete.ts";
import { checkDestinations, makeDestinations, resolveDirectory } from "./destination.ts";
import { defaultRestoreJobs, threadsFor } from "./jobs.ts";
import { systemOwners } from "./owners.ts";
import {
  describePlan,
  type RestorePlan,
  restorePlan,
  type RestoreRoot,
  type TablespaceRule,
} from "./plan.ts";
import { RestoreError } from "./restore_error.ts";
import { Unpacker } from "./unpack.ts";

export interface RestoreJob {
  readonly store: ObjectStore;
  readonly layout: ServerLayout;
  readonly backupId: string;
  readonly info: BackupInfo;
  /** As given; made absolute here. */
  readonly destination: string;
  readonly tablespaceRules: readonly TablespaceRule[];
  /** Archives at once, 1 or more; `defaultRestoreJobs()` when absent. */
  readonly jobs?: number | undefined;
  readonly log: Logger;
  readonly signal: AbortSignal;
  readonly onProgress?: ProgressListener | undefined;
}

/**
 * Bring a backup back, on disk when the promise resolves. Nothing is written before all that can be checked was
 * checked; after a failure what was written stays, and the log says so.
 * @throws {RestoreError} {StoreError} the signal's reason
 */
export async function restoreBackup(job: RestoreJob): Promise<RestorePlan> {
  const { backupId, info, log } = job;
  if (info.snapshotsInfo !== null) {
    throw new RestoreError(
      "invalid",
      `Backup ${backupId} consists of disk snapshots: it has no archives to restore`,
    );
  }
  const plan = await planRestore(job);
  await checkDestinations(plan);
  for (const warning of plan.warnings) log.warning(warning);
  for (const line of describePlan(plan)) log.info(line);
  if (info.status !== "DONE") {
    log.warning(
      `Backup ${backupId} has status ${info.status}, not DONE: a server started from it may be corrupt`,
    );
  }
  await makeDestinations(plan);
  try {
    await carryOut(plan, job);
  } catch (error) {
    const directories = [plan.pgdata, ...plan.tablespaces].map(({ directory }) => directory);
    log.warning(
      `The restore is incomplete and what it wrote was left: empty ${directories.join(" and ")} ` +
        "before trying again",
    );
    throw error;
  }
  log.info(
    `Restored backup ${backupId} to ${plan.pgdata.directory}; before the server is started, tell it where ` +
      "its WAL is (restore_command) and that it is to recover (recovery.signal, before version 12 recovery.conf)",
  );
  return plan;
}

/** Where each archive goes, from what the store holds. Writes nothing. */
export async function planRestore(
  job: Pick<
    RestoreJob,
    "store" | "layout" | "backupId" | "info" | "destination" | "tablespaceRules" | "signal"
  >,
): Promise<RestorePlan> {
  const { store, layout, backupId, info, signal } = job;
  const objects = await listBackupObjects(store, layout, backupId, { signal });
  const plan = restorePlan({
    backupId,
    info,
    archives: backupArchives(layout.backup(backupId), objects, info),
    destination: job.destination,
    tablespaceRules: job.tablespaceRules,
    resolve: resolveDirectory,
  });
  const manifest = objects.find(({ key }) => key === layout.manifest(backupId))?.key;
  try {
    const record = await loadRecord(store, layout, backupId, objects, { signal });
    const sums = record?.archives.map((each) =>
      [layout.backup(backupId) + each.name, each] as const
    );
    return { ...plan, manifest, recorded: new Map(sums) };
  } catch (error) {
    if (!(error instanceof MalformedRecord)) throw error;
    const warning = `${
      layout.record(backupId)
    } is damaged (${error.message}): the checksums of archives are not compared`;
    return { ...plan, manifest, warnings: [...plan.warnings, warning] };
  }
}

async function carryOut(plan: RestorePlan, job: RestoreJob): Promise<void> {
  const owners = process.geteuid?.() === 0 ? await systemOwners() : null;
  // The first failure ends the others.
  const failing = new AbortController();
  const signal = AbortSignal.any([job.signal, failing.signal]);
  const progress = progressOf(plan, job);
  const unpackerOf = (root: RestoreRoot) =>
    new Unpacker({
      directory: root.directory,
      owners,
      excluded: root.excluded,
      warn: (message) => job.log.warning(`${root.label}: ${message}`),
    });
  const pgdata = { root: plan.pgdata as RestoreRoot, unpacker: unpackerOf(plan.pgdata) };
  const tablespaces = plan.tablespaces.map((root) => ({ root, unpacker: unpackerOf(root) }));
  const archives = [pgdata, ...tablespaces].flatMap(({ root, unpacker }) =>
    root.archives.map((archive, rank) => ({ root, unpacker, archive, rank }))
  );
  // Large ones first, so that the last minutes do not belong to one of them alone.
  archives.sort((a, b) => b.archive.object.size - a.archive.object.size);
  const jobs = job.jobs ?? defaultRestoreJobs();
  await mapInParallel(
    archives,
    jobs,
    async ({ root, unpacker, archive, rank }) => {
      const { object, compression } = archive;
      try {
        signal.throwIfAborted();
        progress.started(root.label);
        const read = { size: 0, crc32: 0 };
        const recorded = plan.recorded?.get(object.key);
        const onChunk = (chunk: Uint8Array) => {
          read.size += chunk.length;
          if (recorded !== undefined) read.crc32 = crc32(chunk, read.crc32);
        };
        const tar = storedContent(job.store, object.key, compression, {
          through: (body) => progress.counted(body, onChunk),
          threads: threadsFor(compression, jobs, object.size / plan.totalBytes),
          signal,
        });
        await unpacker.unpack(tar, { rank, signal });
        // An archive that is not compressed has no checksum of its own.
        const mismatch = recorded === undefined ? null : archiveMismatch(recorded, read);
        if (mismatch !== null) {
          throw new RestoreError(
            "archive",
            `it ${mismatch} (by ${
              job.layout.record(job.backupId)
            }; without that object, nothing is compared)`,
          );
        }
      } catch (error) {
        const named = nameArchive(error, object.key);
        failing.abort(named);
        throw named;
      }
    },
  );
  job.signal.throwIfAborted();
  progress.activity("completing directories and flushing to disk");
  await completePgdata(plan, pgdata.unpacker, job);
  if (plan.manifest !== undefined) await addManifest(plan.manifest, pgdata.unpacker, job);
  const facts = directoryFactsLike(pgdata.unpacker);
  for (const { unpacker } of tablespaces) unpacker.addDirectory("", facts);
  // Tablespaces may lie inside PGDATA: theirs first, then PGDATA's directories around them.
  for (const { unpacker } of [...tablespaces, pgdata]) await unpacker.finish(job.signal);
}

/** For `pg_verifybackup`; the server does not look at it, and a restore without it is as good. */
async function addManifest(
  key: string,
  unpacker: Unpacker,
  { store, signal, log }: RestoreJob,
): Promise<void> {
  const { mode, owner } = directoryFactsLike(unpacker);
  try {
    const { body } = await store.get(key, { signal });
    await unpacker.addFile("backup_manifest", body, { mode: mode & 0o640, owner, mtime: null });
  } catch (error) {
    signal.throwIfAborted();
    if (!isStoreError(error)) throw error;
    log.warning(`Restored without backup_manifest, which pg_verifybackup needs: ${error.message}`);
  }
}

/** Errors of formats do not know which object they are about. */
function nameArchive(error: unknown, key: string): unknown {
  if (error instanceof TarError || error instanceof CorruptDataError) {
    return new RestoreError("archive", `Cannot restore ${key}: ${error.message}`, { cause: error });
  }
  if (error instanceof RestoreError && error.kind === "archive") {
    return new RestoreError("archive", `Cannot restore ${key}: ${error.message}`, { cause: error });
  }
  if (isStoreError(error, "not-found")) {
    return new RestoreError("missing-archive", error.message, { cause: error });
  }
  return error;
}

/** Counts what arrives from the store. */
function progressOf(plan: RestorePlan, job: RestoreJob): {
  started(label: string): void;
  activity(text: string): void;
  counted(
    body: AsyncIterable<Uint8Array>,
    onChunk: (chunk: Uint8Array) => void,
  ): AsyncGenerator<Uint8Array, void, void>;
} {
  let doneBytes = 0;
  let activity = "";
  const tell = () => job.onProgress?.({ activity, doneBytes, totalBytes: plan.totalBytes });
  return {
    started: (label) => {
      activity = `restoring ${label}`;
      tell();
    },
    activity: (text) => {
      activity = text;
      tell();
    },
    counted: async function* (body, onChunk) {
      for await (const chunk of body) {
        onChunk(chunk);
        doneBytes += chunk.length;
        tell();
        yield chunk;
      }
    },
  };
}
