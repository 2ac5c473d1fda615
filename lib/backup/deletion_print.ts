/** How a dry run prints what would be deleted: each step as it is found, since WAL files may be very many. */
import { pythonJson } from "../cli/json.ts";
import { withoutControls } from "../cli/printable.ts";
import type { BackupDeletion } from "./deletion_plan.ts";
import { formatPythonLiteral } from "./python_literal.ts";

export interface DeletionPrinter {
  backup(deletion: BackupDeletion): void;
  /** All objects below a prefix go. All of these come before the first of `wal`. */
  walFolder(prefix: string): void;
  wal(key: string): void;
  /** No more WAL goes with the last backup. */
  endOfBackup(): void;
  end(): void;
}

/** Barman's lines. */
export function linesPrinter(print: (text: string) => void): DeletionPrinter {
  let wals = 0;
  const skip = (what: string) => print(`Skipping deletion of ${what} due to --dry-run option\n`);
  return {
    backup({ snapshots, label, archives, info }) {
      if (snapshots !== null) {
        skip("snapshots");
        skip(withoutControls(String(label)));
      }
      skip(`objects ${formatPythonLiteral([...archives, info])}`);
    },
    walFolder: (prefix) => skip(`all objects under prefix ${withoutControls(prefix)}`),
    wal(key) {
      print(`${wals++ === 0 ? "Skipping deletion of objects [" : ", "}${formatPythonLiteral(key)}`);
    },
    endOfBackup() {
      if (wals > 0) print("] due to --dry-run option\n");
      wals = 0;
    },
    end() {},
  };
}

/** One line of JSON, in the notation of list and show. */
export function jsonPrinter(print: (text: string) => void): DeletionPrinter {
  let backups = 0;
  let list: "wal_prefixes" | "wals" = "wal_prefixes";
  let items = 0;
  const item = (text: string) => print(`${items++ === 0 ? "" : ", "}${pythonJson(text)}`);
  const beginWals = () => {
    print('], "wals": [');
    list = "wals";
    items = 0;
  };
  print('{"deletions": [');
  return {
    backup({ id, snapshots, label, archives, info }) {
      const known = pythonJson(
        new Map<string, string | null | readonly string[]>([
          ["backup_id", id],
          ["snapshots_provider", snapshots?.provider ?? null],
          ["objects", [...(label === null ? [] : [label]), ...archives, info]],
        ]),
      );
      print(`${backups++ === 0 ? "" : ", "}${known.slice(0, -1)}, "wal_prefixes": [`);
      list = "wal_prefixes";
      items = 0;
    },
    walFolder: item,
    wal(key) {
      if (list === "wal_prefixes") beginWals();
      item(key);
    },
    endOfBackup() {
      if (list === "wal_prefixes") beginWals();
      print("]}");
    },
    end: () => print("]}\n"),
  };
}
