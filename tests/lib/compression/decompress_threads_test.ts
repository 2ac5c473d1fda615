import assert from "node:assert/strict";
import {
  BitReader,
  BlockMemory,
  decodeBzip2Block,
} from "../../../lib/compression/bzip2_decoder.ts";
import { BitWriter } from "../../../lib/compression/bzip2_encoder.ts";
import { type CompressionName, decompressStream } from "../../../lib/compression/table.ts";
import {
  compress,
  decompress,
  decompressInThreads,
  inChunks,
  isCorrupt,
  join,
  randomBytes,
  repeated,
  same,
  walLike,
} from "./samples.ts";

const MIB = 1024 * 1024;
/** All but zstd, which the runtime decompresses in one thread of its own. */
const THREADED = ["bzip2", "gzip", "xz", "snappy", "lz4"] as const;
/** So that it is long enough for a thread. */
const LARGE = join(walLike(3 * MIB), randomBytes(3 * MIB, 5), walLike(MIB));
/** Bytes of a block besides its symbols, at most: each 50 have a selector of one bit. */
const SPACE = 4096;
const packed = new Map<CompressionName, Uint8Array>();

async function packedLarge(name: CompressionName): Promise<Uint8Array> {
  const bytes = packed.get(name) ??
    await compress(name, LARGE, { level: 1, contentChecksum: true });
  packed.set(name, bytes);
  return bytes;
}

for (const name of THREADED) {
  Deno.test(`${name}: with threads the same bytes come back, from several streams in a row, too`, async () => {
    const large = await packedLarge(name);
    const small = await compress(name, walLike(1000), { level: 1 });
    const empty = await compress(name, new Uint8Array(0), { level: 1 });
    for (const threads of [1, 2, 3]) {
      assert.ok(same(await decompressInThreads(name, large, threads), LARGE), `${threads} threads`);
    }
    const streams = join(small, empty, large, empty, small);
    const whole = join(walLike(1000), LARGE, walLike(1000));
    assert.ok(same(await decompressInThreads(name, streams, 2), whole));
    assert.ok(same(await decompressInThreads(name, small, 2), walLike(1000)));
    assert.equal((await decompressInThreads(name, empty, 2)).length, 0);
  });

  Deno.test(`${name}: with threads, what is damaged, cut off or followed by garbage is told as without`, async () => {
    const large = await packedLarge(name);
    const damaged = large.slice();
    const middle = damaged.length >>> 1;
    damaged[middle] = (damaged[middle] ?? 0) ^ 0x10;
    const bad = [
      large.subarray(0, large.length - 1),
      large.subarray(0, 2 * MIB),
      join(large, randomBytes(100)),
      damaged,
    ];
    for (const bytes of bad) {
      const told = async (threads: number) => {
        try {
          await decompressInThreads(name, bytes, threads);
        } catch (error) {
          assert.ok(isCorrupt(name)(error));
          return (error as Error).message;
        }
        return assert.fail("nothing was told");
      };
      assert.equal(await told(2), await told(0));
    }
  });

  Deno.test(`${name}: threads end when the reader, the source or the signal does`, async () => {
    const large = await packedLarge(name);
    let closed = false;
    const watched = async function* () {
      try {
        yield* inChunks(large);
      } finally {
        closed = true;
      }
    };
    for await (const _ of decompressStream(name, watched(), { threads: 2 })) break;
    assert.ok(closed);

    const broken = async function* () {
      yield large.subarray(0, 2 * MIB);
      await Promise.resolve();
      throw new Error("the store is gone");
    };
    await assert.rejects(async () => {
      for await (const _ of decompressStream(name, broken(), { threads: 2 }));
    }, /^Error: the store is gone$/);

    const controller = new AbortController();
    const { signal } = controller;
    const hanging = async function* () {
      yield large.subarray(0, 2 * MIB);
      setTimeout(() => controller.abort(new Error("enough")), 10);
      await new Promise<void>((resolve) => signal.addEventListener("abort", () => resolve()));
    };
    await assert.rejects(async () => {
      for await (const _ of decompressStream(name, hanging(), { threads: 2, signal }));
    }, /^Error: enough$/);
  });
}

Deno.test("bzip2: blocks that expand to many times their size come back with threads", async () => {
  const data = join(new Uint8Array(90 * MIB), repeated("ab", 1000), new Uint8Array(70 * MIB));
  const bytes = await compress("bzip2", data, { level: 9 });
  assert.ok(same(await decompressInThreads("bzip2", bytes, 2), data));
});

Deno.test("bzip2: what looks like a block's beginning or a stream's end inside a block is neither", async () => {
  const first = blockThatLooksLikeMarks(0);
  const second = blockThatLooksLikeMarks(3);
  for (const blocks of [[first], [first, second], [second, first, second]]) {
    const stream = streamOf(blocks);
    const expected = join(...blocks.map(({ content }) => content));
    assert.ok(same(await decompress("bzip2", stream), expected));
    assert.ok(same(await decompress("bzip2", join(stream, stream), 7), join(expected, expected)));
    const long = join(await packedLarge("bzip2"), stream);
    assert.ok(same(await decompressInThreads("bzip2", long, 2), join(LARGE, expected)));
  }
});

Deno.test("bzip2: a block full of what looks like blocks is read like any other", async () => {
  // With each copied, with all that may belong to it, and decoded, this took ten times as long.
  const marks = Array.from({ length: 100_000 }, () => [0x31, 0x41, 0x59, 0x26, 0x53, 0x59]).flat();
  const block = blockOf(Uint8Array.from(marks));
  const stream = streamOf([block]);
  assert.ok(same(await decompress("bzip2", stream), block.content));
  const long = join(await packedLarge("bzip2"), stream);
  assert.ok(same(await decompressInThreads("bzip2", long, 2), join(LARGE, block.content)));
});

interface Block {
  readonly content: Uint8Array;
  readonly crc: number;
  /** Symbols of eight bits each. */
  readonly symbols: Uint8Array;
}

/** All codes have eight bits, so that the data of the block can be anything but the end's 255. */
function blockThatLooksLikeMarks(shift: number): Block {
  const marks = Uint8Array.of(
    ...[0x31, 0x41, 0x59, 0x26, 0x53, 0x59, 9, 9, 9, 9, 9, 9],
    ...[0x17, 0x72, 0x45, 0x38, 0x50, 0x90, 8, 8, 8, 8, 8, 8],
  );
  const noise = randomBytes(4000, 77).map((byte) => 2 + byte % 250);
  return blockOf(join(noise.subarray(shift, 2000), marks, noise.subarray(2000), marks));
}

function blockOf(symbols: Uint8Array): Block {
  const bits = new BitWriter(new Uint8Array(symbols.length + SPACE));
  writeBody(bits, symbols);
  const coded = decodeBzip2Block(new BitReader(bits.finish().bytes, 0), new BlockMemory());
  const content = withoutRuns(coded);
  return { content, crc: crcOf(content), symbols };
}

/** Four equal bytes are followed by the number of more. */
function withoutRuns(coded: Uint8Array): Uint8Array {
  const content: number[] = [];
  let same = 0;
  for (let i = 0; i < coded.length; i++) {
    const byte = coded[i] ?? 0;
    same = i > 0 && same > 0 && byte === content.at(-1) ? same + 1 : 1;
    content.push(byte);
    if (same < 4) continue;
    for (let more = coded[++i] ?? 0; more > 0; more--) content.push(byte);
    same = 0;
  }
  return Uint8Array.from(content);
}

function streamOf(blocks: readonly Block[]): Uint8Array {
  const size = blocks.reduce((sum, { symbols }) => sum + symbols.length + SPACE, 0);
  const bits = new BitWriter(new Uint8Array(size));
  for (const byte of [0x42, 0x5a, 0x68, 0x39]) bits.put(8, byte);
  let combined = 0;
  for (const { symbols, crc } of blocks) {
    putNumbers(bits, [0x314159, 0x265359], crc);
    combined = ((combined << 1) | (combined >>> 31)) ^ crc;
    writeBody(bits, symbols);
  }
  putNumbers(bits, [0x177245, 0x385090], combined);
  return bits.finish().bytes;
}

function putNumbers(bits: BitWriter, magic: readonly number[], crc: number): void {
  for (const half of magic) bits.put(24, half);
  bits.put(16, crc >>> 16);
  bits.put(16, crc & 0xffff);
}

/** A block from behind its CRC: 254 bytes used, two tables that are the same, the first of them selected. */
function writeBody(bits: BitWriter, symbols: Uint8Array): void {
  const groups = Math.ceil((symbols.length + 1) / 50);
  bits.put(1, 0);
  bits.put(24, 0);
  bits.put(16, 0xffff);
  for (let row = 0; row < 16; row++) bits.put(16, row === 15 ? 0xfffc : 0xffff);
  bits.put(3, 2);
  bits.put(15, groups);
  for (let group = 0; group < groups; group++) bits.put(1, 0);
  for (let table = 0; table < 2; table++) {
    bits.put(5, 8);
    for (let symbol = 0; symbol < 256; symbol++) bits.put(1, 0);
  }
  for (const symbol of symbols) bits.put(8, symbol);
  bits.put(8, 255);
}

/** bzip2's, bit by bit. */
function crcOf(bytes: Uint8Array): number {
  let crc = -1;
  for (const byte of bytes) {
    crc ^= byte << 24;
    for (let bit = 0; bit < 8; bit++) crc = crc < 0 ? (crc << 1) ^ 0x04c11db7 : crc << 1;
  }
  return ~crc;
}
