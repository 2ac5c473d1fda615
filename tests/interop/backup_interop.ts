/** Backups by one tool, used by another until a server runs on the result. */
import assert from "node:assert/strict";
import { mkdtemp, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import type { PostgresMajor } from "../../scripts/servers/embedded_postgres.ts";
import { startS3ForTests } from "../../scripts/servers/s3_for_tests.ts";
import { type Bucket, newBucket } from "./bucket.ts";
import { type CommandName, isAtLeast, NEWEST, OURS, type Tool } from "./commands.ts";
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
  /** The first Barman that knows it (snappy: Debian's 3.4 lacks the library). */
  readonly since: readonly [number, number];
}

const WAYS: readonly Way[] = [
  { name: "plain", words: [], suffix: ".tar", since: [2, 0] },
  { name: "gzip", words: ["-z"], suffix: ".tar.gz", since: [2, 0] },
  // Any Barman, but Debian's needs long for it.
  { name: "bzip2", words: ["-j"], suffix: ".tar.bz2", since: [3, 5] },
  { name: "split", words: ["-S", "4MB"], suffix: ".tar", since: [2, 0] },
  { name: "snappy", words: ["--snappy"], suffix: ".tar.snappy", since: [3, 5] },
  { name: "lz4", words: ["--lz4"], suffix: ".tar.lz4", since: [3, 18] },
  { name: "zstd", words: ["--zstd"], suffix: ".tar.zst", since: [3, 20] },
];

/** One test: `writer` backs up a server of this major in each way it knows, each reader goes on from there. */
export function testBackups(
  major: PostgresMajor,
  writer: Tool | null,
  readers: readonly (Tool | null)[],
): void {
  const there = readers.filter((reader) => reader !== null);
  const missing = [writer, ...readers].includes(null);
  const label = (tool: Tool | null) => tool?.name ?? "a Barman that is missing";
  Deno.test({
    name: `PostgreSQL ${major}, backed up by ${label(writer)}, restored by ${
      readers.map(label).join(" and ")
    }`,
    ignore: s3 === null || missing,
    async fn(test) {
      if (s3 === null || writer === null) throw new Error("Without servers this is ignored");
      await using filled = await startFilled(major);
      const expected = await fingerprint(filled.server);
      await forgetArchived(filled);
      await using bucket = await newBucket(s3);
      const ways = WAYS.filter(({ since }) =>
        [writer, ...there].every((tool) => isAtLeast(tool, ...since))
      );
      for (const way of ways) {
        // A server name for each: backups that begin in one second would meet.
        const serverName = `${way.name}-${major}`;
        await test.step(
          `${way.name}: backup`,
          () => backUp(writer, filled, bucket, way, serverName),
        );
        for (const reader of there) {
          if (reader.name === "old barman") {
            const [key = ""] = (await bucket.keys(`p/${serverName}/base/`))
              .filter((each) => each.endsWith("/backup.info"));
            await trimForOldBarman(bucket, key);
          }
          await test.step(`${way.name}: read by ${reader.name}`, async () => {
            // Starting a server takes long on small machines.
            const run = way.name === "plain" || way.name === "split";
            await read(reader, filled, bucket, way, serverName, run ? expected : null);
          });
        }
      }
      assert.deepEqual(await bucket.unfinishedUploads(), []);
      const left = (await bucket.keys()).filter((key) => key.includes("/base/"));
      // What Barman does not know it does not delete; to both of us there is no backup any more.
      const ours = writer === OURS && !there.includes(OURS);
      const expectedLeft = ours
        ? left.filter((key) => /\/(backup_manifest|verification\.json)$/.test(key))
        : [];
      assert.deepEqual(left, expectedLeft);
      assert.equal(left.length, ours ? 2 * ways.length : 0);
      for (const tool of [OURS, ...there]) {
        for (const way of ways) {
          const words = ["--format", "json"];
          const list = await must(tool, "backup-list", bucket, `${way.name}-${major}`, words);
          assert.deepEqual(JSON.parse(list), { backups_list: [] });
        }
      }
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

/** List, show, restore, with `expected` start it; keep, release, delete. */
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
    // What 3.4 shows lacks what came later.
    const other = reader === OURS ? NEWEST : OURS;
    if (reader.name !== "old barman" && other !== null) {
      assert.equal(theirs, await must(other, command, bucket, serverName, words));
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
  await must(reader, "backup-keep", bucket, serverName, [id, "--target", "standalone"]);
  const refused = await reader.run("backup-delete", [
    ...[...bucket.words, bucket.url, serverName, "-b", id],
  ], { env: bucket.env });
  assert.equal(refused.code, 1, refused.stderr);
  await must(reader, "backup-keep", bucket, serverName, [id, "--release"]);
  await must(reader, "backup-delete", bucket, serverName, ["-b", id]);
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
