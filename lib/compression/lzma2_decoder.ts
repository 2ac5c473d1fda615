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
  MIN_MATCH,
  PROBABILITIES,
  PROBABILITY_HALF,
  REP_LENGTH,
} from "./lzma_model.ts";

const LARGEST_CHUNK = 2 * 1024 * 1024;

/** Reads the chunks of one LZMA2 stream; what each gives is a view that the next call overwrites. */
export interface Lzma2Decoder {
  /** From here on nothing before is referred to. */
  resetDictionary(): void;
  resetState(): void;
  /** @returns false if lc, lp or pb are not allowed */
  setProperties(byte: number): boolean;
  /** A chunk that was stored as it is. */
  raw(content: Uint8Array): Uint8Array;
  /** A compressed chunk; undefined if it is damaged. `size` is at most 2 MiB. */
  compressed(chunk: Uint8Array, size: number): Uint8Array | undefined;
}

// A closure, because engines keep its variables in registers where they can't with an object's.
export function createLzma2Decoder(dictionarySize: number): Lzma2Decoder {
  const buffer = new Uint8Array(
    dictionarySize + LARGEST_CHUNK + Math.min(dictionarySize, 8 * 1024 * 1024),
  );
  const probabilities = new Uint16Array(PROBABILITIES);
  let at = 0;
  let dictionaryStart = 0;
  let literalContextBits = 0;
  let literalPositionMask = 0;
  let positionMask = 0;
  let state = 0;
  let rep0 = 0;
  let rep1 = 0;
  let rep2 = 0;
  let rep3 = 0;

  let input = new Uint8Array(0);
  let i = 0;
  let range = 0;
  let code = 0;

  /** Makes room for `size` bytes behind as much as matches may refer to. */
  const reserve = (size: number) => {
    if (at + size <= buffer.length) return;
    // Whole multiples of 16, because the low bits of the position choose probabilities.
    const by = (at - dictionarySize) & ~15;
    buffer.copyWithin(0, by, at);
    at -= by;
    dictionaryStart -= by;
  };

  const bit = (index: number): number => {
    const p = probabilities[index] as number;
    const bound = Math.imul(range >>> 11, p);
    let result = 0;
    if ((code >>> 0) < (bound >>> 0)) {
      range = bound;
      probabilities[index] = p + ((2048 - p) >>> 5);
    } else {
      range = (range - bound) | 0;
      code = (code - bound) | 0;
      probabilities[index] = p - (p >>> 5);
      result = 1;
    }
    if (range >>> 24 === 0) {
      range <<= 8;
      code = (code << 8) | (i < input.length ? (input[i] as number) : 0);
      i++;
    }
    return result;
  };

  const directBits = (count: number): number => {
    let result = 0;
    for (; count > 0; count--) {
      range >>>= 1;
      code = (code - range) | 0;
      const below = code >> 31;
      code = (code + (range & below)) | 0;
      result = (result << 1) + (below + 1);
      if (range >>> 24 === 0) {
        range <<= 8;
        code = (code << 8) | (i < input.length ? (input[i] as number) : 0);
        i++;
      }
    }
    return result;
  };

  const tree = (index: number, bits: number): number => {
    let m = 1;
    for (let k = 0; k < bits; k++) m = (m << 1) | bit(index + m);
    return m - (1 << bits);
  };

  const reverseTree = (index: number, bits: number): number => {
    let m = 1;
    let value = 0;
    for (let k = 0; k < bits; k++) {
      const b = bit(index + m);
      m = (m << 1) | b;
      value |= b << k;
    }
    return value;
  };

  const matchLength = (coder: number, positionState: number): number => {
    if (bit(coder) === 0) return MIN_MATCH + tree(coder + LENGTH_LOW + (positionState << 3), 3);
    if (bit(coder + 1) === 0) {
      return MIN_MATCH + 8 + tree(coder + LENGTH_MIDDLE + (positionState << 3), 3);
    }
    return MIN_MATCH + 16 + tree(coder + LENGTH_HIGH, 8);
  };

  const matchDistance = (length: number): number => {
    const lengthState = Math.min(length - MIN_MATCH, 3);
    const slot = tree(DISTANCE_SLOT + (lengthState << 6), 6);
    if (slot < 4) return slot;
    const bits = (slot >>> 1) - 1;
    const base = (2 | (slot & 1)) << bits;
    if (slot < 14) return base + reverseTree(DISTANCE_SPECIAL + base - slot, bits);
    return (base + (directBits(bits - 4) << 4) + reverseTree(DISTANCE_ALIGN, 4)) >>> 0;
  };

  const literal = (): void => {
    const previous = at > dictionaryStart ? (buffer[at - 1] as number) : 0;
    const context = (((at - dictionaryStart) & literalPositionMask) << literalContextBits) +
      (previous >>> (8 - literalContextBits));
    const base = LITERAL + 0x300 * context;
    let symbol = 1;
    if (state >= 7) {
      let matched = buffer[at - rep0 - 1] as number;
      do {
        const matchBit = (matched >>> 7) & 1;
        matched <<= 1;
        const b = bit(base + ((1 + matchBit) << 8) + symbol);
        symbol = (symbol << 1) | b;
        if (matchBit !== b) break;
      } while (symbol < 0x100);
    }
    while (symbol < 0x100) symbol = (symbol << 1) | bit(base + symbol);
    buffer[at++] = symbol;
    state = afterLiteral(state);
  };

  const decode = (limit: number): boolean => {
    while (at < limit) {
      if (i > input.length) return false;
      const positionState = (at - dictionaryStart) & positionMask;
      if (bit(IS_MATCH + (state << 4) + positionState) === 0) {
        if (state >= 7 && rep0 >= at - dictionaryStart) return false;
        literal();
        continue;
      }
      let length: number;
      if (bit(IS_REP + state) === 0) {
        rep3 = rep2;
        rep2 = rep1;
        rep1 = rep0;
        length = matchLength(MATCH_LENGTH, positionState);
        rep0 = matchDistance(length);
        state = state < 7 ? 7 : 10;
      } else {
        if (bit(IS_REP_0 + state) === 0) {
          if (bit(IS_REP_0_LONG + (state << 4) + positionState) === 0) {
            if (rep0 >= at - dictionaryStart) return false;
            state = state < 7 ? 9 : 11;
            buffer[at] = buffer[at - rep0 - 1] as number;
            at++;
            continue;
          }
        } else {
          let distance: number;
          if (bit(IS_REP_1 + state) === 0) {
            distance = rep1;
          } else {
            if (bit(IS_REP_2 + state) === 0) {
              distance = rep2;
            } else {
              distance = rep3;
              rep3 = rep2;
            }
            rep2 = rep1;
          }
          rep1 = rep0;
          rep0 = distance;
        }
        length = matchLength(REP_LENGTH, positionState);
        state = state < 7 ? 8 : 11;
      }
      if (rep0 >= at - dictionaryStart || rep0 >= dictionarySize || at + length > limit) {
        return false;
      }
      at = copyMatch(buffer, at, rep0 + 1, length);
    }
    return true;
  };

  return {
    resetDictionary() {
      dictionaryStart = at;
    },
    resetState() {
      probabilities.fill(PROBABILITY_HALF);
      state = 0;
      rep0 = 0;
      rep1 = 0;
      rep2 = 0;
      rep3 = 0;
    },
    setProperties(byte) {
      if (byte >= 225) return false;
      const lc = byte % 9;
      const lp = Math.trunc(byte / 9) % 5;
      if (lc + lp > 4) return false;
      literalContextBits = lc;
      literalPositionMask = (1 << lp) - 1;
      positionMask = (1 << Math.trunc(byte / 45)) - 1;
      return true;
    },
    raw(content) {
      reserve(content.length);
      buffer.set(content, at);
      at += content.length;
      return buffer.subarray(at - content.length, at);
    },
    compressed(chunk, size) {
      if (chunk.length < 5 || chunk[0] !== 0) return undefined;
      reserve(size);
      input = chunk as Uint8Array<ArrayBuffer>;
      range = -1;
      code = ((chunk[1] as number) << 24) | ((chunk[2] as number) << 16) |
        ((chunk[3] as number) << 8) | (chunk[4] as number);
      i = 5;
      const from = at;
      const whole = decode(at + size) && i === chunk.length && code === 0;
      return whole ? buffer.subarray(from, at) : undefined;
    },
  };
}

/** Repeats what lies `distance` bytes back; returns the position behind it. */
function copyMatch(out: Uint8Array, at: number, distance: number, length: number): number {
  const end = at + length;
  let from = at - distance;
  if (length <= 16) {
    while (at < end) out[at++] = out[from++] as number;
  } else if (distance === 1) {
    out.fill(out[from] as number, at, end);
  } else {
    // Each copy doubles the stretch that can be copied at once.
    while (at < end) {
      const part = Math.min(at - from, end - at);
      out.copyWithin(at, from, from + part);
      at += part;
    }
  }
  return end;
}
