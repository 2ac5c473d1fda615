import { loadBackupInfo, loadCatalogue, resolveBackupId } from "../backup/catalogue.ts";
import { keepBackup, KeepRefused, readKeep, releaseKeep } from "../backup/keep.ts";
import { defineCommand } from "../cli/command.ts";
import { COMMON, formatOf, OUR_OUTPUT_FORMAT, SOURCE } from "../cli/common_options.ts";
import { CommandError, EXIT } from "../cli/exit_codes.ts";
import { pythonJson } from "../cli/json.ts";
import { withoutControls } from "../cli/printable.ts";
import { choice, flag, positional } from "../cli/options.ts";
import { withSource } from "./open_store.ts";

export const command = defineCommand({
  name: "backup-keep",
  summary: "keep a backup beyond the retention policy",
  description:
    "Mark a backup so that it is not deleted, take the mark away, or tell whether it has one. A full keep also " +
    "keeps all WAL from the backup on; standalone only the WAL that makes the backup consistent.",
  positionals: [
    ...SOURCE,
    positional("backupId", "id or name of the backup, or first, last"),
  ],
  options: [
    ...COMMON,
    flag("release", ["-r", "--release"], "take the mark away", { exclusive: "action" }),
    flag("status", ["-s", "--status"], "print 'Keep: full', 'Keep: standalone' or 'Keep: nokeep'", {
      exclusive: "action",
    }),
    choice("target", ["--target"], ["full", "standalone"], "mark the backup to be kept", {
      exclusive: "action",
    }),
    ...OUR_OUTPUT_FORMAT,
  ],
  requiredGroups: ["action"],
  examples: [
    ["keep a backup for the archive", "PROGRAM --target standalone s3://backups/pg main yearly"],
    ["is it kept?", "PROGRAM --status s3://backups/pg main 20260115T103000"],
  ],
}, (values, context) =>
  withSource(values, context, async ({ store, layout }) => {
    const { signal, stdout } = context;
    const load = () => loadCatalogue(store, layout, { signal });
    const id = await resolveBackupId(values.backupId, load);
    if (values.release) {
      await releaseKeep(store, layout, id, { signal });
    } else if (values.status) {
      const keep = await readKeep(store, layout, id, { signal });
      stdout(
        formatOf(values) === "console"
          ? `Keep: ${withoutControls(keep ?? "nokeep")}\n`
          : `${pythonJson(new Map([["backup_id", id], ["keep", keep]]))}\n`,
      );
    } else if (values.target !== undefined) {
      const info = await loadBackupInfo(store, layout, id, { signal });
      if (info === null) {
        throw new CommandError(
          EXIT.generalError,
          `Cannot keep backup ${id} of server ${values.serverName}: it does not exist`,
        );
      }
      if (info.status !== "DONE") {
        throw new CommandError(
          EXIT.operationFailed,
          `Cannot keep backup ${id}: its status is ${info.status}, only DONE backups can be kept`,
        );
      }
      try {
        await keepBackup(store, layout, { id, info }, values.target, { signal });
      } catch (error) {
        if (!(error instanceof KeepRefused)) throw error;
        throw new CommandError(EXIT.operationFailed, error.message, { cause: error });
      }
    }
    return EXIT.success;
  }));
