/**
 * Checksums of PostgreSQL's data pages (`data_checksums`), as the server's documentation and page layout define them:
 * FNV-1a over 32 lanes of 32-bit words, mixed with the block's number in the relation. It works on the numbers of this
 * machine's byte order, as the server does.
 */

/** What decides about a page besides its bytes. */
export interface PageRules {
  /** Bytes of a page: 1024 to 32768, a power of two. */
  readonly blockSize: number;
  /** Blocks of one file of a relation; the next file goes on counting. */
  readonly segmentBlocks: number;
  /**
   * Pages with this LSN or a newer one are not looked at: they may have been written while they were read, and WAL
   * from here on has them whole.
   */
  readonly startLsn: bigint;
}

/** Pages of the size that nearly all servers have, in files of 1 GiB. */
export const USUAL_BLOCK_SIZE = 8192;
export const USUAL_SEGMENT_BYTES = 1024 ** 3;

/** Which file of which relation a path is. */
export interface RelationFile {
  /** 0 for the first file of a fork, 1 for `.1` and so on. */
  readonly segment: number;
  /** The path of the relation's main fork without the number of its file: `base/5/16384`. */
  readonly relation: string;
}

const RELATION_FILE =
  /^((?:global|base\/\d+|pg_tblspc\/\d+\/PG_[^/]+\/\d+)\/\d+)(?:_(?:fsm|vm|init))?(?:\.(\d+))?$/;

/**
 * Whether a file holds pages with checksums: the files of relations, all forks.
 * @param path relative to the data directory, tablespaces by way of `pg_tblspc/OID/`
 */
export function relationFile(path: string): RelationFile | null {
  const match = RELATION_FILE.exec(path);
  return match === null ? null : { relation: match[1] ?? "", segment: Number(match[2] ?? 0) };
}

/** Offsets of fields in the header of a page. Bytes. */
const LSN_LOW = 4;
const CHECKSUM = 8;
const UPPER = 14;

/**
 * The pages that are damaged, by their index in the bytes. Pages that the server has not used yet (all zero) are fine;
 * one that has no content and yet is not zero is not. What is left over behind the last whole page is not looked at.
 * @param bytes begin with a page; their offset in the buffer is a multiple of 4
 * @param firstBlock number of the first page in the relation
 */
export function damagedPages(bytes: Uint8Array, firstBlock: number, rules: PageRules): number[] {
  const { blockSize, startLsn } = rules;
  const count = Math.floor(bytes.length / blockSize);
  const damaged: number[] = [];
  if (count === 0) return damaged;
  const words = new Int32Array(bytes.buffer, bytes.byteOffset, (count * blockSize) / 4);
  const halves = new Uint16Array(bytes.buffer, bytes.byteOffset, (count * blockSize) / 2);
  const startHigh = Number(startLsn >> 32n);
  const startLow = Number(startLsn & 0xffffffffn);
  const pageWords = blockSize / 4;
  for (let page = 0; page < count; page++) {
    const at = page * pageWords;
    if (halves[at * 2 + UPPER / 2] === 0) {
      if (!isZero(words, at, at + pageWords)) damaged.push(page);
      continue;
    }
    const high = (words[at] as number) >>> 0;
    if (high > startHigh) continue;
    if (high === startHigh && (words[at + LSN_LOW / 4] as number) >>> 0 >= startLow) continue;
    const stored = halves[at * 2 + CHECKSUM / 2] as number;
    if (stored === checksumAt(words, halves, at, pageWords, firstBlock + page)) continue;
    damaged.push(page);
  }
  return damaged;
}

/**
 * The checksum that a page should have: 1 to 65535.
 * @param page its offset in the buffer is a multiple of 4
 * @param block number in the relation
 */
export function pageChecksum(page: Uint8Array, block: number): number {
  const words = new Int32Array(page.buffer, page.byteOffset, page.length / 4);
  const halves = new Uint16Array(page.buffer, page.byteOffset, page.length / 2);
  return checksumAt(words, halves, 0, words.length, block);
}

/** The checksum that a page has. */
export function storedChecksum(page: Uint8Array): number {
  return new DataView(page.buffer, page.byteOffset).getUint16(CHECKSUM, LITTLE_ENDIAN);
}

/** The LSN of the last change of a page. */
export function pageLsn(page: Uint8Array): bigint {
  const view = new DataView(page.buffer, page.byteOffset);
  return (BigInt(view.getUint32(0, LITTLE_ENDIAN)) << 32n) |
    BigInt(view.getUint32(LSN_LOW, LITTLE_ENDIAN));
}

const LITTLE_ENDIAN = new Uint8Array(Uint16Array.of(1).buffer)[0] === 1;

function isZero(words: Int32Array, from: number, to: number): boolean {
  for (let i = from; i < to; i++) {
    if (words[i] !== 0) return false;
  }
  return true;
}

/** The checksum of the page with its own field taken for zero. */
function checksumAt(
  words: Int32Array,
  halves: Uint16Array,
  at: number,
  pageWords: number,
  block: number,
): number {
  const field = at * 2 + CHECKSUM / 2;
  const stored = halves[field] as number;
  halves[field] = 0;
  const sum = (lanesOf(words, at, at + pageWords) ^ block) >>> 0;
  halves[field] = stored;
  return sum % 65_535 + 1;
}

const PRIME = 16_777_619;
/** What the lanes begin with. */
// deno-fmt-ignore
const SEEDS = Int32Array.of(
  0x5b1f36e9, 0xb8525960, 0x02ab50aa, 0x1de66d2a, 0x79ff467a, 0x9bb9f8a3, 0x217e7cd2, 0x83e13d2c,
  0xf8d4474f, 0xe39eb970, 0x42c6ae16, 0x993216fa, 0x7b093b5d, 0x98daff3c, 0xf718902a, 0x0b1c9cdb,
  0xe58f764b, 0x187636bc, 0x5d7b3bb1, 0xe73de7de, 0x92bec979, 0xcca6c0b2, 0x304a0979, 0x85aa43d4,
  0x783125bb, 0x6ca8eaa2, 0xe407eac6, 0x4b5cfc3e, 0x9fbf8c76, 0x15ca20be, 0xf2ca9fd3, 0x959bd756,
);

/**
 * All lanes combined. Eight lanes at a time: as many as the processor's multiplier keeps busy, and as few as its
 * registers hold (3.4 GiB/s in the executable, half of that with four).
 */
function lanesOf(words: Int32Array, from: number, to: number): number {
  let result = 0;
  for (let lane = 0; lane < 32; lane += 8) {
    let a = SEEDS[lane] as number;
    let b = SEEDS[lane + 1] as number;
    let c = SEEDS[lane + 2] as number;
    let d = SEEDS[lane + 3] as number;
    let e = SEEDS[lane + 4] as number;
    let f = SEEDS[lane + 5] as number;
    let g = SEEDS[lane + 6] as number;
    let h = SEEDS[lane + 7] as number;
    for (let i = from + lane; i < to; i += 32) {
      a ^= words[i] as number;
      a = Math.imul(a, PRIME) ^ (a >>> 17);
      b ^= words[i + 1] as number;
      b = Math.imul(b, PRIME) ^ (b >>> 17);
      c ^= words[i + 2] as number;
      c = Math.imul(c, PRIME) ^ (c >>> 17);
      d ^= words[i + 3] as number;
      d = Math.imul(d, PRIME) ^ (d >>> 17);
      e ^= words[i + 4] as number;
      e = Math.imul(e, PRIME) ^ (e >>> 17);
      f ^= words[i + 5] as number;
      f = Math.imul(f, PRIME) ^ (f >>> 17);
      g ^= words[i + 6] as number;
      g = Math.imul(g, PRIME) ^ (g >>> 17);
      h ^= words[i + 7] as number;
      h = Math.imul(h, PRIME) ^ (h >>> 17);
    }
    // Two rounds of zeros, so that the last words are mixed as well as the first.
    for (let round = 0; round < 2; round++) {
      a = Math.imul(a, PRIME) ^ (a >>> 17);
      b = Math.imul(b, PRIME) ^ (b >>> 17);
      c = Math.imul(c, PRIME) ^ (c >>> 17);
      d = Math.imul(d, PRIME) ^ (d >>> 17);
      e = Math.imul(e, PRIME) ^ (e >>> 17);
      f = Math.imul(f, PRIME) ^ (f >>> 17);
      g = Math.imul(g, PRIME) ^ (g >>> 17);
      h = Math.imul(h, PRIME) ^ (h >>> 17);
    }
    result ^= a ^ b ^ c ^ d ^ e ^ f ^ g ^ h;
  }
  return result;
}
