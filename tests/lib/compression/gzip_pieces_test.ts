/** gzip data with marks, by which several threads inflate it: ours, and others' that only looks like it. */
import assert from "node:assert/strict";
import { constants, crc32, createDeflateRaw, gunzipSync } from "node:zlib";
import { decompressStream } from "../../../lib/compression/table.ts";
import {
  compress,
  decompress,
  decompressInThreads,
  inChunks,
  isCorrupt,
  join,
  randomBytes,
  same,
  walLike,
} from "./samples.ts";

const MIB = 1024 * 1024;
const EMPTY_BLOCK = Uint8Array.of(0, 0, 0, 0xff, 0xff);
/** What `compressGzip` begins with and puts between its blocks, of which the first four bytes end the block. */
const OPENING = join(EMPTY_BLOCK, EMPTY_BLOCK);
const MARK = join(EMPTY_BLOCK.subarray(1), EMPTY_BLOCK);

Deno.test("gzip: all of what is between marks is inflated by itself, and others read it as one member", async () => {
  const data = join(walLike(3 * MIB), randomBytes(2 * MIB, 3), walLike(MIB / 2));
  const packed = await compress("gzip", data, { level: 5 });
  assert.ok(same(gunzipSync(packed), data));
  assert.equal(marksIn(packed), 1 + 6);
  assert.deepEqual(await sizesOf(packed), [...Array(5).fill(MIB), MIB / 2]);
  const small = await compress("gzip", walLike(3 * MIB), { level: 5 });
  // A mark comes in three chunks.
  assert.deepEqual(await sizesOf(small, 4), [MIB, MIB, MIB]);
  // A segment of WAL has smaller ones, for less memory in a push.
  const segment = walLike(16 * MIB);
  const pushed = await compress("gzip", segment, { contentSize: segment.length });
  assert.deepEqual(await sizesOf(pushed), Array(32).fill(MIB / 2));
  // What does not get smaller gets larger.
  const noise = randomBytes(2 * MIB, 3);
  const high = noise.map((byte) => 0x90 + byte % 0x70);
  const large = await compress("gzip", join(noise, high, walLike(MIB)), { level: 1 });
  assert.deepEqual(await sizesOf(large), Array(5).fill(MIB));
  // Damage is told of the piece that has it, whose turn comes after those before.
  const damaged = packed.slice();
  const inThird = markAfter(packed, 3) - 100;
  damaged[inThird] = (damaged[inThird] ?? 0) ^ 0xff;
  let seen = 0;
  await assert.rejects(async () => {
    for await (const chunk of decompressStream("gzip", inChunks(damaged), { threads: 2 })) {
      seen += chunk.length;
    }
  }, isCorrupt("gzip"));
  assert.ok(seen >= 2 * MIB, `${seen}`);
});

Deno.test("gzip: marks that are content are none", async () => {
  const noise = (size: number, seed: number) => randomBytes(size, seed);
  // Noise is stored as it is, and a mark that is further away than a match can be, too.
  const full = join(...Array.from({ length: 12 }, (_, i) => [noise(40_000, 100 + i), MARK]).flat());
  const cases = [
    join(noise(1000, 1), MARK, noise(1000, 2)),
    join(noise(1000, 1), MARK, MARK, OPENING, MARK),
    join(OPENING, noise(5000, 3)),
    // At the end of what a block stores, with as many bytes behind it as a last block has.
    ...[0, 1, 4, 5, 6].map((behind) => join(noise(16_383 - 9 - behind, 9), MARK, noise(behind, 4))),
    full,
    join(walLike(2 * MIB), full, walLike(MIB)),
  ];
  for (const [i, data] of cases.entries()) {
    for (const level of [1, 5]) {
      const packed = await compress("gzip", data, { level });
      for (const threads of [2, 5]) {
        assert.ok(same(await decompressInThreads("gzip", packed, threads), data), `case ${i}`);
      }
    }
  }
  assert.ok(marksIn(await compress("gzip", full, { level: 5 })) > 12);
});

Deno.test("gzip: blocks of others that refer to what is before a mark come back", async () => {
  const noise = randomBytes(30_000, 8);
  const far = join(noise, walLike(100));
  // Each repeats what the one before has: by itself it can't be inflated.
  const pieces = [noise, far, noise, join(walLike(50_000), far), far];
  const packed = await foreign(pieces);
  assert.ok(packed.length < 70_000, `${packed.length}`);
  assert.ok(same(gunzipSync(packed), join(...pieces)));
  assert.ok(same(await decompressInThreads("gzip", packed, 2), join(...pieces)));

  const [a, b] = [randomBytes(1000, 1), randomBytes(1000, 2)];
  const short = await foreign([a, b, join(a, b)]);
  assert.ok(short.length < 2200, `${short.length}`);
  assert.ok(same(await decompressInThreads("gzip", short, 2), join(a, b, a, b)));
});

Deno.test("gzip: a last block may hold a mark, and what would be another last block", async () => {
  const content = join(randomBytes(100), MARK, Uint8Array.of(1, 0, 0, 0xff, 0xff));
  const last = Uint8Array.of(1, content.length, 0, 255 - content.length, 255);
  const start = Uint8Array.of(0x1f, 0x8b, 8, 0, 0, 0, 0, 0, 0, 255);
  const packed = join(start, OPENING, last, content, trailerOf(content));
  assert.ok(same(gunzipSync(packed), content));
  assert.ok(same(await decompressInThreads("gzip", packed, 2), content));
});

Deno.test("gzip: what is between marks may be nothing, or far more than we put there", async () => {
  const none = new Uint8Array(0);
  const zeros = new Uint8Array(40 * MIB);
  const noise = randomBytes(3 * MIB, 6);
  for (
    const pieces of [[none], [none, none, walLike(100), none], [zeros, walLike(100)], [noise], [
      walLike(100),
      noise,
      walLike(100),
      zeros,
    ]]
  ) {
    const packed = await foreign(pieces);
    assert.ok(same(await decompressInThreads("gzip", packed, 3), join(...pieces)));
    assert.ok((await sizesOf(packed)).every((size) => size <= MIB));
  }
});

Deno.test("gzip: members of ours and of others come back behind each other, however they are cut", async () => {
  const ours = await compress("gzip", walLike(MIB + 5), { level: 5 });
  const marked = await compress("gzip", join(randomBytes(100), MARK, randomBytes(100)));
  const theirs = await foreign([walLike(1000), walLike(1000)]);
  const packed = join(ours, theirs, marked, ours);
  const data = await decompress("gzip", packed);
  for (const size of [1, 7, 1000, 65_536, packed.length]) {
    const chunks: Uint8Array[] = [];
    const some = size === 1 ? join(theirs, marked, theirs) : packed;
    const expected = size === 1 ? await decompress("gzip", some) : data;
    for await (const chunk of decompressStream("gzip", inChunks(some, size), { threads: 2 })) {
      chunks.push(chunk);
    }
    assert.ok(same(join(...chunks), expected), `chunks of ${size}`);
  }
});

Deno.test("gzip: cut off anywhere, it is told", async () => {
  const packed = await foreign([walLike(300), randomBytes(200), walLike(300)]);
  for (let length = 0; length < packed.length; length++) {
    await assert.rejects(
      decompressInThreads("gzip", packed.subarray(0, length), 2),
      isCorrupt("gzip"),
      `${length}`,
    );
  }
});

/** A member with marks between the pieces, made by one deflater, which refers to what it had before. */
async function foreign(pieces: readonly Uint8Array[]): Promise<Uint8Array> {
  const deflater = createDeflateRaw({ level: 9 });
  const chunks = [Uint8Array.of(0x1f, 0x8b, 8, 0, 0, 0, 0, 0, 0, 255), OPENING];
  deflater.on("data", (chunk: Uint8Array) => chunks.push(chunk));
  for (const piece of pieces) {
    if (piece.length > 0) deflater.write(piece);
    await new Promise<void>((resolve) => deflater.flush(constants.Z_SYNC_FLUSH, resolve));
    chunks.push(EMPTY_BLOCK);
  }
  deflater.end();
  await new Promise((resolve) => deflater.on("end", resolve));
  return join(...chunks, trailerOf(join(...pieces)));
}

function trailerOf(data: Uint8Array): Uint8Array {
  const trailer = new DataView(new ArrayBuffer(8));
  trailer.setUint32(0, crc32(data), true);
  trailer.setUint32(4, data.length, true);
  return new Uint8Array(trailer.buffer);
}

/** Of the chunks with something in them, read with two threads. */
async function sizesOf(packed: Uint8Array, inputSize?: number): Promise<number[]> {
  const sizes: number[] = [];
  const chunks = decompressStream("gzip", inChunks(packed, inputSize), { threads: 2 });
  for await (const { length } of chunks) if (length > 0) sizes.push(length);
  return sizes;
}

function marksIn(packed: Uint8Array): number {
  let count = 0;
  for (let at = 0; (at = Buffer.from(packed).indexOf(MARK, at)) >= 0; at += MARK.length) count++;
  return count;
}

/** Where the mark with this number ends, the opening's being 0. */
function markAfter(packed: Uint8Array, number: number): number {
  let at = 0;
  for (let i = 0; i <= number; i++) at = Buffer.from(packed).indexOf(MARK, at) + MARK.length;
  return at;
}
