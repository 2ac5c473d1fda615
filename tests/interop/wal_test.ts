/** Files of the WAL archive: written by one tool and read by the other, in every format and of every kind. */
import assert from "node:assert/strict";
import { createHash, randomBytes } from "node:crypto";
import { mkdtemp, readFile, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { startS3ForTests } from "../../scripts/servers/s3_for_tests.ts";
import { type Bucket, newBucket } from "./bucket.ts";
import { NEWEST, OURS, PACKAGED, skipWithout, type Tool } from "./commands.ts";
import { walKey } from "./states.ts";

const s3 = await startS3ForTests();

/** Word, suffix, and whether Debian's Barman 3.4 knows it (it lacks the library for snappy). */
const CODECS: readonly [word: string | null, suffix: string, old: boolean][] = [
  [null, "", true],
  ["--gzip", ".gz", true],
  ["--bzip2", ".bz2", true],
  ["--xz", ".xz", false],
  ["--snappy", ".snappy", false],
  ["--zstd", ".zst", false],
  ["--lz4", ".lz4", false],
];

const SEGMENT = "0000000A000000010000002F";
const FILES: Readonly<Record<string, Uint8Array>> = {
  [SEGMENT]: walLike(4 * 1024 * 1024),
  "0000000A0000000100000030.partial": walLike(1024 * 1024),
  "0000000A.history": new TextEncoder().encode("1\t0/1A000000\tno recovery target specified\n"),
  [`${SEGMENT}.00000028.backup`]: new TextEncoder().encode("START WAL LOCATION: 1/2F000028\n"),
  "0000000B.history": new Uint8Array(),
};

for (const [barman, which] of [[NEWEST, "newest"], [PACKAGED, "packaged"]] as const) {
  const name = which === "newest" ? "the newest Barman" : "Barman 3.4";
  for (
    const [writer, reader, what] of [
      [OURS, barman, `WAL that we archive is restored by ${name}`],
      [barman, OURS, `WAL that ${name} archives is restored by us`],
    ] as const
  ) {
    Deno.test({
      name: what,
      ignore: s3 === null || skipWithout(barman, which),
      async fn(test) {
        if (s3 === null || writer === null || reader === null) throw new Error("Is ignored");
        for (const [word, suffix, old] of CODECS) {
          if (which === "packaged" && !old) continue;
          await test.step(word ?? "plain", () => roundTrip(writer, reader, word, suffix));
        }
      },
    });
  }
}

Deno.test({
  name: "each level that we compress WAL with is restored by the newest Barman",
  ignore: s3 === null || skipWithout(NEWEST, "newest"),
  async fn() {
    const newest = NEWEST;
    if (s3 === null || newest === null) throw new Error("Is ignored");
    await using bucket = await newBucket(s3);
    const content = walLike(2 * 1024 * 1024);
    await inDirectory(async (directory) => {
      for (const [word] of CODECS) {
        for (const level of word === null ? [] : ["low", "HIGH", "-100", "100"]) {
          await writeFile(join(directory, SEGMENT), content);
          const serverName = `main${word}${level}`;
          await archive(OURS, bucket, serverName, join(directory, SEGMENT), [
            ...[word ?? "", "--compression-level", level],
          ]);
          await restore(newest, bucket, serverName, SEGMENT, join(directory, "restored"));
          assert.deepEqual(hash(await readFile(join(directory, "restored"))), hash(content));
        }
      }
    });
  },
});

Deno.test({
  name: "wal-archive stores tags and encryption as Barman does",
  ignore: s3 === null || skipWithout(NEWEST, "newest"),
  async fn() {
    const newest = NEWEST;
    const server = s3;
    if (server === null || newest === null) throw new Error("Is ignored");
    const key = server.rgw?.kmsKeyId;
    const kms = key === undefined ? [] : [["-e", "aws:kms", "--sse-kms-key-id", key]];
    const words = [
      ["--tag", "a,b", "--tag", "c, d.e:f"],
      ["--tag", "a,b", "--history-tag", "only,history"],
      ["--history-tags", "one,1", "two,2"],
      ["-e", "AES256"],
      ...kms,
    ];
    await inDirectory(async (directory) => {
      for (const each of words) {
        const found: unknown[] = await Promise.all([OURS, newest].map(async (tool) => {
          await using bucket = await newBucket(server);
          const objects: Record<string, unknown> = {};
          for (const name of [SEGMENT, "0000000A.history"]) {
            const path = join(directory, name);
            await writeFile(path, "content");
            await archive(tool, bucket, "main", path, each);
            const key = `p/main/${walKey(name)}`;
            objects[key] = [await bucket.tags(key), await bucket.encryption(key)];
          }
          return objects;
        }));
        assert.deepEqual(found[0], found[1], each.join(" "));
      }
    });
  },
});

Deno.test({
  name: "a tag with a blank is read back as it was given",
  ignore: s3 === null,
  async fn() {
    if (s3 === null) throw new Error("Is ignored");
    await using bucket = await newBucket(s3);
    await inDirectory(async (directory) => {
      const path = join(directory, SEGMENT);
      await writeFile(path, "content");
      await archive(OURS, bucket, "main", path, ["--tag", "team,data base"]);
      const tags = await bucket.tags(`p/main/${walKey(SEGMENT)}`);
      assert.deepEqual(tags, { team: "data base" });
    });
  },
});

async function roundTrip(
  writer: Tool,
  reader: Tool,
  word: string | null,
  suffix: string,
): Promise<void> {
  if (s3 === null) throw new Error("Is ignored");
  await using bucket = await newBucket(s3);
  await inDirectory(async (directory) => {
    for (const [name, content] of Object.entries(FILES)) {
      const path = join(directory, name);
      await writeFile(path, content);
      await archive(writer, bucket, "main", path, word === null ? [] : [word]);
      // Barman does not find backup labels; nobody asks for them.
      if (name.endsWith(".backup") && reader !== OURS) continue;
      // Asked for by the name of the segment.
      const wanted = name.replace(".partial", "");
      await restore(reader, bucket, "main", wanted, join(directory, "restored"));
      const restored = await readFile(join(directory, "restored"));
      assert.equal(hash(restored), hash(content), name);
      await rm(join(directory, "restored"));
    }
    const keys = await bucket.keys();
    const expected = Object.keys(FILES).map((name) => `p/main/${walKey(name + suffix)}`);
    assert.deepEqual(keys, expected.sort());
  });
}

async function archive(
  tool: Tool,
  bucket: Bucket,
  serverName: string,
  path: string,
  words: readonly string[],
): Promise<void> {
  const { code, stdout, stderr } = await tool.run("wal-archive", [
    ...[...bucket.words, bucket.url, serverName, path, ...words],
  ], { env: bucket.env });
  assert.deepEqual([code, stdout], [0, ""], stderr);
}

async function restore(
  tool: Tool,
  bucket: Bucket,
  serverName: string,
  name: string,
  path: string,
): Promise<void> {
  const { code, stdout, stderr } = await tool.run("wal-restore", [
    ...[...bucket.words, bucket.url, serverName, name, path],
  ], { env: bucket.env });
  assert.deepEqual([code, stdout], [0, ""], stderr);
}

async function inDirectory(use: (directory: string) => Promise<void>): Promise<void> {
  const directory = await mkdtemp(join(tmpdir(), "interop-wal-"));
  try {
    await use(directory);
  } finally {
    await rm(directory, { recursive: true, force: true });
  }
}

/** Bytes that compress about as WAL does: records that repeat, random rows, and an empty rest. */
function walLike(size: number): Uint8Array {
  const content = new Uint8Array(size);
  const noise = randomBytes(Math.floor(size / 4));
  content.set(noise);
  for (let at = noise.length; at < size * 0.7; at++) content[at] = (at * at) >> 8 & 0x3f;
  return content;
}

function hash(content: Uint8Array): string {
  return createHash("sha256").update(content).digest("hex");
}

globalThis.addEventListener("unload", () => void s3?.stop());
