/** The part of `restore` that is for backups made of disk snapshots. */
import type { BackupInfo } from "../backup/backup_info.ts";
import type { PyDict, PyValue } from "../backup/python_literal.ts";
import type { SnapshotsInfo } from "../backup/snapshots_info.ts";
import type { CommandContext } from "../cli/command.ts";
import { type CommonValues, formatOf } from "../cli/common_options.ts";
import { pythonJson } from "../cli/json.ts";
import { RestoreError } from "../restore/restore_error.ts";
import { localHost } from "../snapshots/host.ts";
import {
  type CreatedDisk,
  createVolumes,
  mountCommands,
  restoreFromSnapshots,
} from "../snapshots/restore.ts";
import type { OpenedServer } from "./open_store.ts";
import { type SnapshotPlace, snapshotsOfInfo } from "./snapshots.ts";

export interface SnapshotArguments {
  readonly values: CommonValues & { readonly format: string | undefined };
  /** `--snapshot-recovery-instance` */
  readonly recoveryInstance: string | undefined;
  /** `--create-volumes` */
  readonly createVolumes: boolean;
  readonly place: SnapshotPlace;
}

interface Given {
  readonly recoveryDir: string;
  readonly tablespaceRules: readonly unknown[];
  readonly snapshots: SnapshotArguments;
}

/** @throws {RestoreError} kind `invalid` for options that don't fit; what the restore throws */
export async function restoreSnapshots(
  { store, layout }: OpenedServer,
  backup: { readonly id: string; readonly info: BackupInfo; readonly snapshots: SnapshotsInfo },
  { recoveryDir, tablespaceRules, snapshots: given }: Given,
  context: CommandContext,
): Promise<void> {
  const { id, info, snapshots } = backup;
  const { recoveryInstance: instance, place, values } = given;
  if (tablespaceRules.length > 0) {
    throw new RestoreError(
      "invalid",
      `Backup ${id} consists of disk snapshots: its tablespaces are where they were, leave out --tablespace`,
    );
  }
  const missing = missingOptions(snapshots, given);
  if (instance === undefined || missing.length > 0) {
    throw new RestoreError(
      "invalid",
      `Backup ${id} consists of disk snapshots, which need more options: ${missing.join(", ")}`,
    );
  }
  const provider = await snapshotsOfInfo(snapshots, place, values, context);
  try {
    const { log, signal, stdout } = context;
    if (info.status !== "DONE") {
      log.warning(
        `Backup ${id} has status ${info.status}, not DONE: a server started from it may be corrupt`,
      );
    }
    const host = localHost(context.env);
    const job = { backupId: id, snapshots, provider, host, instance, log, signal };
    if (!given.createVolumes) {
      return await restoreFromSnapshots({ ...job, store, layout, recoveryDir });
    }
    const created = await createVolumes(job, suffixOf(context.now()));
    if (formatOf(values) === "json") stdout(`${pythonJson(volumesJson(created))}\n`);
    else for (const line of mountCommands(created)) stdout(`${line}\n`);
    log.warning(
      "The disks are attached and not mounted yet: mount them with the commands on standard output, then run the " +
        "same restore without --create-volumes",
    );
  } finally {
    provider.close();
  }
}

/** docs/json.md describes it. */
function volumesJson(created: readonly CreatedDisk[]): PyDict {
  return new Map<PyValue, PyValue>([
    [
      "volumes",
      created.map(({ snapshot, disk, device, mountPoint, mountOptions }) =>
        new Map<PyValue, PyValue>([
          ["snapshot", snapshot],
          ["volume", disk.id],
          ["device", device],
          ["mount_point", mountPoint],
          ["mount_options", mountOptions],
        ])
      ),
    ],
    ["mount_commands", mountCommands(created)],
  ]);
}

function missingOptions(
  { provider }: SnapshotsInfo,
  { recoveryInstance, place }: SnapshotArguments,
): string[] {
  const needed: [string, unknown][] = [["--snapshot-recovery-instance", recoveryInstance]];
  if (provider === "gcp") needed.push(["--gcp-zone", place.gcpZone]);
  if (provider === "azure") needed.push(["--azure-resource-group", place.azureResourceGroup]);
  return needed.filter(([, value]) => value === undefined).map(([flag]) => flag);
}

/** `r0115103000`: the time of the restore, from month to second. */
function suffixOf(time: Date): string {
  return `r${time.toISOString().replace(/\D/g, "").slice(4, 14)}`;
}
