/** Finds where bzip2's blocks and streams begin and end in data that is not decoded yet: they have magic numbers. */
import type { ByteReader } from "./byte_reader.ts";
import { BitReader, peek25 } from "./bzip2_decoder.ts";

/** Bytes of a block at most: codes have 20 bits, and there are the tables. */
export const LARGEST_BLOCK = 900_000 * 20 / 8 + 32 * 1024;

/** Pi, and its square root: each in two halves of 24 bits. */
const BLOCK = [0x314159, 0x265359] as const;
const END = [0x177245, 0x385090] as const;
const MAGIC_BITS = 48;
/** Of what follows a stream's end: its CRC, up to a whole byte, and another's header. */
const END_BYTES = 16;

/** What looks like the beginning of a block or a stream's end; one in 2^47 is something else that looks the same. */
export interface Mark {
  /** Bits of the source before it. */
  readonly position: number;
  readonly isEnd: boolean;
  /** The block's CRC, or the stream's; undefined when the source ends before. */
  readonly crc: number | undefined;
}

/** Bits of a magic number and a CRC. */
export const MARK_BITS = 80;

/** For each byte, if it may be the fourth of a magic number: bit n for one that begins at bit n of the first. */
const HINTS = hintsOf([BLOCK, END]);

/**
 * Marks in order, and then the length of all in bits. With each come, from the byte on that it begins in, the bytes that may
 * belong to it, which are overwritten when the next mark is asked for.
 * @param start bytes of the source before what the reader gives next
 */
export async function* findMarks(
  reader: ByteReader,
  start: number,
): AsyncGenerator<Mark & { readonly bytes: Uint8Array }, number, void> {
  const stretch = new Stretch(reader, start);
  // Bits of the stretch that were looked at.
  let seen = 0;
  for (;;) {
    const at = nextMark(stretch.bytes, seen);
    if (at === -1) {
      if (stretch.isLast) return 8 * (stretch.start + stretch.bytes.length);
      // A number may begin in the last bytes.
      seen = Math.max(seen, 8 * stretch.bytes.length - MAGIC_BITS);
      stretch.drop(seen >>> 3);
      seen &= 7;
      await stretch.fill(stretch.bytes.length + 1);
      continue;
    }
    stretch.drop(at >>> 3);
    const offset = at & 7;
    const isEnd = half(stretch.bytes, offset) === END[0];
    await stretch.fill(isEnd ? END_BYTES : LARGEST_BLOCK);
    const bytes = stretch.bytes.subarray(0, isEnd ? END_BYTES : LARGEST_BLOCK);
    const bits = new BitReader(bytes, offset + MAGIC_BITS);
    const crc = (bits.take(16) << 16) | bits.take(16);
    const position = 8 * stretch.start + offset;
    yield { position, isEnd, crc: bits.exhausted ? undefined : crc, bytes };
    seen = offset + 1;
  }
}

/** Position in bits of the first magic number at or behind `from`; -1 without one. */
function nextMark(bytes: Uint8Array, from: number): number {
  const last = bytes.length - MAGIC_BITS / 8;
  for (let at = from >>> 3; at <= last; at++) {
    const hints = HINTS[bytes[at + 3] as number] as number;
    if (hints === 0) continue;
    for (let offset = 0; offset < 8; offset++) {
      const position = 8 * at + offset;
      if ((hints & (1 << offset)) === 0 || position < from) continue;
      if (position + MAGIC_BITS > 8 * bytes.length) break;
      const [first, second] = [half(bytes, position), half(bytes, position + 24)];
      if (first === BLOCK[0] && second === BLOCK[1]) return position;
      if (first === END[0] && second === END[1]) return position;
    }
  }
  return -1;
}

function half(bytes: Uint8Array, position: number): number {
  return peek25(bytes, position) >>> 1;
}

function hintsOf(magics: readonly (readonly [number, number])[]): Uint8Array {
  const hints = new Uint8Array(256);
  for (const [first, second] of magics) {
    for (let offset = 0; offset < 8; offset++) {
      // The fourth byte lacks so many bits of the second half's first byte, and has those before.
      const byte = ((first << (8 - offset)) | (second >>> (16 + offset))) & 255;
      hints[byte] = (hints[byte] as number) | (1 << offset);
    }
  }
  return hints;
}

/** A part of a stream, in one piece: what was read and not dropped. */
class Stretch {
  readonly #reader: ByteReader;
  readonly #memory = new Uint8Array(2 * LARGEST_BLOCK);
  #from = 0;
  #to = 0;
  /** Bytes of the source before it. */
  start: number;
  /** Nothing follows it. */
  isLast = false;

  constructor(reader: ByteReader, start: number) {
    this.#reader = reader;
    this.start = start;
  }

  get bytes(): Uint8Array {
    return this.#memory.subarray(this.#from, this.#to);
  }

  drop(count: number): void {
    this.#from += count;
    this.start += count;
  }

  /** Read until it has so many bytes, at most `LARGEST_BLOCK`, or the source ends. */
  async fill(count: number): Promise<void> {
    while (this.#to - this.#from < count && !this.isLast) {
      const chunk = await this.#reader.take(LARGEST_BLOCK);
      if (chunk === undefined) {
        this.isLast = true;
        return;
      }
      if (this.#to + chunk.length > this.#memory.length) {
        this.#memory.copyWithin(0, this.#from, this.#to);
        this.#to -= this.#from;
        this.#from = 0;
      }
      this.#memory.set(chunk, this.#to);
      this.#to += chunk.length;
    }
  }
}
