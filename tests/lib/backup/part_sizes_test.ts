import assert from "node:assert/strict";
import fc from "fast-check";
import { LIMITS as GCS } from "../../../providers/gcs/limits.ts";
import { openStore } from "../../../providers/open.ts";
import {
  archiveSizes,
  DEFAULT_MAX_ARCHIVE_SIZE,
  partsFor,
  partSizeFor,
} from "../../../lib/backup/part_sizes.ts";

const MIB = 1024 ** 2;
const GIB = 1024 ** 3;
const TIB = 1024 ** 4;
const S3 = {
  maxParts: 10_000,
  minPartSize: 5 * MIB,
  maxPartSize: 5 * GIB,
  maxObjectSize: 5 * TIB,
};
const AZURE = {
  maxParts: 50_000,
  minPartSize: 1,
  maxPartSize: 4000 * MIB,
  maxObjectSize: 190 * TIB,
};

Deno.test("the defaults: half of Barman's on S3, whose parts are few and large", () => {
  assert.equal(archiveSizes("aws-s3", S3, DEFAULT_MAX_ARCHIVE_SIZE).partSize, 11_811_160);
  assert.equal(
    archiveSizes("azure-blob-storage", AZURE, DEFAULT_MAX_ARCHIVE_SIZE).partSize,
    4_294_967,
  );
});

Deno.test("a local directory takes smaller parts than S3, to need less memory", async () => {
  const { store } = await openStore("file:///nowhere", { env: {} });
  assert.equal(archiveSizes("local", store.limits, DEFAULT_MAX_ARCHIVE_SIZE).partSize, 4_294_967);
});

Deno.test("parts of Google Cloud Storage are within the limits of its multipart uploads", () => {
  // Barman's constants for it (one part of 1 TiB) would need a temporary file.
  const sizes = (archive: number, chunk?: number) =>
    archiveSizes("google-cloud-storage", GCS, archive, chunk);
  assert.equal(sizes(DEFAULT_MAX_ARCHIVE_SIZE).partSize, 11_811_160);
  assert.equal(sizes(GIB).partSize, 5 * MIB);
  assert.equal(sizes(GIB, 32 * MIB).partSize, 32 * MIB);
  assert.equal(sizes(3 * TIB).maxArchiveSize, TIB);
  const { partSize, maxArchiveSize } = sizes(TIB);
  assert(maxArchiveSize <= partSize * GCS.maxParts);
});

Deno.test("the minimum of the store, of the user, and the cap of the archive", () => {
  assert.equal(archiveSizes("aws-s3", S3, GIB).partSize, 5 * MIB);
  assert.equal(archiveSizes("aws-s3", S3, GIB, 8 * MIB).partSize, 8 * MIB);
  assert.equal(archiveSizes("aws-s3", S3, GIB, 1).partSize, 5 * MIB);
  assert.equal(archiveSizes("azure-blob-storage", AZURE, 1).partSize, 65_536);
  assert.equal(archiveSizes("aws-s3", S3, 3 * TIB).maxArchiveSize, TIB);
  assert.equal(archiveSizes("aws-s3", S3, GIB, 6 * GIB).partSize, 5 * GIB);
});

Deno.test("an archive of the maximum size fits into the parts that a store allows", () => {
  fc.assert(fc.property(
    fc.constantFrom("aws-s3" as const, "local" as const),
    fc.integer({ min: 1, max: 2 * TIB }),
    fc.option(fc.integer({ min: 1, max: GIB }), { nil: undefined }),
    (provider, size, chunk) => {
      const { maxArchiveSize, partSize } = archiveSizes(provider, S3, size, chunk);
      assert(maxArchiveSize <= size && maxArchiveSize <= TIB);
      assert(partSize >= S3.minPartSize && partSize <= S3.maxPartSize);
      assert(maxArchiveSize / partSize <= S3.maxParts);
      assert(Number.isInteger(partSize));
    },
  ));
});

Deno.test("parts are smaller for a small cluster, and never below the minimum or above the usual size", () => {
  const sizes = archiveSizes("aws-s3", S3, DEFAULT_MAX_ARCHIVE_SIZE);
  assert.equal(partSizeFor(sizes, GIB), 5 * MIB);
  assert.equal(partSizeFor(sizes, 16 * GIB), 5 * MIB);
  assert.equal(partSizeFor(sizes, TIB), sizes.partSize);
  assert.equal(partSizeFor(sizes, null), sizes.partSize);
  const large = archiveSizes("aws-s3", S3, DEFAULT_MAX_ARCHIVE_SIZE, 32 * MIB);
  assert.equal(partSizeFor(large, GIB), 32 * MIB);
  fc.assert(fc.property(fc.integer({ min: 0, max: TIB }), (bytes) => {
    const size = partSizeFor(sizes, bytes);
    assert(size >= sizes.minPartSize && size <= sizes.partSize);
    assert(size * sizes.maxParts >= Math.min(bytes, sizes.maxArchiveSize));
  }));
});

Deno.test("without --jobs two parts at once, up to six not compressed, in bounded memory", () => {
  const sizes = archiveSizes("aws-s3", S3, DEFAULT_MAX_ARCHIVE_SIZE);
  const slots = (
    provider: Parameters<typeof partsFor>[0],
    options: Partial<Parameters<typeof partsFor>[1]>,
    size: number | null = GIB,
  ) =>
    partsFor(provider, { sizes, compression: undefined, jobs: undefined, ...options }, size).slots;
  assert.equal(slots("aws-s3", {}), 6);
  assert.equal(slots("google-cloud-storage", {}), 6);
  assert.equal(slots("aws-s3", { compression: "zstd" }), 2);
  assert.equal(slots("azure-blob-storage", { compression: "lz4" }), 4);
  assert.equal(slots("local", { compression: "lz4" }), 2);
  assert.equal(slots("local", {}), 2);
  assert.equal(slots("aws-s3", { jobs: 1 }), 1);
  assert.equal(slots("aws-s3", { compression: "gzip", jobs: 9 }), 9);
  assert.equal(slots("aws-s3", {}, null), 2);
  for (let size = GIB; size < TIB; size += 10 * GIB) {
    const { slots, partSize } = partsFor("aws-s3", {
      sizes,
      compression: undefined,
      jobs: undefined,
    }, size);
    assert(slots === 2 || (slots + 1) * partSize <= 35 * MIB);
  }
});
