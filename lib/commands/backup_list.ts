import { type Catalogue, loadBackups, loadCatalogue } from "../backup/catalogue.ts";
import { backupInfoToJson } from "../backup/backup_info.ts";
import { listBase, readKeeps } from "../backup/keep.ts";
import { backupTable } from "../backup/listing.ts";
import { describeUnfinished } from "../backup/unfinished.ts";
import { defineCommand } from "../cli/command.ts";
import { COMMON, formatOf, OUTPUT_FORMAT, SOURCE } from "../cli/common_options.ts";
import { EXIT } from "../cli/exit_codes.ts";
import { pythonJson } from "../cli/json.ts";
import type { Logger } from "../cli/log.ts";
import { withSource } from "./open_store.ts";

export const command = defineCommand({
  name: "backup-list",
  summary: "list the backups",
  description:
    "List the base backups of a server, failed ones too. Backups whose metadata is damaged are left out with a " +
    "warning.",
  positionals: SOURCE,
  options: [...COMMON, ...OUTPUT_FORMAT],
  examples: [
    ["a table of the backups in a bucket", "PROGRAM s3://backups/pg main"],
    ["the same for a program", "PROGRAM --format json file:///backups main"],
  ],
}, (values, context) =>
  withSource(values, context, async ({ store, layout }) => {
    const { log, signal, stdout } = context;
    const tellUnfinished = async ({ unfinished }: Catalogue) => {
      for (const id of unfinished) {
        const now = context.now();
        const { running, description } = await describeUnfinished(store, layout, id, now, {
          signal,
        });
        if (running) log.info(description);
        else log.warning(description);
      }
    };
    if (formatOf(values) === "console") {
      const listing = await listBase(store, layout, { signal });
      const catalogue = await loadBackups(store, layout, listing.ids, { signal });
      warn(catalogue, log);
      await tellUnfinished(catalogue);
      for (const { id } of catalogue.backups) {
        if (!listing.deletionMarks.has(id)) continue;
        log.warning(`Backup ${id} is being deleted, or its deletion did not finish`);
      }
      stdout(backupTable(catalogue.backups, await readKeeps(store, listing, { signal })));
    } else {
      const catalogue = await loadCatalogue(store, layout, { signal });
      warn(catalogue, log);
      await tellUnfinished(catalogue);
      const list = catalogue.backups.map(({ id, info }) => backupInfoToJson(info, id));
      stdout(`${pythonJson(new Map([["backups_list", list]]))}\n`);
    }
    return EXIT.success;
  }));

function warn({ backups, unreadable }: Catalogue, log: Logger): void {
  for (const { id, reason } of unreadable) {
    log.warning(`Backup ${id} is left out: its backup.info can't be read: ${reason}`);
  }
  for (const { id, info } of backups) {
    if (info.unknownFields.size === 0) continue;
    log.info(
      `backup.info of ${id} has unknown fields: ${[...info.unknownFields.keys()].join(", ")}`,
    );
  }
}
