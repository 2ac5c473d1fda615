/** The same server backed up by both tools with the same words: what is in the bucket afterwards. */
import assert from "node:assert/strict";
import { spawnSync } from "node:child_process";
import { link, mkdir, mkdtemp, rm, symlink, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { basename, join } from "node:path";
import { fileURLToPath } from "node:url";
import {
  serverUser,
  startPostgres,
  type TestPostgres,
} from "../../scripts/servers/embedded_postgres.ts";
import { startS3ForTests } from "../../scripts/servers/s3_for_tests.ts";
import { type Bucket, missingBucket, newBucket } from "./bucket.ts";
import { NEWEST, OURS, skipWithout, type Tool } from "./commands.ts";

const s3 = await startS3ForTests();
const ignore = s3 === null || skipWithout(NEWEST, "newest");

Deno.test({
  name: "backup stores what Barman's stores",
  ignore,
  async fn(test) {
    if (s3 === null || NEWEST === null) throw new Error("Without servers this is ignored");
    await using odd = await startOdd();
    const tools = [OURS, NEWEST] as const;

    await test.step("tar archives, backup.info, tags", async () => {
      const words = ["-n", "a name", "--tag", "team,data-base", "--tag", "x,y=z"];
      const [ours, barman] = await backUpWith(tools, odd.server, words);
      assert.deepEqual(ours.keys, barman.keys);
      assert.deepEqual(ours.info, barman.info);
      assert.deepEqual(ours.tags, barman.tags);
      assert.deepEqual(Object.keys(ours.archives), Object.keys(barman.archives));
      for (const [name, members] of Object.entries(ours.archives)) {
        compareArchives(name, members, barman.archives[name] ?? [], odd.server);
      }
    });
    await test.step("AES256", async () => {
      const [ours, barman] = await backUpWith(tools, odd.server, ["-e", "AES256", "-z"]);
      assert.deepEqual(ours.keys, barman.keys);
      assert.deepEqual(ours.encryption, barman.encryption);
      assert.deepEqual(ours.info, barman.info);
    });
    const key = s3.rgw?.kmsKeyId;
    await test.step({
      name: "aws:kms",
      ignore: key === undefined,
      async fn() {
        const words = ["-e", "aws:kms", "--sse-kms-key-id", key ?? ""];
        const [ours, barman] = await backUpWith(tools, odd.server, words);
        assert.deepEqual(ours.keys, barman.keys);
        assert.deepEqual(ours.encryption, barman.encryption);
      },
    });
    await test.step("no bucket", async () => {
      const outcomes = await Promise.all(tools.map(async (tool) => {
        await using bucket = missingBucket(s3);
        const { code, stdout } = await runBackup(tool, bucket, odd.server, []);
        return { code, stdout };
      }));
      assert.deepEqual(outcomes[0], outcomes[1]);
      assert.deepEqual(outcomes[0], { code: 1, stdout: "" });
    });
    await test.step("a database that is not there", async () => {
      const outcomes = await Promise.all(tools.map(async (tool) => {
        await using bucket = await newBucket(s3);
        const { code, stdout } = await runBackup(tool, bucket, odd.server, [
          ...["-d", `${odd.server.conninfo()} dbname=nowhere`],
        ]);
        return { code, stdout, keys: await bucket.keys() };
      }));
      assert.deepEqual(outcomes[0], outcomes[1]);
      assert.deepEqual(outcomes[0], { code: 1, stdout: "", keys: [] });
    });
    await test.step("without the privilege to switch WAL", async () => {
      await odd.server.query(`
        CREATE ROLE half LOGIN;
        GRANT pg_read_all_settings, pg_read_all_stats TO half;
        GRANT EXECUTE ON FUNCTION pg_backup_start(text, boolean) TO half;
        GRANT EXECUTE ON FUNCTION pg_backup_stop(boolean) TO half;
      `);
      const dsn = odd.server.conninfo().replace("user=postgres", "user=half");
      const [ours, barman] = await Promise.all(tools.map(async (tool) => {
        await using bucket = await newBucket(s3);
        const { code, stdout, stderr } = await runBackup(tool, bucket, odd.server, ["-d", dsn]);
        assert.deepEqual([code, stdout], [1, ""], stderr);
        return (await bucket.keys()).map(withoutId);
      }));
      assert.deepEqual(ours, ["p/main/base/ID/backup.info"]);
      assert.deepEqual(ours, barman);
    });
    await test.step("the session is ended from outside", async () => {
      for (const tool of tools) {
        await using bucket = await newBucket(s3);
        const running = runBackup(tool, bucket, odd.server, [
          // With more jobs all of it would be in memory, and the backup stopped, before the session ends.
          ...["--max-bandwidth", "2MB", "-S", "1GB", "-J", "2"],
        ]);
        await terminateBackup(odd.server);
        const { code, stdout, stderr } = await running;
        assert.deepEqual([code, stdout], [1, ""], stderr);
        const infos = (await bucket.keys()).filter((key) => key.endsWith("/backup.info"));
        assert.match(await bucket.text(infos[0] ?? ""), /^status=FAILED$/m);
        // Ours aborts what it can't complete.
        assert.equal((await bucket.unfinishedUploads()).length > 0, tool !== OURS);
      }
    });
    await test.step({
      name: "an upload that fails",
      ignore: key === undefined,
      async fn() {
        const outcomes = await Promise.all(tools.map(async (tool) => {
          await using bucket = await newBucket(s3);
          const { code, stdout } = await runBackup(tool, bucket, odd.server, [
            ...["-e", "aws:kms", "--sse-kms-key-id", "no-such-key"],
          ]);
          const stored = (await bucket.keys()).map(withoutId);
          return { code, stdout, stored };
        }));
        assert.deepEqual(outcomes[0], outcomes[1]);
        assert.equal(outcomes[0]?.code, 1);
      },
    });
  },
});

interface Member {
  readonly name: string;
  readonly type: string;
  readonly mode: string;
  readonly owner: readonly unknown[];
  readonly link: string;
  readonly size: number;
  readonly mtime: number;
  readonly pax: readonly string[];
}

interface Stored {
  readonly keys: readonly string[];
  /** Of the first backup.info, with what must differ made equal. */
  readonly info: readonly string[];
  readonly tags: Readonly<Record<string, unknown>>;
  readonly encryption: Readonly<Record<string, unknown>>;
  readonly archives: Readonly<Record<string, readonly Member[]>>;
}

/** One after the other: two at once would see each other's checkpoint. */
async function backUpWith(
  tools: readonly [Tool, Tool],
  server: TestPostgres,
  words: readonly string[],
): Promise<[Stored, Stored]> {
  const results: Stored[] = [];
  for (const tool of tools) {
    if (s3 === null) throw new Error("Without a server this is ignored");
    await using bucket = await newBucket(s3);
    const { code, stdout, stderr } = await runBackup(tool, bucket, server, words);
    assert.deepEqual([code, stdout], [0, ""], stderr);
    results.push(await lookAt(bucket));
    assert.deepEqual(await bucket.unfinishedUploads(), []);
  }
  const [ours, barman] = results;
  assert.ok(ours !== undefined && barman !== undefined);
  return [ours, barman];
}

function runBackup(tool: Tool, bucket: Bucket, server: TestPostgres, words: readonly string[]) {
  return tool.run("backup", [
    ...[...bucket.words, "--immediate-checkpoint", "-d", server.conninfo(), ...words],
    ...[bucket.url, "main"],
  ], { env: { ...bucket.env, AWS_MAX_ATTEMPTS: "1", LC_ALL: "C.UTF-8" } });
}

/** Once the checkpoint at the start of the backup is done. */
async function terminateBackup(server: TestPostgres): Promise<void> {
  const deadline = Date.now() + 30_000;
  while (Date.now() < deadline) {
    await new Promise((resolve) => setTimeout(resolve, 200));
    const rows = await server.query(`
      SELECT pg_terminate_backend(pid) FROM pg_stat_activity
       WHERE application_name LIKE 'barman%' AND state = 'idle' AND query NOT ILIKE '%SET%'
         AND backend_start < now() - interval '1 second'
    `);
    if (rows.length > 0) return;
  }
  throw new Error("No session of a backup was seen in 30 s");
}

/** What ours stores besides; tagged and encrypted as the rest. */
const ONLY_OURS = ["backup_manifest", "verification.json"];

async function lookAt(bucket: Bucket): Promise<Stored> {
  const all = await bucket.keys();
  const keys = all.filter((key) => !ONLY_OURS.includes(basename(key)));
  assert.ok(all.length === keys.length || all.length === keys.length + ONLY_OURS.length);
  const tags: Record<string, unknown> = {};
  const encryption: Record<string, unknown> = {};
  const archives: Record<string, readonly Member[]> = {};
  let info: string[] = [];
  for (const key of keys) {
    const name = basename(key);
    tags[name] = await bucket.tags(key);
    encryption[name] = await bucket.encryption(key);
    if (name === "backup.info") info = normalInfo(await bucket.text(key));
    else if (name.endsWith(".tar")) archives[name] = tarMembers(await bucket.get(key));
  }
  for (const key of all.filter((key) => !keys.includes(key))) {
    assert.deepEqual(await bucket.tags(key), tags["backup.info"]);
    assert.deepEqual(await bucket.encryption(key), encryption["backup.info"]);
  }
  return { keys: keys.map(withoutId), info, tags, encryption, archives };
}

function withoutId(key: string): string {
  return key.replace(/\/\d{8}T\d{6}\//, "/ID/");
}

/** Times, positions and durations are the backup's own; their notation must be the same. */
function normalInfo(text: string): string[] {
  return text.split("\n").map((line) => {
    const name = line.slice(0, line.indexOf("="));
    if (name === "cluster_size") return line.replace(/\d+/, "N");
    if (/^(begin|end)_(time|wal|xlog|offset)$|^backup_label$|^copy_stats$/.test(name)) {
      return line.replace(/\d{8}T\d{6}/, "ID")
        .replaceAll(/\d{4}-\d\d-\d\d \d\d:\d\d:\d\d(\.\d{6})?/g, "TIME")
        .replaceAll(/[0-9A-F]{24}/g, "SEGMENT")
        .replaceAll(/\b[0-9A-F]+\/[0-9A-F]+\b/g, "LSN")
        .replaceAll(/\d+(\.\d+)?(e-\d+)?/g, (number) => number.includes(".") ? "FLOAT" : "INTEGER");
    }
    return line;
  });
}

function tarMembers(content: Uint8Array): Member[] {
  const script = fileURLToPath(new URL("tar_members.py", import.meta.url));
  const { status, stdout, stderr } = spawnSync("python3", [script], {
    input: content,
    encoding: "utf8",
    maxBuffer: 1 << 28,
  });
  assert.equal(status, 0, stderr);
  assert.equal(content.length % 10240, 0, "the archive is padded to whole records");
  const members: Member[] = JSON.parse(stdout);
  return members;
}

/** What Barman stores although it is of no use: tablespaces inside PGDATA twice, temporary tables. */
const ONLY_BARMANS = [
  "base/1/t3_16384",
  "inside/PG_",
];

function compareArchives(
  archive: string,
  ours: readonly Member[],
  barman: readonly Member[],
  server: TestPostgres,
): void {
  const onlyBarmans = (name: string) => ONLY_BARMANS.some((each) => name.startsWith(each));
  const names = new Set(ours.map(({ name }) => name));
  const extra = barman.filter(({ name }) => !names.has(name)).map(({ name }) => name);
  assert.deepEqual(extra.filter((name) => !onlyBarmans(name)), [], `${archive}: only in Barman's`);
  if (archive === "data.tar") {
    for (const known of ONLY_BARMANS) {
      assert.ok(
        extra.some((name) => name.startsWith(known)),
        `Barman no longer stores ${known}, but ${extra.join(" ")}`,
      );
    }
  }
  const theirs = new Map(barman.map((member) => [member.name, member]));
  const last = new Set(ours.slice(-4).map(({ name }) => name));
  for (const member of ours) {
    const other = theirs.get(member.name);
    assert.ok(other !== undefined, `${archive}: ${member.name} is only in ours`);
    const { uid, gid } = serverUser() ?? { uid: process.getuid?.(), gid: process.getgid?.() };
    if (member.name === "./hard link" || other.name === "./postgresql.conf") {
      // Which of the two names comes first is the directory's order. Barman links them, ours stores both whole.
      const types = ["./hard link", "./postgresql.conf"].map((name) => theirs.get(name)?.type);
      assert.deepEqual([member.type, types.toSorted()], ["0", ["0", "1"]]);
    } else if (member.name === "backup_label") {
      // Barman leaves it to root.
      assert.deepEqual(member.owner.slice(0, 2), [uid, gid]);
      assert.deepEqual(
        { ...member, owner: null, size: 0 },
        { ...other, owner: null, size: 0 },
      );
    } else {
      // Directories, and what the server writes all the time.
      const changes = member.type !== "0" || /^(global|pg_)/.test(member.name);
      assert.deepEqual(
        { ...member, mtime: 0 },
        { ...other, mtime: 0 },
        `${archive}: ${member.name}`,
      );
      // Python's fractions have a digit more than microseconds have.
      const apart = Math.abs(member.mtime - other.mtime);
      assert.ok(changes || apart < 2e-6, `${archive}: ${member.name} is ${apart} s apart`);
    }
  }
  // The last ones are in the order that a restore needs.
  if (archive === "data.tar") {
    assert.deepEqual([...last], barman.slice(-4).map(({ name }) => name));
  }
  assert.equal(ours[0]?.name, barman[0]?.name);
  assert.ok(server.dataDirectory !== "");
}

interface Odd extends AsyncDisposable {
  readonly server: TestPostgres;
}

/** A data directory with what real ones have and fresh ones have not. */
async function startOdd(): Promise<Odd> {
  const directory = await mkdtemp(join(tmpdir(), "interop-odd-"));
  const outside = join(directory, "outside");
  await mkdir(outside);
  await writeFile(join(outside, "my_hba.conf"), "local all all trust\nhost all all all trust\n");
  await Deno.chmod(outside, 0o755);
  const server = await startPostgres({
    major: 17,
    dir: directory,
    settings: {
      archive_mode: "on",
      archive_command: "/bin/true",
      autovacuum: false,
      hba_file: join(outside, "my_hba.conf"),
      log_timezone: "UTC",
      timezone: "Asia/Kolkata",
    },
    tablespaces: { ts1: "ts1", inside: "data/inside" },
  });
  await server.query(`
    CREATE TABLE plain AS SELECT i FROM generate_series(1, 1000) AS i;
    CREATE TABLE moved TABLESPACE ts1 AS SELECT i FROM generate_series(1, 1000) AS i;
    CREATE TABLE inner_one TABLESPACE inside AS SELECT i FROM generate_series(1, 1000) AS i;
  `);
  await server.query("ALTER SYSTEM SET work_mem = '8MB'");
  await server.reload();
  const data = (path: string) => join(server.dataDirectory, path);
  for (
    const path of ["log/deep", "extra dir/Größe", "base/pgsql_tmp", "pg_replslot/slot", "empty"]
  ) {
    await mkdir(data(path), { recursive: true, mode: 0o700 });
  }
  for (
    const path of [
      ...["log/top.log", "log/deep/er.log", "extra dir/Größe/öäü", "base/pgsql_tmp/pgsql_tmp1.0"],
      ...[
        "pg_replslot/slot/state",
        "postgresql.auto.conf.tmp",
        "standby.signal.old",
        "base/1/t3_16384",
      ],
      ...["postmaster.opts.old", "recovery.conf", "base/1/pg_internal.init", "a".repeat(120)],
    ]
  ) await writeFile(data(path), path, { mode: 0o600 });
  await symlink("postgresql.conf", data("a link"));
  await link(data("postgresql.conf"), data("hard link"));
  const user = serverUser();
  if (user !== undefined) {
    spawnSync("chown", ["-R", `${user.uid}:${user.gid}`, server.dataDirectory]);
  }
  // Twice: the second leaves nothing for the backups' own checkpoints to write.
  await server.query("CHECKPOINT");
  await server.query("CHECKPOINT");
  return {
    server,
    async [Symbol.asyncDispose]() {
      await server.destroy();
      await rm(directory, { recursive: true, force: true });
    },
  };
}

globalThis.addEventListener("unload", () => void s3?.stop());
