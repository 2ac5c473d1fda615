import { DeletionFailed, executeDeletion, planDeletion, printDeletion } from "../backup/delete.ts";
import { MalformedPolicy, parseRetentionPolicy } from "../backup/retention.ts";
import { defineCommand } from "../cli/command.ts";
import { COMMON, formatOf, OUR_OUTPUT_FORMAT, SOURCE } from "../cli/common_options.ts";
import { CommandError, EXIT } from "../cli/exit_codes.ts";
import { flag, OptionValueError, value, valueWithDefault } from "../cli/options.ts";
import { integer } from "../cli/values.ts";
import { withSource } from "./open_store.ts";

export const command = defineCommand({
  name: "backup-delete",
  summary: "delete backups, and WAL that no backup needs",
  description:
    "Delete one backup, or all that a retention policy makes obsolete, and then the WAL that no remaining backup " +
    "needs. Backups that are kept (barman-cloud-backup-keep) and backups that are not DONE are never deleted by a " +
    "policy. The newest backup that is older than a recovery window stays, since the window begins with it.",
  positionals: SOURCE,
  options: [
    ...COMMON,
    value<"backupId">(
      "backupId",
      ["-b", "--backup-id"],
      "id or name of the backup, or first, last",
      {
        exclusive: "what",
      },
    ),
    value(
      "retentionPolicy",
      ["-r", "--retention-policy"],
      "'REDUNDANCY n' or 'RECOVERY WINDOW OF n DAYS' (or WEEKS, or MONTHS of 31 days)",
      { exclusive: "what", parse: policy },
    ),
    valueWithDefault(
      "minimumRedundancy",
      ["-m", "--minimum-redundancy"],
      "number of backups to leave in any case (default: 0)",
      { parse: integer("number of backups", 0), default: 0 },
    ),
    flag("dryRun", ["--dry-run"], "print what would be deleted, delete nothing"),
    ...OUR_OUTPUT_FORMAT,
    value("batchSize", ["--batch-size"], "most objects to delete with one request", {
      parse: integer("batch size"),
    }),
    flag(
      "checkObjectLock",
      ["--check-object-lock"],
      "before deleting anything of a backup make sure that none of its objects is locked",
      { section: "s3" },
    ),
  ],
  requiredGroups: ["what"],
  examples: [
    [
      "what would a policy delete?",
      "PROGRAM --dry-run --retention-policy 'RECOVERY WINDOW OF 30 DAYS' s3://backups/pg main",
    ],
    ["delete one backup", "PROGRAM --backup-id 20260115T103000 s3://backups/pg main"],
  ],
}, (values, context) =>
  withSource(values, context, async ({ store, layout }) => {
    const { log, signal, stdout } = context;
    const { backupId, retentionPolicy, minimumRedundancy, batchSize } = values;
    const deletion = { store, layout, log, signal };
    // An empty id deletes nothing, as in Barman: scripts pass variables that may be empty.
    if (backupId === "" || (backupId === undefined && retentionPolicy === undefined)) {
      if (values.dryRun) await printDeletion(deletion, [], stdout, formatOf(values));
      return EXIT.success;
    }
    try {
      const plan = await planDeletion(
        deletion,
        retentionPolicy === undefined
          ? { kind: "backup", argument: backupId ?? "" }
          : { kind: "policy", policy: retentionPolicy },
        { minimumRedundancy, now: context.now() },
      );
      if (values.dryRun) await printDeletion(deletion, plan, stdout, formatOf(values));
      else {
        await executeDeletion(deletion, plan, {
          minimumRedundancy,
          now: context.now,
          batchSize: batchSize === undefined
            ? null
            : Math.min(Math.max(batchSize, 1), store.limits.maxDeleteBatch),
          checkObjectLock: values.checkObjectLock,
          deleteSnapshots: async (id, snapshots, onBegun) => {
            const { deleteSnapshotsOf } = await import("./delete_snapshots.ts");
            const place = { url: values.sourceUrl, onBegun };
            await deleteSnapshotsOf(id, snapshots, place, values, context);
          },
        });
      }
    } catch (error) {
      if (!(error instanceof DeletionFailed)) throw error;
      throw new CommandError(EXIT.operationFailed, error.message, { cause: error });
    }
    return EXIT.success;
  }));

function policy(word: string) {
  try {
    return parseRetentionPolicy(word);
  } catch (error) {
    if (error instanceof MalformedPolicy) throw new OptionValueError(error.message);
    throw error;
  }
}
