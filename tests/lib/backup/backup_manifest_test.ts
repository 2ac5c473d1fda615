import assert from "node:assert/strict";
import { Buffer } from "node:buffer";
import { createHash } from "node:crypto";
import fc from "fast-check";
import {
  contentSum,
  MalformedManifest,
  type ManifestFile,
  ManifestText,
  readManifest,
} from "../../../lib/backup/backup_manifest.ts";
import { PiecewiseObject } from "../../../lib/backup/piecewise_object.ts";
import { decodeName } from "../../../lib/tar/format.ts";
import { withCounting } from "../../../providers/counting.ts";
import { temporaryStore } from "./temporary_store.ts";

const RANGE = { timeline: 3, start: 0x2_0000_0028n, end: 0x2_0100_0138n };

function textOf(files: readonly ManifestFile[], version: 1 | 2 = 2): string {
  const text = new ManifestText();
  return text.begin(version, "7321456789012345678") +
    files.map((file) => text.file(file)).join("") + text.end([RANGE]);
}

async function* inPieces(text: string, size: number): AsyncGenerator<Uint8Array> {
  const bytes = Buffer.from(text);
  const chunk = Buffer.alloc(size);
  for (let at = 0; at < bytes.length; at += size) {
    const length = bytes.copy(chunk, 0, at, at + size);
    yield chunk.subarray(0, length);
    chunk.fill(0xff);
  }
}

async function read(text: string, pieces = 1000) {
  const files: Omit<ManifestFile, "mtime">[] = [];
  const facts = await readManifest(inPieces(text, pieces), (file) => files.push(file));
  return { facts, files };
}

const SUM = { algorithm: "sha256", value: "ab".repeat(32) };
const FILE: ManifestFile = {
  path: "base/5/1",
  size: 8192,
  mtime: 1795378770n * 10n ** 9n,
  checksum: SUM,
};

Deno.test("the text is that of PostgreSQL's documentation", () => {
  const odd = decodeName(Buffer.from([0x61, 0xff]));
  const text = textOf([FILE, { ...FILE, path: odd, checksum: null }], 1);
  const before = `{ "PostgreSQL-Backup-Manifest-Version": 1,
"Files": [
{ "Path": "base/5/1", "Size": 8192, "Last-Modified": "2026-11-22 20:19:30 GMT", "Checksum-Algorithm": "SHA256", "Checksum": "${SUM.value}" },
{ "Encoded-Path": "61ff", "Size": 8192, "Last-Modified": "2026-11-22 20:19:30 GMT" }
],
"WAL-Ranges": [
{ "Timeline": 3, "Start-LSN": "2/28", "End-LSN": "2/1000138" }
],
`;
  const sum = createHash("sha256").update(before).digest("hex");
  assert.equal(text, `${before}"Manifest-Checksum": "${sum}"}\n`);
  const document = JSON.parse(textOf([FILE]));
  assert.equal(document["PostgreSQL-Backup-Manifest-Version"], 2);
  assert.deepEqual(JSON.parse(textOf([])).Files, []);
});

Deno.test("what is written is read back, whatever the names and the pieces", async () => {
  const name = fc.uint8Array({ minLength: 1, maxLength: 30 }).map((bytes) =>
    decodeName(bytes.map((byte) => byte === 0 ? 1 : byte))
  );
  const file = fc.record({
    path: name,
    size: fc.maxSafeNat(),
    mtime: fc.bigInt({ min: 0n, max: 4n * 10n ** 18n }),
    checksum: fc.constantFrom(null, SUM, { algorithm: "crc32c", value: "0a1b2c3d" }),
  });
  await fc.assert(
    fc.asyncProperty(
      fc.array(file, { maxLength: 20 }),
      fc.integer({ min: 1, max: 500 }),
      async (files, size) => {
        const result = await read(textOf(files), size);
        const expected = files.map(({ path, size, checksum }) => ({ path, size, checksum }));
        assert.deepEqual(result.files, expected);
        assert.deepEqual(result.facts, {
          version: 2,
          systemIdentifier: "7321456789012345678",
          files: files.length,
          ranges: [RANGE],
        });
      },
    ),
    { numRuns: 100 },
  );
});

Deno.test("any change of a manifest is noticed", async () => {
  const text = textOf([FILE, { ...FILE, path: "base/5/2" }]);
  for (let at = 0; at < text.length; at++) {
    const other = text[at] === "1" ? "2" : "1";
    const changed = text.slice(0, at) + other + text.slice(at + 1);
    await assert.rejects(read(changed), MalformedManifest, `at ${at}`);
    await assert.rejects(read(text.slice(0, at)), MalformedManifest, `cut at ${at}`);
  }
  await assert.rejects(read(`${text}\n`), /follows the end/);
  await assert.rejects(read("x".repeat(100_000)), /a line that is too long/);
  await assert.rejects(read(`${"x".repeat(100_000)}\n`, 200_000), /a line that is too long/);
});

Deno.test("sums of contents: SHA-2 and CRC-32C, the latter in the byte order that the server writes", () => {
  const sum = (algorithm: string) => {
    const content = contentSum(algorithm);
    content?.update(Buffer.from("12345"));
    content?.update(Buffer.from("6789"));
    return content?.digest().value;
  };
  assert.equal(sum("sha256"), createHash("sha256").update("123456789").digest("hex"));
  // The check value of CRC-32C is e3069283.
  assert.equal(sum("crc32c"), "839206e3");
  assert.equal(contentSum("md5"), null);
});

Deno.test("an object written in pieces: one request when it is small, bounded parts when it is large", async () => {
  await using temporary = await temporaryStore();
  const signal = new AbortController().signal;
  const line = `${"x".repeat(999)}\n`;
  for (const lines of [0, 1, 100, 5242, 5243, 20_000]) {
    const { store, counts } = withCounting(temporary.store);
    const object = new PiecewiseObject(store, `k${lines}`, { signal });
    for (let i = 0; i < lines; i++) await object.write(line);
    assert.equal(await object.finish(), lines * 1000);
    const expected = lines * 1000 < 5 * 1024 ** 2
      ? { put: 1 }
      : { startMultipart: 1, uploadPart: Math.ceil(lines * 1000 / (5 * 1024 ** 2)), complete: 1 };
    assert.deepEqual(counts().calls, expected);
    assert.equal((await store.head(`k${lines}`)).size, lines * 1000);
  }
  const given = new PiecewiseObject(temporary.store, "given", { signal });
  for (let i = 0; i < 9000; i++) await given.write(line);
  await given.abort(signal);
  assert.ok(!(await temporary.keys()).includes("given"));
});
