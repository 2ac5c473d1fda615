/** The LZ4 block format: how a block is made and read. Frames around it: lz4.ts. */

const MIN_MATCH = 4;
/** The last match of a block begins at least this far from its end, */
const MATCH_MARGIN = 12;
/** and at least so many literals follow it. */
const LAST_LITERALS = 5;
const FARTHEST = 65535;
const HASH_BITS = 15;

/** Bytes that a block of `size` bytes takes at most. */
export function largestLz4Block(size: number): number {
  return size + Math.ceil(size / 255) + 16;
}

/**
 * Finds matches in a buffer that is filled from left to right. Positions in the tables are those
 * in the buffer plus 1, so that 0 means none; `slide` moves them along with the buffer.
 */
export class Lz4Encoder {
  readonly #heads = new Int32Array(1 << HASH_BITS);
  /** Distance to the position before with the same hash; only for the thorough search. */
  readonly #chain: Uint16Array | undefined;
  readonly #depth: number;
  #inserted = 0;

  /** @param level 0..2 fast, 3..16 more and more thorough */
  constructor(level: number) {
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
          const h = hash(buffer, inserted);
          const distance = inserted + 1 - (heads[h] as number);
          chain[inserted & 65535] = heads[h] !== 0 && distance <= FARTHEST ? distance : 0;
          heads[h] = inserted + 1;
        }
        let candidate = at;
        let length = waitingLength > MIN_MATCH - 1 ? waitingLength : MIN_MATCH - 1;
        const first = word(buffer, at);
        for (let tries = depth; tries > 0; tries--) {
          const distance = chain[candidate & 65535] as number;
          candidate -= distance;
          if (distance === 0 || at - candidate > FARTHEST || candidate < 0) break;
          if (
            buffer[candidate + length] === buffer[at + length] && word(buffer, candidate) === first
          ) {
            const found = matchLength(buffer, candidate, at, matchEnd);
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
  const searchEnd = to - MATCH_MARGIN;
  const matchEnd = to - LAST_LITERALS;
  let anchor = from;
  let at = from;
  let o = 0;
  // Data that has no matches is passed over faster and faster.
  let misses = 1 << 6;
  while (at <= searchEnd) {
    const first = word(buffer, at);
    const h = Math.imul(first, 0x9e3779b1) >>> (32 - HASH_BITS);
    let candidate = (heads[h] as number) - 1;
    heads[h] = at + 1;
    if (candidate < 0 || at - candidate > FARTHEST || word(buffer, candidate) !== first) {
      at += misses++ >>> 6;
      continue;
    }
    misses = 1 << 6;
    let length = matchLength(buffer, candidate, at, matchEnd);
    while (at > anchor && candidate > 0 && buffer[at - 1] === buffer[candidate - 1]) {
      at--;
      candidate--;
      length++;
    }
    o = writeSequence(buffer, anchor, at - anchor, at - candidate, length, out, o);
    at += length;
    anchor = at;
    if (at <= searchEnd) heads[hash(buffer, at - 2)] = at - 1;
  }
  return writeLastLiterals(buffer, anchor, to, out, o);
}

/** How far two positions agree, not beyond `end`; the first 4 bytes are known to. */
function matchLength(buffer: Uint8Array, candidate: number, at: number, end: number): number {
  let i = at + MIN_MATCH;
  let j = candidate + MIN_MATCH;
  while (i < end && buffer[i] === buffer[j]) {
    i++;
    j++;
  }
  return i - at;
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
  if (count <= 16) {
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

function hash(buffer: Uint8Array, at: number): number {
  return Math.imul(word(buffer, at), 0x9e3779b1) >>> (32 - HASH_BITS);
}

function word(buffer: Uint8Array, at: number): number {
  return (buffer[at] as number) | ((buffer[at + 1] as number) << 8) |
    ((buffer[at + 2] as number) << 16) | ((buffer[at + 3] as number) << 24);
}
