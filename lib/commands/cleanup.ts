import type { Leftover } from "../backup/cleanup.ts";
import { defineCommand } from "../cli/command.ts";
import { COMMON, formatOf, OUTPUT_FORMAT, SOURCE } from "../cli/common_options.ts";
import { EXIT } from "../cli/exit_codes.ts";
import { flag, OptionValueError, valueWithDefault } from "../cli/options.ts";
import { withSource } from "./open_store.ts";

const HOUR_MS = 3600_000;
const DEFAULT_MS = 7 * 24 * HOUR_MS;

export const command = defineCommand({
  name: "cleanup",
  summary: "remove what killed processes left in the store",
  description:
    "Remove what processes left that were killed (or lost the store) before they could clean up: parts of uploads that " +
    "nobody completed, and backups without backup.info. Only what has shown no sign of life for a time is touched: " +
    "no part, object or running mark of it is younger than --older-than. Complete backups and WAL files are never touched.",
  positionals: SOURCE,
  options: [
    ...COMMON,
    valueWithDefault<"olderThan", number>(
      "olderThan",
      ["--older-than"],
      "how long nothing must have happened: 'n HOURS' or 'n DAYS', 1 hour at least (default: 7 DAYS)",
      { parse: duration, default: DEFAULT_MS, metavar: "TIME" },
    ),
    flag(
      "failed",
      ["--failed"],
      "remove backups whose status is FAILED, too (those made of disk snapshots are left to backup-delete)",
    ),
    flag("dryRun", ["--dry-run"], "print what would be removed, remove nothing"),
    ...OUTPUT_FORMAT,
  ],
  examples: [
    ["what has been left?", "PROGRAM --dry-run s3://backups/pg main"],
    ["in a daily job", "PROGRAM --older-than '2 DAYS' --failed s3://backups/pg main"],
  ],
}, (values, context) =>
  withSource(values, context, async ({ store, layout }) => {
    const { log, signal, stdout } = context;
    const { executeCleanup, planCleanup } = await import("../backup/cleanup.ts");
    const cleanup = { store, layout, log, signal };
    const request = {
      olderThanMs: values.olderThan,
      failed: values.failed,
      now: context.now(),
    };
    const plan = await planCleanup(cleanup, request);
    const result = values.dryRun
      ? { removed: plan.remove, left: [], failed: false }
      : await executeCleanup(cleanup, request, plan);
    const left = [...plan.leave, ...result.left];
    if (formatOf(values) === "console") {
      const verb = values.dryRun ? "Would remove" : "Removed";
      for (const leftover of result.removed) stdout(`${verb} ${lineOf(leftover)}\n`);
      for (const leftover of left) log.info(`Left ${lineOf(leftover)}`);
    } else {
      stdout(`${
        JSON.stringify({
          dry_run: values.dryRun,
          removed: result.removed.map(jsonOf),
          left: left.map(jsonOf),
        })
      }\n`);
    }
    for (const leftover of result.left) log.warning(`Could not remove ${lineOf(leftover)}`);
    return result.failed ? EXIT.operationFailed : EXIT.success;
  }));

function lineOf({ kind, key, size, objects, reason }: Leftover): string {
  if (kind === "claim") return `the claim ${key}: ${reason}`;
  return kind === "upload"
    ? `the unfinished upload of ${key} (${size} bytes): ${reason}`
    : `the unfinished backup ${key} (${objects} objects, ${size} bytes): ${reason}`;
}

function jsonOf({ kind, key, backupId, size, objects, lastActivity, reason, uploads }: Leftover) {
  return {
    kind,
    key,
    backup_id: backupId,
    objects,
    uploads: uploads.length,
    bytes: size,
    last_activity: lastActivity?.toISOString() ?? null,
    reason,
  };
}

/** `36 HOURS`, `7 days`; milliseconds. */
function duration(word: string): number {
  const [, number = "", unit = ""] = /^\s*(\d{1,6})\s*(h|hours?|d|days?)\s*$/i.exec(word) ?? [];
  const ms = Number(number) * (/^d/i.test(unit) ? 24 : 1) * HOUR_MS;
  if (number === "" || ms < HOUR_MS) {
    throw new OptionValueError(
      `'${word}' is not a time of 1 hour or more (examples: '36 HOURS', '7 DAYS')`,
    );
  }
  return ms;
}
