import { type CommandContext, defineCommand } from "../cli/command.ts";
import { DESTINATION, tagsOf } from "../cli/common_options.ts";
import { CommandError, EXIT, type ExitCode } from "../cli/exit_codes.ts";
import { type ProgressDisplay, startProgress } from "../cli/progress.ts";
import { redactor } from "../cli/redact.ts";
import { abortable } from "../backup/abortable.ts";
import { BackupError, reasonOf } from "../backup/backup_error.ts";
import type { BackupChecks, BackupServer } from "../backup/backup.ts";
import { type HookBackup, hookBackupOf, HookError, storeHookBackup } from "../backup/hook.ts";
import { archiveSizes } from "../backup/part_sizes.ts";
import { compressionLevel } from "../compression/table.ts";
import type { Progress } from "../progress.ts";
import type { SnapshotBackupOptions } from "../snapshots/backup.ts";
import type { ObjectStore } from "../../providers/object_store.ts";
import {
  BACKUP_OPTIONS,
  type BackupValues,
  checkCombinations,
  checkSnapshotKey,
  checkSnapshotOptions,
  compressionOf,
  wantsSnapshots,
} from "./backup_options.ts";
import { encryptionOf, type OpenedServer, PATIENT_ATTEMPTS, withStore } from "./open_store.ts";
import { testConnection } from "./test_connection.ts";

export const command = defineCommand({
  name: "backup",
  summary: "take a base backup",
  description:
    "Takes a base backup of a running PostgreSQL server and stores it. It runs where the server " +
    "runs, as a user who can read its files, while the server goes on working; WAL archiving must " +
    "work. As a post backup script of a Barman server it stores the backup that Barman has taken.",
  positionals: DESTINATION,
  options: BACKUP_OPTIONS,
  examples: [
    ["back up the local server, compressed", "PROGRAM --zstd s3://my-bucket/pg main"],
    [
      "start at once instead of waiting for the next checkpoint, and give the backup a name",
      "PROGRAM --immediate-checkpoint -n before-upgrade s3://my-bucket/pg main",
    ],
    [
      "more uploads at the same time, to an S3-compatible store",
      "PROGRAM -J 4 --lz4 --endpoint-url https://s3.example.com s3://my-bucket/pg main",
    ],
    [
      "into a directory, showing what happens, over a socket and as a certain user",
      "PROGRAM -v -h /var/run/postgresql -U backup file:///srv/backup main",
    ],
    ["does the connection to the store work", "PROGRAM --test s3://my-bucket/pg main"],
  ],
}, async (values, context) => {
  checkCombinations(values);
  const encryption = encryptionOf(values);
  checkSnapshotKey(values);
  return await withStore(
    values.destinationUrl,
    values.serverName,
    values,
    context,
    async (opened) => {
      if (values.test) {
        return await testConnection(opened.store, context.log, { signal: context.signal });
      }
      const hook = hookOf(values, context);
      return await withExitCode(() =>
        hook === undefined
          ? backUpServer(values, context, opened)
          : storeForBarman(hook, values, context, opened)
      );
    },
    {
      ...encryption,
      maxBandwidth: values.maxBandwidth,
      attempts: values.test ? undefined : PATIENT_ATTEMPTS,
    },
  );
});

/** @throws {CommandError} exit code 4, or 63 when Barman must not try again */
function hookOf(values: BackupValues, context: CommandContext): HookBackup | undefined {
  try {
    return hookBackupOf(context.env, values.name !== undefined);
  } catch (error) {
    if (!(error instanceof HookError)) throw error;
    const code = error.unrecoverable ? EXIT.hookUnrecoverable : EXIT.generalError;
    throw new CommandError(code, error.message);
  }
}

/** Seconds; timers take no more. */
const MAX_KEEPALIVE = 2_000_000;

/** From here on everything is exit code 1, as with Barman, but what can't work in this way at all. */
async function withExitCode(action: () => Promise<void>): Promise<ExitCode> {
  try {
    await action();
    return EXIT.success;
  } catch (error) {
    if (error instanceof CommandError) throw error;
    const refused = error instanceof BackupError && error.kind === "refused";
    const code = refused ? EXIT.generalError : EXIT.operationFailed;
    throw new CommandError(code, reasonOf(error), { cause: error });
  }
}

async function backUpServer(
  values: BackupValues,
  context: CommandContext,
  { store, layout }: OpenedServer,
): Promise<void> {
  const { log, now } = context;
  const session = await connect(values, context);
  let progress: ProgressDisplay | undefined;
  try {
    if (wantsSnapshots(values)) checkSnapshotOptions(values);
    const { backupServerOf } = await import("../postgres/backup_server.ts");
    const server = await abortable(
      backupServerOf(session, log, {
        keepAliveMs: Math.min(values.keepaliveInterval, MAX_KEEPALIVE) * 1000,
      }),
      context.signal,
    );
    // Without the session there is no backup: it must not go on copying for hours.
    const signal = AbortSignal.any([context.signal, server.lost]);
    const options = {
      store,
      layout,
      name: values.name,
      immediateCheckpoint: values.immediateCheckpoint,
      archiveTimeout: values.archiveTimeout,
      signal,
      now,
      onStarted: (started: string) => {
        log.info(`Starting backup ${started}`);
        progress = startProgress(context, `Backup ${started}`);
      },
      onProgress: (state: Progress) => progress?.listener(state),
      onNotice: (message: string) => log.info(message),
      onWarning: (message: string) => log.warning(message),
      redact: redactor(context.env),
      checks: checksOf(values),
    };
    let id: string;
    if (wantsSnapshots(values)) id = await takeSnapshots(values, context, server, options);
    else {
      const { takeBackup } = await import("../backup/backup.ts");
      id = await takeBackup(server, { ...howToStore(values, context, store), ...options });
    }
    log.info(`Backup ${id} is complete`);
  } finally {
    progress?.stop();
    await session.close();
  }
}

/** @throws {CommandError} exit code 4 for what can't be backed up by snapshots, found out before the backup begins */
async function takeSnapshots(
  values: BackupValues,
  context: CommandContext,
  server: BackupServer,
  options: Omit<
    SnapshotBackupOptions,
    "provider" | "host" | "instance" | "disks" | "limit" | "tags"
  >,
): Promise<string> {
  const { snapshotsOfBackup, whatToTake } = await import("./snapshots.ts");
  const { takeSnapshotBackup } = await import("../snapshots/backup.ts");
  const provider = await snapshotsOfBackup(values, context);
  try {
    return await takeSnapshotBackup(server, {
      ...options,
      ...await whatToTake(values, context),
      provider,
    });
  } finally {
    provider.close();
  }
}

/** @throws {CommandError} exit code 4 for a connection string that is none */
async function connect(values: BackupValues, { env, log, signal }: CommandContext) {
  const { ConninfoError, connectionString, resolveConnection } = await import(
    "../postgres/conninfo.ts"
  );
  const { openSession } = await import("../postgres/session.ts");
  let parameters;
  try {
    parameters = resolveConnection(connectionString(values), env);
  } catch (error) {
    if (!(error instanceof ConninfoError)) throw error;
    throw new CommandError(EXIT.generalError, error.message, { cause: error });
  }
  for (const warning of parameters.warnings) log.warning(warning);
  return await openSession(parameters, {
    signal,
    onNotice: (message) => log.info(`PostgreSQL says: ${message}`),
  });
}

async function storeForBarman(
  hook: HookBackup,
  values: BackupValues,
  context: CommandContext,
  { store, layout }: OpenedServer,
): Promise<void> {
  const { log, signal } = context;
  const progress = startProgress(context, `Backup ${hook.id}`);
  try {
    await storeHookBackup(hook, {
      ...howToStore(values, context, store),
      store,
      layout,
      signal,
      onProgress: progress.listener,
      onNotice: (message) => log.info(message),
      onWarning: (message) => log.warning(message),
      checks: checksOf(values),
    });
    log.info(`Backup ${hook.id} is stored`);
  } finally {
    progress.stop();
  }
}

function checksOf(values: BackupValues): BackupChecks {
  return {
    pages: values.noVerifyPageChecksums ? "off" : values.pageChecksumFailure ?? "warn",
    manifest: values.noManifest ? null : values.manifestChecksums ?? "sha256",
    wal: values.missingWal === "ignore" ? "off" : values.missingWal ?? "warn",
    walTimeout: values.walTimeout,
  };
}

/** What both kinds of backup are told about archives and parts. */
function howToStore(values: BackupValues, { log }: CommandContext, store: ObjectStore) {
  const compression = compressionOf(values);
  const sizes = archiveSizes(
    store.provider,
    store.limits,
    values.maxArchiveSize,
    values.minChunkSize,
  );
  if (sizes.maxArchiveSize < values.maxArchiveSize) {
    log.warning(
      `--max-archive-size ${values.maxArchiveSize} is more than an archive can have: ` +
        `${sizes.maxArchiveSize} is taken`,
    );
  }
  return {
    tags: tagsOf(values),
    compression,
    level: compression === undefined
      ? undefined
      : compressionLevel(compression, values.compressionLevel),
    jobs: values.jobs,
    sizes,
  };
}
