import assert from "node:assert/strict";
import { COMPRESSION_NAMES, type CompressionName } from "../../../lib/compression/table.ts";
import { CorruptDataError } from "../../../lib/compression/corrupt_data_error.ts";
import { compress, decompress, isCorrupt, join, randomBytes, same, walLike } from "./samples.ts";

/** Ends of a stream at which what comes before is a stream of its own. */
const WHOLE: Readonly<Partial<Record<CompressionName, (size: number) => boolean>>> = {
  snappy: (size) => size === 0 || size === 10,
};

for (const name of COMPRESSION_NAMES) {
  Deno.test(`${name}: cut off at any byte is an error`, async () => {
    const packed = await compress(name, join(walLike(1500), randomBytes(100)), {
      contentSize: 1600,
    });
    for (let size = 0; size < packed.length; size++) {
      if (WHOLE[name]?.(size)) continue;
      await assert.rejects(
        decompress(name, packed.subarray(0, size)),
        isCorrupt(name),
        `${size} of ${packed.length} bytes`,
      );
    }
  });

  Deno.test(`${name}: cut off in the middle of a large stream is an error`, async () => {
    const packed = await compress(name, join(walLike(700_000), randomBytes(700_000)));
    for (const size of [9, 1000, 65_536, packed.length >>> 1, packed.length - 1]) {
      await assert.rejects(decompress(name, packed.subarray(0, size)), isCorrupt(name));
    }
  });

  Deno.test(`${name}: several streams in a row are read as one`, async () => {
    const parts = [walLike(70_000), new Uint8Array(0), randomBytes(70_000), walLike(10)];
    const packed = await Promise.all(parts.map((part) => compress(name, part)));
    for (const chunk of [7, 4096, 1_000_000]) {
      assert.ok(same(await decompress(name, join(...packed), chunk), join(...parts)));
    }
    await assert.rejects(
      decompress(name, join(...packed).subarray(0, -1)),
      isCorrupt(name),
    );
  });

  Deno.test(`${name}: what follows the end, or is nothing of the kind, is an error`, async () => {
    const packed = await compress(name, walLike(5000));
    for (const text of ["garbage", "g", "\0", "\0\0\0\u0001", "\x1f\x8b"]) {
      const garbage = new TextEncoder().encode(text);
      for (const chunk of [1, 1_000_000]) {
        await assert.rejects(decompress(name, join(packed, garbage), chunk), isCorrupt(name));
      }
      await assert.rejects(decompress(name, garbage), isCorrupt(name));
    }
    await assert.rejects(decompress(name, walLike(1000)), isCorrupt(name));
  });

  Deno.test(`${name}: damaged data is told as such and nothing else happens`, async () => {
    const original = join(walLike(4000), randomBytes(300), walLike(2000));
    const packed = await compress(name, original, { contentSize: original.length });
    const random = randomBytes(200_000, 23);
    let at = 0;
    const next = (below: number) => {
      const value = ((random[at++] ?? 0) << 16) | ((random[at++] ?? 0) << 8) | (random[at++] ?? 0);
      return value % below;
    };
    let told = 0;
    for (let round = 0; round < 600; round++) {
      const damaged = packed.slice();
      for (let changes = 1 + next(3); changes > 0; changes--) {
        // Every other round near the front, where headers and tables are.
        const where = next(round % 2 === 0 ? damaged.length : Math.min(60, damaged.length));
        damaged[where] = (damaged[where] ?? 0) ^ (1 << next(8));
      }
      try {
        await decompress(name, damaged);
      } catch (error) {
        assert.ok(error instanceof CorruptDataError, `round ${round}: ${error}`);
        told++;
      }
    }
    assert.ok(told > 300, `${told} of 600`);
  });
}

Deno.test("compression: a changed byte of the content does not pass where there is a check", async () => {
  // zstd and LZ4 as Barman writes them have none.
  for (const name of ["gzip", "bzip2", "xz", "snappy"] as const) {
    const original = randomBytes(3000);
    const packed = await compress(name, original);
    for (let at = 0; at < packed.length; at += 7) {
      const damaged = packed.slice();
      damaged[at] = (damaged[at] ?? 0) ^ 16;
      let result: Uint8Array;
      try {
        result = await decompress(name, damaged);
      } catch (error) {
        assert.ok(error instanceof CorruptDataError, `${name}, byte ${at}: ${error}`);
        continue;
      }
      // Only what is not content may change unseen: gzip's time, for one.
      assert.ok(same(result, original), `${name}, byte ${at}`);
    }
  }
});
