/**
 * A backup made of disk snapshots: the server is told that a backup begins, the cloud takes the snapshots, the
 * server is told that it ends. The store holds `backup.info` and `backup_label` only.
 */
import {
  type AttachedDisk,
  type Identifiers,
  SnapshotError,
  type SnapshotProgress,
  type SnapshotProvider,
} from "../../providers/snapshots/provider.ts";
import type { BackupServer } from "../backup/backup.ts";
import { BackupError, reasonOf } from "../backup/backup_error.ts";
import { beginBackup, type CommonBackupOptions, failed } from "../backup/begin.ts";
import type { BackupInfo } from "../backup/backup_info.ts";
import type { PyValue } from "../backup/python_literal.ts";
import type { SnapshotRecord, SnapshotsInfo } from "../backup/snapshots_info.ts";
import {
  afterStop,
  learnFacts,
  lsnText,
  requireVersion,
  seconds,
  started,
  stopped,
} from "../backup/steps.ts";
import { awaitWalOfBackup, judgeMissingWal, neededWal } from "../backup/wal_of_backup.ts";
import { type Host, HostError } from "./host.ts";
import { notCovered, type PlannedDisk, planSnapshots, snapshotNames } from "./plan.ts";
import { type Left, removeSnapshots } from "./remove.ts";

export interface SnapshotBackupOptions extends CommonBackupOptions {
  readonly provider: SnapshotProvider;
  readonly host: Host;
  readonly instance: string;
  /** As the user named them. */
  readonly disks: readonly string[];
  /** Milliseconds that the snapshots may take, and the option that says so. */
  readonly limit: { readonly ms: number; readonly option: string };
}

/** After a failure the cloud has so long to delete the snapshots, in milliseconds. */
const REMOVAL_MS = 60_000;

/**
 * Take a backup. All that can be checked is checked before PostgreSQL hears of it. From the moment there is an id,
 * every failure (the signal too) leaves a `backup.info` with status FAILED; snapshots that were made by then are
 * deleted, and those that can't be deleted are recorded in it, so that deleting the backup deletes them.
 * @returns the id
 * @throws {BackupError} kind `refused` for what can't be backed up this way
 * @throws {StoreError} before the backup has an id
 */
export async function takeSnapshotBackup(
  server: BackupServer,
  options: SnapshotBackupOptions,
): Promise<string> {
  const { provider, host, signal, onWarning } = options;
  requireVersion(server);
  const preview = await planSnapshots(provider, host, options, signal).catch((error) => {
    if (!(error instanceof SnapshotError) && !(error instanceof HostError)) throw error;
    throw new BackupError("refused", error.message, { cause: error });
  });
  for (const disk of preview.disks) describeDisk(disk, options);
  const backup = await beginBackup(server, options.layout.server, options);
  const { id, learn } = backup;
  const taken = new Taken(provider);
  let action: Parameters<typeof failed>[0] = "uploading data";
  try {
    await backUp(id, server, options, taken, learn);
    learn({ status: "DONE" });
    action = "uploading backup.info file";
    await backup.storeInfo(signal);
    return id;
  } catch (error) {
    const reason = reasonOf(error);
    // Recorded first: whatever happens to us from here on, deleting the backup finds the snapshots.
    learn({ ...failed(action, reason, options), snapshotsInfo: taken.info() });
    const recorded = await backup.storeLastWords();
    if (!taken.isEmpty()) {
      if (!recorded && action !== "uploading data") {
        // Perhaps the store has a backup.info that says DONE, whose snapshots these are.
        onWarning(`The snapshots of backup ${id} were left: ${taken.names().join(", ")}`);
      } else {
        const left = await removeSnapshots(provider, taken.all(), AbortSignal.timeout(REMOVAL_MS));
        describeRemoval(id, taken, left, recorded, options);
        learn({ snapshotsInfo: left.length === 0 ? null : taken.info(left) });
        if (recorded) await backup.storeLastWords();
      }
    }
    throw new BackupError("failed", `Backup ${id} failed: ${reason}`, { cause: error });
  } finally {
    await backup.end();
  }
}

/** Everything between the id and the last upload. */
async function backUp(
  id: string,
  server: BackupServer,
  options: SnapshotBackupOptions,
  taken: Taken,
  learn: (known: Partial<BackupInfo>) => void,
): Promise<void> {
  const { store, layout, provider, host, signal, onNotice, onWarning, onProgress } = options;
  signal.throwIfAborted();
  const { facts, tablespaces } = await learnFacts(server, signal, learn);
  const progress = (activity: string, doneBytes = 0, totalBytes: number | null = null) =>
    onProgress({ activity, doneBytes, totalBytes });
  progress("waiting for the checkpoint");
  const began = performance.now();
  const description = `Barman backup ${layout.server} ${id}`;
  const start = await server.start(description, options.immediateCheckpoint, signal);
  learn(started(start, facts.segmentSize));
  onNotice(`Backup ${id} started at ${lsnText(start.lsn)} on timeline ${start.timeline}`);

  // Once more: between the first look and now a checkpoint may have taken long.
  const { instance, disks } = await planSnapshots(provider, host, options, signal);
  const directories = [facts.dataDirectory, ...tablespaces.map(({ location }) => location)];
  await warnOfUncovered(disks, directories.filter((path) => path !== null), options);
  const names = snapshotNames(
    disks.map(({ argument }) => argument),
    id,
    provider.maxNameLength,
  );
  const sizes = new Map(disks.map(({ disk }, i) => [names[i] ?? "", disk.size]));
  const tell = progressTeller(sizes, onNotice, progress);
  progress(disks.length === 1 ? "taking a snapshot" : "taking snapshots");
  await instance.takeSnapshots(
    disks.map(({ disk }, i) => ({ disk, name: names[i] ?? "" })),
    {
      tags: options.tags,
      description,
      limit: options.limit,
      signal,
      onCreated: (disk, identifiers) => taken.add(disk, identifiers, disks),
      onProgress: tell,
      onNotice,
      onWarning,
    },
  );
  signal.throwIfAborted();
  learn({ snapshotsInfo: taken.info() });
  onNotice(`Snapshots are complete: ${names.join(", ")}`);

  progress("waiting for the last WAL to be archived");
  const stop = await server.stop({ signal, archiveTimeout: options.archiveTimeout });
  learn(stopped(stop, facts.segmentSize));
  onNotice(`Backup ${id} stopped at ${lsnText(stop.lsn)} on timeline ${stop.timeline}`);
  await afterStop(server, id, signal, onWarning);
  await store.put(layout.backupLabel(id), new TextEncoder().encode(stop.label), {
    tags: options.tags,
    signal,
  });
  const wal = neededWal(server, facts, start, stop);
  judgeMissingWal(await awaitWalOfBackup(wal, options), wal, options);
  const time = seconds((performance.now() - began) / 1000);
  learn({ copyStats: new Map<PyValue, PyValue>([["copy_time", time], ["total_time", time]]) });
}

interface TakenSnapshot extends SnapshotRecord {
  readonly identifiers: Identifiers;
  /** Place among the disks. */
  readonly rank: number;
}

/** The snapshots that there are, or may be, in the order of the disks. */
class Taken {
  readonly #provider: SnapshotProvider;
  readonly #records = new Map<string, TakenSnapshot>();

  constructor(provider: SnapshotProvider) {
    this.#provider = provider;
  }

  add(disk: AttachedDisk, identifiers: Identifiers, disks: readonly PlannedDisk[]): void {
    const rank = disks.findIndex((planned) => planned.disk.id === disk.id);
    const mount = disks[rank]?.mount;
    this.#records.set(disk.id, {
      rank,
      mountPoint: mount?.mountPoint ?? null,
      mountOptions: mount?.options ?? null,
      identifiers,
    });
  }

  isEmpty(): boolean {
    return this.#records.size === 0;
  }

  all(): Identifiers[] {
    return this.#sorted().map(({ identifiers }) => identifiers);
  }

  names(): string[] {
    return this.all().map((identifiers) => this.#provider.snapshotId(identifiers) ?? "");
  }

  /** @returns null when there are none */
  info(only?: readonly Left[]): SnapshotsInfo | null {
    const records = this.#sorted().filter(({ identifiers }) =>
      only === undefined || only.some(({ snapshot }) => snapshot === identifiers)
    );
    if (records.length === 0) return null;
    return {
      provider: this.#provider.cloud,
      providerInfo: this.#provider.info(),
      snapshots: records.map(({ mountPoint, mountOptions, identifiers }) => ({
        mountPoint,
        mountOptions,
        identifiers,
      })),
    };
  }

  #sorted() {
    return [...this.#records.values()].sort((a, b) => a.rank - b.rank);
  }
}

function describeDisk(
  { argument, disk, mount, mounts }: PlannedDisk,
  { onNotice }: SnapshotBackupOptions,
): void {
  const others = mounts.filter((other) => other !== mount).map(({ mountPoint }) => mountPoint);
  onNotice(
    `Disk ${argument}${
      disk.id === argument ? "" : ` (${disk.id})`
    } is ${mount.device}, mounted on ` +
      `${mount.mountPoint} (${mount.options})` +
      (others.length === 0 ? "" : `, which is recorded; also mounted on ${others.join(", ")}`),
  );
}

async function warnOfUncovered(
  disks: readonly PlannedDisk[],
  directories: readonly string[],
  { host, signal, onWarning }: SnapshotBackupOptions,
): Promise<void> {
  let found;
  try {
    found = await notCovered(host, disks, directories, signal);
  } catch (error) {
    signal.throwIfAborted();
    onWarning(`Cannot tell whether the disks hold all data: ${reasonOf(error)}`);
    return;
  }
  for (const { directory, mountPoint } of found) {
    onWarning(
      `${directory} lies on ${mountPoint}, which is on none of the disks of the backup: without its ` +
        "content the backup can't be restored (--snapshot-disk)",
    );
  }
}

/** An INFO line whenever a percentage has changed, and the display of progress. */
function progressTeller(
  sizes: ReadonlyMap<string, number | null>,
  onNotice: (message: string) => void,
  progress: (activity: string, doneBytes?: number, totalBytes?: number | null) => void,
): (snapshots: readonly SnapshotProgress[]) => void {
  let told = "";
  const total = [...sizes.values()].reduce<number>((sum, size) => sum + (size ?? 0), 0);
  return (snapshots) => {
    const text = snapshots.map(({ name, percent }) =>
      `${name} ${percent === null ? "under way" : `${percent}%`}`
    ).join(", ");
    if (text !== told) onNotice(`Snapshots: ${text}`);
    told = text;
    const done = snapshots.reduce(
      (sum, { name, percent }) => sum + (sizes.get(name) ?? 0) * (percent ?? 0) / 100,
      0,
    );
    progress("waiting for the snapshots", Math.round(done), total > 0 ? total : null);
  };
}

function describeRemoval(
  id: string,
  taken: Taken,
  left: readonly Left[],
  recorded: boolean,
  { onNotice, onWarning }: SnapshotBackupOptions,
): void {
  if (left.length === 0) {
    return onNotice(`Deleted the snapshots of the failed backup: ${taken.names().join(", ")}`);
  }
  const how = recorded
    ? `backup.info names them: delete backup ${id} to delete them`
    : "backup.info could not be stored: delete them yourself";
  const list = left.map(({ name, reason }) => `${name} (${reason})`).join(", ");
  onWarning(`Snapshots of the failed backup could not be deleted: ${list}; ${how}`);
}
