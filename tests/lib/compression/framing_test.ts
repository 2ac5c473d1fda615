import assert from "node:assert/strict";
import { inflateRawSync } from "node:zlib";
import { COMPRESSION_NAMES } from "../../../lib/compression/table.ts";
import { crc32c, Crc64, XxHash32, xxHash32 } from "../../../lib/compression/checksums.ts";
import { Arena } from "../../../lib/compression/arena.ts";
import { suffixArray } from "../../../lib/compression/suffix_array.ts";
import { compress, decompress, join, randomBytes, same, toHex, walLike } from "./samples.ts";

const data = walLike(300_000);

Deno.test("gzip: Barman's header, one member, whatever the number of blocks", async () => {
  const modifiedAt = new Date("2026-01-15T10:30:01Z");
  for (const concurrency of [1, 3]) {
    const big = walLike(3_000_000);
    const packed = await compress("gzip", big, { concurrency, modifiedAt });
    assert.equal(toHex(packed.subarray(0, 10)), "1f8b0800a9c1686900ff");
    assert.ok(same(inflateRawSync(packed.subarray(10, -8)), big));
  }
  assert.equal((await compress("gzip", data, { level: 9 }))[8], 2);
  assert.equal((await compress("gzip", data, { level: 1 }))[8], 4);
});

Deno.test("bzip2, xz, zstd: Barman's headers", async () => {
  assert.equal(toHex((await compress("bzip2", data)).subarray(0, 10)), "425a6835314159265359");
  assert.equal(toHex((await compress("bzip2", data, { level: 9 })).subarray(0, 4)), "425a6839");
  assert.equal(toHex((await compress("xz", data)).subarray(0, 8)), "fd377a585a000004");
  // Its window is 1 MiB, Barman's 2.
  assert.equal(toHex((await compress("zstd", data)).subarray(0, 6)), "28b52ffd0050");
  assert.equal(toHex((await compress("zstd", data, { level: 4 })).subarray(0, 6)), "28b52ffd0058");
});

Deno.test("lz4: linked blocks of 64 KiB, content size where known, no checksums", async () => {
  const sized = await compress("lz4", walLike(16 * 1024 * 1024), { contentSize: 16 * 1024 * 1024 });
  assert.equal(toHex(sized.subarray(0, 14)), "04224d18484000000001000000007e".slice(0, 28));
  assert.equal(toHex(sized.subarray(-4)), "00000000");
  assert.equal(toHex((await compress("lz4", data)).subarray(0, 7)), "04224d18404" + "0c0");
  // A repeat of more than one block away shows that blocks are linked.
  const random = randomBytes(60_000);
  const twice = await compress("lz4", join(random, random));
  assert.ok(twice.length < 62_000, `${twice.length} bytes`);
});

Deno.test("snappy: identifier, compressed and raw chunks with masked CRC-32C", async () => {
  const packed = await compress("snappy", join(new Uint8Array(65536), randomBytes(100)));
  assert.equal(toHex(packed.subarray(0, 11)), "ff060000734e6150705900");
  const raw = packed.subarray(-108);
  assert.equal(toHex(raw.subarray(0, 4)), "01680000");
  const crc = crc32c(randomBytes(100));
  const masked = ((crc >>> 15 | crc << 17) + 0xa282ead8) >>> 0;
  assert.equal(new DataView(raw.slice(4, 8).buffer).getUint32(0, true), masked);
  assert.equal(toHex(await compress("snappy", new Uint8Array(0))), "ff060000734e61507059");
  assert.equal((await decompress("snappy", new Uint8Array(0))).length, 0);
});

Deno.test("compression: what is known from one stream is not carried into the next", async () => {
  for (const name of COMPRESSION_NAMES) {
    const modifiedAt = new Date(0);
    const [a, b] = await Promise.all([
      compress(name, data, { modifiedAt }),
      compress(name, data, { modifiedAt }),
    ]);
    assert.deepEqual(a, b);
  }
});

Deno.test("checksums: the check values of their definitions", () => {
  const digits = new TextEncoder().encode("123456789");
  assert.equal(crc32c(digits), 0xe3069283);
  assert.equal(crc32c(digits.subarray(3), crc32c(digits.subarray(0, 3))), 0xe3069283);
  assert.equal(crc32c(new Uint8Array(32)), 0x8a9136aa);
  assert.equal(xxHash32(digits), 0x937bad67);
  assert.equal(xxHash32(new Uint8Array(0)), 0x02cc5d05);
  const crc64 = new Crc64();
  crc64.update(digits.subarray(0, 5));
  crc64.update(digits.subarray(5));
  assert.equal(toHex(crc64.digest().reverse()), "995dc9bbdf1939fa");
  const text = randomBytes(1000);
  for (const cut of [0, 1, 15, 16, 17, 500, 999]) {
    const hash = new XxHash32();
    hash.update(text.subarray(0, cut));
    hash.update(text.subarray(cut));
    assert.equal(hash.digest(), xxHash32(text));
  }
});

Deno.test("suffix array: as sorting says", () => {
  const random = randomBytes(40_000, 11);
  // One is too small for some, and what it gives holds what was there before.
  const arena = new Arena(2000);
  for (let round = 0, at = 0; round < 400; round++) {
    const size = 1 + (random[at++] ?? 0) % 60;
    const kinds = 1 + (random[at++] ?? 0) % 4;
    const text = random.slice(at, at + size).map((byte) => byte % kinds);
    at += size;
    const strings = Array.from(text, (_, i) => String.fromCharCode(...text.subarray(i)));
    const expected = Array.from(strings.keys())
      .sort((a, b) => (strings[a] ?? "") < (strings[b] ?? "") ? -1 : 1);
    arena.release(0);
    assert.deepEqual([...suffixArray(text, text.length, 256, arena)], expected);
  }
});
