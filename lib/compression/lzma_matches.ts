import { MAX_MATCH } from "./lzma_model.ts";

/** What is given to the encoder at once. */
export const BLOCK = 1024 * 1024;

const SHORT_HASH_BITS = 15;
/** An entry holds a position in its low bits, and above them some bits of the hash. */
const POSITION_BITS = 25;
const POSITION_MASK = (1 << POSITION_BITS) - 1;

interface Search {
  dictionaryBits: number;
  /** How many rows there are, and how many positions each holds, as powers of two. */
  rowsBits: number;
  rowBits: number;
  /** A match of this length is taken without looking further. */
  nice: number;
}

const SEARCHES: readonly Search[] = [
  { dictionaryBits: 20, rowsBits: 17, rowBits: 2, nice: 48 },
  { dictionaryBits: 21, rowsBits: 17, rowBits: 3, nice: 64 },
  { dictionaryBits: 22, rowsBits: 17, rowBits: 4, nice: 96 },
  { dictionaryBits: 22, rowsBits: 17, rowBits: 4, nice: 192 },
  { dictionaryBits: 23, rowsBits: 17, rowBits: 5, nice: 192 },
  { dictionaryBits: 23, rowsBits: 17, rowBits: 5, nice: 273 },
  { dictionaryBits: 23, rowsBits: 17, rowBits: 6, nice: 273 },
  { dictionaryBits: 23, rowsBits: 18, rowBits: 6, nice: 273 },
  { dictionaryBits: 23, rowsBits: 18, rowBits: 7, nice: 273 },
];

/** The dictionary size for a level of 1..9, as the power of two. */
export function dictionaryBitsOf(level: number): number {
  return searchOf(level).dictionaryBits;
}

/**
 * The bytes seen so far, as many as the dictionary needs, and for each hash of four bytes a row of
 * the last positions that had it. Rows are read in one piece, where chains of positions would wait
 * for memory at each step. Positions in the tables count from 1; 0 is none.
 */
export class MatchFinder {
  readonly buffer: Uint8Array;
  readonly nice: number;
  /** What `find` found: a length of 0 or from 3, and the distance minus 1. */
  length = 0;
  distance = 0;
  readonly #size: number;
  readonly #hashShift: number;
  readonly #rowBits: number;
  readonly #rows: Int32Array;
  /** Where in each row the next position goes. */
  readonly #turns: Uint8Array;
  readonly #shortHeads = new Int32Array(1 << SHORT_HASH_BITS);
  #filled = 0;
  #inserted = 0;

  constructor(level: number) {
    const search = searchOf(level);
    this.#size = 1 << search.dictionaryBits;
    this.#hashShift = 32 - search.rowsBits;
    this.#rowBits = search.rowBits;
    this.nice = search.nice;
    this.#rows = new Int32Array(1 << (search.rowsBits + search.rowBits));
    this.#turns = new Uint8Array(1 << search.rowsBits);
    this.buffer = new Uint8Array(2 * this.#size + BLOCK);
  }

  /** Adds a block of at most `BLOCK` bytes; returns where it lies in the buffer. */
  append(block: Uint8Array): number {
    if (this.#filled + block.length > this.buffer.length) this.#slide();
    const from = this.#filled;
    this.buffer.set(block, from);
    this.#filled += block.length;
    return from;
  }

  /** Looks for the best match of what begins at `at`, not beyond `end`. */
  find(at: number, end: number): void {
    this.length = 0;
    const buffer = this.buffer;
    if (end - at < 4) return;
    this.#insertBefore(at);
    const limit = Math.min(end, at + MAX_MATCH);
    const oldest = Math.max(0, at - this.#size + 1);
    const three = (buffer[at] as number) | ((buffer[at + 1] as number) << 8) |
      ((buffer[at + 2] as number) << 16);
    const four = three ^ ((buffer[at + 3] as number) << 24);

    let best = 2;
    let bestDistance = 0;
    const near = (this.#shortHeads[shortHash(three)] as number) - 1;
    if (
      near >= oldest && near < at && buffer[near] === buffer[at] &&
      buffer[near + 1] === buffer[at + 1] && buffer[near + 2] === buffer[at + 2]
    ) {
      best = agree(buffer, near, at, 3, limit);
      bestDistance = at - near - 1;
    }
    const rows = this.#rows;
    const hash = Math.imul(four, 0x9e3779b1);
    const row = hash >>> this.#hashShift;
    const start = row << this.#rowBits;
    const mask = (1 << this.#rowBits) - 1;
    const turn = this.#turns[row] as number;
    for (let k = 1; k <= mask + 1; k++) {
      const entry = rows[start + ((turn - k) & mask)] as number;
      if (((entry ^ (hash << POSITION_BITS)) >>> POSITION_BITS) !== 0) {
        if (entry === 0) break;
        continue;
      }
      const candidate = (entry & POSITION_MASK) - 1;
      if (candidate >= at) continue;
      if (candidate < oldest) break;
      if (buffer[candidate + best] !== buffer[at + best] || buffer[candidate] !== buffer[at]) {
        continue;
      }
      const length = agree(buffer, candidate, at, 1, limit);
      const distance = at - candidate - 1;
      // One byte more is no gain if the distance takes a byte more too.
      if (
        length >= 3 && length > best &&
        (length > best + 1 || best === 2 || distance >>> 7 <= bestDistance)
      ) {
        best = length;
        bestDistance = distance;
        if (length >= this.nice || at + length >= limit) break;
      }
    }
    if (best >= 3) {
      this.length = best;
      this.distance = bestDistance;
    }
  }

  /** How long the bytes at `at` repeat those at a distance (minus 1). */
  repeated(at: number, distance: number, end: number): number {
    const from = at - distance - 1;
    if (from < 0 || this.buffer[from] !== this.buffer[at]) return 0;
    return agree(this.buffer, from, at, 1, Math.min(end, at + MAX_MATCH));
  }

  /** Enters all positions before `at` into the tables. */
  #insertBefore(at: number): void {
    const buffer = this.buffer;
    const rows = this.#rows;
    const turns = this.#turns;
    const shortHeads = this.#shortHeads;
    const mask = (1 << this.#rowBits) - 1;
    for (let i = this.#inserted; i < at; i++) {
      const three = (buffer[i] as number) | ((buffer[i + 1] as number) << 8) |
        ((buffer[i + 2] as number) << 16);
      shortHeads[shortHash(three)] = i + 1;
      const hash = Math.imul(three ^ ((buffer[i + 3] as number) << 24), 0x9e3779b1);
      const row = hash >>> this.#hashShift;
      const turn = turns[row] as number;
      rows[(row << this.#rowBits) + turn] = (i + 1) | (hash << POSITION_BITS);
      turns[row] = (turn + 1) & mask;
    }
    if (at > this.#inserted) this.#inserted = at;
  }

  /** Drops what no match can reach any more. */
  #slide(): void {
    const by = this.#filled - this.#size;
    this.buffer.copyWithin(0, by, this.#filled);
    this.#filled -= by;
    this.#inserted = Math.max(0, this.#inserted - by);
    for (const table of [this.#rows, this.#shortHeads]) {
      for (let i = 0; i < table.length; i++) {
        const entry = table[i] as number;
        table[i] = (entry & POSITION_MASK) > by ? entry - by : 0;
      }
    }
  }
}

function shortHash(three: number): number {
  return Math.imul(three, 0x9e3779b1) >>> (32 - SHORT_HASH_BITS);
}

function agree(buffer: Uint8Array, a: number, b: number, known: number, limit: number): number {
  let i = b + known;
  let j = a + known;
  while (i < limit && buffer[i] === buffer[j]) {
    i++;
    j++;
  }
  return i - b;
}

function searchOf(level: number): Search {
  const search = SEARCHES[level - 1];
  if (search === undefined) throw new RangeError(`xz has no level ${level}`);
  return search;
}
