import { MatchFinder } from "./lzma_matches.ts";
import {
  afterLiteral,
  DISTANCE_ALIGN,
  DISTANCE_SLOT,
  DISTANCE_SPECIAL,
  IS_MATCH,
  IS_REP,
  IS_REP_0,
  IS_REP_0_LONG,
  IS_REP_1,
  IS_REP_2,
  LENGTH_HIGH,
  LENGTH_LOW,
  LENGTH_MIDDLE,
  LITERAL,
  MATCH_LENGTH,
  MAX_MATCH,
  MIN_MATCH,
  PROBABILITIES,
  PROBABILITY_HALF,
  REP_LENGTH,
} from "./lzma_model.ts";

/** lc 3, lp 0, pb 2: what xz takes too. */
const PROPERTIES = (2 * 5 + 0) * 9 + 3;
const LITERAL_CONTEXT_BITS = 3;
const POSITION_MASK = 3;
const LARGEST_PACKED = 64 * 1024;
const LARGEST_CHUNK = 2 * 1024 * 1024;
/** More than what one step of the encoder and the end of the range coder write. */
const MARGIN = 64;

/** Writes one LZMA2 stream. */
export interface Lzma2Encoder {
  /** Compresses more bytes, at most `BLOCK`; chunks of at most 64 KiB come out. */
  chunks(block: Uint8Array): Generator<Uint8Array, void, void>;
}

/** @param level 1..9: size of the dictionary and how thoroughly matches are looked for */
export function createLzma2Encoder(level: number): Lzma2Encoder {
  const finder = new MatchFinder(level);
  const probabilities = new Uint16Array(PROBABILITIES);
  const packed = new Uint8Array(LARGEST_PACKED);
  let at = 0;
  let state = 0;
  let rep0 = 0;
  let rep1 = 0;
  let rep2 = 0;
  let rep3 = 0;

  let o = 0;
  let low = 0;
  let carry = 0;
  let range = 0;
  let cache = 0;
  let pending = 0;

  let mustResetDictionary = true;
  let mustSetProperties = true;
  let mustResetState = true;

  const shiftLow = () => {
    if (carry !== 0 || (low >>> 24) !== 0xff) {
      packed[o++] = cache + carry;
      for (; pending > 0; pending--) packed[o++] = 0xff + carry;
      cache = low >>> 24;
      carry = 0;
    } else {
      pending++;
    }
    low = (low & 0x00ffffff) << 8;
  };

  const bit = (index: number, value: number) => {
    const p = probabilities[index] as number;
    const bound = Math.imul(range >>> 11, p);
    if (value === 0) {
      range = bound;
      probabilities[index] = p + ((2048 - p) >>> 5);
    } else {
      const sum = (low + bound) | 0;
      if ((sum >>> 0) < (bound >>> 0)) carry = 1;
      low = sum;
      range = (range - bound) | 0;
      probabilities[index] = p - (p >>> 5);
    }
    if (range >>> 24 === 0) {
      range <<= 8;
      shiftLow();
    }
  };

  const directBits = (value: number, count: number) => {
    for (let k = count - 1; k >= 0; k--) {
      range >>>= 1;
      if ((value >>> k) & 1) {
        const sum = (low + range) | 0;
        if ((sum >>> 0) < (range >>> 0)) carry = 1;
        low = sum;
      }
      if (range >>> 24 === 0) {
        range <<= 8;
        shiftLow();
      }
    }
  };

  const tree = (index: number, bits: number, value: number) => {
    let m = 1;
    for (let k = bits - 1; k >= 0; k--) {
      const b = (value >>> k) & 1;
      bit(index + m, b);
      m = (m << 1) | b;
    }
  };

  const reverseTree = (index: number, bits: number, value: number) => {
    let m = 1;
    for (let k = 0; k < bits; k++) {
      const b = (value >>> k) & 1;
      bit(index + m, b);
      m = (m << 1) | b;
    }
  };

  const lengthBits = (coder: number, length: number, positionState: number) => {
    const value = length - MIN_MATCH;
    if (value < 8) {
      bit(coder, 0);
      tree(coder + LENGTH_LOW + (positionState << 3), 3, value);
    } else if (value < 16) {
      bit(coder, 1);
      bit(coder + 1, 0);
      tree(coder + LENGTH_MIDDLE + (positionState << 3), 3, value - 8);
    } else {
      bit(coder, 1);
      bit(coder + 1, 1);
      tree(coder + LENGTH_HIGH, 8, value - 16);
    }
  };

  const literal = (buffer: Uint8Array, index: number, positionState: number) => {
    bit(IS_MATCH + (state << 4) + positionState, 0);
    const previous = index > 0 ? (buffer[index - 1] as number) : 0;
    const base = LITERAL + 0x300 * (previous >>> (8 - LITERAL_CONTEXT_BITS));
    const value = (buffer[index] as number) | 0x100;
    let shift = 7;
    if (state >= 7) {
      const matched = buffer[index - rep0 - 1] as number;
      for (; shift >= 0; shift--) {
        const b = (value >>> shift) & 1;
        const matchBit = (matched >>> shift) & 1;
        bit(base + ((1 + matchBit) << 8) + (value >>> (shift + 1)), b);
        if (b !== matchBit) {
          shift--;
          break;
        }
      }
    }
    for (; shift >= 0; shift--) bit(base + (value >>> (shift + 1)), (value >>> shift) & 1);
    state = afterLiteral(state);
  };

  const match = (distance: number, length: number, positionState: number) => {
    bit(IS_MATCH + (state << 4) + positionState, 1);
    bit(IS_REP + state, 0);
    lengthBits(MATCH_LENGTH, length, positionState);
    const lengthState = Math.min(length - MIN_MATCH, 3);
    if (distance < 4) {
      tree(DISTANCE_SLOT + (lengthState << 6), 6, distance);
    } else {
      const top = 31 - Math.clz32(distance);
      const slot = (top << 1) | ((distance >>> (top - 1)) & 1);
      const bits = top - 1;
      const base = (2 | (slot & 1)) << bits;
      tree(DISTANCE_SLOT + (lengthState << 6), 6, slot);
      if (slot < 14) {
        reverseTree(DISTANCE_SPECIAL + base - slot, bits, distance - base);
      } else {
        directBits((distance - base) >>> 4, bits - 4);
        reverseTree(DISTANCE_ALIGN, 4, distance & 15);
      }
    }
    rep3 = rep2;
    rep2 = rep1;
    rep1 = rep0;
    rep0 = distance;
    state = state < 7 ? 7 : 10;
  };

  const repeat = (which: number, length: number, positionState: number) => {
    bit(IS_MATCH + (state << 4) + positionState, 1);
    bit(IS_REP + state, 1);
    if (which === 0) {
      bit(IS_REP_0 + state, 0);
      bit(IS_REP_0_LONG + (state << 4) + positionState, length === 1 ? 0 : 1);
    } else {
      bit(IS_REP_0 + state, 1);
      bit(IS_REP_1 + state, which === 1 ? 0 : 1);
      let distance = rep1;
      if (which > 1) {
        bit(IS_REP_2 + state, which - 2);
        distance = which === 2 ? rep2 : rep3;
        if (which === 3) rep3 = rep2;
        rep2 = rep1;
      }
      rep1 = rep0;
      rep0 = distance;
    }
    if (length === 1) {
      state = state < 7 ? 9 : 11;
    } else {
      lengthBits(REP_LENGTH, length, positionState);
      state = state < 7 ? 8 : 11;
    }
  };

  /** Codes from `index` on until the chunk is full or `end` is reached; returns where it stopped. */
  const fill = (index: number, end: number): number => {
    const buffer = finder.buffer;
    const from = index;
    const stop = Math.min(end, from + LARGEST_CHUNK - MAX_MATCH);
    while (index < stop && o + pending < LARGEST_PACKED - MARGIN) {
      const positionState = at & POSITION_MASK;
      const here = index;
      finder.find(index, end);
      let length = finder.length;
      let distance = finder.distance;

      let repLength = 0;
      let rep = 0;
      const r0 = finder.repeated(index, rep0, end);
      if (r0 > repLength) repLength = r0;
      const r1 = finder.repeated(index, rep1, end);
      if (r1 > repLength) {
        repLength = r1;
        rep = 1;
      }
      const r2 = finder.repeated(index, rep2, end);
      if (r2 > repLength) {
        repLength = r2;
        rep = 2;
      }
      const r3 = finder.repeated(index, rep3, end);
      if (r3 > repLength) {
        repLength = r3;
        rep = 3;
      }

      // A repeated distance costs so little that it may be a bit shorter.
      if (
        repLength >= 2 &&
        (repLength + 1 >= length || (repLength + 2 >= length && distance >= 512) ||
          (repLength + 3 >= length && distance >= 32768))
      ) {
        repeat(rep, repLength, positionState);
        index += repLength;
      } else if (length >= 3 && (length > 3 || distance < 4096)) {
        // Look once further: a better match there is worth a literal here.
        let waited = 0;
        while (length < finder.nice && index + 1 < stop && waited < 32) {
          finder.find(index + 1, end);
          const nextLength = finder.length;
          const nextDistance = finder.distance;
          const better = nextLength > length + 1 ||
            (nextLength === length + 1 && nextDistance >>> 7 <= distance) ||
            (nextLength === length && nextDistance < distance >>> 7) ||
            (nextLength + 1 === length && length >= 3 && nextDistance < distance >>> 7) ||
            finder.repeated(index + 1, rep0, end) >= Math.max(2, length - 1);
          if (!better || nextLength < 3) break;
          literal(buffer, index, (at + (index - here)) & POSITION_MASK);
          index++;
          waited++;
          length = nextLength;
          distance = nextDistance;
        }
        match(distance, length, (at + (index - here)) & POSITION_MASK);
        index += length;
      } else if (repLength === 1 && rep === 0) {
        repeat(0, 1, positionState);
        index++;
      } else {
        literal(buffer, index, positionState);
        index++;
      }
      at += index - here;
    }
    return index;
  };

  const resetState = () => {
    probabilities.fill(PROBABILITY_HALF);
    state = 0;
    rep0 = 0;
    rep1 = 0;
    rep2 = 0;
    rep3 = 0;
  };

  return {
    *chunks(block) {
      let index = finder.append(block);
      const end = index + block.length;
      while (index < end) {
        if (mustResetState) resetState();
        o = 0;
        low = 0;
        carry = 0;
        range = -1;
        cache = 0;
        pending = 0;
        const next = fill(index, end);
        for (let k = 0; k < 5; k++) shiftLow();
        const size = next - index;
        if (o < size) {
          const reset = mustResetDictionary ? 3 : mustSetProperties ? 2 : mustResetState ? 1 : 0;
          yield compressedChunk(packed.subarray(0, o), size, reset);
          mustSetProperties = false;
          mustResetState = false;
        } else {
          yield rawChunk(finder.buffer.subarray(index, next), mustResetDictionary);
          mustResetState = true;
        }
        mustResetDictionary = false;
        index = next;
      }
    },
  };
}

function compressedChunk(packed: Uint8Array, size: number, reset: number): Uint8Array {
  const header = reset >= 2 ? 6 : 5;
  const chunk = new Uint8Array(header + packed.length);
  chunk[0] = 0x80 | (reset << 5) | ((size - 1) >>> 16);
  chunk[1] = (size - 1) >>> 8;
  chunk[2] = size - 1;
  chunk[3] = (packed.length - 1) >>> 8;
  chunk[4] = packed.length - 1;
  if (reset >= 2) chunk[5] = PROPERTIES;
  chunk.set(packed, header);
  return chunk;
}

function rawChunk(content: Uint8Array, resetDictionary: boolean): Uint8Array {
  const chunk = new Uint8Array(3 + content.length);
  chunk[0] = resetDictionary ? 1 : 2;
  chunk[1] = (content.length - 1) >>> 8;
  chunk[2] = content.length - 1;
  chunk.set(content, 3);
  return chunk;
}
