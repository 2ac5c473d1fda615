/** Is a WAL archive whole: gaps, timelines, duplicates, and whether each backup has the WAL that it needs. */
import { createHash } from "node:crypto";
import { type CatalogueEntry, loadBackups } from "../backup/catalogue.ts";
import { listBase, readKeeps } from "../backup/keep.ts";
import { NotText, readText } from "../backup/small_object.ts";
import type { Logger } from "../cli/log.ts";
import { CorruptDataError } from "../compression/corrupt_data_error.ts";
import { stripSuffix } from "../compression/table.ts";
import type { ServerLayout } from "../layout.ts";
import { mapInParallel } from "../parallel.ts";
import { storedContent } from "../stored_content.ts";
import type { ObjectStore } from "../../providers/object_store.ts";
import { newestHeader } from "./archive_owner.ts";
import { parseHistory, type TimelineSwitch } from "./history.ts";
import { readIdentity } from "./identity.ts";
import { noLargerThanWal, OversizedWal } from "./largest_file.ts";
import {
  type ArchiveScan,
  type Duplicate,
  type Listed,
  MAX_LISTED,
  nameOf,
  type Run,
  scanArchive,
  type TimelineScan,
} from "./scan.ts";
import { isSegmentSize, parseWalName, segmentNumber, segmentsPerXlogId } from "./segment.ts";

export interface VerifyOptions {
  readonly signal?: AbortSignal | undefined;
  readonly log: Logger;
}

export interface TimelineReport {
  readonly timeline: number;
  /** Names of the first and last complete segment; null when there is none. */
  readonly first: string | null;
  readonly last: string | null;
  readonly segments: number;
  /** Of all objects, as stored. */
  readonly bytes: number;
  /** Stretches of missing segments that nobody expects to be missing. */
  readonly gaps: number;
  /** Segments missing in them. */
  readonly missing: number;
  /** The timeline that it came out of, and the LSN; null for the first one and without a history file. */
  readonly parent: TimelineSwitch | null;
  readonly history: string | null;
}

export interface GapReport {
  readonly timeline: number;
  /** The first and last segment that are missing. */
  readonly first: string;
  readonly last: string;
  readonly segments: number;
  /** What is before it belongs to a backup that is kept standalone: the gap is meant. */
  readonly expected: boolean;
}

export interface DuplicateReport extends Duplicate {
  /** Null when the copies were not compared. */
  readonly same: boolean | null;
}

export interface BackupReport {
  readonly id: string;
  readonly status: string;
  readonly begin: string;
  readonly end: string;
  /** The first segment from begin to end that is missing; null when none is. */
  readonly missing: string | null;
  /** The last segment up to which recovery from this backup finds everything; null when one is missing before. */
  readonly recoverableTo: string | null;
}

export interface ArchiveReport {
  readonly server: string;
  readonly systemIdentifier: bigint | null;
  /** Bytes. */
  readonly segmentSize: number;
  readonly objects: number;
  readonly timelines: readonly TimelineReport[];
  readonly gaps: Listed<GapReport>;
  readonly duplicates: Listed<DuplicateReport>;
  /** Segments of which only a `.partial` is there. */
  readonly partials: Listed<string>;
  readonly suspects: ArchiveScan["suspects"];
  readonly backups: readonly BackupReport[];
  /** One line each; empty when the archive is fine. */
  readonly problems: readonly string[];
}

/** Copies of so many segments are read and compared. */
const COMPARED_DUPLICATES = 20;
const DEFAULT_SEGMENT_SIZE = 16 * 1024 ** 2;
/** History files have a line for each ancestor. */
const MAX_HISTORY_SIZE = 1024 ** 2;

/**
 * Verify the archive of one server: one listing of the WAL, one of the backups, and a few small objects. Nothing is
 * written. Segments are not read, but for the copies of those that are there twice.
 * @throws {StoreError} when the store could not tell
 */
export async function verifyArchive(
  store: ObjectStore,
  layout: ServerLayout,
  options: VerifyOptions,
): Promise<ArchiveReport> {
  const { signal } = options;
  const listing = await listBase(store, layout, { signal });
  const catalogue = await loadBackups(store, layout, listing.ids, { signal });
  const keeps = await readKeeps(store, listing, { signal });
  const header = await newestHeader(store, layout, { signal });
  const segmentSize = header?.segmentSize ?? segmentSizeOf(catalogue.backups) ??
    DEFAULT_SEGMENT_SIZE;
  const scan = await scanArchive(store, layout, segmentSize, { signal });
  const histories = await readHistories(store, scan.timelines, options);
  const identity = await readIdentity(store, layout, options);

  const byTimeline = new Map(scan.timelines.map((each) => [each.timeline, each]));
  const standalone = catalogue.backups
    .filter(({ id }) => keeps.get(id) === "standalone")
    .flatMap(({ info }) => rangeOf(info, segmentSize) ?? []);
  const gaps = reportGaps(scan.timelines, standalone, segmentSize);
  const duplicates = await compareDuplicates(store, scan.duplicates, options);
  const backups = catalogue.backups.flatMap((backup) =>
    backupReport(backup, byTimeline, histories, segmentSize) ?? []
  );
  const report = {
    server: layout.server,
    systemIdentifier: identity === null || identity === "damaged"
      ? header?.systemIdentifier ?? null
      : identity.systemIdentifier,
    segmentSize,
    objects: scan.objects,
    timelines: scan.timelines.map((each) => timelineReport(each, gaps, histories, segmentSize)),
    gaps: gaps.listed,
    duplicates,
    partials: listed(
      scan.timelines.flatMap(({ timeline, partials }) =>
        partials.map((number) => nameOf(number, timeline, segmentSize))
      ),
    ),
    suspects: scan.suspects,
    backups,
  };
  return {
    ...report,
    problems: [
      ...problemsOf(report),
      ...catalogue.unreadable.map(({ id, reason }) =>
        `The WAL that backup ${id} needs is not known: ${reason}`
      ),
      ...joints(scan.timelines, histories, backups, segmentSize),
    ],
  };
}

function segmentSizeOf(backups: readonly CatalogueEntry[]): number | null {
  return backups.map(({ info }) => info.xlogSegmentSize).findLast(isSegmentSize) ?? null;
}

type Histories = ReadonlyMap<number, readonly TimelineSwitch[]>;

async function readHistories(
  store: ObjectStore,
  timelines: readonly TimelineScan[],
  { signal, log }: VerifyOptions,
): Promise<Histories> {
  const found = timelines.flatMap(({ timeline, history }) =>
    history === null ? [] : [{ timeline, history }]
  );
  const entries = await mapInParallel(found, 8, async ({ timeline, history }) => {
    try {
      const text = await readHistory(store, history, signal);
      return [[timeline, parseHistory(text)] as const];
    } catch (error) {
      if (!(error instanceof CorruptDataError || error instanceof NotText)) throw error;
      log.warning(`Cannot read ${history}: ${error.message}`);
      return [];
    }
  });
  return new Map(entries.flat());
}

async function readHistory(
  store: ObjectStore,
  key: string,
  signal: AbortSignal | undefined,
): Promise<string> {
  const { compression } = stripSuffix(key);
  if (compression === null) return await readText(store, key, MAX_HISTORY_SIZE, { signal });
  let text = "";
  const decoder = new TextDecoder();
  for await (const chunk of storedContent(store, key, compression, { signal })) {
    text += decoder.decode(chunk, { stream: true });
    if (text.length > MAX_HISTORY_SIZE) {
      throw new NotText(
        `it gives more than the ${MAX_HISTORY_SIZE} bytes that a history may have`,
      );
    }
  }
  return text;
}

interface Range extends Run {
  readonly timeline: number;
}

function rangeOf(
  info: CatalogueEntry["info"],
  segmentSize: number,
): (Range & { readonly begin: string; readonly end: string }) | null {
  const { beginWal, endWal, endOffset } = info;
  const first = numberIn(beginWal, segmentSize);
  const last = numberIn(endWal, segmentSize);
  if (first === null || last === null) return null;
  return {
    timeline: first.timeline,
    first: first.number,
    // A backup that ends where a segment begins needs nothing of that one.
    last: endOffset === 0 ? Math.max(first.number, last.number - 1) : last.number,
    begin: first.name,
    end: last.name,
  };
}

function numberIn(
  name: string | null,
  segmentSize: number,
): { name: string; timeline: number; number: number } | null {
  const wal = parseWalName(name ?? "");
  if (wal?.kind !== "segment" || wal.index >= segmentsPerXlogId(segmentSize)) return null;
  const { segment, timeline } = wal;
  return { name: segment, timeline, number: segmentNumber(segment, segmentSize) };
}

interface Gaps {
  readonly listed: Listed<GapReport>;
  /** By timeline, those that nobody expects. */
  readonly unexpected: ReadonlyMap<number, { readonly gaps: number; readonly missing: number }>;
}

function reportGaps(
  timelines: readonly TimelineScan[],
  standalone: readonly Range[],
  segmentSize: number,
): Gaps {
  const items: GapReport[] = [];
  let total = 0;
  const unexpected = new Map<number, { gaps: number; missing: number }>();
  for (const { timeline, runs } of timelines) {
    const sum = { gaps: 0, missing: 0 };
    for (const [index, { last }] of runs.slice(0, -1).entries()) {
      const next = runs[index + 1]?.first ?? 0;
      const begin = runs[index]?.first ?? 0;
      const expected = standalone.some((range) =>
        range.timeline === timeline && range.first <= begin && last <= range.last
      );
      const segments = next - last - 1;
      total++;
      if (!expected) {
        sum.gaps++;
        sum.missing += segments;
      }
      if (items.length === MAX_LISTED) continue;
      items.push({
        timeline,
        first: nameOf(last + 1, timeline, segmentSize),
        last: nameOf(next - 1, timeline, segmentSize),
        segments,
        expected,
      });
    }
    unexpected.set(timeline, sum);
  }
  return { listed: { items, total }, unexpected };
}

function timelineReport(
  { timeline, runs, segments, bytes, history }: TimelineScan,
  { unexpected }: Gaps,
  histories: Histories,
  segmentSize: number,
): TimelineReport {
  const first = runs[0]?.first;
  const last = runs.at(-1)?.last;
  const { gaps, missing } = unexpected.get(timeline) ?? { gaps: 0, missing: 0 };
  return {
    timeline,
    first: first === undefined ? null : nameOf(first, timeline, segmentSize),
    last: last === undefined ? null : nameOf(last, timeline, segmentSize),
    segments,
    bytes,
    gaps,
    missing,
    parent: histories.get(timeline)?.at(-1) ?? null,
    history,
  };
}

/** @returns null for a backup that did not get so far as to need WAL */
function backupReport(
  { id, info }: CatalogueEntry,
  timelines: ReadonlyMap<number, TimelineScan>,
  histories: Histories,
  segmentSize: number,
): BackupReport | null {
  const range = rangeOf(info, segmentSize);
  if (range === null || !["DONE", "WAITING_FOR_WALS"].includes(info.status)) return null;
  const { timeline, first, last, begin, end } = range;
  const covered = coveredFrom(timelines.get(timeline), first);
  const missing = covered === null ? first : covered < last ? covered + 1 : null;
  return {
    id,
    status: info.status,
    begin,
    end,
    missing: missing === null ? null : nameOf(missing, timeline, segmentSize),
    recoverableTo: missing === null
      ? farthest(timeline, first, timelines, histories, segmentSize)
      : null,
  };
}

/** The last segment of the run that holds a number; null when it is not there. */
function coveredFrom(scan: TimelineScan | undefined, number: number): number | null {
  const runs = scan?.runs ?? [];
  let [low, high] = [0, runs.length - 1];
  while (low <= high) {
    const middle = (low + high) >> 1;
    const run = runs[middle];
    if (run === undefined || run.first > number) high = middle - 1;
    else if (run.last < number) low = middle + 1;
    else return run.last;
  }
  return null;
}

/** How far recovery gets, along the newest timeline that it gets to. */
function farthest(
  timeline: number,
  first: number,
  timelines: ReadonlyMap<number, TimelineScan>,
  histories: Histories,
  segmentSize: number,
): string | null {
  const targets = [...histories.keys()].sort((a, b) => b - a);
  for (const target of targets) {
    const ancestors = histories.get(target) ?? [];
    const at = ancestors.findIndex((ancestor) => ancestor.timeline === timeline);
    if (at < 0 || !timelines.has(target)) continue;
    let from = first;
    let whole = true;
    for (const { timeline: ancestor, lsn } of ancestors.slice(at)) {
      const until = Number(lsn / BigInt(segmentSize));
      // The segment of the switch is read from the new timeline, which has a copy of its beginning.
      if (until < from) whole &&= ancestor !== timeline;
      else if (until > from) {
        whole &&= (coveredFrom(timelines.get(ancestor), from) ?? -1) >= until - 1;
      }
      from = Math.max(from, until);
    }
    const reached = whole ? coveredFrom(timelines.get(target), from) : null;
    if (reached !== null) return nameOf(reached, target, segmentSize);
  }
  const reached = coveredFrom(timelines.get(timeline), first);
  return reached === null ? null : nameOf(reached, timeline, segmentSize);
}

async function compareDuplicates(
  store: ObjectStore,
  duplicates: Listed<Duplicate>,
  { signal }: VerifyOptions,
): Promise<Listed<DuplicateReport>> {
  const items = await mapInParallel(duplicates.items.entries(), 2, async ([index, duplicate]) => {
    if (index >= COMPARED_DUPLICATES) return { ...duplicate, same: null };
    const sums = new Set<string | null>();
    for (const key of duplicate.keys) sums.add(await checksumOf(store, key, signal));
    return { ...duplicate, same: sums.size === 1 && !sums.has(null) };
  });
  return { items, total: duplicates.total };
}

/** Of the decompressed content; null when that is damaged. */
async function checksumOf(
  store: ObjectStore,
  key: string,
  signal: AbortSignal | undefined,
): Promise<string | null> {
  const { compression } = stripSuffix(key);
  const content = storedContent(store, key, compression, { signal });
  const hash = createHash("sha256");
  try {
    for await (const chunk of noLargerThanWal(key, content)) hash.update(chunk);
  } catch (error) {
    if (error instanceof CorruptDataError || error instanceof OversizedWal) return null;
    throw error;
  }
  return hash.digest("hex");
}

function listed<T>(items: readonly T[]): Listed<T> {
  return { items: items.slice(0, MAX_LISTED), total: items.length };
}

function problemsOf(report: Omit<ArchiveReport, "problems">): string[] {
  const { objects, backups, timelines, gaps, duplicates, suspects } = report;
  const problems: string[] = [];
  if (objects === 0 && backups.length === 0) problems.push("There is no WAL and no backup");
  for (const { id, begin, end, missing } of backups) {
    if (missing !== null) {
      problems.push(`Backup ${id} can't be restored: ${missing} of ${begin} to ${end} is missing`);
    }
  }
  for (const { timeline, first, last, segments, expected } of gaps.items) {
    if (expected) continue;
    problems.push(
      segments === 1
        ? `Timeline ${timeline}: segment ${first} is missing`
        : `Timeline ${timeline}: ${segments} segments are missing, ${first} to ${last}`,
    );
  }
  if (gaps.total > gaps.items.length) {
    problems.push(`There are ${gaps.total - gaps.items.length} more gaps`);
  }
  for (const { timeline, segments, history } of timelines) {
    if (timeline > 1 && segments > 0 && history === null) {
      problems.push(`Timeline ${timeline} has no history file, so recovery can't follow it`);
    }
  }
  for (const { segment, keys, same } of duplicates.items) {
    if (same === false) {
      problems.push(`${segment} is there with different contents: ${keys.join(", ")}`);
    }
  }
  for (const { key, reason } of suspects.items) problems.push(`${key}: ${reason}`);
  if (suspects.total > suspects.items.length) {
    problems.push(`There are ${suspects.total - suspects.items.length} more such objects`);
  }
  return problems;
}

/** Where a timeline came out of another: nothing may be missing on either side, if a backup needs it. */
function joints(
  timelines: readonly TimelineScan[],
  histories: Histories,
  backups: readonly BackupReport[],
  segmentSize: number,
): string[] {
  const problems: string[] = [];
  const byTimeline = new Map(timelines.map((each) => [each.timeline, each]));
  for (const { timeline, runs } of timelines) {
    const parent = histories.get(timeline)?.at(-1);
    const begin = runs[0]?.first;
    if (parent === undefined || begin === undefined) continue;
    const at = Number(parent.lsn / BigInt(segmentSize));
    const needed = backups.map((backup) => numberIn(backup.begin, segmentSize)).some((from) =>
      histories.get(timeline)?.some((ancestor) =>
        ancestor.timeline === from?.timeline &&
        from.number <= Number(ancestor.lsn / BigInt(segmentSize))
      )
    );
    if (!needed) continue;
    if (begin > at) {
      const first = nameOf(at, timeline, segmentSize);
      problems.push(`Timeline ${timeline}: its beginning is missing, from ${first}`);
    }
    const end = byTimeline.get(parent.timeline)?.runs.findLast(({ first }) => first <= at)?.last;
    if (end !== undefined && end < at - 1) {
      const first = nameOf(end + 1, parent.timeline, segmentSize);
      problems.push(
        `Timeline ${parent.timeline}: what is before timeline ${timeline} is missing, from ${first}`,
      );
    }
  }
  return problems;
}
