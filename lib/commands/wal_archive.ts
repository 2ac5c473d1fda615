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
import { archiveWal, planArchive } from "../wal/archive.ts";
import { parseWalName, type WalName } from "../wal/segment.ts";
import { encryptionOf, withStore } from "./open_store.ts";
import { testConnection } from "./test_connection.ts";

export const command = defineCommand({
  name: "wal-archive",
  summary: "store a WAL file in the archive (for archive_command)",
  description:
    "Stores one file of PostgreSQL's WAL (a segment, a history, partial or backup label file) in " +
    "the archive of a server. It is made for archive_command: it exits with 0 only when the " +
    "store has all of the file, and PostgreSQL tries again after anything else.",
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
      "low, medium (default), high, or a number (gzip, bzip2, xz: 1 to 9, zstd: -22 to 22, lz4: 0 to " +
        "16; the nearest of these is taken)",
      { parse: levelWord },
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
  const path = pathOf(options.walPath, context.env);
  const wal = walNameOf(path);
  const compression = compressionOf(options);
  const tags = tagsOf(options);
  const plan = {
    path,
    wal,
    compression,
    level: compression === null
      ? undefined
      : compressionLevel(compression, options.compressionLevel),
    tags: wal.kind === "history" ? options.historyTags ?? options.historyTag ?? tags : tags,
  };
  const extra = {
    ...encryptionOf(options),
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
      const { log, signal } = context;
      if (options.test) return await testConnection(store, log, { signal });
      const done = await archiveWal(store, planArchive(layout, plan), { signal, log });
      log.info(`Archived ${path} as ${done.key} (${done.storedSize} of ${done.size} bytes)`);
      return EXIT.success;
    },
    extra,
  );
});

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
