/**
 * The checksums that the formats use beside CRC-32 (which `node:zlib` has). All take and return
 * unsigned 32-bit numbers, unless said otherwise.
 */
import { Blocks } from "./blocks.ts";

/** CRC-32C (Castagnoli) of some bytes, continuing from `before`. */
export function crc32c(bytes: Uint8Array, before = 0): number {
  return sharedBlocks().crc32c(bytes, before);
}

/** CRC-64 (ECMA-182, reflected, as .xz has it), which grows as bytes are added. */
export class Crc64 {
  #low = -1;
  #high = -1;

  update(bytes: Uint8Array): void {
    const t = ecma ??= ecmaTables();
    let low = this.#low;
    let high = this.#high;
    let i = 0;
    // Four bytes a step: table k holds the CRC of a byte followed by 3 - k zero bytes.
    for (const end = bytes.length - 3; i < end; i += 4) {
      const a = low ^
        ((bytes[i] as number) | ((bytes[i + 1] as number) << 8) | ((bytes[i + 2] as number) << 16) |
          ((bytes[i + 3] as number) << 24));
      const p = (a & 255) << 1;
      const q = 512 + (((a >>> 8) & 255) << 1);
      const r = 1024 + (((a >>> 16) & 255) << 1);
      const s = 1536 + ((a >>> 24) << 1);
      low = high ^ (t[p] as number) ^ (t[q] as number) ^ (t[r] as number) ^ (t[s] as number);
      high = (t[p + 1] as number) ^ (t[q + 1] as number) ^ (t[r + 1] as number) ^
        (t[s + 1] as number);
    }
    for (; i < bytes.length; i++) {
      const p = 1536 + (((low ^ (bytes[i] as number)) & 255) << 1);
      low = ((low >>> 8) | (high << 24)) ^ (t[p] as number);
      high = (high >>> 8) ^ (t[p + 1] as number);
    }
    this.#low = low;
    this.#high = high;
  }

  /** The checksum so far, as the 8 little-endian bytes of the file. */
  digest(): Uint8Array {
    const bytes = new Uint8Array(8);
    const view = new DataView(bytes.buffer);
    view.setInt32(0, ~this.#low, true);
    view.setInt32(4, ~this.#high, true);
    return bytes;
  }
}

/** xxHash-32 with seed 0, which grows as bytes are added. */
export class XxHash32 {
  readonly #blocks: Blocks;
  readonly #rest = new Uint8Array(16);
  #resting = 0;
  #total = 0;
  readonly #lanes = Int32Array.of(P1 + P2, P2, 0, -P1);

  /** @param blocks where the bytes will come from, if they come from one */
  constructor(blocks: Blocks = sharedBlocks()) {
    this.#blocks = blocks;
  }

  update(bytes: Uint8Array): void {
    this.#total += bytes.length;
    let at = 0;
    if (this.#resting > 0) {
      at = Math.min(16 - this.#resting, bytes.length);
      this.#rest.set(bytes.subarray(0, at), this.#resting);
      this.#resting += at;
      if (this.#resting < 16) return;
      this.#blocks.xxHash32Stripes(this.#lanes, this.#rest);
      this.#resting = 0;
    }
    const end = at + ((bytes.length - at) & ~15);
    this.#blocks.xxHash32Stripes(this.#lanes, bytes.subarray(at, end));
    this.#rest.set(bytes.subarray(end));
    this.#resting = bytes.length - end;
  }

  digest(): number {
    const [a = 0, b = 0, c = 0, d = 0] = this.#lanes;
    let hash = this.#total >= 16 ? rotate(a, 1) + rotate(b, 7) + rotate(c, 12) + rotate(d, 18) : P5;
    hash = (hash + this.#total) | 0;
    const rest = this.#rest;
    let i = 0;
    for (; i + 4 <= this.#resting; i += 4) {
      hash = Math.imul(rotate(hash + Math.imul(word(rest, i), P3), 17), P4);
    }
    for (; i < this.#resting; i++) {
      hash = Math.imul(rotate(hash + Math.imul(rest[i] as number, P5), 11), P1);
    }
    hash = Math.imul(hash ^ (hash >>> 15), P2);
    hash = Math.imul(hash ^ (hash >>> 13), P3);
    return (hash ^ (hash >>> 16)) >>> 0;
  }
}

/** xxHash-32 of some bytes, seed 0. */
export function xxHash32(bytes: Uint8Array): number {
  const hash = new XxHash32();
  hash.update(bytes);
  return hash.digest();
}

const P1 = 0x9e3779b1;
const P2 = 0x85ebca77;
const P3 = 0xc2b2ae3d;
const P4 = 0x27d4eb2f;
const P5 = 0x165667b1;

function rotate(value: number, by: number): number {
  return (value << by) | (value >>> (32 - by));
}

function word(bytes: Uint8Array, i: number): number {
  return (bytes[i] as number) | ((bytes[i + 1] as number) << 8) | ((bytes[i + 2] as number) << 16) |
    ((bytes[i + 3] as number) << 24);
}

// Made at the first use, because that takes a moment.
let shared: Blocks | undefined;
let ecma: Int32Array | undefined;

/** For what is done in one call. */
function sharedBlocks(): Blocks {
  return shared ??= new Blocks();
}

/** Pairs of (low, high) halves; the last of the four tables is the plain one. */
function ecmaTables(): Int32Array {
  const tables = new Int32Array(4 * 512);
  for (let n = 0; n < 256; n++) {
    let low = n;
    let high = 0;
    for (let bit = 0; bit < 8; bit++) {
      const out = low & 1;
      low = (low >>> 1) | (high << 31);
      high >>>= 1;
      if (out) {
        low ^= 0xd7870f42;
        high ^= 0xc96c5795;
      }
    }
    tables[1536 + 2 * n] = low;
    tables[1537 + 2 * n] = high;
  }
  for (let i = 1534; i >= 0; i -= 2) {
    const low = tables[i + 512] as number;
    const high = tables[i + 513] as number;
    const p = 1536 + ((low & 255) << 1);
    tables[i] = ((low >>> 8) | (high << 24)) ^ (tables[p] as number);
    tables[i + 1] = (high >>> 8) ^ (tables[p + 1] as number);
  }
  return tables;
}
