import { basename } from "node:path";
import { defineCommand } from "../cli/command.ts";
import { COMMON, SOURCE } from "../cli/common_options.ts";
import { CommandError, EXIT } from "../cli/exit_codes.ts";
import { flag, positional, value } from "../cli/options.ts";
import { integer } from "../cli/values.ts";
import { restoreWal } from "../wal/restore.ts";
import { parseWalName } from "../wal/segment.ts";
import { isStoreError } from "../../providers/object_store.ts";
import { withStore } from "./open_store.ts";
import { testConnection } from "./test_connection.ts";

export const command = defineCommand({
  name: "wal-restore",
  summary: "fetch a WAL file from the archive (for restore_command)",
  description:
    "Fetches one file of PostgreSQL's WAL from the archive of a server, whatever it was compressed " +
    "with. It is made for restore_command. The file appears at its destination whole or not at " +
    "all. Exit codes: 0 when it is there, 1 when the archive does not have it, 2 when the store " +
    "can't be reached or is overloaded, 3 for a bad command line, 4 for any other failure.",
  positionals: [
    ...SOURCE,
    positional("walName", "name of the file to fetch, %f in restore_command"),
    positional("walDest", "where to write it, %p in restore_command"),
  ],
  options: [
    ...COMMON,
    flag(
      "noPartial",
      ["--no-partial"],
      "do not take a .partial file for a segment that is not there complete",
    ),
    value(
      "parallel",
      ["-p", "--parallel"],
      "accepted for compatibility: every call fetches the one file that it was asked for",
      { parse: integer("number of files", 0), metavar: "N" },
    ),
    value(
      "spoolDir",
      ["--spool-dir"],
      "accepted for compatibility: nothing is fetched ahead, so no spool is needed",
      { metavar: "DIR" },
    ),
  ],
  examples: [
    [
      "in postgresql.conf, for a standby or a recovery",
      "restore_command = 'PROGRAM s3://my-bucket/pg main %f %p'",
    ],
    [
      "look into a segment",
      "PROGRAM s3://my-bucket/pg main 000000010000000000000001 /tmp/000000010000000000000001 && " +
      "pg_waldump /tmp/000000010000000000000001",
    ],
  ],
}, async (options, context) => {
  const { log, signal } = context;
  // A path is tolerated, as Barman does; only the name matters.
  const wal = parseWalName(basename(options.walName));
  if (wal === null) {
    throw new CommandError(EXIT.usage, `'${options.walName}' is not the name of a WAL file`);
  }
  return await withStore(
    options.sourceUrl,
    options.serverName,
    options,
    context,
    async ({ store, layout }) => {
      if (options.test) return await testConnection(store, log, { signal });
      const request = { wal, destination: options.walDest, partial: !options.noPartial };
      try {
        const result = await restoreWal(store, layout, request, { signal, log });
        if (result.kind === "not-found") {
          // PostgreSQL asks for files that are not there all the time: no noise.
          log.info(`${wal.name} is not in the archive of ${options.serverName}`);
          return EXIT.operationFailed;
        }
        log.info(`Restored ${result.candidate.key} to ${options.walDest} (${result.size} bytes)`);
        return EXIT.success;
      } catch (error) {
        if (isStoreError(error, "unreachable", "unavailable")) {
          throw new CommandError(EXIT.noConnection, error.message, { cause: error });
        }
        throw error;
      }
    },
  );
});
