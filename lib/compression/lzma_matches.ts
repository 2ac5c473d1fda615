import { MAX_MATCH } from "./lzma_model.ts";

/** What is given to the encoder at once. */
export const BLOCK = 1024 * 1024;

const HASH_BITS = 18;
const SHORT_HASH_BITS = 15;

interface Search {
  dictionaryBits: number;
  depth: number;
  /** A match of this length is taken without looking further. */
  nice: number;
}

const SEARCHES: readonly Search[] = [
  { dictionaryBits: 20, depth: 4, nice: 48 },
  { dictionaryBits: 21, depth: 6, nice: 64 },
  { dictionaryBits: 22, depth: 10, nice: 96 },
  { dictionaryBits: 22, depth: 16, nice: 128 },
  { dictionaryBits: 23, depth: 24, nice: 192 },
  { dictionaryBits: 23, depth: 32, nice: 273 },
  { dictionaryBits: 23, depth: 48, nice: 273 },
  { dictionaryBits: 23, depth: 64, nice: 273 },
  { dictionaryBits: 23, depth: 96, nice: 273 },
];

/** The dictionary size for a level of 1..9, as the power of two. */
export function dictionaryBitsOf(level: number): number {
  return searchOf(level).dictionaryBits;
}

/**
 * The bytes seen so far, as many as the dictionary needs, and chains of positions that begin alike.
 * Positions in the tables count from 1; 0 is none.
 */
export class MatchFinder {
  readonly buffer: Uint8Array;
  readonly nice: number;
  /** What `find` found: a length of 0 or from 3, and the distance minus 1. */
  length = 0;
  distance = 0;
  readonly #size: number;
  readonly #mask: number;
  readonly #depth: number;
  readonly #heads = new Int32Array(1 << HASH_BITS);
  readonly #shortHeads = new Int32Array(1 << SHORT_HASH_BITS);
  readonly #chain: Int32Array;
  #filled = 0;
  #inserted = 0;

  constructor(level: number) {
    const search = searchOf(level);
    this.#size = 1 << search.dictionaryBits;
    this.#mask = this.#size - 1;
    this.#depth = search.depth;
    this.nice = search.nice;
    this.#chain = new Int32Array(this.#size);
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

  /** Looks for the best match of what begins at `at`, not beyond `end`. Positions must not fall. */
  find(at: number, end: number): void {
    this.length = 0;
    const buffer = this.buffer;
    if (end - at < 4) return;
    this.#insert(at, end);
    const limit = Math.min(end, at + MAX_MATCH);
    const oldest = Math.max(0, at - this.#size + 1);

    let best = 2;
    const near = this.#shortBefore;
    if (
      near >= oldest && buffer[near] === buffer[at] && buffer[near + 1] === buffer[at + 1] &&
      buffer[near + 2] === buffer[at + 2]
    ) {
      best = agree(buffer, near, at, 3, limit);
      this.length = best;
      this.distance = at - near - 1;
    }
    const chain = this.#chain;
    const mask = this.#mask;
    let candidate = (chain[at & mask] as number) - 1;
    for (let tries = this.#depth; tries > 0 && candidate >= oldest; tries--) {
      if (
        best < limit - at && buffer[candidate + best] === buffer[at + best] &&
        buffer[candidate] === buffer[at] && buffer[candidate + 1] === buffer[at + 1]
      ) {
        const length = agree(buffer, candidate, at, 2, limit);
        // One byte more is no gain if the distance takes a byte more too.
        if (
          length > best &&
          (length > best + 1 || this.length === 0 ||
            (at - candidate - 1) >>> 7 <= this.distance)
        ) {
          best = length;
          this.length = length;
          this.distance = at - candidate - 1;
          if (length >= this.nice) break;
        }
      }
      const next = (chain[candidate & mask] as number) - 1;
      if (next >= candidate) break;
      candidate = next;
    }
    if (this.length < 3) this.length = 0;
  }

  /** How long the bytes at `at` repeat those at a distance (minus 1). */
  repeated(at: number, distance: number, end: number): number {
    const from = at - distance - 1;
    if (from < 0 || this.buffer[from] !== this.buffer[at]) return 0;
    return agree(this.buffer, from, at, 1, Math.min(end, at + MAX_MATCH));
  }

  #shortBefore = -1;

  /** Enters all positions up to `at` into the tables. */
  #insert(at: number, end: number): void {
    const buffer = this.buffer;
    const chain = this.#chain;
    const heads = this.#heads;
    const shortHeads = this.#shortHeads;
    const mask = this.#mask;
    // The last bytes of a block can't be hashed before the next one is there; then they can.
    const stop = Math.min(at, end - 4);
    let i = this.#inserted;
    for (; i <= stop; i++) {
      const three = (buffer[i] as number) | ((buffer[i + 1] as number) << 8) |
        ((buffer[i + 2] as number) << 16);
      const short = Math.imul(three, 0x9e3779b1) >>> (32 - SHORT_HASH_BITS);
      const long = Math.imul(three ^ ((buffer[i + 3] as number) << 24), 0x9e3779b1) >>>
        (32 - HASH_BITS);
      if (i === at) this.#shortBefore = (shortHeads[short] as number) - 1;
      shortHeads[short] = i + 1;
      chain[i & mask] = heads[long] as number;
      heads[long] = i + 1;
    }
    // A position that was entered by a look further has lost what was before it in the short table.
    if (this.#inserted > at) this.#shortBefore = -1;
    this.#inserted = i;
  }

  /** Drops what no match can reach any more. */
  #slide(): void {
    const by = (this.#filled - this.#size) & ~this.#mask;
    this.buffer.copyWithin(0, by, this.#filled);
    this.#filled -= by;
    this.#inserted -= by;
    for (const table of [this.#heads, this.#shortHeads, this.#chain]) {
      for (let i = 0; i < table.length; i++) {
        const moved = (table[i] as number) - by;
        table[i] = moved > 0 ? moved : 0;
      }
    }
  }
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
