/** `barman-cloud-restore`: bring a base backup back. */
import { type CommandContext, defineCommand } from "../cli/command.ts";
import { COMMON, OUR_OUTPUT_FORMAT, SOURCE } from "../cli/common_options.ts";
import { CommandError, EXIT, type ExitCode } from "../cli/exit_codes.ts";
import { append, flag, OptionValueError, positional, value } from "../cli/options.ts";
import { integer } from "../cli/values.ts";
import type { OpenedServer } from "./open_store.ts";
import type { SnapshotArguments } from "./restore_snapshots.ts";
import type { CatalogueEntry } from "../backup/catalogue.ts";
import type { RestoreErrorKind } from "../restore/restore_error.ts";
import type { TablespaceRule } from "../restore/plan.ts";
import type { TargetWords } from "../restore/target.ts";

export const command = defineCommand(
  {
    name: "restore",
    summary: "restore a base backup",
    description:
      "Restore a base backup into an empty directory. Only the data comes back: before the server is " +
      "started it must be told how to get WAL (restore_command) and how far to recover.",
    positionals: [
      ...SOURCE,
      positional(
        "backupId",
        "id or name of a backup, 'first', 'last' or 'last-failed', or 'auto' for the newest usable one",
      ),
      positional("recoveryDir", "the directory to restore into: empty, or not there yet"),
    ],
    options: [
      ...COMMON,
      append(
        "tablespace",
        ["--tablespace"],
        "where a tablespace goes instead of its original location: NAME:LOCATION (repeatable)",
        { parse: tablespaceRule, metavar: "NAME:LOCATION" },
      ),
      value(
        "jobs",
        ["--jobs"],
        "archives restored at once, and threads for gzip and bzip2 (default: 4, fewer on small machines)",
        {
          parse: integer("number of jobs", 1, 64),
          ours: true,
        },
      ),
      value(
        "targetTli",
        ["--target-tli"],
        "with 'auto': only backups of this timeline ('latest': the highest in the WAL archive)",
        { parse: timeline, metavar: "TIMELINE" },
      ),
      value<"targetTime">(
        "targetTime",
        ["--target-time"],
        "with 'auto': only backups that ended by this time (without a zone: local time)",
        { exclusive: "target", metavar: "TIMESTAMP" },
      ),
      value<"targetLsn">(
        "targetLsn",
        ["--target-lsn"],
        "with 'auto': only backups that ended by this LSN",
        {
          exclusive: "target",
          metavar: "LSN",
        },
      ),
      value<"snapshotRecoveryInstance">(
        "snapshotRecoveryInstance",
        ["--snapshot-recovery-instance"],
        "instance that the disks made of a snapshot backup are attached to",
      ),
      value<"awsRegion">(
        "awsRegion",
        ["--aws-region"],
        "region of a snapshot backup, instead of the recorded one",
        {
          section: "s3",
        },
      ),
      value<"gcpZone">("gcpZone", ["--gcp-zone"], "zone of the instance, for snapshot backups", {
        section: "gcs",
      }),
      value<"gcpZone">("gcpZone", ["--snapshot-recovery-zone"], "old spelling of --gcp-zone", {
        section: "gcs",
        metavar: "GCP_ZONE",
      }),
      value<"azureResourceGroup">(
        "azureResourceGroup",
        ["--azure-resource-group"],
        "resource group of the instance, for snapshot backups",
        { section: "azure" },
      ),
      flag(
        "createVolumes",
        ["--create-volumes"],
        "of a snapshot backup: make disks from its snapshots, attach them to the instance, print the commands that " +
          "mount them, and end; then restore again without this",
        { ours: true },
      ),
      ...OUR_OUTPUT_FORMAT,
    ],
    examples: [
      [
        "the newest backup, from S3",
        "PROGRAM s3://bucket/backups main auto /var/lib/postgresql/17/main",
      ],
      [
        "the newest backup from which a time can be reached",
        "PROGRAM s3://bucket/backups main auto /srv/pg --target-time '2026-01-15 10:30:00+01'",
      ],
      [
        "one backup, a tablespace elsewhere, from a directory",
        "PROGRAM file:///backups main 20260115T103000 /srv/pg --tablespace ts1:/srv/ts1",
      ],
      [
        "a backup made of disk snapshots: make disks of it, which are then mounted by hand",
        "PROGRAM --snapshot-recovery-instance db2 --create-volumes s3://bucket/backups main last /srv/pg",
      ],
      [
        "and check what is mounted",
        "PROGRAM --snapshot-recovery-instance db2 s3://bucket/backups main last /srv/pg",
      ],
    ],
  },
  async (values, context) => {
    const { PATIENT_ATTEMPTS, withSource } = await import("./open_store.ts");
    const extra = { attempts: values.test ? undefined : PATIENT_ATTEMPTS };
    return await withSource(values, context, async (server) => {
      return await restore(server, {
        backupId: values.backupId,
        recoveryDir: values.recoveryDir,
        tablespaceRules: values.tablespace ?? [],
        jobs: values.jobs,
        target: {
          timeline: values.targetTli,
          time: values.targetTime,
          lsn: values.targetLsn,
        },
        snapshots: {
          values,
          recoveryInstance: values.snapshotRecoveryInstance,
          createVolumes: values.createVolumes,
          place: {
            awsRegion: values.awsRegion,
            azureResourceGroup: values.azureResourceGroup,
            gcpZone: values.gcpZone,
            url: values.sourceUrl,
          },
        },
      }, context);
    }, extra);
  },
);

interface RestoreArguments {
  readonly backupId: string;
  readonly recoveryDir: string;
  readonly tablespaceRules: readonly TablespaceRule[];
  readonly jobs: number | undefined;
  readonly target: TargetWords;
  readonly snapshots: SnapshotArguments;
}

const EXIT_CODES: Readonly<Record<RestoreErrorKind, ExitCode>> = {
  "no-backup": EXIT.operationFailed,
  "destination": EXIT.operationFailed,
  "missing-archive": EXIT.operationFailed,
  "invalid": EXIT.generalError,
  "archive": EXIT.generalError,
  "file-system": EXIT.generalError,
};

async function restore(
  server: OpenedServer,
  given: RestoreArguments,
  context: CommandContext,
): Promise<ExitCode> {
  const { RestoreError } = await import("../restore/restore_error.ts");
  const { restoreBackup } = await import("../restore/restore.ts");
  const { startProgress } = await import("../cli/progress.ts");
  const { log, signal } = context;
  try {
    const { id, info } = await selectBackup(server, given, context);
    if (info.snapshotsInfo !== null) {
      const { restoreSnapshots } = await import("./restore_snapshots.ts");
      await restoreSnapshots(server, { id, info, snapshots: info.snapshotsInfo }, given, context);
      return EXIT.success;
    }
    if (given.snapshots.createVolumes) {
      throw new RestoreError("invalid", `Backup ${id} has no snapshots to make volumes from`);
    }
    const progress = startProgress(context, `Restore ${id}`);
    try {
      await restoreBackup({
        ...server,
        backupId: id,
        info,
        destination: given.recoveryDir,
        tablespaceRules: given.tablespaceRules,
        jobs: given.jobs,
        log,
        signal,
        onProgress: progress.listener,
      });
    } finally {
      progress.stop();
    }
    return EXIT.success;
  } catch (error) {
    // Stopped by the user is "failed" for Barman's restore, not 128 and the signal.
    if (signal.aborted) {
      const reason = signal.reason instanceof Error ? signal.reason.message : String(signal.reason);
      throw new CommandError(EXIT.operationFailed, `Restore not done: ${reason}`, { cause: error });
    }
    if (error instanceof RestoreError) {
      throw new CommandError(EXIT_CODES[error.kind], error.message, { cause: error });
    }
    throw error;
  }
}

async function selectBackup(
  { store, layout }: OpenedServer,
  given: RestoreArguments,
  { log, signal }: CommandContext,
): Promise<CatalogueEntry> {
  const { RestoreError } = await import("../restore/restore_error.ts");
  const { loadBackupInfo, loadCatalogue, resolveBackupId } = await import("../backup/catalogue.ts");
  const load = async () => {
    const catalogue = await loadCatalogue(store, layout, { signal });
    for (const { id, reason } of catalogue.unreadable) {
      log.warning(`Left out backup ${id}: its backup.info can't be read: ${reason}`);
    }
    return catalogue;
  };
  if (given.backupId === "auto") {
    const { chooseBackup, describeTarget, latestTimeline, parseTarget } = await import(
      "../restore/target.ts"
    );
    const words = parseTarget(given.target);
    const target = {
      ...words,
      timeline: words.timeline === "latest"
        ? await latestTimeline(store, layout, { signal })
        : words.timeline,
    };
    const chosen = chooseBackup((await load()).backups, target);
    if (chosen === null) {
      throw new RestoreError(
        "no-backup",
        `No backup of ${layout.server} with status DONE${describeTarget(target)}`,
      );
    }
    log.info(`Chose backup ${chosen.id}`);
    return chosen;
  }
  if (Object.values(given.target).some((word) => word !== undefined)) {
    log.warning(`--target-* only help to choose a backup for 'auto': ignored`);
  }
  const id = await resolveBackupId(given.backupId, load);
  const info = await loadBackupInfo(store, layout, id, { signal });
  if (info === null) {
    throw new RestoreError("no-backup", `Backup ${id} of ${layout.server} does not exist`);
  }
  return { id, info };
}

function tablespaceRule(word: string): TablespaceRule {
  const colon = word.indexOf(":");
  if (colon < 1 || colon === word.length - 1) {
    throw new OptionValueError(`'${word}' is not a tablespace rule: use NAME:LOCATION`);
  }
  return { name: word.slice(0, colon), location: word.slice(colon + 1) };
}

function timeline(word: string): number | "current" | "latest" {
  return word === "current" || word === "latest" ? word : integer("timeline", 1)(word);
}
