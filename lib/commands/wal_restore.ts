import { basename } from "node:path";
import { type CommandContext, defineCommand } from "../cli/command.ts";
import { COMMON, SOURCE } from "../cli/common_options.ts";
import { CommandError, EXIT, type ExitCode } from "../cli/exit_codes.ts";
import { flag, positional, value } from "../cli/options.ts";
import { integer } from "../cli/values.ts";
import { restoreAhead, takeFetched } from "../wal/prefetch.ts";
import { restoreWal } from "../wal/restore.ts";
import { parseWalName } from "../wal/segment.ts";
import { openSpool } from "../wal/spool.ts";
import { isStoreError } from "../../providers/object_store.ts";
import { restoreSpool } from "./from_spool.ts";
import { withSource } from "./open_store.ts";

export const command = defineCommand({
  name: "wal-restore",
  summary: "fetch a WAL file from the archive (for restore_command)",
  description:
    "Fetches one file of PostgreSQL's WAL from the archive of a server, whatever it was compressed " +
    "with. It is made for restore_command. The file appears at its destination whole or not at " +
    "all. Exit codes: 0 when it is there, 1 when the archive does not have it, 2 when the store " +
    "can't be reached or is overloaded, 3 for a bad command line, 4 for any other failure. PostgreSQL " +
    "takes all of these but 0 for the end of the WAL: a recovery ends there, perhaps too early. " +
    "--stop-recovery-on-error prevents that.",
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
    flag(
      "stopRecoveryOnError",
      ["--stop-recovery-on-error"],
      "exit with 126 instead of 2 and 4, which makes PostgreSQL stop the recovery (to be started again) " +
        "instead of ending it where the WAL could not be fetched",
      { ours: true },
    ),
    value(
      "parallel",
      ["-p", "--parallel"],
      "fetch up to N files in one call: the one that was asked for, and at the same time those that recovery will ask " +
        "for next; their calls then answer at once (default: 1)",
      { parse: integer("number of files", 0), metavar: "N" },
    ),
    value<"spoolDir", string>(
      "spoolDir",
      ["--spool-dir"],
      "where --parallel puts what it fetches ahead, a directory that only this user can write into (default: " +
        "/var/tmp/barman-cloud-UID); best on the file system of the data directory; it may be wiped at any time",
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
  const exitCode = (code: ExitCode) => options.stopRecoveryOnError ? EXIT.stopRecovery : code;
  // A path is tolerated, as Barman does; only the name matters.
  const wal = parseWalName(basename(options.walName));
  if (wal === null) {
    throw new CommandError(EXIT.usage, `'${options.walName}' is not the name of a WAL file`);
  }
  const files = wal.kind === "segment" && !options.test ? options.parallel ?? 1 : 1;
  const spool = files > 1 ? await openRestoreSpool(options, context) : null;
  if (spool !== null && await takeFetched(spool, wal.name, options.walDest)) {
    log.info(`${wal.name} was fetched ahead by a call before`);
    return EXIT.success;
  }
  return await withSource(options, context, async ({ store, layout }) => {
    const request = { wal, destination: options.walDest, partial: !options.noPartial };
    try {
      const result = spool === null
        ? await restoreWal(store, layout, request, { signal, log })
        : await restoreAhead(store, layout, request, { signal, log, spool, files });
      if (result.kind === "not-found") {
        // PostgreSQL asks for files that are not there all the time: no noise.
        log.info(`${wal.name} is not in the archive of ${options.serverName}`);
        return EXIT.operationFailed;
      }
      log.info(`Restored ${result.candidate.key} to ${options.walDest} (${result.size} bytes)`);
      return EXIT.success;
    } catch (error) {
      if (signal.aborted || !(error instanceof Error)) throw error;
      const code = isStoreError(error, "unreachable", "unavailable")
        ? EXIT.noConnection
        : EXIT.generalError;
      throw new CommandError(exitCode(code), error.message, { cause: error });
    }
  });
});

/** @returns null when it can't be used, which has been said */
async function openRestoreSpool(
  { spoolDir, walName, walDest }: {
    readonly spoolDir: string | undefined;
    readonly walName: string;
    readonly walDest: string;
  },
  { words, env, log }: CommandContext,
): Promise<string | null> {
  if (words === undefined) return null;
  const spool = await restoreSpool(spoolDir, words, [walName, walDest], env);
  return await openSpool(spool, log) ? spool : null;
}
