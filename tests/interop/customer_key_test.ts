/** Objects that the store encrypts with a key of the customer's (SSE-C): each tool reads what the other wrote. */
import assert from "node:assert/strict";
import { randomBytes } from "node:crypto";
import { mkdtemp, readFile, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { startPostgres } from "../../scripts/servers/embedded_postgres.ts";
import { startS3ForTests } from "../../scripts/servers/s3_for_tests.ts";
import { newBucket } from "./bucket.ts";
import { type CommandName, isAtLeast, NEWEST, OURS, skipWithout } from "./commands.ts";

const s3 = await startS3ForTests();
const SEGMENT = "000000010000000000000001";

Deno.test({
  name: "what is stored with a customer's key is read with it, and only with it",
  // Amazon and others take such keys over TLS only; Ceph's gateway of these tests takes them without.
  ignore: s3?.rgw === undefined || skipWithout(NEWEST, "newest") || !isAtLeast(NEWEST, 3, 20),
  async fn() {
    const newest = NEWEST;
    if (s3 === null || newest === null) throw new Error("Is ignored");
    const directory = await mkdtemp(join(tmpdir(), "interop-key-"));
    await using server = await startPostgres({
      major: 17,
      settings: { archive_mode: "on", archive_command: "/bin/true" },
    });
    try {
      const key = await keyFile(directory, "key", randomBytes(32).toString("base64") + "\n");
      const other = await keyFile(directory, "other", randomBytes(32).toString("base64"));
      for (const [writer, reader] of [[OURS, newest], [newest, OURS]] as const) {
        await using bucket = await newBucket(s3);
        const run = async (
          tool: typeof writer,
          command: CommandName,
          keyWords: readonly string[],
          ...words: string[]
        ) => {
          const all = [...bucket.words, bucket.url, "main", ...words, ...keyWords];
          const result = await tool.run(command, all, { env: bucket.env });
          return { ...result, said: `${tool.name} ${command}: ${result.stderr}` };
        };
        const must = async (
          ...[tool, command, ...words]: [typeof writer, CommandName, ...string[]]
        ) => {
          const { code, stdout, said } = await run(tool, command, key, ...words);
          assert.equal(code, 0, said);
          return stdout;
        };
        await writeFile(join(directory, SEGMENT), "a WAL segment");
        await must(writer, "wal-archive", join(directory, SEGMENT));
        await must(
          writer,
          "backup",
          ...["-n", "secret", "--immediate-checkpoint", "-d", server.conninfo()],
        );
        await must(writer, "backup-keep", "secret", "--target", "full");

        const restored = join(directory, "restored");
        await must(reader, "wal-restore", SEGMENT, restored);
        assert.equal(await readFile(restored, "utf8"), "a WAL segment");
        assert.match(await must(reader, "backup-list"), /KEEP:FULL +secret/);
        assert.equal(
          await must(reader, "backup-show", "secret", "--format=json"),
          await must(writer, "backup-show", "secret", "--format=json"),
        );
        assert.equal(await must(reader, "backup-keep", "secret", "--status"), "Keep: full\n");
        await must(reader, "restore", "secret", join(directory, "data"));
        assert.equal(await readFile(join(directory, "data/PG_VERSION"), "utf8"), "17\n");
        await rm(join(directory, "data"), { recursive: true });

        for (const keyWords of [[], other]) {
          for (const tool of [reader, writer]) {
            const { code, said } = await run(tool, "wal-restore", keyWords, SEGMENT, restored);
            assert.equal(code, 4, said);
          }
        }
        await must(reader, "backup-keep", "secret", "--release");
        await must(reader, "backup-delete", "--backup-id", "secret");
        // Barman does not know these, and deletes what it knows.
        const unknown = /\/(backup_manifest|verification\.json)$/;
        const left = (await bucket.keys("p/main/base/"))
          .filter((name) => reader === OURS || !unknown.test(name));
        assert.deepEqual(left, []);
      }
    } finally {
      await rm(directory, { recursive: true, force: true });
    }
  },
});

async function keyFile(directory: string, name: string, content: string): Promise<string[]> {
  const path = join(directory, name);
  await writeFile(path, content, { mode: 0o600 });
  return ["--sse-customer-key", `file://${path}`];
}

globalThis.addEventListener("unload", () => void s3?.stop());
