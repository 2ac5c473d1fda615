/**
 * Which commands there are. Only this table is loaded at start; a command's code comes when it is chosen.
 */
import type { Command } from "./command.ts";

export interface CommandEntry {
  readonly name: string;
  readonly summary: string;
  /** One of Barman's nine, which `barman-cloud links` makes a name for. */
  readonly barman: boolean;
  readonly load: () => Promise<{ readonly command: Command }>;
}

const barman = (
  name: string,
  summary: string,
  load: () => Promise<{ readonly command: Command }>,
): CommandEntry => ({ name, summary, barman: true, load });

export const COMMANDS: readonly CommandEntry[] = [
  barman("backup", "take a base backup", () => import("../commands/backup.ts")),
  barman(
    "backup-delete",
    "delete backups, and WAL that no backup needs",
    () => import("../commands/backup_delete.ts"),
  ),
  barman(
    "backup-keep",
    "keep a backup beyond the retention policy",
    () => import("../commands/backup_keep.ts"),
  ),
  barman("backup-list", "list the backups", () => import("../commands/backup_list.ts")),
  barman("backup-show", "show one backup", () => import("../commands/backup_show.ts")),
  barman(
    "check-wal-archive",
    "is the WAL archive safe for a new server",
    () => import("../commands/check_wal_archive.ts"),
  ),
  barman("restore", "restore a base backup", () => import("../commands/restore.ts")),
  barman("wal-archive", "for archive_command", () => import("../commands/wal_archive.ts")),
  barman("wal-restore", "for restore_command", () => import("../commands/wal_restore.ts")),
  {
    name: "backup-verify",
    summary: "read a backup back and check all of it",
    barman: false,
    load: () => import("../commands/backup_verify.ts"),
  },
  {
    name: "wal-verify",
    summary: "look for gaps in the WAL archive",
    barman: false,
    load: () => import("../commands/wal_verify.ts"),
  },
  {
    name: "cleanup",
    summary: "remove what killed processes left in the store",
    barman: false,
    load: () => import("../commands/cleanup.ts"),
  },
  {
    name: "links",
    summary: "make the nine names of Barman's commands in a directory",
    barman: false,
    load: () => import("../commands/links.ts"),
  },
  {
    name: "version",
    summary: "tell the version, the runtime and the compatibility version",
    barman: false,
    load: () => import("../commands/version.ts"),
  },
];
