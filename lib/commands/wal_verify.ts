import { defineCommand } from "../cli/command.ts";
import { COMMON, formatOf, OUTPUT_FORMAT, SOURCE } from "../cli/common_options.ts";
import { CommandError, EXIT } from "../cli/exit_codes.ts";
import { verifyArchive } from "../wal/verify.ts";
import { verifyJson, verifyTable } from "../wal/verify_print.ts";
import { isStoreError } from "../../providers/object_store.ts";
import { withSource } from "./open_store.ts";

export const command = defineCommand({
  name: "wal-verify",
  summary: "look for gaps in the WAL archive",
  description:
    "Looks through the WAL archive of a server: which timelines it has, which segments are missing, which are " +
    "there twice, and whether every backup has the WAL that it needs and how far recovery from it gets. It " +
    "reads listings and small files only. Exit codes: 0 when all is well, 1 when there are problems, 2 when " +
    "the store can't be reached or is overloaded, 3 for a bad command line, 4 for any other failure.",
  positionals: SOURCE,
  options: [...COMMON, ...OUTPUT_FORMAT],
  examples: [
    ["tables for a person", "PROGRAM s3://my-bucket/pg main"],
    ["for monitoring: the exit code tells", "PROGRAM -q s3://my-bucket/pg main && echo fine"],
    ["for a program", "PROGRAM --format json s3://my-bucket/pg main"],
  ],
}, (values, context) =>
  withSource(values, context, async ({ store, layout }) => {
    const { log, signal, stdout } = context;
    try {
      const report = await verifyArchive(store, layout, { signal, log });
      stdout(formatOf(values) === "console" ? verifyTable(report) : verifyJson(report));
      return report.problems.length === 0 ? EXIT.success : EXIT.operationFailed;
    } catch (error) {
      if (isStoreError(error, "unreachable", "unavailable")) {
        throw new CommandError(EXIT.noConnection, error.message, { cause: error });
      }
      throw error;
    }
  }));
