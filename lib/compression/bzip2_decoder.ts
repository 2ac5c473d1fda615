const LONGEST_CODE = 20;
const QUICK = 10;

/** Why a block could not be read; the caller knows whose data it is. */
export class BlockError extends Error {}

/** Takes numbers out of bytes, most significant bit first; behind the end there are zeros. */
export class BitReader {
  readonly bytes: Uint8Array;
  /** Bits taken so far. */
  position: number;

  constructor(bytes: Uint8Array, position: number) {
    this.bytes = bytes;
    this.position = position;
  }

  /** @param count 1 to 24 */
  take(count: number): number {
    const value = peek25(this.bytes, this.position) >>> (25 - count);
    this.position += count;
    return value;
  }

  get exhausted(): boolean {
    return this.position > this.bytes.length * 8;
  }
}

/** The most bytes that a block has, at level 9. */
export const MOST_IN_BLOCK = 900_000;

/** Memory for decoding, which the next block overwrites. */
export class BlockMemory {
  /** While a block is decoded, its bytes are the low 8 bits, chained by the high 24. */
  readonly links = new Uint32Array(MOST_IN_BLOCK);
  readonly content = new Uint8Array(MOST_IN_BLOCK);
}

/**
 * Reads one block, from behind its magic number and CRC.
 * @returns its bytes, run-length coded, in that memory
 * @throws BlockError if it is damaged
 */
export function decodeBzip2Block(bits: BitReader, { links, content }: BlockMemory): Uint8Array {
  if (bits.take(1) !== 0) throw new BlockError("a block is randomised, which is not supported");
  const origin = bits.take(24);
  const order = readUsed(bits);
  if (order.length === 0) throw new BlockError("a block uses no bytes");
  const alphabet = order.length + 2;
  const tables = bits.take(3);
  const groups = bits.take(15);
  if (tables < 2 || tables > 6 || groups < 1) throw new BlockError("a block's tables are damaged");
  const selectors = readSelectors(bits, groups, tables);
  const codes = Array.from({ length: tables }, () => readCode(bits, alphabet));
  if (bits.exhausted) throw new BlockError("it is cut off");

  const count = readBytes(bits, { links, order, selectors, codes, alphabet, groups });
  if (origin >= count) throw new BlockError("a block's origin is damaged");
  for (let i = 0, at = link(links, count, origin); i < count; i++) {
    const entry = links[at] as number;
    content[i] = entry;
    at = entry >>> 8;
  }
  return content.subarray(0, count);
}

interface Code {
  /** By the next 10 bits: symbol × 32 + length, or 0 for a longer code. */
  quick: Uint16Array;
  /** By length: the first code that is longer, aligned to 20 bits. */
  limits: Int32Array;
  /** By length: what to add to a code to have its place in `symbols`. */
  offsets: Int32Array;
  symbols: Uint16Array;
}

function readUsed(bits: BitReader): Uint8Array {
  const rows = bits.take(16);
  const order: number[] = [];
  for (let row = 0; row < 16; row++) {
    if (!(rows & (0x8000 >>> row))) continue;
    const used = bits.take(16);
    for (let i = 0; i < 16; i++) if (used & (0x8000 >>> i)) order.push(16 * row + i);
  }
  return Uint8Array.from(order);
}

function readSelectors(bits: BitReader, groups: number, tables: number): Uint8Array {
  const selectors = new Uint8Array(groups);
  const order = [0, 1, 2, 3, 4, 5];
  for (let group = 0; group < groups; group++) {
    let rank = 0;
    while (bits.take(1) === 1) {
      if (++rank >= tables) throw new BlockError("a block's selectors are damaged");
    }
    const [table = 0] = order.splice(rank, 1);
    order.unshift(table);
    selectors[group] = table;
  }
  return selectors;
}

function readCode(bits: BitReader, alphabet: number): Code {
  const lengths = new Uint8Array(alphabet);
  let length = bits.take(5);
  for (let symbol = 0; symbol < alphabet; symbol++) {
    for (;;) {
      if (length < 1 || length > LONGEST_CODE) {
        throw new BlockError("a block's code lengths are damaged");
      }
      if (bits.take(1) === 0) break;
      length += bits.take(1) === 0 ? 1 : -1;
      if (bits.exhausted) throw new BlockError("it is cut off");
    }
    lengths[symbol] = length;
  }

  const quick = new Uint16Array(1 << QUICK);
  const limits = new Int32Array(LONGEST_CODE + 2);
  const offsets = new Int32Array(LONGEST_CODE + 2);
  const symbols = new Uint16Array(alphabet);
  let code = 0;
  let placed = 0;
  for (let size = 1; size <= LONGEST_CODE; size++) {
    offsets[size] = placed - code;
    for (let symbol = 0; symbol < alphabet; symbol++) {
      if (lengths[symbol] !== size) continue;
      if (code >= 1 << size) throw new BlockError("a block's code is damaged");
      symbols[placed++] = symbol;
      if (size <= QUICK) {
        const from = code << (QUICK - size);
        quick.fill((symbol << 5) | size, from, from + (1 << (QUICK - size)));
      }
      code++;
    }
    limits[size] = code << (LONGEST_CODE - size);
    code <<= 1;
  }
  return { quick, limits, offsets, symbols };
}

interface Body {
  links: Uint32Array;
  order: Uint8Array;
  selectors: Uint8Array;
  codes: Code[];
  alphabet: number;
  groups: number;
}

/** Undoes the Huffman code and move-to-front; the bytes go into `links`. Returns their number. */
function readBytes(bits: BitReader, body: Body): number {
  const { links, order, selectors, alphabet, groups } = body;
  const most = links.length;
  const bytes = bits.bytes;
  const end = alphabet - 1;
  let position = bits.position;
  let count = 0;
  let run = 0;
  let weight = 1;
  for (let group = 0; group < groups; group++) {
    const code = body.codes[selectors[group] as number];
    if (code === undefined) throw new BlockError("a block's selectors are damaged");
    const { quick, limits, offsets, symbols } = code;
    for (let left = 50; left > 0; left--) {
      const window = peek25(bytes, position) >>> 5;
      const entry = quick[window >>> (LONGEST_CODE - QUICK)] as number;
      let symbol: number;
      if (entry !== 0) {
        symbol = entry >>> 5;
        position += entry & 31;
      } else {
        let size = QUICK + 1;
        while (size <= LONGEST_CODE && window >= (limits[size] as number)) size++;
        if (size > LONGEST_CODE) throw new BlockError("a block's data is damaged");
        symbol = symbols[(window >>> (LONGEST_CODE - size)) + (offsets[size] as number)] as number;
        position += size;
      }

      if (symbol <= 1) {
        if (weight > most) throw new BlockError("a block is too long");
        run += weight << symbol;
        weight <<= 1;
        continue;
      }
      if (run > 0) {
        if (count + run > most) throw new BlockError("a block is too long");
        links.fill(order[0] as number, count, count + run);
        count += run;
        run = 0;
        weight = 1;
      }
      if (symbol === end) {
        if (position > bytes.length * 8) throw new BlockError("it is cut off");
        bits.position = position;
        return count;
      }
      if (count >= most) throw new BlockError("a block is too long");
      const rank = symbol - 1;
      const value = order[rank] as number;
      if (rank < 16) {
        for (let i = rank; i > 0; i--) order[i] = order[i - 1] as number;
      } else {
        order.copyWithin(1, 0, rank);
      }
      order[0] = value;
      links[count++] = value;
    }
    if (position > bytes.length * 8) throw new BlockError("it is cut off");
  }
  throw new BlockError("a block does not end");
}

/** Inverts the Burrows-Wheeler transform: puts each byte's successor beside it. */
function link(links: Uint32Array, count: number, origin: number): number {
  const next = new Int32Array(257);
  for (let i = 0; i < count; i++) {
    const value = (links[i] as number) + 1;
    next[value] = (next[value] as number) + 1;
  }
  for (let value = 0; value < 256; value++) {
    next[value + 1] = (next[value + 1] as number) + (next[value] as number);
  }
  for (let i = 0; i < count; i++) {
    const value = (links[i] as number) & 255;
    const to = next[value] as number;
    links[to] = (links[to] as number) | (i << 8);
    next[value] = to + 1;
  }
  return (links[origin] as number) >>> 8;
}

/** The 25 bits at a position of the bytes. */
export function peek25(bytes: Uint8Array, position: number): number {
  const at = position >>> 3;
  if (at + 4 <= bytes.length) {
    const word = ((bytes[at] as number) << 24) | ((bytes[at + 1] as number) << 16) |
      ((bytes[at + 2] as number) << 8) |
      (bytes[at + 3] as number);
    return (word << (position & 7)) >>> 7;
  }
  let word = 0;
  for (let i = 0; i < 4; i++) word = (word << 8) | (bytes[at + i] ?? 0);
  return (word << (position & 7)) >>> 7;
}
