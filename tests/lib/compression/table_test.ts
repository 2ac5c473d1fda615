import assert from "node:assert/strict";
import {
  COMPRESSION_NAMES,
  compressionLevel,
  COMPRESSIONS,
  stripSuffix,
  stripTarExtension,
} from "../../../lib/compression/table.ts";

Deno.test("compression: suffixes are known and taken off once", () => {
  assert.deepEqual(COMPRESSION_NAMES, ["gzip", "bzip2", "xz", "snappy", "zstd", "lz4"]);
  assert.deepEqual(
    COMPRESSION_NAMES.map((name) => COMPRESSIONS[name].walSuffix),
    [".gz", ".bz2", ".xz", ".snappy", ".zst", ".lz4"],
  );
  const wal = "000000010000000000000004";
  for (const name of COMPRESSION_NAMES) {
    const suffix = COMPRESSIONS[name].walSuffix;
    assert.deepEqual(stripSuffix(wal + suffix), { name: wal, compression: name });
    assert.deepEqual(stripSuffix(wal + ".partial" + suffix), {
      name: wal + ".partial",
      compression: name,
    });
    assert.deepEqual(stripSuffix(wal + ".gz" + suffix), { name: wal + ".gz", compression: name });
  }
  assert.deepEqual(stripSuffix(wal), { name: wal, compression: null });
  assert.deepEqual(stripSuffix(wal + ".GZ"), { name: wal + ".GZ", compression: null });
});

Deno.test("compression: archives of base backups", () => {
  assert.deepEqual(stripTarExtension("data.tar"), { name: "data", compression: null });
  assert.deepEqual(stripTarExtension("16384_0001.tar.bz2"), {
    name: "16384_0001",
    compression: "bzip2",
  });
  assert.deepEqual(stripTarExtension("data.tar.lz4"), { name: "data", compression: "lz4" });
  assert.equal(stripTarExtension("backup.info"), undefined);
  assert.equal(stripTarExtension("data.gz"), undefined);
});

Deno.test("compression: levels are words or numbers, and clamped", () => {
  assert.equal(compressionLevel("gzip"), 5);
  assert.equal(compressionLevel("bzip2"), 5);
  assert.equal(compressionLevel("xz", "medium"), 3);
  assert.equal(compressionLevel("xz", "high"), 5);
  assert.equal(compressionLevel("zstd", "low"), 1);
  assert.equal(compressionLevel("lz4", "low"), 0);
  assert.equal(compressionLevel("lz4", "medium"), 6);
  assert.equal(compressionLevel("lz4"), 0);
  assert.equal(compressionLevel("zstd", "medium"), 4);
  assert.equal(compressionLevel("zstd"), 3);
  assert.equal(compressionLevel("zstd", undefined, "wal"), 1);
  assert.equal(compressionLevel("zstd", "medium", "wal"), 4);
  assert.equal(compressionLevel("gzip", "medium", "wal"), 6);
  assert.equal(compressionLevel("lz4", "high"), 10);
  assert.equal(compressionLevel("gzip", 0), 1);
  assert.equal(compressionLevel("gzip", 100), 9);
  assert.equal(compressionLevel("zstd", -100), -22);
  assert.equal(compressionLevel("zstd", -5), -5);
  assert.equal(compressionLevel("lz4", 17), 16);
  assert.equal(compressionLevel("snappy", 5), undefined);
});
