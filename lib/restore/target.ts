/** Which backup to restore for `auto`: the newest one that ended before the point to recover to. */
import type { CatalogueEntry } from "../backup/catalogue.ts";
import {
  compareTimestamps,
  formatTimestamp,
  MalformedTimestamp,
  parseTimestamp,
  type Timestamp,
} from "../backup/timestamp.ts";
import { formatLsn, type Lsn, parseLsn } from "../postgres/lsn.ts";
import type { ServerLayout } from "../layout.ts";
import { parseWalName } from "../wal/segment.ts";
import { stripSuffix } from "../compression/table.ts";
import type { Cancellable, ObjectStore } from "../../providers/object_store.ts";
import { RestoreError } from "./restore_error.ts";

/** `--target-tli`, `--target-time`, `--target-lsn` as given. */
export interface TargetWords {
  readonly timeline?: number | "current" | "latest" | undefined;
  readonly time?: string | undefined;
  readonly lsn?: string | undefined;
}

/** Where recovery is to end, understood. At most one of `time` and `lsn`. */
export interface RecoveryTarget {
  readonly timeline?: number | "latest" | undefined;
  readonly time?: Timestamp | undefined;
  readonly lsn?: Lsn | undefined;
}

/**
 * Understand the words of a target.
 * @throws {RestoreError} kind `invalid`
 */
export function parseTarget(words: TargetWords): RecoveryTarget {
  if (words.timeline === "current") {
    throw new RestoreError(
      "invalid",
      "Cannot choose a backup for timeline 'current': that is the timeline of a backup, and none was " +
        "named; give --target-tli a number or 'latest', or name the backup",
    );
  }
  return {
    timeline: words.timeline,
    time: words.time === undefined ? undefined : parseTargetTime(words.time),
    lsn: words.lsn === undefined ? undefined : parseTargetLsn(words.lsn),
  };
}

/**
 * The newest backup that recovery to the target can start from. Only backups with status DONE count.
 * @param backups in ascending order of ids
 * @param target `timeline` already looked up
 */
export function chooseBackup(
  backups: readonly CatalogueEntry[],
  target: RecoveryTarget & { readonly timeline?: number | undefined },
): CatalogueEntry | null {
  return backups.findLast(({ info }) => {
    if (info.status !== "DONE") return false;
    if (target.timeline !== undefined && info.timeline !== target.timeline) return false;
    if (target.time !== undefined) {
      return info.endTime !== null && compareTimestamps(info.endTime, target.time) <= 0;
    }
    if (target.lsn !== undefined) {
      const end = info.endXlog === null ? null : lsnOrNull(info.endXlog);
      return end !== null && end <= target.lsn;
    }
    return true;
  }) ?? null;
}

/** What was looked for, for messages: ` on timeline 2 that ended by 2026-01-15 10:30:01+00:00`. */
export function describeTarget(target: RecoveryTarget): string {
  let text = "";
  if (target.timeline !== undefined) text += ` on timeline ${target.timeline}`;
  if (target.time !== undefined) text += ` that ended by ${formatTimestamp(target.time)}`;
  if (target.lsn !== undefined) text += ` that ended by LSN ${formatLsn(target.lsn)}`;
  return text;
}

/**
 * The highest timeline in the WAL archive; history files count. Folders are looked at from the top until one
 * holds a WAL file, so that a large archive need not be listed.
 * @throws {RestoreError} kind `invalid` when the archive is empty
 */
export async function latestTimeline(
  store: ObjectStore,
  layout: ServerLayout,
  options: Cancellable,
): Promise<number> {
  let highest = 0;
  const folders: { readonly prefix: string; readonly timeline: number }[] = [];
  for await (const entry of store.list(layout.wals, { ...options, delimiter: "/" })) {
    if (entry.kind === "prefix") {
      const name = entry.prefix.slice(layout.wals.length, -1);
      if (/^[0-9A-Fa-f]{16}$/.test(name)) {
        folders.push({ prefix: entry.prefix, timeline: parseInt(name.slice(0, 8), 16) });
      }
    } else highest = Math.max(highest, timelineOf(entry.key) ?? 0);
  }
  for (const { prefix, timeline } of folders.sort((a, b) => b.timeline - a.timeline)) {
    if (timeline <= highest) break;
    if (await holdsWal(store, prefix, options)) highest = timeline;
  }
  if (highest === 0) {
    throw new RestoreError(
      "invalid",
      `Cannot tell the latest timeline: there is no WAL below ${layout.wals}`,
    );
  }
  return highest;
}

async function holdsWal(
  store: ObjectStore,
  prefix: string,
  options: Cancellable,
): Promise<boolean> {
  for await (const entry of store.list(prefix, options)) {
    if (entry.kind === "object" && timelineOf(entry.key) !== undefined) return true;
  }
  return false;
}

function timelineOf(key: string): number | undefined {
  const file = key.slice(key.lastIndexOf("/") + 1);
  const wal = parseWalName(file) ?? parseWalName(stripSuffix(file).name);
  return wal === null ? undefined : wal.timeline;
}

function parseTargetTime(text: string): Timestamp {
  try {
    return parseTimestamp(text);
  } catch (error) {
    if (!(error instanceof MalformedTimestamp)) throw error;
    throw new RestoreError("invalid", `--target-time: ${error.message}`, { cause: error });
  }
}

function parseTargetLsn(text: string): Lsn {
  const lsn = lsnOrNull(text.trim());
  if (lsn !== null) return lsn;
  throw new RestoreError(
    "invalid",
    `--target-lsn: '${text.slice(0, 60)}' is not an LSN (example: 0/1A000028)`,
  );
}

function lsnOrNull(text: string): Lsn | null {
  try {
    return parseLsn(text);
  } catch (error) {
    if (error instanceof RangeError) return null;
    throw error;
  }
}
