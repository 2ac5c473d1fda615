/** LZ4's block format, by lz4.org's lz4_Block_format.md. */
import { copy16, copyForward, copyMatch, endOfMatch } from "./matches";

const MIN_MATCH: u32 = 4;
const BLOCK: u32 = 65536;
/** The last match of a block begins at least so far from its end, */
const MATCH_MARGIN: u32 = 12;
/** and at least so many literals follow it. */
const LAST_LITERALS: u32 = 5;
const FARTHEST: u32 = 65535;
/** 64 KiB of 16-bit positions: half of it is no faster and finds fewer matches. */
const FAST_HASH_BITS: u32 = 15;
const THOROUGH_HASH_BITS: u32 = 15;
/** In the size field: the block is stored as it is. */
const RAW: u32 = 0x80000000;

/**
 * The blocks of a piece of an LZ4 frame, each behind its size; matches reach back into earlier blocks of the piece.
 *
 * @param level 0..2 fast, 3..16 more and more thorough
 * @param tables 256 KiB
 * @returns bytes in `out`, which takes at most 4 for each block more than the input
 */
export function compressLz4(
  level: u32,
  tables: usize,
  input: usize,
  length: u32,
  out: usize,
): u32 {
  let at = out;
  const thorough = level >= 3;
  memory.fill(tables, 0, thorough ? <usize>4 << THOROUGH_HASH_BITS : <usize>2 << FAST_HASH_BITS);
  inserted = 0;
  const depth: u32 = level <= 6 ? 2 * (level - 2) : <u32>1 << min<u32>(level - 3, 9);
  for (let from: u32 = 0; from < length; from += BLOCK) {
    const to = min<u32>(from + BLOCK, length);
    const end = thorough
      ? encodeThoroughly(tables, depth, input, from, to, at + 4)
      : encodeFast(tables, input, from, to, at + 4);
    let size = <u32>(end - at) - 4;
    if (size < to - from) {
      store<u32>(at, size);
    } else {
      size = to - from;
      store<u32>(at, size | RAW);
      memory.copy(at + 4, input + from, size);
    }
    at += 4 + size;
  }
  return <u32>(at - out);
}

/**
 * The table has the low 16 bits of positions: those of what lies further back lead to something else, which the bytes
 * there tell.
 */
function encodeFast(heads: usize, input: usize, from: u32, to: u32, out: usize): usize {
  const searchEnd = <i32>to - <i32>MATCH_MARGIN;
  const matchEnd = input + to - LAST_LITERALS;
  let anchor = input + from;
  let at = from;
  let o = out;
  // Data that has no matches is passed over faster and faster.
  let misses: u32 = 1 << 6;
  while (<i32>at <= searchEnd) {
    const here = input + at;
    const first = load<u64>(here);
    const slot = heads + (<usize>hash5(first) << 1);
    const distance = (at - load<u16>(slot)) & 0xffff;
    store<u16>(slot, at);
    if (distance - 1 >= at || load<u32>(here - distance) != <u32>first) {
      at += misses++ >>> 6;
      continue;
    }
    misses = 1 << 6;
    const end = endOfMatch(here + MIN_MATCH, distance, matchEnd);
    let start = here;
    const lowest = max<usize>(anchor, input + distance);
    while (start > lowest && load<u8>(start - 1) == load<u8>(start - 1 - distance)) start--;
    o = writeSequence(anchor, <u32>(start - anchor), distance, <u32>(end - start), o);
    anchor = end;
    at = <u32>(end - input);
    if (<i32>at <= searchEnd) {
      store<u16>(heads + (<usize>hash5(load<u64>(end - 2)) << 1), at - 2);
    }
  }
  return writeLastLiterals(anchor, <u32>(input + to - anchor), o);
}

/** Of the first five bytes; multiplied by the golden ratio, as `hash`. */
function hash5(bytes: u64): u32 {
  return <u32>(((bytes << 24) * 0x9e3779b97f4a7c15) >> (64 - FAST_HASH_BITS));
}

/** Positions before it are in the tables of the thorough search. */
let inserted: u32 = 0;

/** @param tables of heads, then distances to the position before with the same hash, a ring over its low 16 bits */
function encodeThoroughly(
  tables: usize,
  depth: u32,
  input: usize,
  from: u32,
  to: u32,
  out: usize,
): usize {
  const heads = tables;
  const chain = tables + (<usize>4 << THOROUGH_HASH_BITS);
  const searchEnd = <i32>to - <i32>MATCH_MARGIN;
  const matchEnd = input + to - LAST_LITERALS;
  let anchor = from;
  let at = from;
  let o = out;
  // The match that waits while one byte further a longer one is looked for.
  let waitingLength: u32 = 0;
  let waitingDistance: u32 = 0;
  while (<i32>at <= searchEnd || waitingLength > 0) {
    let bestLength: u32 = 0;
    let bestDistance: u32 = 0;
    if (<i32>at <= searchEnd) {
      for (; inserted <= at; inserted++) {
        const slot = heads + (<usize>hash(load<u32>(input + inserted), THOROUGH_HASH_BITS) << 2);
        const known = load<u32>(slot);
        const distance = inserted + 1 - known;
        store<u16>(
          chain + (<usize>(inserted & 65535) << 1),
          known != 0 && distance <= FARTHEST ? distance : 0,
        );
        store<u32>(slot, inserted + 1);
      }
      const here = input + at;
      const first = load<u32>(here);
      let candidate = at;
      let length = max<u32>(waitingLength, MIN_MATCH - 1);
      for (let tries = depth; tries > 0; tries--) {
        const step = <u32>load<u16>(chain + (<usize>(candidate & 65535) << 1));
        if (step == 0 || step > candidate || at - candidate + step > FARTHEST) break;
        candidate -= step;
        const there = input + candidate;
        if (load<u8>(there + length) == load<u8>(here + length) && load<u32>(there) == first) {
          const found = <u32>(endOfMatch(here + MIN_MATCH, at - candidate, matchEnd) - here);
          if (found > length) {
            length = found;
            bestLength = found;
            bestDistance = at - candidate;
            if (here + found >= matchEnd) break;
          }
        }
      }
    }
    if (waitingLength > 0) {
      if (bestLength > waitingLength) {
        waitingLength = bestLength;
        waitingDistance = bestDistance;
        at++;
        continue;
      }
      const matchAt = at - 1;
      o = writeSequence(input + anchor, matchAt - anchor, waitingDistance, waitingLength, o);
      at = matchAt + waitingLength;
      anchor = at;
      waitingLength = 0;
      // Inside a very long match nothing else is worth remembering.
      if (at > inserted + 4096) inserted = at - 64;
    } else if (bestLength >= MIN_MATCH) {
      waitingLength = bestLength;
      waitingDistance = bestDistance;
      at++;
    } else {
      at++;
    }
  }
  return writeLastLiterals(input + anchor, to - anchor, o);
}

/**
 * Reads a block of LZ4 into `out` from position `at` on; matches may reach back to position 0.
 * @returns the position behind it, or -1 if the block is damaged or gives more than fits below `limit`
 */
export function decompressLz4(
  block: usize,
  length: u32,
  out: usize,
  at: u32,
  limit: u32,
): i32 {
  const end = block + length;
  const stop = out + limit;
  let i = block;
  let o = out + at;
  while (i < end) {
    const token = <usize>load<u8>(i++);
    let literals = token >>> 4;
    if (literals == 15) {
      let more: usize = 255;
      while (more == 255) {
        if (i >= end) return -1;
        more = load<u8>(i++);
        literals += more;
      }
    }
    if (literals > <usize>(end - i) || literals > <usize>(stop - o)) return -1;
    if (literals <= 16) copy16(o, i);
    else copyForward(o, i, literals);
    i += literals;
    o += literals;
    if (i == end) return <i32>(o - out);

    if (i + 2 > end) return -1;
    const distance = <usize>load<u16>(i);
    i += 2;
    let size = (token & 15) + MIN_MATCH;
    if (size == 15 + MIN_MATCH) {
      let more: usize = 255;
      while (more == 255) {
        if (i >= end) return -1;
        more = load<u8>(i++);
        size += more;
      }
    }
    if (distance == 0 || distance > o - out || size > <usize>(stop - o)) return -1;
    if (size < 15 + MIN_MATCH && distance >= 8) {
      copy16(o, o - distance);
      store<u16>(o + 16, load<u16>(o + 16 - distance));
    } else {
      copyMatch(o, distance, size);
    }
    o += size;
  }
  return -1;
}

function writeSequence(
  literalsAt: usize,
  literals: u32,
  distance: u32,
  matchLength: u32,
  out: usize,
): usize {
  const extra = matchLength - MIN_MATCH;
  store<u8>(out, (literals < 15 ? literals << 4 : 0xf0) | (extra < 15 ? extra : 15));
  let o = writeLiterals(literalsAt, literals, out + 1);
  store<u16>(o, distance);
  o += 2;
  return extra < 15 ? o : writeLength(extra - 15, o);
}

function writeLastLiterals(from: usize, literals: u32, out: usize): usize {
  store<u8>(out, literals < 15 ? literals << 4 : 0xf0);
  return writeLiterals(from, literals, out + 1);
}

function writeLiterals(from: usize, count: u32, out: usize): usize {
  if (count >= 15) out = writeLength(count - 15, out);
  copyForward(out, from, count);
  return out + count;
}

function writeLength(left: u32, out: usize): usize {
  for (; left >= 255; left -= 255) store<u8>(out++, 255);
  store<u8>(out++, left);
  return out;
}

function hash(word: u32, bits: u32): u32 {
  return (word * 0x9e3779b1) >>> (32 - bits);
}
