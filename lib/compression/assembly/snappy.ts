/** Snappy's block format and the chunks around it, by google/snappy's format_description.txt and framing_format.txt. */
import { crc32c } from "./checksums";
import { copyForward, copyMatch, endOfMatch } from "./matches";

const BLOCK: u32 = 65536;
const HASH_BITS: u32 = 14;
const COMPRESSED: u32 = 0;
const RAW: u32 = 1;

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
    store<u32>(at, (worth ? COMPRESSED : RAW) | (size + 4) << 8);
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

  memory.fill(table, 0, <usize>2 << HASH_BITS);
  const searchEnd = <i32>size - 15;
  const end = input + size;
  let anchor = input;
  // Position 0 is what an empty entry of the table means, so nothing is looked for there.
  let at: u32 = 1;
  let misses: u32 = 1 << 5;
  while (<i32>at <= searchEnd) {
    const here = input + at;
    const first = load<u32>(here);
    const slot = table + (<usize>hash(first) << 1);
    const candidate = <u32>load<u16>(slot);
    store<u16>(slot, at);
    if (candidate >= at || load<u32>(input + candidate) != first) {
      at += misses++ >>> 5;
      continue;
    }
    misses = 1 << 5;
    const matchEnd = endOfMatch(here + 4, at - candidate, end);
    if (here > anchor) o = writeLiteral(anchor, <u32>(here - anchor), o);
    o = writeCopy(at - candidate, <u32>(matchEnd - here), o);
    anchor = matchEnd;
    at = <u32>(matchEnd - input);
    if (<i32>at <= searchEnd) {
      store<u16>(table + (<usize>hash(load<u32>(matchEnd - 1)) << 1), at - 1);
    }
  }
  return anchor < end ? writeLiteral(anchor, <u32>(end - anchor), o) : o;
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

function writeLiteral(from: usize, length: u32, out: usize): usize {
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

function writeCopy(distance: u32, length: u32, out: usize): usize {
  // Leave at least 4 for the last, which a short copy needs.
  for (; length >= 68; length -= 64) out = writeLongCopy(distance, 64, out);
  if (length > 64) {
    out = writeLongCopy(distance, 60, out);
    length -= 60;
  }
  if (length >= 12 || distance >= 2048) return writeLongCopy(distance, length, out);
  store<u8>(out, 1 | ((length - 4) << 2) | ((distance >>> 8) << 5));
  store<u8>(out + 1, distance);
  return out + 2;
}

function writeLongCopy(distance: u32, length: u32, out: usize): usize {
  store<u8>(out, 2 | ((length - 1) << 2));
  store<u16>(out + 1, distance);
  return out + 3;
}

/** Snappy stores CRCs altered, so that a CRC of data that holds CRCs is no special case. */
function maskedCrc(crc: u32): u32 {
  return rotr<u32>(crc, 15) + 0xa282ead8;
}

function hash(word: u32): u32 {
  return (word * 0x1e35a7bd) >>> (32 - HASH_BITS);
}
