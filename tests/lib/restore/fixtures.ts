/** Backups that were never taken: a data directory's members in tar archives in a local store. */
import { mkdir, mkdtemp, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import {
  type BackupInfo,
  formatBackupInfo,
  newBackupInfo,
} from "../../../lib/backup/backup_info.ts";
import { parseTimestamp } from "../../../lib/backup/timestamp.ts";
import { type Level, LEVELS, type Logger } from "../../../lib/cli/log.ts";
import { archive, member } from "./raw_tar.ts";

export interface Workspace extends AsyncDisposable {
  /** Empty at the start. */
  readonly directory: string;
  readonly url: string;
  /** Put an object below `main/base/ID/`. */
  put(id: string, name: string, content: Uint8Array): Promise<void>;
  putInfo(id: string, known?: Partial<BackupInfo>): Promise<void>;
  /** Put an object below `main/wals/`. */
  putWal(name: string): Promise<void>;
}

export async function workspace(): Promise<Workspace> {
  const directory = await mkdtemp(join(tmpdir(), "barman-cloud-restore-"));
  const put = async (path: string, content: Uint8Array | string) => {
    const whole = join(directory, "store/main", path);
    await mkdir(join(whole, ".."), { recursive: true });
    await writeFile(whole, content);
  };
  await mkdir(join(directory, "store"));
  return {
    directory,
    url: `file://${directory}/store`,
    put: (id, name, content) => put(`base/${id}/${name}`, content),
    putInfo: (id, known) => put(`base/${id}/backup.info`, formatBackupInfo(doneInfo(known))),
    putWal: (name) => put(`wals/${name}`, "x"),
    async [Symbol.asyncDispose]() {
      await rm(directory, { recursive: true, force: true });
    },
  };
}

export function doneInfo(known: Partial<BackupInfo> = {}): BackupInfo {
  return newBackupInfo({
    status: "DONE",
    version: 170002,
    pgdata: "/old/pgdata",
    timeline: 1,
    endTime: parseTimestamp("2026-01-15 10:30:00+00:00"),
    endXlog: "0/5000000",
    ...known,
  });
}

export const LABEL = "START WAL LOCATION: 0/2000028 (file 000000010000000000000002)\n";

/** The members of a data directory, the essential ones last as in real archives. */
export function dataMembers(...extra: readonly Uint8Array[]): Uint8Array[] {
  return [
    member({ name: "./", type: "5", mode: 0o700, mtime: 1700000000 }),
    member({ name: "./PG_VERSION", content: "17\n", mtime: 1700000001 }),
    member({ name: "base/", type: "5", mode: 0o700, mtime: 1700000002 }),
    member({ name: "base/5/", type: "5", mode: 0o750, mtime: 1700000003 }),
    member({ name: "base/5/1249", content: "a".repeat(100_000), mode: 0o640, mtime: 1700000004 }),
    member({ name: "base/5/empty", mtime: 1700000005 }),
    member({ name: "global/", type: "5", mode: 0o700 }),
    member({ name: "pg_tblspc/", type: "5", mode: 0o700 }),
    ...extra,
    ...lastMembers(),
  ];
}

export function lastMembers(): Uint8Array[] {
  return [
    member({ name: "global/pg_control", content: "c".repeat(8192) }),
    member({ name: "backup_label", content: LABEL, mode: 0o644 }),
  ];
}

export function dataArchive(...extra: readonly Uint8Array[]): Uint8Array {
  return archive(...dataMembers(...extra));
}

/** Keeps all lines, `LEVEL: message`. */
export function recordingLog(): { readonly log: Logger; readonly lines: string[] } {
  const lines: string[] = [];
  const at = (level: Level) => (message: string) => void lines.push(`${level}: ${message}`);
  return {
    lines,
    log: {
      debug: at("DEBUG"),
      info: at("INFO"),
      warning: at("WARNING"),
      error: at("ERROR"),
      critical: at("CRITICAL"),
      shows: (level) => LEVELS.includes(level),
    },
  };
}
