/** What the exit codes of each command mean, for the generated documentation. The codes are those of lib/cli. */
import { EXIT, type ExitCode } from "../../lib/cli/exit_codes.ts";

export type Meaning = readonly [code: ExitCode, meaning: string];

const INTERRUPTED: readonly Meaning[] = [
  [EXIT.interrupted, "stopped by SIGINT"],
  [EXIT.terminated, "stopped by SIGTERM"],
];

const TEST: readonly Meaning[] = [
  [EXIT.noConnection, "with --test: the store can't be reached"],
];

const USAGE: Meaning = [EXIT.usage, "bad command line"];

const store = (
  own: readonly Meaning[],
  others = "anything else, such as a store that refuses or fails",
) => [...own, [EXIT.generalError, others] as const, ...INTERRUPTED];

const NO_BUCKET = "with --test: there is no such bucket";

export const EXIT_CODE_MEANINGS: Readonly<Record<string, readonly Meaning[]>> = {
  backup: store([
    [EXIT.success, "the backup is complete, backup.info included"],
    [
      EXIT.operationFailed,
      "PostgreSQL can't be reached, or the backup failed after its start (backup.info then says FAILED); " +
      NO_BUCKET,
    ],
    ...TEST,
    USAGE,
  ], "anything else, such as options that don't go together, or a server that is not supported")
    .concat([
      [
        EXIT.hookUnrecoverable,
        "as hook script of Barman: the backup is not DONE, and trying again is of no use",
      ],
    ]),
  "backup-delete": store([
    [
      EXIT.success,
      "done, or there was nothing to delete; WAL that could not be deleted is an error in the log",
    ],
    [
      EXIT.operationFailed,
      "nothing or not all was deleted: a backup.info can't be read, the backup is kept, too few would be left, an " +
      `object is locked or could not be deleted; ${NO_BUCKET}`,
    ],
    ...TEST,
    [EXIT.usage, "bad command line, or a policy that can't be understood"],
  ]),
  "backup-verify": store([
    [EXIT.success, "the backup is whole"],
    [
      EXIT.operationFailed,
      `there are problems (they are printed), or there is no such backup; ${NO_BUCKET}`,
    ],
    [EXIT.noConnection, "the store can't be reached or is overloaded"],
    USAGE,
  ]),
  "backup-keep": store([
    [EXIT.success, "done; --status also for a backup that does not exist"],
    [
      EXIT.operationFailed,
      `--target for a backup that is not DONE, or that is being deleted; ${NO_BUCKET}`,
    ],
    ...TEST,
    USAGE,
  ], "anything else, such as --target for a backup that does not exist"),
  "backup-list": store([
    [EXIT.success, "listed; a damaged backup.info is a warning"],
    [EXIT.operationFailed, NO_BUCKET],
    ...TEST,
    USAGE,
  ], "anything else: the list would not be complete, so there is none"),
  "backup-show": store([
    [EXIT.success, "shown"],
    [EXIT.operationFailed, `there is no backup with that id; ${NO_BUCKET}`],
    ...TEST,
    USAGE,
  ], "anything else, such as a name that no backup or several have"),
  "check-wal-archive": store([
    [EXIT.success, "the archive can be used; the bucket was made if need be"],
    [EXIT.operationFailed, "the archive holds WAL (of that timeline or a later one)"],
    [EXIT.noConnection, "the store can't be reached"],
    USAGE,
  ]),
  restore: store([
    [EXIT.success, "restored"],
    [
      EXIT.operationFailed,
      "there is no such backup, the directory is not empty, an archive is missing, or it was stopped; " +
      NO_BUCKET,
    ],
    ...TEST,
    USAGE,
  ]),
  "wal-archive": store(
    [
      [EXIT.success, "the store has all of the file"],
      [
        EXIT.operationFailed,
        `no path was given, or not run as the right hook script; ${NO_BUCKET}`,
      ],
      ...TEST,
      [EXIT.usage, "bad command line, or not the name of a WAL file"],
    ],
    "anything else: the archive holds a different file of that name, the file is WAL of another cluster, it can't be " +
      "read, the store refuses or fails",
  ),
  "wal-restore": store(
    [
      [EXIT.success, "the file is at its destination"],
      [EXIT.operationFailed, `the archive does not have the file; ${NO_BUCKET}`],
      [EXIT.noConnection, "the store can't be reached, or is overloaded"],
      [EXIT.usage, "bad command line, or not the name of a WAL file"],
      [EXIT.stopRecovery, "with --stop-recovery-on-error: instead of 2 and 4"],
    ],
    "anything else: the bucket is missing, access denied, the data damaged, the destination not writable",
  ),
  "wal-verify": store([
    [EXIT.success, "nothing is missing"],
    [EXIT.operationFailed, `there are problems, which the report names; ${NO_BUCKET}`],
    [EXIT.noConnection, "the store can't be reached, or is overloaded"],
    USAGE,
  ]),
  cleanup: store([
    [EXIT.success, "done, or there was nothing to remove"],
    [EXIT.operationFailed, `something could not be removed, which the log names; ${NO_BUCKET}`],
    ...TEST,
    USAGE,
  ]),
  links: [
    [EXIT.success, "made"],
    USAGE,
    [EXIT.generalError, "a link could not be made, or a file of its name is there"],
  ],
  version: [[EXIT.success, "told"], USAGE],
};
