/**
 * Which files of the WAL archive nobody needs once a backup is deleted. A rule is a plain value made of the
 * catalogue; judging names by it is pure, so an archive of any size can be streamed past it.
 */
import { parseTimeline, parseWalName } from "../wal/segment.ts";
import type { CatalogueEntry } from "./catalogue.ts";
import { keepStatus } from "./retention.ts";

export interface WalRule {
  /** Segment name in upper case: names before it go, unless protected. */
  readonly limit: string;
  readonly limitTimeline: number;
  /** All WAL of these stays. */
  readonly protectedTimelines: ReadonlySet<number>;
  /** First and last segment, upper case, both stay: what standalone backups need. */
  readonly protectedRanges: readonly (readonly [first: string, last: string])[];
  /**
   * Lowest timeline of the backups that stay with all their WAL, usually the limit's. Recovery may go from it
   * to any higher one, so all WAL of those stays.
   */
  readonly lowestTimeline: number;
}

/** A rule, or why the WAL archive stays as it is. */
export type WalDecision =
  | { readonly kind: "clean"; readonly rule: WalRule }
  | { readonly kind: "leave"; readonly reason: string };

/**
 * The rule for deleting one backup.
 * @param backups the catalogue that still has the backup, in ascending order of ids
 * @param stopAtStandalone leave WAL alone when the backup before is kept as standalone (deletion of one
 *   backup), instead of protecting that one's range (deletion by policy)
 */
export function walRule(
  backups: readonly CatalogueEntry[],
  deleted: CatalogueEntry,
  keeps: ReadonlyMap<string, string>,
  stopAtStandalone: boolean,
): WalDecision {
  const remaining = backups.filter(({ id, info }) =>
    id !== deleted.id && (info.status === "DONE" || info.status === "WAITING_FOR_WALS")
  );
  const isStandalone = ({ id }: CatalogueEntry) => keepStatus(keeps, id) === "KEEP:STANDALONE";
  for (const previous of remaining.filter(({ id }) => id < deleted.id).reverse()) {
    if (!isStandalone(previous)) {
      return { kind: "leave", reason: `backup ${previous.id} needs WAL from before` };
    }
    if (stopAtStandalone) {
      return { kind: "leave", reason: `backup ${previous.id} before it is kept as standalone` };
    }
  }
  const limitBackup = remaining.find(({ id }) => id > deleted.id) ?? deleted;
  const begin = limitBackup.info.beginWal;
  if (begin === null || parseWalName(begin)?.kind !== "segment") {
    return { kind: "leave", reason: `backup ${limitBackup.id} does not tell where its WAL begins` };
  }
  const limitTimeline = timelineOf(limitBackup) ?? 0;
  // The deleted backup's own timeline counts too: its WAL goes with a later deletion.
  const protectedTimelines = new Set<number>();
  for (const backup of backups) {
    const timeline = timelineOf(backup);
    if (timeline !== null && timeline !== limitTimeline) protectedTimelines.add(timeline);
  }
  const standalone = remaining.filter(isStandalone);
  const complete = remaining.filter((backup) => !isStandalone(backup));
  return {
    kind: "clean",
    rule: {
      limit: lowestBegin(begin.toUpperCase(), limitTimeline, complete),
      limitTimeline,
      protectedTimelines,
      protectedRanges: standalone.flatMap(({ info: { beginWal, endWal } }) =>
        beginWal === null ? [] : [
          [
            beginWal.toUpperCase(),
            // An end that is not known protects all that follows.
            (endWal ?? "G").toUpperCase(),
          ] as const,
        ]
      ),
      lowestTimeline: Math.min(
        limitTimeline,
        ...complete.flatMap((backup) => timelineOf(backup) ?? []),
      ),
    },
  };
}

/**
 * Ids are local time, so a change of the clock can put a backup behind a younger one: the limit is the first
 * segment that any remaining backup of the timeline needs.
 */
function lowestBegin(
  limit: string,
  timeline: number,
  complete: readonly CatalogueEntry[],
): string {
  for (const backup of complete) {
    const begin = backup.info.beginWal?.toUpperCase();
    if (begin !== undefined && timelineOf(backup) === timeline && begin < limit) limit = begin;
  }
  return limit;
}

function timelineOf({ info }: CatalogueEntry): number | null {
  return info.timeline ?? parseTimeline((info.beginWal ?? "").slice(0, 8));
}

/** Does the rule let this file go? History files and what is no WAL file always stay. */
export function mayDeleteWal(rule: WalRule, name: string): boolean {
  const wal = parseWalName(name);
  if (wal === null || wal.kind === "history") return false;
  if (isProtectedTimeline(rule, wal.timeline)) return false;
  if (rule.protectedRanges.some(([first, last]) => first <= wal.segment && wal.segment <= last)) {
    return false;
  }
  // The whole name: what belongs to the limit segment itself (.partial, .backup) is greater and stays.
  return name.toUpperCase() < rule.limit;
}

/**
 * What the rule says of a folder of the archive, `TTTTTTTTLLLLLLLL`.
 * @returns `all`: every object in it may go; `some`: look at each; `none`: nothing to find there
 */
export function judgeWalFolder(rule: WalRule, folder: string): "all" | "some" | "none" {
  const name = folder.toUpperCase();
  if (!/^[0-9A-F]{16}$/.test(name)) return "some";
  const timeline = parseTimeline(name.slice(0, 8)) ?? 0;
  if (isProtectedTimeline(rule, timeline)) return "none";
  // All that is filed here is called TTTTTTTTLLLLLLLL…, so it is before the limit only if this is.
  const limitFolder = rule.limit.slice(0, 16);
  if (name > limitFolder) return "none";
  if (timeline !== rule.limitTimeline || name === limitFolder) return "some";
  return rule.protectedRanges.some((range) => liesInRange(name, range)) ? "some" : "all";
}

/** Does one rule let go all that the other does? (Not always true when it does.) */
export function coversWalRule(rule: WalRule, other: WalRule): boolean {
  return rule.limit >= other.limit && rule.lowestTimeline >= other.lowestTimeline &&
    [...rule.protectedTimelines].every((timeline) => other.protectedTimelines.has(timeline)) &&
    rule.protectedRanges.every(([first, last]) =>
      other.protectedRanges.some((range) => range[0] === first && range[1] === last)
    );
}

function isProtectedTimeline(rule: WalRule, timeline: number): boolean {
  return rule.protectedTimelines.has(timeline) || timeline > rule.lowestTimeline;
}

/** Timeline and log both between those of the range's ends. */
function liesInRange(folder: string, [first, last]: readonly [string, string]): boolean {
  const timeline = folder.slice(0, 8);
  const log = folder.slice(8);
  return first.slice(0, 8) <= timeline && timeline <= last.slice(0, 8) &&
    first.slice(8, 16) <= log && (last.length < 16 || log <= last.slice(8, 16));
}
