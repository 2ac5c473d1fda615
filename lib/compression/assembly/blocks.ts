/**
 * LZ4's and snappy's block formats, with the checksums of their frames, in AssemblyScript: WebAssembly is twice to three
 * times as fast here as the same in JavaScript, from the first call on. `scripts/wasm.ts` compiles this into
 * ../blocks_wasm.ts. Whoever calls (../blocks.ts) lays out the memory, and leaves SLACK bytes of no meaning behind each
 * region: eight bytes are copied at a time, a few too many.
 *
 * Formats: lz4.org's lz4_Block_format.md, google/snappy's format_description.txt.
 */

const MIN_MATCH: u32 = 4;
const BLOCK: u32 = 65536;

/** The last match of a block of LZ4 begins at least so far from its end, */
const MATCH_MARGIN: u32 = 12;
/** and at least so many literals follow it. */
const LAST_LITERALS: u32 = 5;
const FARTHEST: u32 = 65535;
/** A table that stays in the nearest cache is faster than the few more matches that a larger one finds. */
const FAST_HASH_BITS: u32 = 14;
const THOROUGH_HASH_BITS: u32 = 15;
/** In LZ4's size field: the block is stored as it is. */
const LZ4_RAW: u32 = 0x80000000;

const SNAPPY_HASH_BITS: u32 = 14;
const SNAPPY_COMPRESSED: u32 = 0;
const SNAPPY_RAW: u32 = 1;

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
  memory.fill(tables, 0, <usize>4 << (thorough ? THOROUGH_HASH_BITS : FAST_HASH_BITS));
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
      store<u32>(at, size | LZ4_RAW);
      memory.copy(at + 4, input + from, size);
    }
    at += 4 + size;
  }
  return <u32>(at - out);
}

/** Positions in the tables are those in the input plus 1, so that 0 means none. */
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
    const first = load<u32>(here);
    const slot = heads + (<usize>lz4Hash(first, FAST_HASH_BITS) << 2);
    const known = load<u32>(slot);
    store<u32>(slot, at + 1);
    const distance = at + 1 - known;
    if (known == 0 || distance > FARTHEST || load<u32>(here - distance) != first) {
      at += misses++ >>> 6;
      continue;
    }
    misses = 1 << 6;
    const end = endOfMatch(here + MIN_MATCH, distance, matchEnd);
    let start = here;
    while (
      start > anchor && start - input > distance &&
      load<u8>(start - 1) == load<u8>(start - 1 - distance)
    ) start--;
    o = writeSequence(anchor, <u32>(start - anchor), distance, <u32>(end - start), o);
    anchor = end;
    at = <u32>(end - input);
    if (<i32>at <= searchEnd) {
      store<u32>(heads + (<usize>lz4Hash(load<u32>(end - 2), FAST_HASH_BITS) << 2), at - 1);
    }
  }
  return writeLastLiterals(anchor, <u32>(input + to - anchor), o);
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
        const slot = heads + (<usize>lz4Hash(load<u32>(input + inserted), THOROUGH_HASH_BITS) << 2);
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
    copyForward(o, i, literals);
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
    copyMatch(o, distance, size);
    o += size;
  }
  return -1;
}

/**
 * Chunks of snappy's framing format, one for each 64 KiB, with type, length and CRC-32C.
 *
 * @param table 32 KiB
 * @param crcTable as `prepareCrc32c` has filled it
 * @returns bytes in `out`, which takes at most 8 for each block more than the input
 */
export function compressSnappy(
  table: usize,
  crcTable: usize,
  input: usize,
  length: u32,
  out: usize,
): u32 {
  let at = out;
  for (let from: u32 = 0; from < length; from += BLOCK) {
    const block = input + from;
    const whole = min<u32>(BLOCK, length - from);
    let size = <u32>(encodeSnappy(table, block, whole, at + 8) - at) - 8;
    // As in the reference implementation: raw unless an eighth is saved.
    const worth = size < whole - whole / 8;
    if (!worth) {
      size = whole;
      memory.copy(at + 8, block, size);
    }
    store<u32>(at, (worth ? SNAPPY_COMPRESSED : SNAPPY_RAW) | (size + 4) << 8);
    store<u32>(at + 4, maskedCrc(crc32c(crcTable, 0, block, whole)));
    at += 8 + size;
  }
  return <u32>(at - out);
}

function encodeSnappy(table: usize, input: usize, size: u32, out: usize): usize {
  let o = out;
  let rest = size;
  for (; rest >= 128; rest >>>= 7) store<u8>(o++, rest | 128);
  store<u8>(o++, rest);

  memory.fill(table, 0, <usize>2 << SNAPPY_HASH_BITS);
  const searchEnd = <i32>size - 15;
  const end = input + size;
  let anchor = input;
  // Position 0 is what an empty entry of the table means, so nothing is looked for there.
  let at: u32 = 1;
  let misses: u32 = 1 << 5;
  while (<i32>at <= searchEnd) {
    const here = input + at;
    const first = load<u32>(here);
    const slot = table + (<usize>snappyHash(first) << 1);
    const candidate = <u32>load<u16>(slot);
    store<u16>(slot, at);
    if (candidate >= at || load<u32>(input + candidate) != first) {
      at += misses++ >>> 5;
      continue;
    }
    misses = 1 << 5;
    const matchEnd = endOfMatch(here + 4, at - candidate, end);
    if (here > anchor) o = writeSnappyLiteral(anchor, <u32>(here - anchor), o);
    o = writeSnappyCopy(at - candidate, <u32>(matchEnd - here), o);
    anchor = matchEnd;
    at = <u32>(matchEnd - input);
    if (<i32>at <= searchEnd) {
      store<u16>(table + (<usize>snappyHash(load<u32>(matchEnd - 1)) << 1), at - 1);
    }
  }
  return anchor < end ? writeSnappyLiteral(anchor, <u32>(end - anchor), o) : o;
}

/**
 * Reads a block in snappy's raw format into `out`.
 * @returns its bytes, or -1 if it is damaged or gives more than `most`
 */
export function decompressSnappy(block: usize, length: u32, out: usize, most: u32): i32 {
  const end = block + length;
  let i = block;
  let size: u64 = 0;
  for (let shift: u64 = 0;; shift += 7) {
    if (i >= end || shift > 28) return -1;
    const byte = <u64>load<u8>(i++);
    size |= (byte & 127) << shift;
    if (byte < 128) break;
  }
  if (size > <u64>most) return -1;

  const stop = out + <usize>size;
  let o = out;
  while (i < end) {
    const tag = <usize>load<u8>(i++);
    const kind = tag & 3;
    let count = (tag >>> 2) + 1;
    if (kind == 0) {
      if (count > 60) {
        const bytes = count - 60;
        if (i + bytes > end) return -1;
        // At most four bytes, and one more.
        const stated = load<u32>(i) & (0xffffffff >>> (32 - 8 * <u32>bytes));
        if (stated >= most) return -1;
        count = <usize>stated + 1;
        i += bytes;
      }
      if (count > <usize>(end - i) || count > <usize>(stop - o)) return -1;
      copyForward(o, i, count);
      i += count;
      o += count;
      continue;
    }
    let distance: usize;
    if (kind == 1) {
      if (i + 1 > end) return -1;
      count = ((tag >>> 2) & 7) + 4;
      distance = ((tag >>> 5) << 8) | <usize>load<u8>(i++);
    } else if (kind == 2) {
      if (i + 2 > end) return -1;
      distance = <usize>load<u16>(i);
      i += 2;
    } else {
      if (i + 4 > end) return -1;
      distance = <usize>load<u32>(i);
      i += 4;
    }
    if (distance == 0 || distance > o - out || count > <usize>(stop - o)) return -1;
    copyMatch(o, distance, count);
    o += count;
  }
  return o == stop ? <i32>size : -1;
}

/** Fills the 8 KiB that CRC-32C needs: table k advances a byte over k zero bytes. */
export function prepareCrc32c(table: usize): void {
  for (let n: u32 = 0; n < 256; n++) {
    let crc = n;
    for (let bit = 0; bit < 8; bit++) crc = crc & 1 ? (crc >>> 1) ^ 0x82f63b78 : crc >>> 1;
    store<u32>(table + (<usize>n << 2), crc);
  }
  for (let n: usize = 256; n < 8 * 256; n++) {
    const before = load<u32>(table + ((n - 256) << 2));
    store<u32>(table + (n << 2), load<u32>(table + (<usize>(before & 255) << 2)) ^ (before >>> 8));
  }
}

/** CRC-32C (Castagnoli) of some bytes, continuing from `before`. */
export function crc32c(table: usize, before: u32, at: usize, length: u32): u32 {
  let crc = ~before;
  const end = at + length;
  for (; at + 8 <= end; at += 8) {
    const low = load<u32>(at) ^ crc;
    const high = load<u32>(at + 4);
    crc = load<u32>(table + 0x1c00 + (<usize>(low & 255) << 2)) ^
      load<u32>(table + 0x1800 + (<usize>((low >>> 8) & 255) << 2)) ^
      load<u32>(table + 0x1400 + (<usize>((low >>> 16) & 255) << 2)) ^
      load<u32>(table + 0x1000 + (<usize>(low >>> 24) << 2)) ^
      load<u32>(table + 0xc00 + (<usize>(high & 255) << 2)) ^
      load<u32>(table + 0x800 + (<usize>((high >>> 8) & 255) << 2)) ^
      load<u32>(table + 0x400 + (<usize>((high >>> 16) & 255) << 2)) ^
      load<u32>(table + (<usize>(high >>> 24) << 2));
  }
  for (; at < end; at++) {
    crc = load<u32>(table + (<usize>((crc ^ load<u8>(at)) & 255) << 2)) ^ (crc >>> 8);
  }
  return ~crc;
}

/** Snappy stores CRCs altered, so that a CRC of data that holds CRCs is no special case. */
function maskedCrc(crc: u32): u32 {
  return rotr<u32>(crc, 15) + 0xa282ead8;
}

/** Stripes of 16 bytes into the four lanes of xxHash-32, which are at `lanes`. */
export function xxHash32Stripes(lanes: usize, at: usize, length: u32): void {
  let a = load<u32>(lanes);
  let b = load<u32>(lanes + 4);
  let c = load<u32>(lanes + 8);
  let d = load<u32>(lanes + 12);
  for (const end = at + length; at < end; at += 16) {
    a = lane(a, load<u32>(at));
    b = lane(b, load<u32>(at + 4));
    c = lane(c, load<u32>(at + 8));
    d = lane(d, load<u32>(at + 12));
  }
  store<u32>(lanes, a);
  store<u32>(lanes + 4, b);
  store<u32>(lanes + 8, c);
  store<u32>(lanes + 12, d);
}

function lane(value: u32, word: u32): u32 {
  return rotl<u32>(value + word * 0x85ebca77, 13) * 0x9e3779b1;
}

function lz4Hash(word: u32, bits: u32): u32 {
  return (word * 0x9e3779b1) >>> (32 - bits);
}

function snappyHash(word: u32): u32 {
  return (word * 0x1e35a7bd) >>> (32 - SNAPPY_HASH_BITS);
}

/** Where what begins at `at` and `distance` before it ceases to be the same; `end` at most. */
function endOfMatch(at: usize, distance: u32, end: usize): usize {
  while (at + 8 <= end) {
    const difference = load<u64>(at) ^ load<u64>(at - distance);
    // The lowest bit that differs tells the byte.
    if (difference != 0) return at + <usize>(ctz(difference) >>> 3);
    at += 8;
  }
  while (at < end && load<u8>(at) == load<u8>(at - distance)) at++;
  return at;
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

function writeSnappyLiteral(from: usize, length: u32, out: usize): usize {
  const n = length - 1;
  if (n < 60) {
    store<u8>(out++, n << 2);
  } else if (n < 256) {
    store<u8>(out++, 60 << 2);
    store<u8>(out++, n);
  } else {
    store<u8>(out++, 61 << 2);
    store<u16>(out, n);
    out += 2;
  }
  copyForward(out, from, length);
  return out + length;
}

function writeSnappyCopy(distance: u32, length: u32, out: usize): usize {
  // Leave at least 4 for the last, which a short copy needs.
  for (; length >= 68; length -= 64) out = writeLongSnappyCopy(distance, 64, out);
  if (length > 64) {
    out = writeLongSnappyCopy(distance, 60, out);
    length -= 60;
  }
  if (length >= 12 || distance >= 2048) return writeLongSnappyCopy(distance, length, out);
  store<u8>(out, 1 | ((length - 4) << 2) | ((distance >>> 8) << 5));
  store<u8>(out + 1, distance);
  return out + 2;
}

function writeLongSnappyCopy(distance: u32, length: u32, out: usize): usize {
  store<u8>(out, 2 | ((length - 1) << 2));
  store<u16>(out + 1, distance);
  return out + 3;
}

/** Copies what does not overlap, and up to 15 bytes behind it. */
function copyForward(to: usize, from: usize, count: usize): void {
  if (count > 64) {
    memory.copy(to, from, count);
    return;
  }
  for (const end = to + count; to < end; to += 16, from += 16) {
    store<u64>(to, load<u64>(from));
    store<u64>(to + 8, load<u64>(from + 8));
  }
}

/** Repeats what lies `distance` bytes back, and up to 7 bytes behind it. */
function copyMatch(to: usize, distance: usize, count: usize): void {
  const end = to + count;
  let from = to - distance;
  if (distance >= 8) {
    for (; to < end; to += 8, from += 8) store<u64>(to, load<u64>(from));
  } else if (distance == 1) {
    memory.fill(to, load<u8>(from), count);
  } else if (count <= 16) {
    for (; to < end; to++, from++) store<u8>(to, load<u8>(from));
  } else {
    // Each copy doubles the stretch that can be copied at once.
    while (to < end) {
      const part = min<usize>(to - from, end - to);
      memory.copy(to, from, part);
      to += part;
    }
  }
}
