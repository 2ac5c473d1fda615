/**
 * Restore of a backup made of disk snapshots. Its data comes back as disks that are made from the snapshots; what is
 * left to do is to see that they are the right ones in the right places, and to add `backup_label`.
 */
import { createHash } from "node:crypto";
import { chown, open, rename, rm, stat } from "node:fs/promises";
import { join, resolve } from "node:path";
import process from "node:process";
import { isStoreError, type ObjectStore } from "../../providers/object_store.ts";
import type {
  AttachedDisk,
  Identifiers,
  SnapshotProvider,
} from "../../providers/snapshots/provider.ts";
import { sleep } from "../../providers/snapshots/waiting.ts";
import { readText } from "../backup/small_object.ts";
import type { SnapshotRecord, SnapshotsInfo } from "../backup/snapshots_info.ts";
import type { Logger } from "../cli/log.ts";
import { withoutControls } from "../cli/printable.ts";
import type { ServerLayout } from "../layout.ts";
import { fileSystemError, RestoreError } from "../restore/restore_error.ts";
import { deviceOf, type Host, isPresent, type Mount, mountableOf, mountsOf } from "./host.ts";
import { identifiersOf } from "./remove.ts";

export interface SnapshotRestoreJob {
  readonly store: ObjectStore;
  readonly layout: ServerLayout;
  readonly backupId: string;
  readonly snapshots: SnapshotsInfo;
  readonly provider: SnapshotProvider;
  readonly host: Host;
  /** `--snapshot-recovery-instance` */
  readonly instance: string;
  /** Of the data directory on the disks; as given. */
  readonly recoveryDir: string;
  readonly log: Logger;
  readonly signal: AbortSignal;
}

/** A label is a few hundred bytes. */
const MAX_LABEL = 1024 * 1024;

/**
 * Check the disks and write `backup_label` into the recovery directory.
 * @throws {RestoreError} kind `invalid`: disks are missing, or not mounted as they were; kind `destination`
 * @throws {SnapshotError} {HostError} {StoreError} the signal's reason
 */
export async function restoreFromSnapshots(job: SnapshotRestoreJob): Promise<void> {
  const { store, layout, backupId, log, signal } = job;
  await checkMounts(job, await disksOfBackup(job));
  const directory = resolve(job.recoveryDir);
  const found = await stat(directory).catch((error: unknown) => {
    throw new RestoreError(
      "invalid",
      fileSystemError(`Cannot use ${directory} as the recovery directory`, error).message,
      { cause: error },
    );
  });
  if (!found.isDirectory()) throw new RestoreError("invalid", `${directory} is not a directory`);
  let label: string;
  try {
    label = await readText(store, layout.backupLabel(backupId), MAX_LABEL, { signal });
  } catch (error) {
    if (!isStoreError(error, "not-found")) throw error;
    throw new RestoreError("invalid", `${error.message}: the backup is not whole`, {
      cause: error,
    });
  }
  await writeLabel(join(directory, "backup_label"), label, found);
  log.info(
    `The disks of backup ${backupId} are in place and ${directory} has its backup_label; before the server is ` +
      "started, tell it where its WAL is (restore_command) and that it is to recover (recovery.signal, before " +
      "version 12 recovery.conf)",
  );
}

interface DiskOfBackup {
  readonly record: SnapshotRecord;
  readonly snapshot: string;
  /** All that were made from the snapshot: after several attempts there may be more than one. */
  readonly copies: readonly AttachedDisk[];
}

/** In the order of their names. @throws {RestoreError} listing all snapshots that no disk was made from */
async function disksOfBackup(job: SnapshotRestoreJob): Promise<DiskOfBackup[]> {
  const { provider, snapshots, instance: name, signal } = job;
  const instance = await provider.findInstance(name, { signal });
  const disks = recordsOf(provider, snapshots).map(({ record, snapshot }): DiskOfBackup => ({
    record,
    snapshot,
    // Azure's names don't care about case, and in the others' nothing differs by case alone.
    copies: instance.disks.filter(({ sourceSnapshot }) =>
      sourceSnapshot?.toLowerCase() === snapshot.toLowerCase()
    ),
  }));
  const missing = disks.filter(({ copies }) => copies.length === 0);
  if (missing.length > 0) {
    throw new RestoreError(
      "invalid",
      `No disk of instance ${name} was made from these snapshots of the backup: ${
        missing.map(({ snapshot }) => snapshot).join(", ")
      }; make and attach disks from them (--create-volumes does that)`,
    );
  }
  return disks.sort((a, b) => labelOf(a) < labelOf(b) ? -1 : 1);
}

/** @throws {RestoreError} when backup.info does not name a snapshot */
function recordsOf(provider: SnapshotProvider, snapshots: SnapshotsInfo) {
  return identifiersOf(snapshots).map((identifiers, i) => {
    const record = snapshots.snapshots[i];
    const snapshot = provider.snapshotId(identifiers);
    if (record === undefined || snapshot === null) {
      throw new RestoreError("invalid", "backup.info does not tell the id of one of the snapshots");
    }
    return { record, identifiers, snapshot };
  });
}

function labelOf({ copies }: DiskOfBackup): string {
  return copies.map(({ id, name }) => name ?? id).join(" or ");
}

/** Mount points first, then options, each with all that differ. */
async function checkMounts(
  { host, log, signal }: SnapshotRestoreJob,
  disks: readonly DiskOfBackup[],
): Promise<void> {
  const misplaced: string[] = [];
  const different: string[] = [];
  for (const disk of disks) {
    const { mountPoint, mountOptions } = disk.record;
    const label = labelOf(disk);
    if (mountPoint === null) {
      log.warning(`backup.info does not tell where ${label} was mounted: not checked`);
      continue;
    }
    const mounts: Mount[] = [];
    for (const { location } of disk.copies) mounts.push(...await mountsOf(host, location, signal));
    const placed = mounts.filter((it) => it.mountPoint === mountPoint);
    const [mount] = placed;
    if (mount === undefined) {
      misplaced.push(`${label} must be mounted on ${mountPoint}, but is ${describe(mounts)}`);
    } else if (mountOptions !== null && placed.every(({ options }) => options !== mountOptions)) {
      different.push(
        `${label} on ${mountPoint} must have the options ${mountOptions}, but has ${mount.options}`,
      );
    }
  }
  const [problems] = [misplaced, different].filter((list) => list.length > 0);
  if (problems === undefined) return;
  throw new RestoreError(
    "invalid",
    `Disks are not mounted as they were at the backup: ${problems.join("; ")}`,
  );
}

function describe(mounts: readonly Mount[]): string {
  return mounts.length === 0
    ? "not mounted"
    : `mounted on ${mounts.map(({ mountPoint }) => mountPoint).join(" and ")}`;
}

/** Whole or not at all; it belongs to whom the directory belongs to, since the server renames it. */
async function writeLabel(
  path: string,
  text: string,
  directory: { readonly uid: number; readonly gid: number },
): Promise<void> {
  const temporary = `${path}.barman-cloud-${process.pid}`;
  try {
    const file = await open(temporary, "w", 0o600);
    try {
      await file.writeFile(text);
      await file.sync();
    } finally {
      await file.close();
    }
    if (process.geteuid?.() === 0) await chown(temporary, directory.uid, directory.gid);
    await rename(temporary, path);
    const parent = await open(join(path, ".."), "r");
    try {
      await parent.sync();
    } finally {
      await parent.close();
    }
  } catch (error) {
    await rm(temporary, { force: true });
    throw fileSystemError(`Cannot write ${path}`, error);
  }
}

export interface CreatedDisk {
  /** What the snapshot is known by. */
  readonly snapshot: string;
  readonly disk: AttachedDisk;
  /** What to mount, as this machine sees it. */
  readonly device: string;
  readonly mountPoint: string | null;
  /** To give to `mount -o`. */
  readonly mountOptions: string | null;
}

/** So long the kernel may take to show a disk that was attached, in milliseconds. */
const PRESENT_MS = 15_000;
const LOOK_MS = 500;

/**
 * Make disks from the snapshots of the backup and attach them to the instance. Nothing is mounted.
 * @param suffix of the disks' names, so that those of several restores are told apart
 * @throws {RestoreError} {SnapshotError} {HostError} the signal's reason
 */
export async function createVolumes(
  { provider, snapshots, host, instance: name, log, signal }: Omit<
    SnapshotRestoreJob,
    "store" | "layout" | "backupId" | "recoveryDir"
  >,
  suffix: string,
): Promise<CreatedDisk[]> {
  const records = recordsOf(provider, snapshots);
  const instance = await provider.findInstance(name, { signal });
  const requests = records.map(({ identifiers }) => ({
    snapshot: identifiers,
    name: diskName(identifiers, suffix, provider.maxNameLength),
  }));
  const disks = await instance.createDisks(requests, {
    tags: undefined,
    signal,
    onNotice: (message) => log.info(message),
    onWarning: (message) => log.warning(message),
  });
  const deadline = performance.now() + PRESENT_MS;
  const created: CreatedDisk[] = [];
  for (const [i, { record, snapshot }] of records.entries()) {
    const disk = disks[i];
    if (disk === undefined) continue;
    // A signal comes too late now: what was made must be told.
    while (
      !(await isPresent(host, disk.location)) && performance.now() < deadline && !signal.aborted
    ) await sleep(LOOK_MS, undefined);
    const device = await deviceOf(host, disk.location);
    if (!(await isPresent(host, disk.location))) {
      log.warning(
        `This machine does not show disk ${disk.id} as ${device}: is it instance ${name}? ` +
          "Find the disk there before mounting it",
      );
    }
    created.push({
      snapshot,
      disk,
      device: await mountableOf(host, disk.location),
      mountPoint: record.mountPoint,
      mountOptions: mountableOptions(record.mountOptions),
    });
  }
  return created;
}

/** Commands of a shell, one a line, that mount what was created as it was at the backup. */
export function mountCommands(created: readonly CreatedDisk[]): string[] {
  // Outer directories first: a disk may be mounted inside another one.
  const sorted = created.toSorted((a, b) =>
    (a.mountPoint ?? "").split("/").length - (b.mountPoint ?? "").split("/").length
  );
  return sorted.flatMap(({ snapshot, device, mountPoint, mountOptions }) => {
    // From backup.info, and pasted into the shell of root.
    const words = [mountPoint ?? "", mountOptions ?? "", device];
    if (
      mountPoint?.startsWith("/") !== true || words.some((word) => withoutControls(word) !== word)
    ) {
      const made = withoutControls(`${device} is made from ${snapshot}`);
      return [`# ${made}, whose mount point is not known`];
    }
    const options = mountOptions === null ? "" : ` -o ${quoted(mountOptions)}`;
    return [
      `mkdir -p ${quoted(mountPoint)}`,
      `mount${options} ${quoted(device)} ${quoted(mountPoint)}`,
    ];
  });
}

/** `SNAPSHOT-SUFFIX`. One that is too long is cut, and told from others that begin like it by a hash of the whole. */
function diskName(snapshot: Identifiers, suffix: string, maxLength: number): string {
  const name = String(snapshot.get("snapshot_name") ?? snapshot.get("snapshot_id") ?? "restored");
  const room = maxLength - suffix.length - 1;
  if (name.length <= room) return `${name}-${suffix}`;
  const hash = createHash("sha256").update(name).digest("hex").slice(0, 8);
  return `${name.slice(0, room - hash.length - 1)}-${hash}-${suffix}`;
}

/** findmnt shows some that the kernel sets by itself and `mount` does not take. */
function mountableOptions(options: string | null): string | null {
  const kept = options?.split(",").filter((option) => option !== "seclabel").join(",");
  return kept ? kept : null;
}

function quoted(word: string): string {
  return /^[\w/.,=:+@%-]+$/.test(word) ? word : `'${word.replaceAll("'", `'\\''`)}'`;
}
