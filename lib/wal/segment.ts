/**
 * Names of the files in a WAL archive, and the arithmetic between LSNs and segments. The only place that
 * knows the grammar: 8 hexadecimal digits of timeline, then 16 of position (`000000010000000A000000FF`)
 * with an optional `.partial` or `.OOOOOOOO.backup`, or `.history`. Digits may be of either case; what is
 * made here is upper case, as PostgreSQL writes it.
 */

interface Named {
  /** As it was given. */
  readonly name: string;
  /** 0..2^32-1 */
  readonly timeline: number;
}

interface Positioned extends Named {
  /** The first 24 digits in upper case: the segment that the file is, or belongs to. */
  readonly segment: string;
  /** High half of the LSNs in the segment: 0..2^32-1 */
  readonly xlogId: number;
  /** Which segment of its xlogId; below `segmentsPerXlogId` in names that PostgreSQL made. */
  readonly index: number;
}

/** A file of a WAL archive, by its name. */
export type WalName =
  | (Positioned & { readonly kind: "segment" })
  | (Positioned & { readonly kind: "partial" })
  /** `offset`: bytes into the segment at which the backup began. */
  | (Positioned & { readonly kind: "backup-label"; readonly offset: number })
  | (Named & { readonly kind: "history" });

const HEX = "[0-9A-Fa-f]{8}";
const GRAMMAR = new RegExp(
  `^(${HEX})(?:(${HEX})(${HEX})(?:\\.(${HEX})\\.backup|\\.partial)?|\\.history)$`,
);

/** @returns null for what is not the name of a WAL file (without path, without compression suffix) */
export function parseWalName(name: string): WalName | null {
  const [, timeline, xlogId, index, offset] = GRAMMAR.exec(name) ?? [];
  if (timeline === undefined) return null;
  if (xlogId === undefined || index === undefined) {
    return { kind: "history", name, timeline: parseInt(timeline, 16) };
  }
  const position = {
    name,
    timeline: parseInt(timeline, 16),
    segment: name.slice(0, 24).toUpperCase(),
    xlogId: parseInt(xlogId, 16),
    index: parseInt(index, 16),
  };
  if (offset !== undefined) {
    return { kind: "backup-label", ...position, offset: parseInt(offset, 16) };
  }
  return { kind: name.length === 24 ? "segment" : "partial", ...position };
}

/** Smallest and largest segment of `initdb --wal-segsize`, bytes. */
export const MIN_SEGMENT_SIZE = 1024 ** 2;
export const MAX_SEGMENT_SIZE = 1024 ** 3;

/** Can a cluster have this segment size? Powers of two from 1 MiB to 1 GiB. */
export function isSegmentSize(bytes: number): boolean {
  return bytes >= MIN_SEGMENT_SIZE && bytes <= MAX_SEGMENT_SIZE &&
    Number.isInteger(Math.log2(bytes));
}

/** How many segments have the same middle 8 digits: 256 for 16 MiB. */
export function segmentsPerXlogId(segmentSize: number): number {
  return 2 ** 32 / checked(segmentSize);
}

/**
 * Name of the segment that holds the byte at an LSN. An LSN exactly at a boundary is the first byte of the
 * *following* segment, also when it is the end of a backup (Barman records it so).
 * @param lsn 0..2^64-1
 */
export function segmentNameOf(lsn: bigint, timeline: number, segmentSize: number): string {
  const low = Number(lsn & 0xFFFFFFFFn);
  return nameOf(timeline, Number(lsn >> 32n), Math.floor(low / checked(segmentSize)));
}

/** Where in its segment an LSN is, bytes. */
export function offsetOf(lsn: bigint, segmentSize: number): number {
  return Number(lsn % BigInt(checked(segmentSize)));
}

/** LSN of the first byte of a segment. */
export function startOfSegment(segment: string, segmentSize: number): bigint {
  return BigInt(numberOf(segment, segmentSize)) * BigInt(segmentSize);
}

/** The segment after this one on the same timeline; null after the very last. */
export function nextSegmentName(segment: string, segmentSize: number): string | null {
  return neighbour(segment, segmentSize, 1);
}

/** The segment before this one on the same timeline; null for number 0, which PostgreSQL never uses. */
export function previousSegmentName(segment: string, segmentSize: number): string | null {
  return neighbour(segment, segmentSize, -1);
}

/** How many segments from one to the other, timelines left aside: 1 for neighbours, negative backwards. */
export function segmentDistance(from: string, to: string, segmentSize: number): number {
  return numberOf(to, segmentSize) - numberOf(from, segmentSize);
}

/**
 * Number of a segment on its timeline, counted from LSN 0; below 2^44.
 * @throws {RangeError} for a name that can't exist with this segment size
 */
export function segmentNumber(segment: string, segmentSize: number): number {
  return numberOf(segment, segmentSize);
}

/**
 * Order of WAL names by timeline, then position, then what belongs to the segment, whatever the case of the digits.
 * A history file comes before the segments of its timeline.
 */
export function compareWalNames(a: string, b: string): number {
  const [left, right] = [a.toUpperCase(), b.toUpperCase()];
  return left < right ? -1 : left > right ? 1 : 0;
}

/**
 * The folder of the archive in which a segment, partial or backup-label file lies: timeline and xlogId, the first 16
 * digits in upper case. Null for history files, which lie at the top.
 */
export function hashDirectory(wal: WalName): string | null {
  return wal.kind === "history" ? null : wal.segment.slice(0, 16);
}

/** Timeline from the 8 digits of a name (always hexadecimal: `0000000A` is 10); null for other text. */
export function parseTimeline(digits: string): number | null {
  return /^[0-9A-Fa-f]{8}$/.test(digits) ? parseInt(digits, 16) : null;
}

/** `0000000A` for timeline 10. */
export function formatTimeline(timeline: number): string {
  return eightDigits(timeline, "timeline");
}

function neighbour(segment: string, segmentSize: number, step: 1 | -1): string | null {
  const wal = segmentOf(segment);
  const number = numberOf(segment, segmentSize) + step;
  const perXlogId = segmentsPerXlogId(segmentSize);
  const xlogId = Math.floor(number / perXlogId);
  if (xlogId < 0 || xlogId >= 2 ** 32) return null;
  return nameOf(wal.timeline, xlogId, number - xlogId * perXlogId);
}

/** Number of a segment counted from LSN 0; below 2^44, so exact. */
function numberOf(segment: string, segmentSize: number): number {
  const wal = segmentOf(segment);
  const perXlogId = segmentsPerXlogId(segmentSize);
  if (wal.index >= perXlogId) {
    throw new RangeError(
      `WAL segment ${segment} can't exist with a segment size of ${segmentSize}`,
    );
  }
  return wal.xlogId * perXlogId + wal.index;
}

function segmentOf(name: string): Positioned {
  const wal = parseWalName(name);
  if (wal?.kind !== "segment") throw new RangeError(`'${name}' is not the name of a WAL segment`);
  return wal;
}

function nameOf(timeline: number, xlogId: number, index: number): string {
  return eightDigits(timeline, "timeline") + eightDigits(xlogId, "high half of an LSN") +
    eightDigits(index, "segment index");
}

function eightDigits(number: number, what: string): string {
  if (!Number.isInteger(number) || number < 0 || number >= 2 ** 32) {
    throw new RangeError(`${number} is not a valid ${what}`);
  }
  return number.toString(16).toUpperCase().padStart(8, "0");
}

function checked(segmentSize: number): number {
  if (!isSegmentSize(segmentSize)) {
    throw new RangeError(
      `${segmentSize} is not a WAL segment size (a power of two, 1 MiB to 1 GiB)`,
    );
  }
  return segmentSize;
}
