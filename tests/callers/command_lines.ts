/**
 * The command lines that known callers of Barman's commands build, read from their public sources as facts: which
 * options, in which order, with which environment and from which directory. Words beginning with `$` stand for what
 * differs from call to call.
 */

export type Placeholder =
  | "$URL"
  | "$SERVER"
  | "$ENDPOINT"
  | "$NAME"
  | "$ID"
  | "$WAL"
  | "$DESTINATION"
  | "$HOST";

export interface CallerLine {
  /** Name of the command as it is called, found through PATH. */
  readonly command: string;
  readonly words: readonly string[];
  /** Where in the caller's sources the line is put together. */
  readonly source: string;
}

/**
 * Names of the variables that each caller sets; nothing else is in the environment but PATH.
 * CloudNativePG passes its own environment on, with these added; postgres-flex inherits its image's.
 */
export const ENVIRONMENT = {
  "cloudnative-pg": [
    "AWS_ACCESS_KEY_ID",
    "AWS_SECRET_ACCESS_KEY",
    // When the configuration has an endpointCA.
    "AWS_CA_BUNDLE",
    // On Azure, each that the configuration has a secret for.
    "AZURE_STORAGE_ACCOUNT",
    "AZURE_STORAGE_KEY",
    "AZURE_STORAGE_SAS_TOKEN",
    "AZURE_STORAGE_CONNECTION_STRING",
    // On Google: a file that it writes.
    "GOOGLE_APPLICATION_CREDENTIALS",
    // Of the manager's process: backup connects by them.
    "PGHOST",
    "PGPORT",
    // Added for backup alone.
    "TMPDIR",
  ],
  "postgres-flex": ["AWS_SHARED_CREDENTIALS_FILE", "TMPDIR"],
} as const;

const LIBRARY = "github.com/cloudnative-pg/barman-cloud v0.5.0";
const PLUGIN = "github.com/cloudnative-pg/plugin-barman-cloud";
const IN_TREE = "github.com/cloudnative-pg/cloudnative-pg";
const FLEX = "github.com/fly-apps/postgres-flex internal/flypg/barman.go";

const line = (source: string, command: string, ...words: string[]): CallerLine => ({
  command: `barman-cloud-${command}`,
  words,
  source,
});

/** How CloudNativePG names the store: after most of the options, before the positionals. */
const STORE = ["--endpoint-url", "$ENDPOINT", "--cloud-provider", "aws-s3"];

export const CLOUDNATIVE_PG = {
  /** Older releases find out by it what they may use; stdout and stderr are read as one. */
  version: line(
    `${IN_TREE} pkg/management/barman/capabilities/detect.go`,
    "wal-archive",
    "--version",
  ),
  check: line(
    `${LIBRARY} pkg/archiver BarmanCloudCheckWalArchiveOptions`,
    "check-wal-archive",
    ...STORE,
    ...["$URL", "$SERVER"],
  ),
  /** Several run at once, in PGDATA; the segment is named `pg_wal/…`. */
  walArchive: line(
    `${LIBRARY} pkg/archiver BarmanCloudWalArchiveOptions`,
    "wal-archive",
    ...["--gzip", "-e", "AES256", "--endpoint-url", "$ENDPOINT"],
    ...["--tags", "backupRetentionPolicy,expire", "owner,dba", "--history-tags", "keep,yes"],
    ...["--cloud-provider", "aws-s3", "$URL", "$SERVER", "$WAL"],
  ),
  /** With archiveAdditionalCommandArgs as the documentation shows them. */
  walArchiveAdditional: line(
    `${LIBRARY} pkg/api AppendArchiveAdditionalCommandArgs`,
    "wal-archive",
    ...["--xz", "--max-concurrency=1", "--read-timeout=60", ...STORE, "$URL", "$SERVER", "$WAL"],
  ),
  walRestore: line(
    `${LIBRARY} pkg/command CloudWalRestoreOptions, pkg/restorer Restore`,
    "wal-restore",
    ...[...STORE, "$URL", "$SERVER", "$WAL", "$DESTINATION"],
  ),
  /** restoreAdditionalCommandArgs come between the positionals. */
  walRestoreAdditional: line(
    `${LIBRARY} pkg/api AppendRestoreAdditionalCommandArgs`,
    "wal-restore",
    ...[...STORE, "$URL", "$SERVER", "--read-timeout=60", "-vv", "$WAL", "$DESTINATION"],
  ),
  backup: line(
    `${LIBRARY} pkg/backup GetBarmanCloudBackupOptions`,
    "backup",
    ...["--user", "postgres", "--name", "$NAME", "--gzip", "--encryption", "AES256"],
    ...[
      "--immediate-checkpoint",
      "--jobs",
      "2",
      "--min-chunk-size=5MB",
      "--read-timeout=60",
      "-vv",
    ],
    ...["--tags", "backupRetentionPolicy,expire", "owner,dba", ...STORE, "$URL", "$SERVER"],
  ),
  /** Nothing but what is always there. */
  backupBare: line(
    `${LIBRARY} pkg/backup GetBarmanCloudBackupOptions`,
    "backup",
    ...["--user", "postgres", "--name", "$NAME", ...STORE, "$URL", "$SERVER"],
  ),
  /** Exit code 3 is reported as wrong additionalCommandArgs. */
  backupWrong: line(
    `${LIBRARY} pkg/backup Take`,
    "backup",
    ...["--user", "postgres", "--name", "$NAME", "--no-such-option", ...STORE, "$URL", "$SERVER"],
  ),
  show: line(
    `${LIBRARY} pkg/command GetBackupByName`,
    "backup-show",
    ...["--format", "json", ...STORE, "$URL", "$SERVER", "$NAME"],
  ),
  list: line(
    `${LIBRARY} pkg/command GetBackupList`,
    "backup-list",
    ...["--format", "json", ...STORE, "$URL", "$SERVER"],
  ),
  delete: line(
    `${LIBRARY} pkg/command DeleteBackupsByPolicy`,
    "backup-delete",
    ...[...STORE, "--retention-policy", "RECOVERY WINDOW OF 30 DAYS", "$URL", "$SERVER"],
  ),
  restore: line(
    `${PLUGIN} internal/cnpgi/restore restoreDataDir`,
    "restore",
    ...["--cloud-provider", "aws-s3", "--endpoint-url", "$ENDPOINT"],
    ...["$URL", "$SERVER", "$ID", "$DESTINATION"],
  ),
  /** The instance manager puts the provider between the positionals. */
  restoreInTree: line(
    `${IN_TREE} pkg/management/postgres restoreDataDir`,
    "restore",
    ...["--endpoint-url", "$ENDPOINT", "$URL", "$SERVER", "$ID"],
    ...["--cloud-provider", "aws-s3", "$DESTINATION"],
  ),
} as const;

/** The same on a store that has no endpoint of its own; `--endpoint-url` is left out then. */
export const cloudNativePgOn = (provider: "azure-blob-storage" | "google-cloud-storage") => {
  const store = ["--cloud-provider", provider];
  return {
    check: line(CLOUDNATIVE_PG.check.source, "check-wal-archive", ...store, "$URL", "$SERVER"),
    walArchive: line(
      CLOUDNATIVE_PG.walArchive.source,
      "wal-archive",
      ...["--snappy", "--tags", "owner,dba", "--history-tags", "keep,yes"],
      ...[...store, "$URL", "$SERVER", "$WAL"],
    ),
    walRestore: line(
      CLOUDNATIVE_PG.walRestore.source,
      "wal-restore",
      ...[...store, "$URL", "$SERVER", "$WAL", "$DESTINATION"],
    ),
    backup: line(
      CLOUDNATIVE_PG.backup.source,
      "backup",
      ...["--user", "postgres", "--name", "$NAME", "--snappy", "--immediate-checkpoint"],
      ...["--jobs", "2", "--tags", "owner,dba", ...store, "$URL", "$SERVER"],
    ),
    show: line(
      CLOUDNATIVE_PG.show.source,
      "backup-show",
      ...["--format", "json", ...store, "$URL", "$SERVER", "$NAME"],
    ),
    list: line(
      CLOUDNATIVE_PG.list.source,
      "backup-list",
      ...["--format", "json", ...store, "$URL", "$SERVER"],
    ),
    delete: line(
      CLOUDNATIVE_PG.delete.source,
      "backup-delete",
      ...[...store, "--retention-policy", "RECOVERY WINDOW OF 30 DAYS", "$URL", "$SERVER"],
    ),
    restore: line(
      CLOUDNATIVE_PG.restore.source,
      "restore",
      ...[...store, "$URL", "$SERVER", "$ID", "$DESTINATION"],
    ),
  };
};

const FLEX_STORE = [
  "--cloud-provider",
  "aws-s3",
  "--endpoint-url",
  "$ENDPOINT",
  "--profile",
  "barman",
];

export const POSTGRES_FLEX = {
  /** A value of archive_command, run by PostgreSQL. */
  walArchive: line(
    `${FLEX} walArchiveCommand`,
    "wal-archive",
    ...["--cloud-provider", "aws-s3", "--gzip", "--endpoint-url", "$ENDPOINT"],
    ...["--profile", "barman", "$URL", "$SERVER", "%p"],
  ),
  /** A value of restore_command. */
  walRestore: line(
    `${FLEX} walRestoreCommand`,
    "wal-restore",
    ...[...FLEX_STORE, "$URL", "$SERVER", "%f", "%p"],
  ),
  /** Options follow the positionals. */
  backup: line(
    `${FLEX} Backup`,
    "backup",
    ...[...FLEX_STORE, "--host", "$HOST", "--user", "repmgr", "$URL", "$SERVER"],
    ...["--immediate-checkpoint", "-n", "$NAME"],
  ),
  list: line(
    `${FLEX} ListBackups`,
    "backup-list",
    ...[...FLEX_STORE, "--format", "json", "$URL", "$SERVER"],
  ),
  show: line(`${FLEX} ShowBackup`, "backup-show", ...[...FLEX_STORE, "$URL", "$SERVER", "$ID"]),
  /** `--retention` is a prefix of the option's name. */
  delete: line(
    `${FLEX} WALArchiveDelete`,
    "backup-delete",
    ...[...FLEX_STORE, "--retention", "RECOVERY WINDOW OF 7 DAYS"],
    ...["--minimum-redundancy", "3", "$URL", "$SERVER"],
  ),
  restore: line(
    `${FLEX} RestoreBackup`,
    "restore",
    ...[...FLEX_STORE, "$URL", "$SERVER", "$ID", "$DESTINATION"],
  ),
} as const;

/** The words with the placeholders filled in. */
export function fillIn(
  words: readonly string[],
  values: Readonly<Partial<Record<Placeholder, string>>>,
): string[] {
  const known: Readonly<Record<string, string | undefined>> = values;
  return words.map((word) => {
    if (!word.startsWith("$")) return word;
    const value = known[word];
    if (value === undefined) throw new Error(`There is no value for ${word}`);
    return value;
  });
}
