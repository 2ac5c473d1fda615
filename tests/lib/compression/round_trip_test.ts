import assert from "node:assert/strict";
import fc from "fast-check";
import {
  COMPRESSION_NAMES,
  COMPRESSIONS,
  compressStream,
  decompressStream,
} from "../../../lib/compression/table.ts";
import {
  collect,
  compress,
  decompress,
  inChunks,
  join,
  randomBytes,
  repeated,
  same,
  walLike,
} from "./samples.ts";

const KIB = 1024;
const MIB = 1024 * KIB;

for (const name of COMPRESSION_NAMES) {
  Deno.test(`${name}: sizes around the borders of blocks come back`, async () => {
    const sizes = [0, 1, 2, 3, 4, 5, 12, 13, 14, 255, 256, 300]
      .concat([65535, 65536, 65537, 131072, 512 * KIB - 1, 512 * KIB, 512 * KIB + 1])
      .concat([MIB - 1, MIB, MIB + 1, 499_981, 499_982, 500_000]);
    for (const size of sizes) {
      const kinds = [walLike(size), randomBytes(size), new Uint8Array(size)];
      for (const data of size < 200_000 ? kinds : kinds.slice(0, 1)) {
        const packed = await compress(name, data, { contentSize: size });
        assert.ok(same(await decompress(name, packed), data), `${size} bytes`);
      }
    }
  });

  Deno.test(`${name}: memory that is used again holds the right bytes until the next is asked for`, async () => {
    const data = join(walLike(3 * MIB), randomBytes(MIB), walLike(MIB));
    for (const packed of [await compress(name, data), await compress(name, walLike(1000))]) {
      const expected = await decompress(name, packed);
      for (const threads of [0, 2]) {
        const content = decompressStream(name, inChunks(packed), { reuse: true, threads });
        assert.ok(same(await collectCopies(content), expected));
      }
    }
    const packing = compressStream(name, inChunks(data), { reuse: true });
    assert.ok(same(await decompress(name, await collectCopies(packing)), data));
  });

  Deno.test(`${name}: data that is hard for one stage or another comes back`, async () => {
    const samples = [
      repeated("\0\0\0\0\u007f", 1_200_000),
      repeated("ab", 600_001),
      repeated("abcdefgh".repeat(40) + "!", 400_000),
      join(new Uint8Array(259), Uint8Array.of(1), new Uint8Array(260), new Uint8Array(3).fill(9)),
      join(randomBytes(70_000), walLike(70_000), randomBytes(70_000)),
      join(randomBytes(40_000, 3), randomBytes(100_000, 5), randomBytes(40_000, 3)),
      Uint8Array.from({ length: 300_000 }, (_, i) => Math.clz32(i)),
      // Runs of all lengths around those that bzip2 counts.
      join(...Array.from({ length: 520 }, (_, i) => new Uint8Array(i).fill(i & 1))),
      fibonacciWord(400_000),
    ];
    for (const [i, data] of samples.entries()) {
      assert.ok(same(await decompress(name, await compress(name, data)), data), `sample ${i}`);
    }
  });

  Deno.test(`${name}: all levels`, async () => {
    const data = join(walLike(150_000), randomBytes(1000));
    const levels = COMPRESSIONS[name].levels;
    for (let level = levels?.min ?? 0; level <= (levels?.max ?? 0); level++) {
      const packed = await compress(name, data, { level });
      assert.ok(packed.length < data.length / 2, `level ${level}: ${packed.length}`);
      assert.ok(same(await decompress(name, packed), data), `level ${level}`);
    }
  });

  Deno.test(`${name}: a 16 MiB segment becomes small and comes back`, async () => {
    const data = walLike(16 * MIB);
    const packed = await compress(name, data, { contentSize: data.length });
    assert.ok(packed.length < data.length / 2, `${packed.length} bytes`);
    assert.ok(same(await decompress(name, packed), data));
  });

  Deno.test(`${name}: nothing is lost when concurrency is asked for`, async () => {
    const data = join(walLike(2_000_000), randomBytes(3_000_000), walLike(1_000_000));
    const packed = await compress(name, data, { concurrency: 4 });
    assert.ok(same(await decompress(name, packed), data));
  });

  Deno.test(`${name}: any data, in any chunks`, async () => {
    const piece = fc.oneof(
      fc.uint8Array({ maxLength: 300 }),
      fc.tuple(fc.uint8Array({ minLength: 1, maxLength: 9 }), fc.nat(3000)).map(
        ([pattern, size]) =>
          Uint8Array.from({ length: size }, (_, i) => pattern[i % pattern.length] ?? 0),
      ),
      fc.tuple(fc.nat(70_000), fc.nat()).map(([size, seed]) => randomBytes(size, seed)),
    );
    const sizes = fc.integer({ min: 1, max: 100_000 });
    await fc.assert(
      fc.asyncProperty(fc.array(piece, { maxLength: 8 }), sizes, sizes, async (pieces, a, b) => {
        const data = join(...pieces);
        const packed = await collect(compressStream(name, inChunks(data, a)));
        assert.ok(same(await decompress(name, packed, b), data));
      }),
      { numRuns: 25 },
    );
  });

  Deno.test(`${name}: one byte at a time`, async () => {
    const data = walLike(5000);
    const packed = await collect(compressStream(name, inChunks(data, 1)));
    assert.ok(same(await decompress(name, packed, 1), data));
  });

  Deno.test(`${name}: reads no further than the consumer, and tells the source when it stops`, async () => {
    let read = 0;
    let closed = 0;
    async function* endless() {
      try {
        for (;;) {
          read += MIB;
          yield await Promise.resolve(randomBytes(MIB, read));
        }
      } finally {
        closed++;
      }
    }
    let written = 0;
    for await (const chunk of compressStream(name, endless(), { concurrency: 2 })) {
      written += chunk.length;
      if (written > 3 * MIB || read > 40 * MIB) break;
    }
    assert.ok(read <= 12 * MIB, `${read} bytes read for ${written} written`);
    assert.equal(closed, 1);

    const packed = await compress(name, randomBytes(4 * MIB));
    async function* source() {
      try {
        yield* inChunks(packed);
      } finally {
        closed++;
      }
    }
    for await (const chunk of decompressStream(name, source())) {
      assert.ok(chunk.length > 0);
      break;
    }
    assert.equal(closed, 2);
  });

  Deno.test(`${name}: an aborted signal ends it with the signal's reason`, async () => {
    const reason = new Error("interrupted by the test");
    async function* hanging(first: Uint8Array) {
      yield first;
      await new Promise(() => undefined);
    }
    const packed = await compress(name, randomBytes(200_000));
    const streams = [
      (signal: AbortSignal) => compressStream(name, hanging(randomBytes(200_000)), { signal }),
      (signal: AbortSignal) => decompressStream(name, hanging(packed.subarray(0, 500)), { signal }),
    ];
    for (const stream of streams) {
      const controller = new AbortController();
      const timer = setTimeout(() => controller.abort(reason), 20);
      await assert.rejects(collect(stream(controller.signal)), (error) => error === reason);
      clearTimeout(timer);
      await assert.rejects(collect(stream(controller.signal)), (error) => error === reason);
    }
  });

  Deno.test(`${name}: what the source throws comes out unchanged`, async () => {
    const failure = new Error("disk on fire");
    async function* failing(first: Uint8Array) {
      yield await Promise.resolve(first);
      throw failure;
    }
    const packed = await compress(name, randomBytes(200_000));
    await assert.rejects(
      collect(compressStream(name, failing(randomBytes(100_000)))),
      (error) => error === failure,
    );
    await assert.rejects(
      collect(decompressStream(name, failing(packed.subarray(0, 100_000)))),
      (error) => error === failure,
    );
  });

  Deno.test(`${name}: a source that is not as long as it was said to be is an error`, async () => {
    for (const size of [99, 101]) {
      await assert.rejects(compress(name, walLike(100), { contentSize: size }), RangeError);
    }
  });
}

/** The longest repeats that a text without periods can have: the worst case for sorting. */
function fibonacciWord(size: number): Uint8Array {
  let a = "b";
  let b = "a";
  while (b.length < size) [a, b] = [b, b + a];
  return new TextEncoder().encode(b.slice(0, size));
}

for (const name of ["gzip", "zstd"] as const) {
  Deno.test(`${name}: memory of chunks that are used up is freed at once, if they may be taken away`, async () => {
    const data = randomBytes(6 * MIB);
    const packed = await compress(name, data);
    for (const reuse of [true, false]) {
      const packing = compressStream(name, inChunks(data), { reuse });
      assert.equal(await anyTakenAway(packing), reuse, "compressed");
      for (const threads of [0, 2]) {
        const content = decompressStream(name, inChunks(packed), { reuse, threads });
        assert.equal(await anyTakenAway(content), reuse, `${threads} threads`);
      }
    }
  });
}

async function collectCopies(stream: AsyncIterable<Uint8Array>): Promise<Uint8Array> {
  const copies: Uint8Array[] = [];
  for await (const chunk of stream) copies.push(new Uint8Array(chunk));
  return join(...copies);
}

/** Whether a chunk had nothing in it any more when the next came. */
async function anyTakenAway(stream: AsyncIterable<Uint8Array>): Promise<boolean> {
  const chunks: Uint8Array[] = [];
  for await (const chunk of stream) if (chunk.length > 0) chunks.push(chunk);
  return chunks.some(({ length }) => length === 0);
}
