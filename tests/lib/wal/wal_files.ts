/** WAL segments as a PostgreSQL cluster would write them, as far as their page headers go. */
import { parseWalName, startOfSegment } from "../../../lib/wal/segment.ts";
import { walBytes } from "./stores.ts";

export const MIB = 1024 ** 2;

export interface Segment {
  /** Bytes; 1 MiB when absent. */
  readonly size?: number;
  readonly systemIdentifier?: bigint;
  /** PostgreSQL 18's when absent. */
  readonly magic?: number;
  /** In the page headers; that of the name when absent. */
  readonly timeline?: number;
  /** Other content for another seed. */
  readonly seed?: number;
  /** As written by a machine of the other byte order. */
  readonly bigEndian?: boolean;
}

export const SYSTEM_IDENTIFIER = 7_600_000_000_000_000_001n;
const PAGE = 8192;

/** The content of a segment of that name (a `.partial` one, too). */
export function walSegment(name: string, options: Segment = {}): Uint8Array {
  const { size = MIB, systemIdentifier = SYSTEM_IDENTIFIER, magic = 0xd118, seed = 1 } = options;
  const wal = parseWalName(name);
  if (wal === null || wal.kind === "history") throw new Error(`${name} has no header`);
  const bytes = walBytes(size, seed);
  const view = new DataView(bytes.buffer);
  const little = options.bigEndian !== true;
  const start = startOfSegment(wal.segment, size);
  for (let at = 0; at < size; at += PAGE) {
    view.setUint16(at, magic, little);
    view.setUint16(at + 2, at === 0 ? 2 : 0, little);
    view.setUint32(at + 4, options.timeline ?? wal.timeline, little);
    view.setBigUint64(at + 8, start + BigInt(at), little);
    view.setBigUint64(at + 16, 0n, little);
    if (at > 0) continue;
    view.setBigUint64(24, systemIdentifier, little);
    view.setUint32(32, size, little);
    view.setUint32(36, PAGE, little);
  }
  return bytes;
}
