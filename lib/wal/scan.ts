/** What a WAL archive holds, learnt from one listing. */
import type { CompressionName } from "../compression/table.ts";
import type { ServerLayout } from "../layout.ts";
import type { Cancellable, ObjectStore } from "../../providers/object_store.ts";
import { type ArchivedFile, listArchive } from "./catalogue.ts";
import {
  formatTimeline,
  hashDirectory,
  segmentNameOf,
  segmentNumber,
  segmentsPerXlogId,
} from "./segment.ts";

/** Consecutive segments of a timeline, by their numbers counted from LSN 0. */
export interface Run {
  readonly first: number;
  readonly last: number;
}

export interface TimelineScan {
  readonly timeline: number;
  /** Ascending, with a gap between each and the next. */
  readonly runs: readonly Run[];
  /** Different segments. */
  readonly segments: number;
  /** Of all objects. */
  readonly bytes: number;
  /** Numbers of the segments of which only a `.partial` is there. */
  readonly partials: readonly number[];
  /** Key of the history file. */
  readonly history: string | null;
}

export interface Duplicate {
  readonly segment: string;
  readonly keys: readonly string[];
}

/** An object that is wrong by itself. */
export interface Suspect {
  readonly key: string;
  readonly reason: string;
}

export interface ArchiveScan {
  readonly objects: number;
  /** Ascending. */
  readonly timelines: readonly TimelineScan[];
  readonly duplicates: Listed<Duplicate>;
  readonly suspects: Listed<Suspect>;
}

/** The first of many things, and how many there are. */
export interface Listed<T> {
  readonly items: readonly T[];
  readonly total: number;
}

/** How many of each thing are told one by one. */
export const MAX_LISTED = 1000;

/**
 * Go through the archive once. Memory grows with timelines and gaps (two numbers each), not with objects.
 * @param segmentSize bytes, of this cluster
 */
export async function scanArchive(
  store: ObjectStore,
  layout: ServerLayout,
  segmentSize: number,
  options: Cancellable,
): Promise<ArchiveScan> {
  const timelines = new Map<number, Collected>();
  const duplicates = new Collector<Duplicate>();
  const suspects = new Collector<Suspect>();
  const perXlogId = segmentsPerXlogId(segmentSize);
  let objects = 0;
  const open: { group: Group | null } = { group: null };

  const close = () => {
    if (open.group === null) return;
    const { timeline, number, keys, partial } = open.group;
    if (keys.length > 1) {
      duplicates.add({ segment: nameOf(number, timeline.timeline, segmentSize), keys });
    }
    if (keys.length > 0) timeline.add(number);
    else if (partial) timeline.partials.push(number);
    open.group = null;
  };

  for await (const file of listArchive(store, layout, options)) {
    objects++;
    const { object, wal } = file;
    const timeline = timelines.get(wal.timeline) ?? new Collected(wal.timeline);
    timelines.set(wal.timeline, timeline);
    timeline.bytes += object.size;
    const reason = faultOf(file, layout, segmentSize, perXlogId);
    if (reason !== null) {
      suspects.add({ key: object.key, reason });
      continue;
    }
    if (wal.kind === "history") {
      timeline.history ??= object.key;
      continue;
    }
    if (wal.kind === "backup-label") continue;
    const number = segmentNumber(wal.segment, segmentSize);
    let { group } = open;
    if (group?.timeline !== timeline || group.number !== number) {
      close();
      group = { timeline, number, keys: [], partial: false };
      open.group = group;
    }
    if (wal.kind === "segment") group.keys.push(object.key);
    else group.partial = true;
  }
  close();
  return {
    objects,
    timelines: [...timelines.values()].sort((a, b) => a.timeline - b.timeline),
    duplicates: duplicates.listed(),
    suspects: suspects.listed(),
  };
}

/** Name of a segment from its number. */
export function nameOf(number: number, timeline: number, segmentSize: number): string {
  return segmentNameOf(BigInt(number) * BigInt(segmentSize), timeline, segmentSize);
}

/** One segment, under however many suffixes. */
interface Group {
  readonly timeline: Collected;
  readonly number: number;
  readonly keys: string[];
  partial: boolean;
}

class Collected implements TimelineScan {
  readonly timeline: number;
  readonly runs: { first: number; last: number }[] = [];
  segments = 0;
  bytes = 0;
  readonly partials: number[] = [];
  history: string | null = null;

  constructor(timeline: number) {
    this.timeline = timeline;
  }

  /** In ascending order, as the listing has them. */
  add(number: number): void {
    this.segments++;
    const run = this.runs.at(-1);
    if (run?.last === number - 1) run.last = number;
    else this.runs.push({ first: number, last: number });
  }
}

class Collector<T> {
  readonly #items: T[] = [];
  #total = 0;
  add(item: T): void {
    this.#total++;
    if (this.#items.length < MAX_LISTED) this.#items.push(item);
  }
  listed(): Listed<T> {
    return { items: this.#items, total: this.#total };
  }
}

/** Objects that wal-restore would not find, or that can't be a whole file. */
function faultOf(
  { object, wal, compression }: ArchivedFile,
  layout: ServerLayout,
  segmentSize: number,
  perXlogId: number,
): string | null {
  const folder = hashDirectory(wal);
  const parent = folder === null ? layout.wals : `${layout.wals}${folder}/`;
  const name = object.key.slice(object.key.lastIndexOf("/") + 1);
  if (object.key !== parent + name) {
    return `it is not in the folder ${parent}, so it is not found when it is asked for`;
  }
  const position = wal.kind === "history" ? formatTimeline(wal.timeline) : wal.segment;
  if (!wal.name.startsWith(position)) {
    return "its name is in lower case, so it is not found when PostgreSQL asks for it";
  }
  if (wal.kind === "history") return null;
  if (wal.index >= perXlogId) {
    return `there is no such segment with a segment size of ${segmentSize} bytes`;
  }
  return sizeFault(object.size, wal.kind, compression, segmentSize);
}

function sizeFault(
  size: number,
  kind: "segment" | "partial" | "backup-label",
  compression: CompressionName | null,
  segmentSize: number,
): string | null {
  if (kind === "backup-label") return null;
  if (size === 0) return "it is empty";
  if (compression === null && kind === "segment" && size !== segmentSize) {
    return `it has ${size} bytes instead of ${segmentSize}`;
  }
  return null;
}
