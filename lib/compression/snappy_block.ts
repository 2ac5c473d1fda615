import { copyMatch, endOfMatch, viewOf } from "./lz4_block.ts";

const HASH_BITS = 14;

/** Bytes that a block of `size` bytes takes at most. */
export function largestSnappyBlock(size: number): number {
  return 32 + size + Math.floor(size / 6);
}

/**
 * Compresses one block of at most 64 KiB in the raw snappy format.
 *
 * @param table scratch space of `SNAPPY_TABLE_SIZE` entries
 * @returns the length in `out`
 */
export function encodeSnappyBlock(input: Uint8Array, out: Uint8Array, table: Uint16Array): number {
  const size = input.length;
  const view = viewOf(input);
  let o = 0;
  let rest = size;
  for (; rest >= 128; rest >>>= 7) out[o++] = (rest & 127) | 128;
  out[o++] = rest;

  table.fill(0);
  const searchEnd = size - 15;
  let anchor = 0;
  // Position 0 is what an empty entry of the table means, so nothing is looked for there.
  let at = 1;
  let misses = 1 << 5;
  while (at <= searchEnd) {
    const first = view.getInt32(at, true);
    const h = Math.imul(first, 0x1e35a7bd) >>> (32 - HASH_BITS);
    const candidate = table[h] as number;
    table[h] = at;
    if (view.getInt32(candidate, true) !== first || candidate >= at) {
      at += misses++ >>> 5;
      continue;
    }
    misses = 1 << 5;
    const end = endOfMatch(view, candidate + 4, at + 4, size);
    if (at > anchor) o = writeLiteral(input, anchor, at, out, o);
    o = writeCopy(at - candidate, end - at, out, o);
    at = end;
    anchor = end;
    if (at <= searchEnd) {
      table[Math.imul(view.getInt32(at - 1, true), 0x1e35a7bd) >>> (32 - HASH_BITS)] = at - 1;
    }
  }
  return anchor < size ? writeLiteral(input, anchor, size, out, o) : o;
}

export const SNAPPY_TABLE_SIZE = 1 << HASH_BITS;

/** Reads one raw snappy block; undefined if it is damaged or gives more than `most` bytes. */
export function decodeSnappyBlock(block: Uint8Array, most: number): Uint8Array | undefined {
  const end = block.length;
  let size = 0;
  let i = 0;
  for (let shift = 0;; shift += 7) {
    if (i >= end || shift > 28) return undefined;
    const byte = block[i++] as number;
    size += (byte & 127) * 2 ** shift;
    if (byte < 128) break;
  }
  if (size > most) return undefined;

  const out = new Uint8Array(size);
  let o = 0;
  while (i < end) {
    const tag = block[i++] as number;
    const kind = tag & 3;
    if (kind === 0) {
      let length = (tag >>> 2) + 1;
      if (length > 60) {
        const bytes = length - 60;
        if (i + bytes > end) return undefined;
        length = 1;
        for (let k = 0; k < bytes; k++) length += (block[i++] as number) * 2 ** (8 * k);
      }
      if (i + length > end || o + length > size) return undefined;
      if (length <= 16) {
        for (const stop = i + length; i < stop;) out[o++] = block[i++] as number;
      } else {
        out.set(block.subarray(i, i + length), o);
        i += length;
        o += length;
      }
      continue;
    }
    let length = (tag >>> 2) + 1;
    let distance: number;
    if (kind === 1) {
      if (i + 1 > end) return undefined;
      length = ((tag >>> 2) & 7) + 4;
      distance = ((tag >>> 5) << 8) | (block[i++] as number);
    } else if (kind === 2) {
      if (i + 2 > end) return undefined;
      distance = (block[i] as number) | ((block[i + 1] as number) << 8);
      i += 2;
    } else {
      if (i + 4 > end) return undefined;
      distance = viewOf(block).getUint32(i, true);
      i += 4;
    }
    if (distance === 0 || distance > o || o + length > size) return undefined;
    o = copyMatch(out, o, distance, length);
  }
  return o === size ? out : undefined;
}

function writeLiteral(
  input: Uint8Array,
  from: number,
  to: number,
  out: Uint8Array,
  o: number,
): number {
  const length = to - from;
  const n = length - 1;
  if (n < 60) {
    out[o++] = n << 2;
  } else if (n < 256) {
    out[o++] = 60 << 2;
    out[o++] = n;
  } else {
    out[o++] = 61 << 2;
    out[o++] = n & 255;
    out[o++] = n >>> 8;
  }
  if (length <= 16) {
    for (let i = from; i < to; i++) out[o++] = input[i] as number;
    return o;
  }
  out.set(input.subarray(from, to), o);
  return o + length;
}

function writeCopy(distance: number, length: number, out: Uint8Array, o: number): number {
  // Leave at least 4 for the last, which a short copy needs.
  for (; length >= 68; length -= 64) o = writeLongCopy(distance, 64, out, o);
  if (length > 64) {
    o = writeLongCopy(distance, 60, out, o);
    length -= 60;
  }
  if (length >= 12 || distance >= 2048) return writeLongCopy(distance, length, out, o);
  out[o++] = 1 | ((length - 4) << 2) | ((distance >>> 8) << 5);
  out[o++] = distance & 255;
  return o;
}

function writeLongCopy(distance: number, length: number, out: Uint8Array, o: number): number {
  out[o++] = 2 | ((length - 1) << 2);
  out[o++] = distance & 255;
  out[o++] = distance >>> 8;
  return o;
}
