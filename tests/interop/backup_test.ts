/** Backups by one tool, used by the other, both ways, until a server runs on the result. */
import assert from "node:assert/strict";
import { mkdtemp, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import type { PostgresMajor } from "../../scripts/servers/embedded_postgres.ts";
import { startS3ForTests } from "../../scripts/servers/s3_for_tests.ts";
import { type Bucket, newBucket } from "./bucket.ts";
import {
  type CommandName,
  isAtLeast,
  NEWEST,
  OURS,
  PACKAGED,
  skipWithout,
  type Tool,
} from "./commands.ts";
import { trimForOldBarman } from "./old_barman.ts";
import {
  archiveAll,
  assertRestored,
  type Filled,
  fingerprint,
  forgetArchived,
  startFilled,
} from "./postgres.ts";

const s3 = await startS3ForTests();

interface Way {
  readonly name: string;
  readonly words: readonly string[];
  readonly suffix: string;
  /** The first Barman that knows it; 3.4 does not have the library for snappy here. */
  readonly since: readonly [number, number];
}

const WAYS: readonly Way[] = [
  { name: "plain", words: [], suffix: ".tar", since: [2, 0] },
  { name: "gzip", words: ["-z"], suffix: ".tar.gz", since: [2, 0] },
  { name: "bzip2", words: ["-j"], suffix: ".tar.bz2", since: [2, 0] },
  { name: "split", words: ["-S", "4MB"], suffix: ".tar", since: [2, 0] },
  { name: "snappy", words: ["--snappy"], suffix: ".tar.snappy", since: [3, 5] },
  { name: "lz4", words: ["--lz4"], suffix: ".tar.lz4", since: [3, 18] },
  { name: "zstd", words: ["--zstd"], suffix: ".tar.zst", since: [3, 20] },
];

/** The combinations that start a server at the end; others stop after the restore. */
const PLANS: readonly {
  major: PostgresMajor;
  writer: Tool | null;
  readers: readonly (Tool | null)[];
}[] = [
  { major: 15, writer: OURS, readers: [PACKAGED, NEWEST] },
  { major: 17, writer: OURS, readers: [NEWEST] },
  { major: 17, writer: NEWEST, readers: [OURS] },
  { major: 15, writer: PACKAGED, readers: [OURS] },
];

const anyBarman = NEWEST ?? PACKAGED;
const missing = [skipWithout(NEWEST, "newest"), skipWithout(PACKAGED, "packaged")];

for (const { major, writer, readers } of PLANS) {
  const there = readers.filter((reader) => reader !== null);
  const name =
    `PostgreSQL ${major}, backed up by ${
      writer?.name ?? "a Barman that is missing"
    }, restored by ` +
    (there.map((reader) => reader.name).join(" and ") || "a Barman that is missing");
  Deno.test({
    name,
    ignore: s3 === null || anyBarman === null || writer === null || there.length === 0 ||
      missing.every(Boolean),
    async fn(test) {
      if (s3 === null || writer === null) throw new Error("Without servers this is ignored");
      await using filled = await startFilled(major);
      const expected = await fingerprint(filled.server);
      await forgetArchived(filled);
      using bucket = await newBucket(s3);
      const ways = WAYS.filter(({ since }) =>
        isAtLeast(writer, ...since) && there.some((reader) => isAtLeast(reader, ...since))
      );
      for (const [index, way] of ways.entries()) {
        // A server name for each: backups that begin in one second would meet.
        const serverName = `${way.name}-${major}`;
        await test.step(`${way.name}: backup`, () =>
          backUp(writer, filled, bucket, way, serverName));
        for (const reader of there.filter((each) => isAtLeast(each, ...way.since))) {
          if (reader === PACKAGED) {
            const [key = ""] = (await bucket.keys(`p/${serverName}/base/`))
              .filter((each) => each.endsWith("/backup.info"));
            await trimForOldBarman(bucket, key);
          }
          await test.step(`${way.name}: read by ${reader.name}`, async () => {
            // The first with WAL of its own by the writer; a server start takes long on small machines.
            const run = index === 0 || way.name === "split";
            await read(reader, filled, bucket, way, serverName, run ? expected : null);
          });
        }
      }
      assert.deepEqual(await bucket.unfinishedUploads(), []);
    },
  });
}

async function backUp(
  writer: Tool,
  { server, archive }: Filled,
  bucket: Bucket,
  way: Way,
  serverName: string,
): Promise<void> {
  await must(writer, "backup", bucket, serverName, [
    ...["--immediate-checkpoint", "-n", way.name, "-J", "2", ...way.words],
    ...["-d", server.conninfo()],
  ]);
  await archiveAll(writer, bucket, archive, serverName, way.name === "split" ? ["-z"] : []);
  const keys = await bucket.keys(`p/${serverName}/base/`);
  const names = keys.map((key) => key.slice(key.lastIndexOf("/") + 1));
  assert.ok(names.includes(`data${way.suffix}`), names.join());
  assert.equal(names.filter((name) => /^\d+\./.test(name)).length, 2, names.join());
  assert.equal(names.includes("data_0001.tar"), way.name === "split", names.join());
}

/** List, show, keep, restore, and with `expected` start it. */
async function read(
  reader: Tool,
  { server }: Filled,
  bucket: Bucket,
  way: Way,
  serverName: string,
  expected: string | null,
): Promise<void> {
  const [id = ""] = (await bucket.keys(`p/${serverName}/base/`)).map((key) =>
    key.split("/")[3] ?? ""
  );
  for (
    const [command, words] of [
      ["backup-list", []],
      ["backup-list", ["--format", "json"]],
      ["backup-show", [way.name]],
      ["backup-show", [id, "--format", "json"]],
    ] as const
  ) {
    const theirs = await must(reader, command, bucket, serverName, words);
    if (reader !== PACKAGED) {
      assert.equal(theirs, await must(OURS, command, bucket, serverName, words));
      if (NEWEST !== null) {
        assert.equal(theirs, await must(NEWEST, command, bucket, serverName, words));
      }
    }
    assert.ok(theirs.includes(id) && theirs.includes(way.name), theirs);
  }
  const directory = await mkdtemp(join(tmpdir(), "interop-restore-"));
  try {
    await Deno.chmod(directory, 0o755);
    const rules = ["ts1", "größer"].flatMap((name) => [
      ...["--tablespace", `${name}:${join(directory, name)}`],
    ]);
    const data = join(directory, "data");
    await must(reader, "restore", bucket, serverName, [way.name, data, ...rules]);
    await Deno.stat(join(data, "global/pg_control"));
    await Deno.stat(join(data, "backup_label"));
    if (expected !== null) {
      await assertRestored(reader, bucket, serverName, data, server.major, expected);
    }
  } finally {
    await rm(directory, { recursive: true, force: true });
  }
}

/** The command's standard output; it must succeed. */
async function must(
  tool: Tool,
  command: CommandName,
  bucket: Bucket,
  serverName: string,
  words: readonly string[],
): Promise<string> {
  const { code, stdout, stderr } = await tool.run(command, [
    ...[...bucket.words, bucket.url, serverName, ...words],
  ], { env: { ...bucket.env, LC_ALL: "C.UTF-8" } });
  assert.equal(code, 0, `${tool.name} ${command} ${words.join(" ")}: ${stderr}`);
  return stdout;
}

globalThis.addEventListener("unload", () => void s3?.stop());
