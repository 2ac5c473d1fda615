import { backupInfoToJson } from "../backup/backup_info.ts";
import {
  listBackupObjects,
  loadBackupInfo,
  loadCatalogue,
  resolveBackupId,
} from "../backup/catalogue.ts";
import { describeBackup } from "../backup/describe.ts";
import { describeUnfinished } from "../backup/unfinished.ts";
import { defineCommand } from "../cli/command.ts";
import { COMMON, formatOf, OUTPUT_FORMAT, SOURCE } from "../cli/common_options.ts";
import { EXIT } from "../cli/exit_codes.ts";
import { pythonJson } from "../cli/json.ts";
import { positional } from "../cli/options.ts";
import { withSource } from "./open_store.ts";

export const command = defineCommand({
  name: "backup-show",
  summary: "show one backup",
  description: "Show what is known of a base backup.",
  positionals: [
    ...SOURCE,
    positional("backupId", "id or name of the backup, or first, last, last-failed"),
  ],
  options: [...COMMON, ...OUTPUT_FORMAT],
  examples: [
    ["the newest backup", "PROGRAM s3://backups/pg main last"],
    ["a backup by its name, as JSON", "PROGRAM --format json s3://backups/pg main nightly"],
  ],
}, (values, context) =>
  withSource(values, context, async ({ store, layout }) => {
    const { log, signal, stdout } = context;
    const load = () => loadCatalogue(store, layout, { signal });
    const id = await resolveBackupId(values.backupId, load);
    const info = await loadBackupInfo(store, layout, id, { signal });
    if (info === null) {
      const objects = await listBackupObjects(store, layout, id, { signal });
      log.error(
        objects.length === 0
          ? `Backup ${id} of server ${values.serverName} does not exist`
          : (await describeUnfinished(store, layout, id, context.now(), { signal })).description,
      );
      return EXIT.operationFailed;
    }
    if (formatOf(values) === "console") stdout(describeBackup(id, info));
    else {
      // Callers read the key `cloud`, which is the server name that Barman stores for cloud backups.
      stdout(`${pythonJson(new Map([[info.serverName, backupInfoToJson(info, id)]]))}\n`);
    }
    return EXIT.success;
  }));
