import { basename } from "node:path";
import { type CommandContext, defineCommand } from "../cli/command.ts";
import {
  COMMON,
  DESTINATION,
  tagsOf,
  WRITE_ENCRYPTION,
  WRITE_TAGS,
} from "../cli/common_options.ts";
import { CommandError, EXIT } from "../cli/exit_codes.ts";
import {
  append,
  flag,
  optionalPositional,
  OptionValueError,
  value,
  values,
  valueWithDefault,
} from "../cli/options.ts";
import { csvTag, integer, size, tag } from "../cli/values.ts";
import { compressionLevel, type CompressionName } from "../compression/table.ts";
import type { ArchivedWal, ArchiveRequest } from "../wal/archive.ts";
import { isNoted } from "../wal/archive_notes.ts";
import { parseWalName, type WalName } from "../wal/segment.ts";
import { openSpool } from "../wal/spool.ts";
import { archiveSpool } from "./from_spool.ts";
import { encryptionOf, withStore } from "./open_store.ts";
import { testConnection } from "./test_connection.ts";

export const command = defineCommand({
  name: "wal-archive",
  summary: "store a WAL file in the archive (for archive_command)",
  description:
    "Stores one file of PostgreSQL's WAL (a segment, a history, partial or backup label file) in " +
    "the archive of a server. It is made for archive_command: it exits with 0 only when the " +
    "store has all of the file, and PostgreSQL tries again after anything else. A file that is in " +
    "the archive is never replaced by a different one, and WAL of another cluster is refused.",
  positionals: [
    ...DESTINATION,
    optionalPositional(
      "walPath",
      "the file to store, %p in archive_command (as hook script of Barman: BARMAN_FILE instead)",
    ),
  ],
  options: [
    ...COMMON,
    flag("gzip", ["-z", "--gzip"], "compress with gzip", { exclusive: "compression" }),
    flag("bzip2", ["-j", "--bzip2"], "compress with bzip2", { exclusive: "compression" }),
    flag("xz", ["--xz"], "compress with xz", { exclusive: "compression" }),
    flag("snappy", ["--snappy"], "compress with snappy", { exclusive: "compression" }),
    flag("zstd", ["--zstd"], "compress with Zstandard", { exclusive: "compression" }),
    flag("lz4", ["--lz4"], "compress with LZ4", { exclusive: "compression" }),
    value(
      "compressionLevel",
      ["--compression-level"],
      "low, medium (default; gzip: 5, zstd, lz4: low), high, or a number (gzip, bzip2, xz: 1 to 9, zstd: -22 to 22, lz4: 0 to " +
        "16; the nearest of these is taken)",
      { parse: levelWord },
    ),
    value(
      "lookAhead",
      ["--look-ahead"],
      "archive up to N files in one call: the one that was asked for, and at the same time the segments that " +
        "PostgreSQL will ask for next; their calls then answer at once (default: 1; 32 is good for busy servers)",
      { parse: integer("number of files", 1), metavar: "N", ours: true },
    ),
    value<"spoolDir", string>(
      "spoolDir",
      ["--spool-dir"],
      "where --look-ahead notes what is archived, a directory that only this user can write into (default: " +
        "/var/tmp/barman-cloud-UID); it may be wiped at any time",
      { metavar: "DIR", ours: true },
    ),
    flag(
      "overwrite",
      ["--overwrite"],
      "replace a file that is in the archive already, as Barman does (default: the same content is fine, " +
        "another is refused with exit code 4)",
      { ours: true },
    ),
    flag(
      "noWalCheck",
      ["--no-wal-check"],
      "do not check that the file is the WAL segment that its name says, and of the cluster whose archive it is",
      { ours: true },
    ),
    flag(
      "newCluster",
      ["--new-cluster"],
      "the archive of another cluster goes on with that of this file: for one call by hand after pg_upgrade; in " +
        "archive_command it would let any cluster in",
      { ours: true },
    ),
    ...WRITE_TAGS,
    append("historyTag", ["--history-tag"], "tag on history files instead of the others", {
      exclusive: "history-tags",
      parse: tag,
      metavar: "KEY,VALUE",
    }),
    values(
      "historyTags",
      ["--history-tags"],
      "old form of --history-tag: all following words are KEY,VALUE",
      { exclusive: "history-tags", parse: csvTag, metavar: "KEY,VALUE" },
    ),
    ...WRITE_ENCRYPTION,
    valueWithDefault(
      "maxBlockSize",
      ["--max-block-size"],
      "size of a block where a file needs several (default: 4MB)",
      { section: "azure", parse: size, default: 4 * 1024 ** 2, metavar: "SIZE" },
    ),
    valueWithDefault(
      "maxConcurrency",
      ["--max-concurrency"],
      "blocks uploaded at the same time (default: 1)",
      { section: "azure", parse: integer("number of blocks", 1), default: 1, metavar: "N" },
    ),
    valueWithDefault(
      "maxSinglePutSize",
      ["--max-single-put-size"],
      "largest file uploaded in one request (default: 64MB)",
      { section: "azure", parse: size, default: 64 * 1024 ** 2, metavar: "SIZE" },
    ),
  ],
  examples: [
    [
      "in postgresql.conf",
      "archive_command = 'PROGRAM --zstd s3://my-bucket/pg main %p'",
    ],
    [
      "the same on a server of your own that speaks S3",
      "archive_command = 'PROGRAM --lz4 --endpoint-url https://s3.example.com s3://my-bucket/pg main %p'",
    ],
    [
      "archive one file by hand, into a directory",
      "PROGRAM -v --gzip file:///srv/backup main /var/lib/postgresql/17/main/pg_wal/000000010000000000000001",
    ],
    [
      "does the connection work (any valid name will do)",
      "PROGRAM --test s3://my-bucket/pg main 000000010000000000000001",
    ],
  ],
}, async (options, context) => {
  const { log, signal } = context;
  const path = pathOf(options.walPath, context.env);
  const wal = walNameOf(path);
  const compression = compressionOf(options);
  const tags = tagsOf(options);
  const encryption = encryptionOf(options);
  const files = filesOf(options);
  const spool = files === 1 || options.test ? null : await openArchiveSpool(options, path, context);
  if (spool !== null && await isNoted(spool, path)) {
    log.info(`${path} was archived ahead by a call before`);
    return EXIT.success;
  }
  const request = (path: string, wal: WalName): ArchiveRequest => ({
    path,
    wal,
    compression,
    level: compression === null
      ? undefined
      : compressionLevel(compression, options.compressionLevel, "wal"),
    tags: wal.kind === "history" ? options.historyTags ?? options.historyTag ?? tags : tags,
    overwrite: options.overwrite,
    unchecked: options.noWalCheck,
    takeOver: options.newCluster,
  });
  const extra = {
    ...encryption,
    maxBlockSize: options.maxBlockSize,
    maxConcurrency: options.maxConcurrency,
    maxSinglePutSize: options.maxSinglePutSize,
  };
  return await withStore(
    options.destinationUrl,
    options.serverName,
    options,
    context,
    async ({ store, layout }) => {
      if (options.test) return await testConnection(store, log, { signal });
      const { archiveWal, planArchive } = await import("../wal/archive.ts");
      const plan = planArchive(layout, request(path, wal));
      let done: ArchivedWal;
      if (spool === null) done = await archiveWal(store, plan, { signal, log });
      else {
        const { archiveAhead } = await import("../wal/look_ahead.ts");
        const planOf = (path: string) => {
          const wal = parseWalName(basename(path));
          return wal === null ? null : planArchive(layout, request(path, wal));
        };
        done = await archiveAhead(store, plan, planOf, { signal, log, spool, files });
      }
      if (done.outcome === "stored") {
        log.info(`Archived ${path} as ${done.key} (${done.storedSize} of ${done.size} bytes)`);
      }
      return EXIT.success;
    },
    extra,
  );
});

/** @throws {CommandError} exit code 3: with --overwrite a file that PostgreSQL has recycled could replace a good one */
function filesOf(
  { lookAhead = 1, overwrite }: {
    readonly lookAhead: number | undefined;
    readonly overwrite: boolean;
  },
): number {
  if (lookAhead > 1 && overwrite) {
    throw new CommandError(EXIT.usage, "--look-ahead is not allowed with --overwrite");
  }
  return lookAhead;
}

/** @returns null when it can't be used, which has been said */
async function openArchiveSpool(
  { spoolDir }: { readonly spoolDir: string | undefined },
  path: string,
  { words, env, log }: CommandContext,
): Promise<string | null> {
  if (words === undefined) return null;
  const spool = await archiveSpool(spoolDir, words, path, env);
  return await openSpool(spool, log) ? spool : null;
}

/**
 * The file to archive: as an archive script of Barman's the one that its environment names, else the argument.
 * @throws {CommandError} exit code 1, as Barman
 */
function pathOf(argument: string | undefined, env: CommandContext["env"]): string {
  const { BARMAN_HOOK: hook, BARMAN_PHASE: phase, BARMAN_FILE: file } = env;
  if (hook && phase) {
    if (phase !== "pre" || !["archive_script", "archive_retry_script"].includes(hook)) {
      throw new CommandError(
        EXIT.operationFailed,
        `Cannot run as ${phase}_${hook} of Barman: only as pre_archive_script or pre_archive_retry_script`,
      );
    }
    if (!file) {
      throw new CommandError(
        EXIT.operationFailed,
        `Cannot run as ${phase}_${hook} of Barman: BARMAN_FILE does not name a file`,
      );
    }
    return file;
  }
  if (!argument) {
    throw new CommandError(
      EXIT.operationFailed,
      "Nothing to archive: the path of the WAL file is missing (%p in archive_command)",
    );
  }
  return argument;
}

function walNameOf(path: string): WalName {
  const wal = parseWalName(basename(path));
  if (wal === null) {
    throw new CommandError(EXIT.usage, `'${basename(path)}' is not the name of a WAL file`);
  }
  return wal;
}

function compressionOf(flags: Readonly<Record<CompressionName, boolean>>): CompressionName | null {
  const names = ["gzip", "bzip2", "xz", "snappy", "zstd", "lz4"] as const;
  return names.find((name) => flags[name]) ?? null;
}

function levelWord(word: string): number | "low" | "medium" | "high" {
  const name = word.toLowerCase();
  if (name === "low" || name === "medium" || name === "high") return name;
  try {
    return integer("compression level")(word);
  } catch (error) {
    if (!(error instanceof OptionValueError)) throw error;
    throw new OptionValueError(
      `'${word}' is not a compression level: low, medium, high or a number`,
    );
  }
}
