/** Which disks a backup takes snapshots of, by which names, and where they are mounted. Nothing is changed here. */
import { BackupError } from "../backup/backup_error.ts";
import type {
  AttachedDisk,
  Instance,
  SnapshotProvider,
} from "../../providers/snapshots/provider.ts";
import { type Host, type Mount, mountOfPath, mountsOf } from "./host.ts";

export interface PlannedDisk {
  /** As the user named it. */
  readonly argument: string;
  readonly disk: AttachedDisk;
  /** The one that is recorded. */
  readonly mount: Mount;
  /** All, that one included. */
  readonly mounts: readonly Mount[];
}

export interface SnapshotPlan {
  readonly instance: Instance;
  readonly disks: readonly PlannedDisk[];
}

/**
 * Find the instance and the disks, on it and on this machine.
 * @param names disks as the user named them
 * @throws {BackupError} kind `refused`, naming all disks that are not attached, or all that are not mounted
 * @throws {SnapshotError} {HostError}
 */
export async function planSnapshots(
  provider: SnapshotProvider,
  host: Host,
  { instance: name, disks: names }: {
    readonly instance: string;
    readonly disks: readonly string[];
  },
  signal: AbortSignal,
): Promise<SnapshotPlan> {
  const instance = await provider.findInstance(name, { signal });
  const refuse = (message: string) => new BackupError("refused", message);
  const chosen = [...new Set(names)].map((argument) => ({
    argument,
    disk: chooseDisk(instance.disks, argument),
  }));
  const missing = chosen.filter(({ disk }) => disk === undefined);
  if (missing.length > 0) {
    throw refuse(
      `Not attached to instance ${name}, or only as the disk it boots from: ${
        missing.map(({ argument }) => argument).join(", ")
      }; attached are ${instance.disks.map(describeDisk).join(", ") || "no other disks"}`,
    );
  }
  const disks: PlannedDisk[] = [];
  const unmounted: string[] = [];
  for (const { argument, disk } of chosen) {
    if (disk === undefined) continue;
    const twice = disks.find((other) => other.disk.id === disk.id);
    if (twice !== undefined) {
      throw refuse(`${twice.argument} and ${argument} are the same disk: give it once`);
    }
    const mounts = await mountsOf(host, disk.location, signal);
    const [mount] = mounts;
    if (mount === undefined) unmounted.push(argument);
    else disks.push({ argument, disk, mount, mounts });
  }
  if (unmounted.length > 0) {
    throw refuse(
      `Not mounted on this machine: ${
        unmounted.join(", ")
      }; the backup must run on instance ${name}, ` +
        "and each disk must hold a mounted file system",
    );
  }
  return { instance, disks };
}

/** By its id; else by its name, which may belong to several. Azure's names don't care about case. */
function chooseDisk(disks: readonly AttachedDisk[], argument: string): AttachedDisk | undefined {
  const exact = disks.find(({ id }) => id === argument) ??
    disks.find(({ id }) => id.toLowerCase() === argument.toLowerCase());
  if (exact !== undefined) return exact;
  const named = disks.filter(({ name }) => name === argument);
  if (named.length > 1) {
    throw new BackupError(
      "refused",
      `${named.length} disks are named ${argument}: ${
        named.map(({ id }) => id).join(", ")
      }; give the id of one of them`,
    );
  }
  return named[0];
}

function describeDisk({ id, name }: AttachedDisk): string {
  return name === null ? id : `${id} (${name})`;
}

/**
 * `DISK-ID` with the id in lower case, which is how Barman names snapshots. A disk's name that would make it too
 * long for the cloud is cut.
 */
export function snapshotNames(
  disks: readonly string[],
  backupId: string,
  maxLength: number,
): string[] {
  const end = `-${backupId.toLowerCase()}`;
  const used = new Set<string>();
  return disks.map((disk) => {
    const room = maxLength - end.length;
    let start = disk.slice(0, room);
    for (let n = 2; used.has(start); n++) {
      const mark = `-${n}`;
      start = `${disk.slice(0, room - mark.length)}${mark}`;
    }
    used.add(start);
    return `${start}${end}`;
  });
}

/**
 * Directories that lie on none of the disks, as far as can be told: their content is not in the backup.
 * @returns the directory and the mount point that it lies on
 */
export async function notCovered(
  host: Host,
  disks: readonly PlannedDisk[],
  directories: readonly string[],
  signal: AbortSignal,
): Promise<{ readonly directory: string; readonly mountPoint: string }[]> {
  const devices = new Set(disks.flatMap(({ mounts }) => mounts.map(({ device }) => device)));
  const found: { directory: string; mountPoint: string }[] = [];
  for (const directory of directories) {
    const mount = await mountOfPath(host, directory, signal);
    if (mount !== undefined && !devices.has(mount.device)) {
      found.push({ directory, mountPoint: mount.mountPoint });
    }
  }
  return found;
}
