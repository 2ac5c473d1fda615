/**
 * The header of a WAL segment: the long form of PostgreSQL's page header (`XLogLongPageHeaderData` in
 * access/xlog_internal.h), which the first page of every segment has, and whether it agrees with the file's name.
 */
import { parseHistory } from "./history.ts";
import { isSegmentSize, segmentNameOf, startOfSegment, type WalName } from "./segment.ts";

/** Bytes of a file that `parseWalHeader` wants to see. */
export const HEADER_SIZE = 40;
/** `XLOG_BLCKSZ` unless PostgreSQL was built with another; the second page begins here. */
const PAGE_SIZE = 8192;
/** Bytes of a file that `secondPageMagic` wants to see. */
export const SECOND_PAGE_END = PAGE_SIZE + 16;

export interface WalHeader {
  /** `XLOG_PAGE_MAGIC`: another one for each major version that changed the format of WAL. */
  readonly magic: number;
  /** The timeline that the first page was written on. */
  readonly timeline: number;
  /** LSN of the first page. */
  readonly pageAddress: bigint;
  /** Of the cluster: made by initdb, kept by all copies of it. */
  readonly systemIdentifier: bigint;
  /** Bytes. */
  readonly segmentSize: number;
}

/** Versions whose magic is known; the numbers rise with the versions. */
const MAGICS: ReadonlyMap<number, number> = new Map([
  [0xd097, 10],
  [0xd098, 11],
  [0xd101, 12],
  [0xd106, 13],
  [0xd10d, 14],
  [0xd110, 15],
  [0xd113, 16],
  [0xd116, 17],
  [0xd118, 18],
]);
/** All magics since PostgreSQL 8.0 have been in here; newer ones are taken as they come. */
const LOWEST_MAGIC = 0xd000;
const HIGHEST_MAGIC = 0xd3ff;

const LONG_HEADER = 0x0002;
/** `XLP_ALL_FLAGS` has four bits at present. */
const HIGHEST_FLAGS = 0x00ff;

/**
 * The header at the beginning of a file; integers are in the byte order of the server's machine.
 * @returns null when that is not the beginning of a WAL segment
 */
export function parseWalHeader(bytes: Uint8Array): WalHeader | null {
  if (bytes.length < HEADER_SIZE) return null;
  const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.length);
  return parseAs(view, true) ?? parseAs(view, false);
}

function parseAs(view: DataView, littleEndian: boolean): WalHeader | null {
  const magic = view.getUint16(0, littleEndian);
  const flags = view.getUint16(2, littleEndian);
  const segmentSize = view.getUint32(32, littleEndian);
  if (magic < LOWEST_MAGIC || magic > HIGHEST_MAGIC) return null;
  if ((flags & LONG_HEADER) === 0 || flags > HIGHEST_FLAGS || !isSegmentSize(segmentSize)) {
    return null;
  }
  return {
    magic,
    timeline: view.getUint32(4, littleEndian),
    pageAddress: view.getBigUint64(8, littleEndian),
    systemIdentifier: view.getBigUint64(24, littleEndian),
    segmentSize,
  };
}

/**
 * The magic in the header of the second page, which shows that a file is WAL even when its beginning is damaged.
 * @param start LSN of the first byte of the file, by its name
 * @returns null when no page header of that position is there: the rest of a segment may be empty
 */
export function secondPageMagic(bytes: Uint8Array, start: bigint): number | null {
  if (bytes.length < SECOND_PAGE_END) return null;
  const view = new DataView(bytes.buffer, bytes.byteOffset + PAGE_SIZE);
  for (const littleEndian of [true, false]) {
    const magic = view.getUint16(0, littleEndian);
    const flags = view.getUint16(2, littleEndian);
    if (
      magic >= LOWEST_MAGIC && magic <= HIGHEST_MAGIC && (flags & LONG_HEADER) === 0 &&
      flags <= HIGHEST_FLAGS &&
      view.getBigUint64(8, littleEndian) === start + BigInt(PAGE_SIZE)
    ) return magic;
  }
  return null;
}

/** Major version of a server that writes this magic; null for one that is newer than this program (or very old). */
export function majorOfMagic(magic: number): number | null {
  return MAGICS.get(magic) ?? null;
}

/**
 * Does the header belong to a file of that name and size?
 * @param history the text of the history file of the name's timeline, where it can be had: after a promotion the first
 * segment begins with pages of an older timeline, and the history tells which segment that is
 * @returns what is wrong with it; null when nothing is
 */
export function headerMismatch(
  header: WalHeader,
  wal: WalName & { readonly kind: "segment" | "partial" },
  size: number,
  history: string | null,
): string | null {
  const { segmentSize, timeline, pageAddress } = header;
  const complete = wal.kind === "segment";
  if (complete ? size !== segmentSize : size > segmentSize) {
    return `it has ${size} bytes, and its header says that segments have ${segmentSize}`;
  }
  const perXlogId = 2 ** 32 / segmentSize;
  if (wal.index >= perXlogId || startOfSegment(wal.segment, segmentSize) !== pageAddress) {
    const actual = segmentNameOf(pageAddress, timeline, segmentSize);
    return `its header is that of segment ${actual}`;
  }
  if (timeline > wal.timeline) {
    return `its header is of timeline ${timeline}, which is later than that of its name`;
  }
  if (timeline === 0) return "its header has no timeline";
  if (timeline < wal.timeline && history !== null && !switchesIn(header, history)) {
    return `its header is of timeline ${timeline}, and by the history of timeline ${wal.timeline} that one ` +
      "did not end in this segment";
  }
  return null;
}

/** Did the header's timeline end in its segment? True also when the history does not tell. */
function switchesIn({ timeline, pageAddress, segmentSize }: WalHeader, history: string): boolean {
  const switches = parseHistory(history).filter((each) => each.timeline === timeline);
  const end = pageAddress + BigInt(segmentSize);
  return switches.length === 0 || switches.some(({ lsn }) => lsn >= pageAddress && lsn <= end);
}
