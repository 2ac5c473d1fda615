import assert from "node:assert/strict";
import { COMPRESSION_NAMES, compressStream } from "../../../lib/compression/table.ts";
import { collect, decompress, inChunks, join, randomBytes, same, walLike } from "./samples.ts";

/** bzip2's blocks at level 1 are smaller, those of the others at most this large. */
const PIECE = 512 * 1024;
const MIB = 1024 * 1024;

for (const name of COMPRESSION_NAMES) {
  Deno.test(`${name}: with worker threads the same bytes come as without`, async () => {
    // Several batches of zstd's, too; bzip2 would take long.
    const large = name === "zstd" ? [20 * PIECE + 1] : [];
    for (const size of [0, 1, 100_000, PIECE, PIECE + 1, 3 * PIECE + 12_345, ...large]) {
      const data = join(walLike(Math.floor(size / 2)), randomBytes(Math.ceil(size / 2)));
      const options = { level: 1, modifiedAt: new Date(0) };
      const alone = await collect(compressStream(name, inChunks(data, 300_000), options));
      for (const concurrency of [2, 3]) {
        const packed = await collect(
          compressStream(name, inChunks(data, 65_536), { ...options, concurrency }),
        );
        assert.ok(same(await decompress(name, packed), data), `${size} bytes by ${concurrency}`);
        // zstd's blocks end where its input's do.
        if (name !== "zstd") assert.ok(same(packed, alone), `${size} bytes differ`);
      }
    }
  });
}

Deno.test("streams one after the other and at the same time keep out of each other's memory", async () => {
  for (const name of ["zstd", "lz4"] as const) {
    const texts = [1, 2, 3, 4].map((seed) => join(walLike(5 * MIB), randomBytes(3 * MIB, seed)));
    const roundTrip = async (data: Uint8Array, concurrency: number) => {
      const packed = compressStream(name, inChunks(data, 300_000), { level: 1, concurrency });
      assert.ok(same(await decompress(name, await collect(packed)), data));
    };
    for (const concurrency of [1, 2]) {
      await roundTrip(texts[0] ?? new Uint8Array(0), concurrency);
      await Promise.all(texts.map((text) => roundTrip(text, concurrency)));
    }
  }
});

Deno.test("worker threads end when the reader, the source or the signal does", async () => {
  const data = walLike(4 * MIB);
  const options = { level: 1, concurrency: 2 };
  for await (const _ of compressStream("bzip2", inChunks(data, MIB), options)) break;

  const broken = async function* () {
    yield data;
    await Promise.resolve();
    throw new Error("the disk is gone");
  };
  await assert.rejects(collect(compressStream("lz4", broken(), options)), /the disk is gone/);

  const controller = new AbortController();
  const hanging = async function* () {
    yield data;
    setTimeout(() => controller.abort(new Error("enough")), 10);
    await new Promise<void>((resolve) =>
      controller.signal.addEventListener("abort", () => resolve())
    );
    yield data;
  };
  const { signal } = controller;
  await assert.rejects(
    collect(compressStream("snappy", hanging(), { ...options, signal })),
    /enough/,
  );
});
