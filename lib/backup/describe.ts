/** One backup as `backup-show` prints it on the console. */
import { labelledLine, readableDuration, readableSize } from "../cli/table.ts";
import type { BackupInfo } from "./backup_info.ts";
import { formatPythonLiteral, PyFloat, type PyValue } from "./python_literal.ts";
import type { SnapshotsInfo } from "./snapshots_info.ts";
import { formatTimestamp } from "./timestamp.ts";

/** Rows appear when their value is set, the always-rows with `None` when it isn't. */
export function describeBackup(id: string, info: BackupInfo): string {
  const usable = info.status === "DONE" || info.status === "WAITING_FOR_WALS";
  let text = `Backup ${id}:\n`;
  text += optional(top, "Backup Name", info.backupName);
  text += top("Server Name", info.serverName ?? "None");
  text += optional(top, "System Id", info.systemid);
  text += top("Status", info.status);
  if (usable) {
    text += optional(top, "PostgreSQL Version", info.version);
    text += optional(top, "PGDATA directory", info.pgdata);
    if (info.clusterSize) text += top("Estimated Cluster Size", readableSize(info.clusterSize));
  }
  text += "\n";
  if (info.dataChecksums || info.summarizeWal) {
    text += "  Server information:\n";
    text += optional(inner, "Checksums", info.dataChecksums);
    text += optional(inner, "WAL summarizer", info.summarizeWal);
    text += "\n";
  }
  if (!usable) return text + optional(top, "Error", info.error);
  if (info.snapshotsInfo !== null) text += describeSnapshots(info.snapshotsInfo);
  if (info.tablespaces !== null && info.tablespaces.length > 0) {
    text += "  Tablespaces:\n";
    for (const { name, oid, location } of info.tablespaces) {
      text += inner(name, `${location} (oid: ${oid})`);
    }
    text += "\n";
  }
  return text + describeBaseBackup(info);
}

function describeSnapshots({ provider, providerInfo, snapshots }: SnapshotsInfo): string {
  let text = "  Snapshot information:\n";
  text += inner("provider", provider);
  for (const [name, value] of providerInfo) text += inner(name, plain(value));
  text += "\n";
  for (const { identifiers, mountPoint, mountOptions } of snapshots) {
    for (const [name, value] of [...identifiers].sort(([a], [b]) => a < b ? -1 : 1)) {
      text += inner(name, plain(value));
    }
    text += inner("Mount point", mountPoint ?? "None");
    text += inner("Mount options", mountOptions ?? "None");
    text += "\n";
  }
  return text;
}

function describeBaseBackup(info: BackupInfo): string {
  let text = "  Base backup information:\n";
  text += optional(inner, "Backup Method", info.mode);
  text += optional(inner, "Encryption", info.encryption);
  if (info.deduplicatedSize) text += inner("Backup Size", readableSize(info.deduplicatedSize));
  if (info.compression !== "none") text += optional(inner, "Backup Compression", info.compression);
  text += inner("Timeline", plain(info.timeline));
  text += inner("Begin WAL", plain(info.beginWal));
  text += inner("End WAL", plain(info.endWal));
  text += inner("Begin time", info.beginTime === null ? "None" : formatTimestamp(info.beginTime));
  text += inner("End time", info.endTime === null ? "None" : formatTimestamp(info.endTime));
  const copied = seconds(info, "copy_time");
  if (copied > 0) {
    const analysed = seconds(info, "analysis_time");
    const startup = analysed >= 1 ? ` + ${readableDuration(analysed)} startup` : "";
    text += inner("Copy time", readableDuration(copied) + startup);
  }
  text += inner("Begin Offset", plain(info.beginOffset));
  text += inner("End Offset", plain(info.endOffset));
  text += inner("Begin LSN", plain(info.beginXlog));
  text += inner("End LSN", plain(info.endXlog));
  text += "\n";
  if (info.mode === "postgres" && info.childrenBackupIds !== null) {
    text += inner("Children Backup(s)", info.childrenBackupIds.join(","));
  }
  return text;
}

type Row = (label: string, value: string) => string;

const top: Row = (label, value) => labelledLine(2, 23, label, value);
const inner: Row = (label, value) => labelledLine(4, 21, label, value);

function optional(row: Row, label: string, value: string | number | null): string {
  return value === null || value === "" || value === 0 ? "" : row(label, String(value));
}

/** As Python's `str`: a string without quotes. */
function plain(value: PyValue): string {
  return typeof value === "string" ? value : formatPythonLiteral(value);
}

function seconds(info: BackupInfo, key: string): number {
  const value = info.copyStats?.get(key);
  if (value instanceof PyFloat) return value.value;
  return typeof value === "number" ? value : 0;
}
