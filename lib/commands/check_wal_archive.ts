import { defineCommand } from "../cli/command.ts";
import { COMMON, DESTINATION } from "../cli/common_options.ts";
import { EXIT } from "../cli/exit_codes.ts";
import { value } from "../cli/options.ts";
import { integer } from "../cli/values.ts";
import { findConflict } from "../wal/catalogue.ts";
import { withStore } from "./open_store.ts";
import { checkConnection } from "./test_connection.ts";

export const command = defineCommand({
  name: "check-wal-archive",
  summary: "is the WAL archive safe for a new server",
  description:
    "Checks that the WAL archive of a server is empty, so that a new PostgreSQL server can archive " +
    "there without touching another one's files. The bucket is made when it is not there. Exit " +
    "codes: 0 when the archive can be used, 1 when it holds WAL, 2 without connection to the " +
    "store, 3 for a bad command line, 4 for any other failure.",
  positionals: DESTINATION,
  options: [
    ...COMMON,
    value(
      "timeline",
      ["--timeline"],
      "only WAL of this timeline or a later one is a problem",
      { parse: integer("timeline", 1), metavar: "N" },
    ),
  ],
  examples: [
    ["before the first start of a new server", "PROGRAM s3://my-bucket/pg main"],
    [
      "before a restored server is promoted to timeline 3",
      "PROGRAM --timeline 3 s3://my-bucket/pg main",
    ],
  ],
}, async (options, context) => {
  const { log, signal } = context;
  return await withStore(
    options.destinationUrl,
    options.serverName,
    options,
    context,
    async ({ store, layout }) => {
      const connection = await checkConnection(store, log, { signal });
      if (connection === "no-connection") return EXIT.noConnection;
      // A missing bucket is fine: without -t it is about to be made.
      if (options.test) return EXIT.success;
      if (connection === "no-bucket") {
        await store.createBucket({ signal });
        log.info(`Made ${store.description}`);
      }
      const conflict = await findConflict(store, layout, { timeline: options.timeline, signal });
      if (conflict === null) return EXIT.success;
      log.error(
        options.timeline === undefined
          ? `The WAL archive of ${options.serverName} is not empty: it holds ${conflict.object.key}`
          : `The WAL archive of ${options.serverName} holds WAL of timeline ${options.timeline} ` +
            `or later: ${conflict.object.key}`,
      );
      return EXIT.operationFailed;
    },
  );
});
