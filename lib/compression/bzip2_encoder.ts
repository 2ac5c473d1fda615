import { Arena } from "./arena.ts";
import { suffixArray } from "./suffix_array.ts";

/** A compressed block. It may end inside a byte: `bits` counts, the rest of the last byte is 0. */
export interface Bits {
  bytes: Uint8Array;
  bits: number;
}

const RUN_A = 0;
const RUN_B = 1;
/** Symbols that share one choice of code table. */
const GROUP = 50;
const LONGEST_CODE = 17;
/** What sorting a block may need at the most, bytes; text needs less than half. What is not used takes no memory. */
export const ARENA_SIZE = 32 * 900_000;

/**
 * Compresses one block of a bzip2 stream, its header included. The result depends on nothing else,
 * so that blocks can be made at the same time and joined bit by bit afterwards.
 *
 * @param block 1 to 900,000 bytes after the first run-length coding
 * @param crc the CRC of the bytes before that
 * @param arena of `ARENA_SIZE`; the next call with the same overwrites the result
 */
export function encodeBzip2Block(block: Uint8Array, crc: number, arena: Arena): Bits {
  arena.release(0);
  const last = arena.uint8(block.length);
  const origin = transform(block, last, arena);
  const { symbols, count, used, alphabet } = moveToFront(last, arena);
  const groups = Math.ceil(count / GROUP);
  const { lengths, selectors } = chooseTables(symbols, count, groups, alphabet);

  const most = 1024 + groups + Math.ceil(count * LONGEST_CODE / 8) + 6 * 258;
  const out = new BitWriter(arena.uint8(most + 8));
  out.put(24, 0x314159);
  out.put(24, 0x265359);
  out.put(16, crc >>> 16);
  out.put(16, crc & 0xffff);
  out.put(1, 0); // Not randomised.
  out.put(24, origin);
  writeUsed(out, used);
  out.put(3, lengths.length);
  out.put(15, groups);
  writeSelectors(out, selectors);
  for (const table of lengths) writeLengths(out, table);
  writeSymbols(out, symbols, count, selectors, lengths);
  return out.finish();
}

/** Appends numbers of up to 24 bits, most significant bit first. */
export class BitWriter {
  #bytes: Uint8Array;
  #length = 0;
  #buffer = 0;
  #free = 32;

  /** @param memory for all that is put, and 8 bytes more */
  constructor(memory: Uint8Array) {
    this.#bytes = memory;
  }

  put(count: number, value: number): void {
    if (count > this.#free) this.#flush();
    this.#free -= count;
    this.#buffer |= value << this.#free;
  }

  finish(): Bits {
    const bits = this.#length * 8 + 32 - this.#free;
    while (this.#free < 32) {
      this.#bytes[this.#length++] = this.#buffer >>> 24;
      this.#buffer <<= 8;
      this.#free += 8;
    }
    return { bytes: this.#bytes.subarray(0, (bits + 7) >>> 3), bits };
  }

  #flush(): void {
    while (this.#free <= 24) {
      this.#bytes[this.#length++] = this.#buffer >>> 24;
      this.#buffer <<= 8;
      this.#free += 8;
    }
  }
}

/**
 * The Burrows-Wheeler transform: puts the last column of the sorted rotations into `last`, and returns the row of the
 * block itself. The rotation that is smallest of all is a (power of a) Lyndon word, whose suffixes sort
 * like its rotations; so suffixes can be sorted, in linear time, and no sentinel is needed.
 */
function transform(block: Uint8Array, last: Uint8Array, arena: Arena): number {
  const n = block.length;
  const mark = arena.mark();
  const shift = smallestRotation(block);
  const text = arena.uint8(n);
  text.set(block.subarray(shift));
  text.set(block.subarray(0, shift), n - shift);
  const rows = suffixArray(text, n, 256, arena);
  const start = shift === 0 ? 0 : n - shift;
  let origin = 0;
  for (let i = 0; i < n; i++) {
    const row = rows[i] as number;
    if (row === start) origin = i;
    last[i] = text[row === 0 ? n - 1 : row - 1] as number;
  }
  arena.release(mark);
  return origin;
}

function smallestRotation(block: Uint8Array): number {
  const n = block.length;
  let i = 0;
  let j = 1;
  let k = 0;
  while (i < n && j < n && k < n) {
    const p = i + k;
    const q = j + k;
    const a = block[p < n ? p : p - n] as number;
    const b = block[q < n ? q : q - n] as number;
    if (a === b) {
      k++;
      continue;
    }
    if (a > b) i += k + 1;
    else j += k + 1;
    if (i === j) j++;
    k = 0;
  }
  return Math.min(i, j);
}

interface Symbols {
  symbols: Uint16Array;
  count: number;
  /** Which byte values occur. */
  used: Uint8Array;
  alphabet: number;
}

/** Ranks by recent use instead of bytes; runs of rank 0 as numbers of RUN_A and RUN_B. */
function moveToFront(last: Uint8Array, arena: Arena): Symbols {
  const used = new Uint8Array(256);
  for (let i = 0; i < last.length; i++) used[last[i] as number] = 1;
  const order = new Uint8Array(256);
  let kinds = 0;
  for (let value = 0; value < 256; value++) if (used[value]) order[kinds++] = value;

  const symbols = arena.uint16(last.length + 1);
  let count = 0;
  let zeros = 0;
  for (let i = 0; i < last.length; i++) {
    const value = last[i] as number;
    let moved = order[0] as number;
    if (moved === value) {
      zeros++;
      continue;
    }
    for (; zeros > 0; zeros = (zeros - 1) >>> 1) symbols[count++] = zeros & 1 ? RUN_A : RUN_B;
    let rank = 0;
    do {
      rank++;
      const here = order[rank] as number;
      order[rank] = moved;
      moved = here;
    } while (moved !== value);
    order[0] = value;
    symbols[count++] = rank + 1;
  }
  for (; zeros > 0; zeros = (zeros - 1) >>> 1) symbols[count++] = zeros & 1 ? RUN_A : RUN_B;
  symbols[count++] = kinds + 1; // End of block.
  return { symbols, count, used, alphabet: kinds + 2 };
}

/** Finds 2 to 6 codes, and which of them each group of symbols is written in. */
function chooseTables(
  symbols: Uint16Array,
  count: number,
  groups: number,
  alphabet: number,
): { lengths: Uint8Array[]; selectors: Uint8Array } {
  const tables = count < 200 ? 2 : count < 600 ? 3 : count < 1200 ? 4 : count < 2400 ? 5 : 6;
  let lengths = firstGuess(symbols, count, alphabet, tables);
  const selectors = new Uint8Array(groups);
  const frequencies = Array.from({ length: tables }, () => new Int32Array(alphabet));
  // Costs of three tables share a word of three times 10 bits: 50 symbols of 17 bits are 850.
  const costs = new Int32Array(2 * alphabet);
  for (let round = 0; round < 4; round++) {
    for (const table of frequencies) table.fill(0);
    for (let symbol = 0; symbol < alphabet; symbol++) {
      const of = (table: number) => lengths[table]?.[symbol] ?? 20;
      costs[2 * symbol] = of(0) | (of(1) << 10) | (of(2) << 20);
      costs[2 * symbol + 1] = of(3) | (of(4) << 10) | (of(5) << 20);
    }
    for (let group = 0; group < groups; group++) {
      const from = group * GROUP;
      const to = Math.min(count, from + GROUP);
      let a = 0;
      let b = 0;
      for (let i = from; i < to; i++) {
        const symbol = (symbols[i] as number) << 1;
        a += costs[symbol] as number;
        b += costs[symbol + 1] as number;
      }
      const table = cheapest(a, b, tables);
      selectors[group] = table;
      const frequency = frequencies[table];
      if (frequency === undefined) throw new RangeError("No such Huffman table");
      for (let i = from; i < to; i++) {
        const symbol = symbols[i] as number;
        frequency[symbol] = (frequency[symbol] as number) + 1;
      }
    }
    lengths = frequencies.map(codeLengths);
  }
  return { lengths, selectors };
}

function cheapest(a: number, b: number, tables: number): number {
  let best = 0;
  let least = a & 1023;
  for (let table = 1; table < tables; table++) {
    const cost = (table < 3 ? a >>> (10 * table) : b >>> (10 * (table - 3))) & 1023;
    if (cost < least) {
      least = cost;
      best = table;
    }
  }
  return best;
}

/** Divides the alphabet among the tables, so that each gets as many occurrences. */
function firstGuess(
  symbols: Uint16Array,
  count: number,
  alphabet: number,
  tables: number,
): Uint8Array[] {
  const frequency = new Int32Array(alphabet);
  for (let i = 0; i < count; i++) {
    const symbol = symbols[i] as number;
    frequency[symbol] = (frequency[symbol] as number) + 1;
  }
  const lengths: Uint8Array[] = [];
  let symbol = 0;
  let left = count;
  for (let table = 0; table < tables; table++) {
    const share = left / (tables - table);
    const from = symbol;
    let taken = 0;
    while (symbol < alphabet && (taken < share || table === tables - 1)) {
      taken += frequency[symbol++] as number;
    }
    left -= taken;
    lengths.push(Uint8Array.from(frequency, (_, s) => s >= from && s < symbol ? 1 : 15));
  }
  return lengths;
}

/** Huffman code lengths of 1 to 17 bits; symbols that don't occur get one too. */
function codeLengths(frequency: Int32Array): Uint8Array {
  const n = frequency.length;
  const lengths = new Uint8Array(n);
  const parents = new Int32Array(2 * n);
  const weights = new Float64Array(2 * n);
  const order = Array.from({ length: n }, (_, i) => i);
  for (let scale = 0;; scale++) {
    for (let i = 0; i < n; i++) weights[i] = Math.max(1, (frequency[i] as number) >>> scale);
    order.sort((a, b) => (weights[a] as number) - (weights[b] as number));
    // Two queues, both ascending: the leaves, and the nodes in the order they are made.
    let leaf = 0;
    let made = n;
    let node = n;
    const lightest = () => {
      const candidate = leaf < n ? (order[leaf] as number) : -1;
      if (
        candidate >= 0 &&
        (made === node || (weights[candidate] as number) <= (weights[made] as number))
      ) {
        leaf++;
        return candidate;
      }
      return made++;
    };
    while (node < 2 * n - 1) {
      const a = lightest();
      const b = lightest();
      parents[a] = node;
      parents[b] = node;
      weights[node] = (weights[a] as number) + (weights[b] as number);
      node++;
    }
    const depths = new Uint16Array(2 * n);
    let longest = 0;
    for (let i = 2 * n - 3; i >= 0; i--) {
      const depth = (depths[parents[i] as number] as number) + 1;
      depths[i] = depth;
      if (i < n) {
        lengths[i] = depth;
        longest = Math.max(longest, depth);
      }
    }
    if (longest <= LONGEST_CODE) return lengths;
  }
}

function writeUsed(out: BitWriter, used: Uint8Array): void {
  const rows = Array.from({ length: 16 }, (_, row) => used.subarray(16 * row, 16 * row + 16));
  for (const row of rows) out.put(1, row.includes(1) ? 1 : 0);
  for (const row of rows) {
    if (row.includes(1)) { for (const bit of row) out.put(1, bit); }
  }
}

function writeSelectors(out: BitWriter, selectors: Uint8Array): void {
  const order = [0, 1, 2, 3, 4, 5];
  for (const table of selectors) {
    const rank = order.indexOf(table);
    order.splice(rank, 1);
    order.unshift(table);
    out.put(rank + 1, (1 << (rank + 1)) - 2);
  }
}

/** Each length as steps up (10) or down (11) from the one before, then 0. */
function writeLengths(out: BitWriter, lengths: Uint8Array): void {
  let current = lengths[0] as number;
  out.put(5, current);
  for (const length of lengths) {
    for (; current < length; current++) out.put(2, 2);
    for (; current > length; current--) out.put(2, 3);
    out.put(1, 0);
  }
}

function writeSymbols(
  out: BitWriter,
  symbols: Uint16Array,
  count: number,
  selectors: Uint8Array,
  lengths: Uint8Array[],
): void {
  const codes = lengths.map(canonicalCodes);
  for (let group = 0; group < selectors.length; group++) {
    const table = selectors[group] as number;
    const code = codes[table];
    const length = lengths[table];
    if (code === undefined || length === undefined) throw new RangeError("No such Huffman table");
    const to = Math.min(count, (group + 1) * GROUP);
    for (let i = group * GROUP; i < to; i++) {
      const symbol = symbols[i] as number;
      out.put(length[symbol] as number, code[symbol] as number);
    }
  }
}

function canonicalCodes(lengths: Uint8Array): Int32Array {
  const codes = new Int32Array(lengths.length);
  let code = 0;
  for (let length = 1; length <= LONGEST_CODE; length++) {
    for (let symbol = 0; symbol < lengths.length; symbol++) {
      if (lengths[symbol] === length) codes[symbol] = code++;
    }
    code <<= 1;
  }
  return codes;
}
