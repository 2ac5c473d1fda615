/** Whether the WAL that a backup needs is in the archive. */
import { setTimeout as sleep } from "node:timers/promises";
import type { ServerLayout } from "../layout.ts";
import type { Cancellable, ObjectStore } from "../../providers/object_store.ts";
import { listArchive } from "./catalogue.ts";
import { type Listed, MAX_LISTED, nameOf, type Run } from "./scan.ts";
import { segmentNumber, segmentsPerXlogId } from "./segment.ts";

/** Consecutive segments of one timeline, by their numbers counted from LSN 0. */
export interface WalSpan extends Run {
  readonly timeline: number;
  /** Bytes. */
  readonly segmentSize: number;
}

/** Segments that are not in the archive. */
export interface MissingWal {
  readonly ranges: Listed<Run>;
  readonly segments: number;
}

/**
 * What a backup needs between these LSNs. An end at the very beginning of a segment needs nothing of that one.
 */
export function spanOf(start: bigint, end: bigint, timeline: number, segmentSize: number): WalSpan {
  const size = BigInt(segmentSize);
  const first = Number(start / size);
  return {
    timeline,
    segmentSize,
    first,
    last: Math.max(first, Number((end > 0n ? end - 1n : end) / size)),
  };
}

/** `000000010000000000000003 to 000000010000000000000005` */
export function spanText({ timeline, segmentSize }: WalSpan, { first, last }: Run): string {
  const name = nameOf(first, timeline, segmentSize);
  return first === last ? name : `${name} to ${nameOf(last, timeline, segmentSize)}`;
}

/** Look which segments are missing, by one listing that begins and ends with them. A `.partial` does not count. */
export async function missingWal(
  store: ObjectStore,
  layout: ServerLayout,
  span: WalSpan,
  { signal }: Cancellable,
): Promise<MissingWal | null> {
  const { timeline, first, last, segmentSize } = span;
  const perXlogId = segmentsPerXlogId(segmentSize);
  const items: Run[] = [];
  let [total, segments, expected] = [0, 0, first];
  const miss = (until: number) => {
    if (until < expected) return;
    total += 1;
    segments += until - expected + 1;
    if (items.length < MAX_LISTED) items.push({ first: expected, last: until });
  };
  // A little before the first one, whatever its suffix.
  const startAfter = layout.wal(nameOf(first, timeline, segmentSize)).slice(0, -1);
  for await (const { object, wal } of listArchive(store, layout, { signal, startAfter })) {
    if (wal.kind === "history" || wal.timeline < timeline) continue;
    if (wal.timeline > timeline) break;
    if (wal.index >= perXlogId || !object.key.startsWith(layout.wal(wal.segment))) continue;
    const number = segmentNumber(wal.segment, segmentSize);
    if (number > last) break;
    if (wal.kind !== "segment" || number < expected) continue;
    miss(number - 1);
    expected = number + 1;
  }
  miss(last);
  return segments === 0 ? null : { ranges: { items, total }, segments };
}

export interface WaitOptions {
  /** Milliseconds; 0 for one look. */
  readonly timeoutMs: number;
  readonly signal: AbortSignal;
  /** Told once, when it does begin to wait. */
  readonly onWaiting: (missing: MissingWal) => void;
}

/** Between looks, in milliseconds. */
const FIRST_PAUSE = 500;
const LONGEST_PAUSE = 5000;

/**
 * Wait until the segments are in the archive. Where the archive holds nothing at all there is nothing to wait for:
 * this server's WAL goes elsewhere.
 * @returns null when all are there, what is missing otherwise
 */
export async function waitForWal(
  store: ObjectStore,
  layout: ServerLayout,
  span: WalSpan,
  { timeoutMs, signal, onWaiting }: WaitOptions,
): Promise<MissingWal | null> {
  const end = performance.now() + timeoutMs;
  let { first } = span;
  for (let pause = FIRST_PAUSE;; pause = Math.min(2 * pause, LONGEST_PAUSE)) {
    const missing = await missingWal(store, layout, { ...span, first }, { signal });
    if (missing === null) return null;
    const left = end - performance.now();
    if (left <= 0) return missing;
    const waiting = first > span.first || pause > FIRST_PAUSE;
    if (!waiting) {
      if (await isEmpty(store, layout, signal)) return missing;
      onWaiting(missing);
    }
    // What is there stays there.
    first = missing.ranges.items[0]?.first ?? first;
    await sleep(Math.min(pause, left), undefined, { signal }).catch((error) => {
      signal.throwIfAborted();
      throw error;
    });
  }
}

async function isEmpty(
  store: ObjectStore,
  layout: ServerLayout,
  signal: AbortSignal,
): Promise<boolean> {
  for await (const _ of listArchive(store, layout, { signal })) return false;
  return true;
}
