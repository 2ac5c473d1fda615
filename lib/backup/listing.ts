/** The table that `backup-list` prints on the console. */
import { tableLine } from "../cli/table.ts";
import type { CatalogueEntry } from "./catalogue.ts";
import { formatWallClock } from "./timestamp.ts";

const WIDTHS = [20, 25, 30, 17, 20];

/**
 * One line for each backup under a heading; for one that is not DONE the status stands where the others have the keep
 * annotation (as Barman 3.19 prints it; 3.17 left such backups out). Times are in the zone that backup.info has.
 * @param keeps keep annotations: backup id to value
 */
export function backupTable(
  backups: readonly CatalogueEntry[],
  keeps: ReadonlyMap<string, string>,
): string {
  let text = tableLine(["Backup ID", "End Time", "Begin Wal", "Archival Status", "Name"], WIDTHS);
  for (const { id, info } of backups) {
    text += tableLine([
      id,
      info.endTime === null ? "" : formatWallClock(info.endTime),
      info.beginWal ?? "",
      archivalStatus(info.status, keeps.get(id)),
      info.backupName ?? "",
    ], WIDTHS);
  }
  return text;
}

function archivalStatus(status: string, keep: string | undefined): string {
  if (status !== "DONE") return status;
  return keep === undefined ? "" : `KEEP:${keep.toUpperCase()}`;
}
