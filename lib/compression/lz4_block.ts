/** The LZ4 block format: how a block is made and read. Frames around it: lz4.ts. */

const MIN_MATCH = 4;
/** The last match of a block begins at least this far from its end, */
const MATCH_MARGIN = 12;
/** and at least so many literals follow it. */
const LAST_LITERALS = 5;
const FARTHEST = 65535;
/** A table that stays in the nearest cache is faster than the few more matches that a larger one finds. */
const FAST_HASH_BITS = 14;
const THOROUGH_HASH_BITS = 15;

/** Bytes that a block of `size` bytes takes at most. */
export function largestLz4Block(size: number): number {
  return size + Math.ceil(size / 255) + 16;
}

/**
 * Finds matches in a buffer that is filled from left to right. Positions in the tables are those
 * in the buffer plus 1, so that 0 means none; `slide` moves them along with the buffer.
 */
export class Lz4Encoder {
  readonly #heads: Int32Array;
  /** Distance to the position before with the same hash; only for the thorough search. */
  readonly #chain: Uint16Array | undefined;
  readonly #depth: number;
  #inserted = 0;

  /** @param level 0..2 fast, 3..16 more and more thorough */
  constructor(level: number) {
    this.#heads = new Int32Array(1 << (level >= 3 ? THOROUGH_HASH_BITS : FAST_HASH_BITS));
    if (level >= 3) {
      this.#chain = new Uint16Array(65536);
      this.#depth = level <= 6 ? 2 * (level - 2) : 1 << Math.min(level - 3, 9);
    } else {
      this.#depth = 1;
    }
  }

  /** Compresses `buffer[from, to)` into `out`, with matches back into what lies before; returns the length. */
  encode(buffer: Uint8Array, from: number, to: number, out: Uint8Array): number {
    return this.#chain === undefined
      ? encodeFast(this.#heads, buffer, from, to, out)
      : this.#encodeThoroughly(this.#chain, buffer, from, to, out);
  }

  /** Forget everything: what comes next begins at the buffer's beginning. */
  reset(): void {
    this.#heads.fill(0);
    this.#inserted = 0;
  }

  /** The first `by` bytes of the buffer have been dropped. */
  slide(by: number): void {
    const heads = this.#heads;
    for (let i = 0; i < heads.length; i++) {
      const moved = (heads[i] as number) - by;
      heads[i] = moved > 0 ? moved : 0;
    }
    // The chain is a ring over the position's low 16 bits: `by` must be a multiple of 65536.
    this.#inserted = Math.max(0, this.#inserted - by);
  }

  #encodeThoroughly(
    chain: Uint16Array,
    buffer: Uint8Array,
    from: number,
    to: number,
    out: Uint8Array,
  ): number {
    const heads = this.#heads;
    const view = viewOf(buffer);
    const depth = this.#depth;
    const searchEnd = to - MATCH_MARGIN;
    const matchEnd = to - LAST_LITERALS;
    let inserted = this.#inserted;
    let anchor = from;
    let at = from;
    let o = 0;
    let bestLength = 0;
    let bestStart = 0;

    // The match that waits while one byte further a longer one is looked for.
    let waitingLength = 0;
    let waitingStart = 0;
    while (at <= searchEnd || waitingLength > 0) {
      bestLength = 0;
      if (at <= searchEnd) {
        for (; inserted <= at; inserted++) {
          const h = hash(view.getInt32(inserted, true), THOROUGH_HASH_BITS);
          const distance = inserted + 1 - (heads[h] as number);
          chain[inserted & 65535] = heads[h] !== 0 && distance <= FARTHEST ? distance : 0;
          heads[h] = inserted + 1;
        }
        let candidate = at;
        let length = waitingLength > MIN_MATCH - 1 ? waitingLength : MIN_MATCH - 1;
        const first = view.getInt32(at, true);
        for (let tries = depth; tries > 0; tries--) {
          const distance = chain[candidate & 65535] as number;
          candidate -= distance;
          if (distance === 0 || at - candidate > FARTHEST || candidate < 0) break;
          if (
            buffer[candidate + length] === buffer[at + length] &&
            view.getInt32(candidate, true) === first
          ) {
            const found = endOfMatch(view, candidate + MIN_MATCH, at + MIN_MATCH, matchEnd) - at;
            if (found > length) {
              length = found;
              bestLength = found;
              bestStart = candidate;
              if (at + found >= matchEnd) break;
            }
          }
        }
      }
      if (waitingLength > 0) {
        if (bestLength > waitingLength) {
          waitingLength = bestLength;
          waitingStart = bestStart;
          at++;
          continue;
        }
        const matchAt = at - 1;
        o = writeSequence(
          buffer,
          anchor,
          matchAt - anchor,
          matchAt - waitingStart,
          waitingLength,
          out,
          o,
        );
        at = matchAt + waitingLength;
        anchor = at;
        waitingLength = 0;
        // Inside a very long match nothing else is worth remembering.
        if (at - inserted > 4096) inserted = at - 64;
      } else if (bestLength >= MIN_MATCH) {
        waitingLength = bestLength;
        waitingStart = bestStart;
        at++;
      } else {
        at++;
      }
    }
    this.#inserted = inserted;
    return writeLastLiterals(buffer, anchor, to, out, o);
  }
}

/**
 * Reads one block into `out` from position `at`; matches may reach back to `out[0]`. Returns the
 * position behind it, or -1 if the block is damaged or gives more than fits below `limit`.
 */
export function decodeLz4Block(
  block: Uint8Array,
  out: Uint8Array,
  at: number,
  limit: number,
): number {
  const end = block.length;
  let i = 0;
  let o = at;
  while (i < end) {
    const token = block[i++] as number;
    let literals = token >>> 4;
    if (literals === 15) {
      let more = 255;
      while (more === 255) {
        if (i >= end) return -1;
        more = block[i++] as number;
        literals += more;
      }
    }
    if (literals > 0) {
      if (i + literals > end || o + literals > limit) return -1;
      if (literals <= 16) {
        for (const stop = i + literals; i < stop;) out[o++] = block[i++] as number;
      } else {
        out.set(block.subarray(i, i + literals), o);
        i += literals;
        o += literals;
      }
    }
    if (i === end) return o;

    if (i + 2 > end) return -1;
    const distance = (block[i] as number) | ((block[i + 1] as number) << 8);
    i += 2;
    let length = (token & 15) + MIN_MATCH;
    if (length === 15 + MIN_MATCH) {
      let more = 255;
      while (more === 255) {
        if (i >= end) return -1;
        more = block[i++] as number;
        length += more;
      }
    }
    if (distance === 0 || distance > o || o + length > limit) return -1;
    o = copyMatch(out, o, distance, length);
  }
  return -1;
}

/** Repeats what lies `distance` bytes back; returns the position behind it. Snappy does the same. */
export function copyMatch(out: Uint8Array, at: number, distance: number, length: number): number {
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

function encodeFast(
  heads: Int32Array,
  buffer: Uint8Array,
  from: number,
  to: number,
  out: Uint8Array,
): number {
  const view = viewOf(buffer);
  const searchEnd = to - MATCH_MARGIN;
  const matchEnd = to - LAST_LITERALS;
  let anchor = from;
  let at = from;
  let o = 0;
  // Data that has no matches is passed over faster and faster.
  let misses = 1 << 6;
  while (at <= searchEnd) {
    const first = view.getInt32(at, true);
    const h = hash(first, FAST_HASH_BITS);
    const candidate = (heads[h] as number) - 1;
    heads[h] = at + 1;
    if (
      candidate < 0 || at - candidate > FARTHEST || view.getInt32(candidate, true) !== first
    ) {
      at += misses++ >>> 6;
      continue;
    }
    misses = 1 << 6;
    const distance = at - candidate;
    const end = endOfMatch(view, candidate + MIN_MATCH, at + MIN_MATCH, matchEnd);
    while (at > anchor && at > distance && buffer[at - 1] === buffer[at - 1 - distance]) at--;
    o = writeSequence(buffer, anchor, at - anchor, distance, end - at, out, o);
    at = end;
    anchor = at;
    if (at <= searchEnd) heads[hash(view.getInt32(at - 2, true), FAST_HASH_BITS)] = at - 1;
  }
  return writeLastLiterals(buffer, anchor, to, out, o);
}

/** Where what begins at two positions ceases to be the same, seen from the later one, `at`; `end` at most. */
export function endOfMatch(view: DataView, candidate: number, at: number, end: number): number {
  const distance = at - candidate;
  while (at + 4 <= end) {
    const difference = view.getInt32(at, true) ^ view.getInt32(at - distance, true);
    // The lowest bit that differs tells the byte.
    if (difference !== 0) return at + ((31 - Math.clz32(difference & -difference)) >>> 3);
    at += 4;
  }
  while (at < end && view.getUint8(at) === view.getUint8(at - distance)) at++;
  return at;
}

/** Words are read through it: one load instead of four, which runtimes compile to just that. */
export function viewOf(bytes: Uint8Array): DataView {
  return new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
}

function writeSequence(
  buffer: Uint8Array,
  literalsAt: number,
  literals: number,
  distance: number,
  matchLength: number,
  out: Uint8Array,
  o: number,
): number {
  const extra = matchLength - MIN_MATCH;
  const token = o++;
  out[token] = (literals < 15 ? literals << 4 : 0xf0) | (extra < 15 ? extra : 15);
  o = writeLiterals(buffer, literalsAt, literals, out, o);
  out[o++] = distance & 255;
  out[o++] = distance >>> 8;
  return extra < 15 ? o : writeLength(extra - 15, out, o);
}

function writeLastLiterals(
  buffer: Uint8Array,
  anchor: number,
  to: number,
  out: Uint8Array,
  o: number,
): number {
  const literals = to - anchor;
  out[o++] = literals < 15 ? literals << 4 : 0xf0;
  return writeLiterals(buffer, anchor, literals, out, o);
}

function writeLiterals(
  buffer: Uint8Array,
  from: number,
  count: number,
  out: Uint8Array,
  o: number,
): number {
  if (count >= 15) o = writeLength(count - 15, out, o);
  if (count <= 32) {
    for (let i = 0; i < count; i++) out[o++] = buffer[from + i] as number;
    return o;
  }
  out.set(buffer.subarray(from, from + count), o);
  return o + count;
}

function writeLength(left: number, out: Uint8Array, o: number): number {
  for (; left >= 255; left -= 255) out[o++] = 255;
  out[o++] = left;
  return o;
}

function hash(word: number, bits: number): number {
  return Math.imul(word, 0x9e3779b1) >>> (32 - bits);
}
