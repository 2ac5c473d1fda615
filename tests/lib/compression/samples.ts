/** Data for the tests of all codecs, and the way through a codec in one call. */
import {
  type CompressionName,
  type CompressOptions,
  compressStream,
  decompressStream,
} from "../../../lib/compression/table.ts";
import { CorruptDataError } from "../../../lib/compression/corrupt_data_error.ts";

const KIB = 1024;

/** Numbers that look random and are the same in every run. */
export function randomBytes(size: number, seed = 1): Uint8Array {
  const bytes = new Uint8Array(size);
  let state = seed | 1;
  for (let i = 0; i < size; i++) {
    state ^= state << 13;
    state ^= state >>> 17;
    state ^= state << 5;
    bytes[i] = state >>> 11;
  }
  return bytes;
}

/** Something like a WAL segment: pages with headers, records that resemble each other, a zero tail. */
export function walLike(size: number): Uint8Array {
  const bytes = new Uint8Array(size);
  const noise = randomBytes(64 * KIB, 7);
  const used = Math.floor(size * 0.7);
  for (let at = 0, record = 0; at + 96 < used; record++) {
    if (at % 8192 < 96) {
      bytes.set([0x18, 0xd1, 7, 0, 1, 0, 0, 0], at);
      at += 24;
    }
    const length = 40 + (noise[record % noise.length] ?? 0) % 48;
    bytes.set([length, 0, 0, 0, record & 255, (record >>> 8) & 255, 0, 0, 0x20, 0x0a], at);
    bytes.set(noise.subarray(record % 60_000, record % 60_000 + 8), at + 10);
    bytes.set(new TextEncoder().encode(`row ${record % 977} of pgbench`), at + 18);
    at += length;
  }
  return bytes;
}

export function repeated(pattern: string, size: number): Uint8Array {
  const bytes = new TextEncoder().encode(pattern);
  return Uint8Array.from({ length: size }, (_, i) => bytes[i % bytes.length] ?? 0);
}

export async function* inChunks(
  data: Uint8Array,
  size = 64 * KIB,
): AsyncGenerator<Uint8Array, void, void> {
  for (let at = 0; at < data.length; at += size) {
    yield await Promise.resolve(data.subarray(at, at + size));
  }
}

export async function collect(stream: AsyncIterable<Uint8Array>): Promise<Uint8Array> {
  const chunks: Uint8Array[] = [];
  for await (const chunk of stream) chunks.push(chunk);
  return join(...chunks);
}

export function join(...chunks: Uint8Array[]): Uint8Array {
  const whole = new Uint8Array(chunks.reduce((sum, chunk) => sum + chunk.length, 0));
  let at = 0;
  for (const chunk of chunks) {
    whole.set(chunk, at);
    at += chunk.length;
  }
  return whole;
}

export function compress(
  name: CompressionName,
  data: Uint8Array,
  options: CompressOptions = {},
): Promise<Uint8Array> {
  return collect(compressStream(name, inChunks(data), options));
}

export function decompress(
  name: CompressionName,
  data: Uint8Array,
  chunkSize?: number,
): Promise<Uint8Array> {
  return collect(decompressStream(name, inChunks(data, chunkSize)));
}

/** As `decompress`, with worker threads, whose memory is used again. */
export async function decompressInThreads(
  name: CompressionName,
  data: Uint8Array,
  threads: number,
): Promise<Uint8Array> {
  const chunks: Uint8Array[] = [];
  for await (const chunk of decompressStream(name, inChunks(data), { threads, reuse: true })) {
    chunks.push(chunk.slice());
  }
  return join(...chunks);
}

export function same(a: Uint8Array, b: Uint8Array): boolean {
  return a.length === b.length && a.every((byte, i) => byte === b[i]);
}

export function isCorrupt(name: CompressionName): (error: unknown) => boolean {
  return (error) => {
    if (!(error instanceof CorruptDataError)) throw error;
    return error.codec === name && error.message.startsWith(`Cannot decompress ${name} data: `);
  };
}

export function fromHex(hex: string): Uint8Array {
  return Uint8Array.from(hex.match(/../g) ?? [], (pair) => parseInt(pair, 16));
}

export function toHex(bytes: Uint8Array): string {
  return Array.from(bytes, (byte) => byte.toString(16).padStart(2, "0")).join("");
}
