/** What `backup` is told on the command line, and the checks that no single option can make. */
import { COMMON, tagsOf, WRITE_ENCRYPTION, WRITE_TAGS } from "../cli/common_options.ts";
import { CommandError, EXIT } from "../cli/exit_codes.ts";
import {
  append,
  choice,
  flag,
  OptionValueError,
  value,
  type ValuesOf,
  valueWithDefault,
} from "../cli/options.ts";
import { backupName, integer, size } from "../cli/values.ts";
import { DEFAULT_MAX_ARCHIVE_SIZE } from "../backup/part_sizes.ts";
import type { CompressionName } from "../compression/table.ts";
import { providerOfUrl } from "../../providers/open.ts";

/** Timers take no more. */
const MAX_TIMEOUT = 2_000_000;

export const BACKUP_OPTIONS = [
  ...COMMON,
  flag("gzip", ["-z", "--gzip"], "compress archives with gzip", { exclusive: "compression" }),
  flag("bzip2", ["-j", "--bzip2"], "compress archives with bzip2", { exclusive: "compression" }),
  flag("snappy", ["--snappy"], "compress archives with snappy", { exclusive: "compression" }),
  flag("lz4", ["--lz4"], "compress archives with LZ4 (Barman restores it since 3.18)", {
    exclusive: "compression",
  }),
  flag("zstd", ["--zstd"], "compress archives with Zstandard (Barman restores it since 3.20)", {
    exclusive: "compression",
  }),
  value(
    "compressionLevel",
    ["--compression-level"],
    "low, medium (default; gzip: 5, zstd: 3, lz4: low), high, or a number (gzip, bzip2: 1 to 9, zstd: -22 to 22, lz4: 0 to 16; " +
      "the nearest of these is taken)",
    { parse: levelWord, ours: true },
  ),
  value("host", ["-h", "--host"], "host or socket directory of PostgreSQL (default: as libpq)"),
  value("port", ["-p", "--port"], "port of PostgreSQL (default: as libpq)"),
  value("user", ["-U", "--user"], "user of PostgreSQL (default: as libpq)"),
  valueWithDefault(
    "dbname",
    ["-d", "--dbname"],
    "database to connect to, or a whole connection string (default: postgres)",
    { parse: (word) => word, default: "postgres" },
  ),
  flag(
    "immediateCheckpoint",
    ["--immediate-checkpoint"],
    "have the checkpoint at the start done as fast as possible",
  ),
  value(
    "jobs",
    ["-J", "--jobs"],
    "parts uploaded at the same time (default: 2, with lz4 and snappy up to 4, not compressed up to 6)",
    { parse: integer("number of jobs", 1), metavar: "N" },
  ),
  valueWithDefault(
    "maxArchiveSize",
    ["-S", "--max-archive-size"],
    "size at which an archive ends and the next begins (default: 100GB)",
    { parse: size, default: DEFAULT_MAX_ARCHIVE_SIZE, metavar: "SIZE" },
  ),
  value(
    "minChunkSize",
    ["--min-chunk-size"],
    "least size of an uploaded part (default: what the store needs)",
    { parse: size, metavar: "SIZE" },
  ),
  value(
    "maxBandwidth",
    ["--max-bandwidth"],
    "bytes to upload per second at most (default: no limit)",
    { parse: size, metavar: "SIZE" },
  ),
  value(
    "archiveTimeout",
    ["--archive-timeout"],
    "seconds to wait at the end until the last WAL is archived; the backup fails after that " +
      "(default: no limit, as the backup is of no use without that WAL)",
    { parse: integer("number of seconds", 1), metavar: "SECONDS", ours: true },
  ),
  choice(
    "pageChecksumFailure",
    ["--page-checksum-failure"],
    ["warn", "fail"],
    "what to do when data pages have wrong checksums (data_checksums): 'warn' (default) lists them and ends with 0, " +
      "'fail' stores all the same, but with status FAILED, and ends with 1",
    { ours: true },
  ),
  flag(
    "noVerifyPageChecksums",
    ["--no-verify-page-checksums"],
    "do not look at the checksums of data pages",
    { ours: true },
  ),
  choice(
    "manifestChecksums",
    ["--manifest-checksums"],
    ["sha256", "crc32c", "none"],
    "how the manifest of files sums them up (default: sha256)",
    { ours: true },
  ),
  flag("noManifest", ["--no-manifest"], "do not store a manifest of files (backup_manifest)", {
    ours: true,
  }),
  choice(
    "missingWal",
    ["--missing-wal"],
    ["warn", "fail", "ignore"],
    "what to do when the WAL that the backup needs does not get into the archive of this store: 'warn' (default), " +
      "'fail' (status FAILED, exit code 1), or 'ignore': do not look, as WAL is archived elsewhere",
    { ours: true },
  ),
  value(
    "walTimeout",
    ["--wal-timeout"],
    "seconds to wait at the end until the WAL that the backup needs is in the archive of this store (default: 60 on a " +
      "standby, 5 on a primary, which has waited for its archiver, 0 on one that does not archive; 0: look once)",
    { parse: integer("number of seconds", 0, 86_400), metavar: "SECONDS", ours: true },
  ),
  valueWithDefault(
    "keepaliveInterval",
    ["--keepalive-interval"],
    "seconds between the queries that keep the connection to PostgreSQL alive during the copy (default: 60; 0: none)",
    { parse: integer("number of seconds", 0), default: 60, metavar: "SECONDS" },
  ),
  value("name", ["-n", "--name"], "name of the backup, to use instead of its id", {
    parse: backupName,
  }),
  ...WRITE_TAGS,
  ...WRITE_ENCRYPTION,
  value(
    "snapshotInstance",
    ["--snapshot-instance"],
    "instance whose disks to take snapshots of, instead of copying files",
  ),
  append("snapshotDisk", ["--snapshot-disk"], "disk to take a snapshot of (repeatable)", {
    parse: (word) => word,
    metavar: "NAME",
  }),
  value(
    "snapshotTimeout",
    ["--snapshot-timeout"],
    "seconds to wait until snapshots are complete (default: 86400; on AWS --aws-await-snapshots-timeout)",
    { parse: integer("number of seconds", 1, MAX_TIMEOUT), metavar: "SECONDS", ours: true },
  ),
  value("awsRegion", ["--aws-region"], "region of the instance and its disks", { section: "s3" }),
  valueWithDefault(
    "awsAwaitSnapshotsTimeout",
    ["--aws-await-snapshots-timeout"],
    "seconds to wait until snapshots are complete (default: 3600)",
    { section: "s3", parse: integer("number of seconds", 1), default: 3600, metavar: "SECONDS" },
  ),
  choice(
    "awsSnapshotLockMode",
    ["--aws-snapshot-lock-mode"],
    ["governance", "compliance"],
    "lock snapshots in this mode",
    { section: "s3" },
  ),
  value(
    "awsSnapshotLockCoolOffPeriod",
    ["--aws-snapshot-lock-cool-off-period"],
    "hours in which a lock in compliance mode can still be changed: 1 to 72",
    { section: "s3", parse: integer("number of hours", 1, 72), metavar: "HOURS" },
  ),
  value(
    "awsSnapshotLockExpirationDate",
    ["--aws-snapshot-lock-expiration-date"],
    "end of the lock: YYYY-MM-DDThh:mm:ss.sssZ",
    { section: "s3", exclusive: "lock-end", parse: lockExpiration, metavar: "TIME" },
  ),
  value(
    "awsSnapshotLockDuration",
    ["--aws-snapshot-lock-duration"],
    "days of the lock: 1 to 36500",
    {
      section: "s3",
      exclusive: "lock-end",
      parse: integer("number of days", 1, 36_500),
      metavar: "DAYS",
    },
  ),
  value("azureSubscriptionId", ["--azure-subscription-id"], "subscription of the instance", {
    section: "azure",
  }),
  value("azureResourceGroup", ["--azure-resource-group"], "resource group of the instance", {
    section: "azure",
  }),
  value("gcpProject", ["--gcp-project"], "project that snapshots are stored in", {
    section: "gcs",
  }),
  value("gcpProject", ["--snapshot-gcp-project"], "old spelling of --gcp-project", {
    section: "gcs",
    metavar: "GCP_PROJECT",
  }),
  value("gcpZone", ["--gcp-zone"], "zone of the instance and its disks", { section: "gcs" }),
  value("gcpZone", ["--snapshot-zone"], "old spelling of --gcp-zone", {
    section: "gcs",
    metavar: "GCP_ZONE",
  }),
] as const;

export type BackupValues = ValuesOf<typeof BACKUP_OPTIONS> & {
  readonly destinationUrl: string;
  readonly serverName: string;
};

/** Most tags that stores take on an object. */
const MAX_TAGS = 10;

/** Is it snapshots that are wanted? */
export function wantsSnapshots(values: BackupValues): boolean {
  return values.snapshotInstance !== undefined || values.snapshotDisk !== undefined;
}

export function compressionOf(values: BackupValues): CompressionName | undefined {
  return (["gzip", "bzip2", "snappy", "lz4", "zstd"] as const).find((name) => values[name]);
}

/**
 * Combinations that can't be, in Barman's order; those of encryption come after these.
 * @throws {CommandError} exit code 4
 */
export function checkCombinations(values: BackupValues): void {
  const refuse = (message: string) => new CommandError(EXIT.generalError, message);
  const compression = compressionOf(values);
  if (wantsSnapshots(values) && compression !== undefined) {
    throw refuse(`Snapshots can't be compressed: leave out --${compression}`);
  }
  if (
    values.awsSnapshotLockMode === "governance" && values.awsSnapshotLockCoolOffPeriod !== undefined
  ) {
    throw refuse(
      "--aws-snapshot-lock-cool-off-period is for compliance mode: leave it out with governance",
    );
  }
  const tags = tagsOf(values) ?? [];
  if (tags.length > MAX_TAGS) {
    throw refuse(`${tags.length} tags are too many: an object can have ${MAX_TAGS}`);
  }
  const seen = new Set<string>();
  for (const [key] of tags) {
    if (seen.has(key)) throw refuse(`Tag '${key}' was given more than once`);
    seen.add(key);
  }
}

/**
 * Google's KMS key is one for objects; snapshots have none. Comes after the checks of encryption.
 * @throws {CommandError} exit code 4
 */
export function checkSnapshotKey(values: BackupValues): void {
  if (
    providerOf(values) === "google-cloud-storage" && values.kmsKeyName !== undefined &&
    values.snapshotInstance !== undefined
  ) {
    throw new CommandError(
      EXIT.generalError,
      "--kms-key-name is for uploaded objects: leave it out with --snapshot-instance",
    );
  }
}

/**
 * What snapshots need besides; looked at after the connection to PostgreSQL, as Barman does.
 * @throws {CommandError} exit code 4
 */
export function checkSnapshotOptions(values: BackupValues): void {
  const provider = providerOf(values);
  const needed: [flag: string, value: unknown][] = [
    ["--snapshot-disk", values.snapshotDisk],
    ["--snapshot-instance", values.snapshotInstance],
    ...(provider === "google-cloud-storage"
      ? [["--gcp-project", values.gcpProject], ["--gcp-zone", values.gcpZone]] as const
      : []).map(([flag, it]): [string, unknown] => [flag, it]),
    ...(provider === "azure-blob-storage"
      ? [
        ["--azure-subscription-id", values.azureSubscriptionId],
        ["--azure-resource-group", values.azureResourceGroup],
      ] as const
      : []).map(([flag, it]): [string, unknown] => [flag, it]),
  ];
  if (provider === "aws-s3" && values.awsSnapshotLockMode !== undefined) {
    needed.push([
      "--aws-snapshot-lock-duration (or --aws-snapshot-lock-expiration-date)",
      values.awsSnapshotLockDuration ?? values.awsSnapshotLockExpirationDate,
    ]);
  }
  const missing = needed.filter(([, it]) => it === undefined).map(([flag]) => flag);
  if (missing.length > 0) {
    throw new CommandError(
      EXIT.generalError,
      `Snapshots need more options: ${missing.join(", ")}`,
    );
  }
}

/** `--cloud-provider`, else what the URL tells. */
export function providerOf(values: BackupValues) {
  return values.cloudProvider ?? providerOfUrl(values.destinationUrl);
}

function levelWord(word: string): number | "low" | "medium" | "high" {
  const name = word.toLowerCase();
  if (name === "low" || name === "medium" || name === "high") return name;
  return integer("compression level")(word);
}

/** As Barman reads it: the fraction is needed, 1 to 6 digits. */
function lockExpiration(word: string): string {
  const match = /^(\d{4})-(\d\d)-(\d\d)T(\d\d):(\d\d):(\d\d)\.\d{1,6}Z$/.exec(word);
  const time = match === null ? NaN : Date.parse(word);
  // A day that is not in the calendar would roll over.
  if (Number.isNaN(time) || new Date(time).toISOString().slice(0, 10) !== word.slice(0, 10)) {
    throw new OptionValueError(`'${word}' is not a time of the form YYYY-MM-DDThh:mm:ss.sssZ`);
  }
  return word;
}
