import { loadBackupInfo, loadCatalogue, resolveBackupId } from "../backup/catalogue.ts";
import { verifyBackup } from "../backup/verify.ts";
import { verificationJson, verificationText } from "../backup/verify_print.ts";
import { defineCommand } from "../cli/command.ts";
import { COMMON, formatOf, OUTPUT_FORMAT, SOURCE } from "../cli/common_options.ts";
import { CommandError, EXIT } from "../cli/exit_codes.ts";
import { choice, positional, value } from "../cli/options.ts";
import { startProgress } from "../cli/progress.ts";
import { integer } from "../cli/values.ts";
import { defaultRestoreJobs } from "../restore/jobs.ts";
import { RestoreError } from "../restore/restore_error.ts";
import { isStoreError } from "../../providers/object_store.ts";
import { PATIENT_ATTEMPTS, withSource } from "./open_store.ts";

export const command = defineCommand({
  name: "backup-verify",
  summary: "read a backup back and check all of it",
  description:
    "Reads every archive of a base backup from the store, to its end, and writes nothing: does it decompress, is it a " +
    "whole tar archive, has every file the size and checksum that the backup's manifest says, have data pages the " +
    "checksums that they should have, and is the WAL from begin to end of the backup in the archive? Backups made by " +
    "Barman have no manifest; all else is checked. Exit codes: 0 when all is well, 1 when there are problems, 2 when " +
    "the store can't be reached or is overloaded, 3 for a bad command line, 4 for any other failure.",
  positionals: [
    ...SOURCE,
    positional("backupId", "id or name of the backup, or first, last (latest), last-failed"),
  ],
  options: [
    ...COMMON,
    ...OUTPUT_FORMAT,
    value(
      "jobs",
      ["--jobs"],
      "archives read at once, and threads for gzip and bzip2 (default: 4, fewer on small machines)",
      {
        parse: integer("number of jobs", 1, 64),
      },
    ),
    choice(
      "missingWal",
      ["--missing-wal"],
      ["fail", "warn", "ignore"],
      "what it means when WAL that the backup needs is not in the archive of this store: a problem ('fail', the " +
        "default), a warning, or nothing ('ignore': do not look, as WAL is archived elsewhere)",
    ),
  ],
  examples: [
    ["the newest backup", "PROGRAM s3://my-bucket/pg main latest"],
    [
      "for monitoring: the exit code tells",
      "PROGRAM -q s3://my-bucket/pg main latest && echo fine",
    ],
    [
      "a certain one, for a program",
      "PROGRAM --format json s3://my-bucket/pg main 20260115T103000",
    ],
  ],
}, (values, context) =>
  withSource(values, context, async ({ store, layout }) => {
    const { log, signal, stdout } = context;
    const progress = startProgress(context, "Verify");
    try {
      const load = () => loadCatalogue(store, layout, { signal });
      const id = await resolveBackupId(values.backupId, load);
      const info = await loadBackupInfo(store, layout, id, { signal });
      if (info === null) {
        log.error(`Backup ${id} of server ${values.serverName} does not exist`);
        return EXIT.operationFailed;
      }
      const report = await verifyBackup({
        store,
        layout,
        backupId: id,
        info,
        jobs: values.jobs ?? defaultRestoreJobs(),
        wal: values.missingWal ?? "fail",
        signal,
        log,
        onProgress: progress.listener,
      });
      progress.stop();
      stdout(
        formatOf(values) === "console" ? verificationText(report) : verificationJson(report),
      );
      return report.problemCount === 0 ? EXIT.success : EXIT.operationFailed;
    } catch (error) {
      if (isStoreError(error, "unreachable", "unavailable")) {
        throw new CommandError(EXIT.noConnection, error.message, { cause: error });
      }
      if (error instanceof RestoreError) {
        throw new CommandError(EXIT.generalError, error.message, { cause: error });
      }
      throw error;
    } finally {
      progress.stop();
    }
  }, { attempts: values.test ? undefined : PATIENT_ATTEMPTS }));
