/** A backup says DONE only if it can be restored, and backup-verify finds out what became of it since. */
import assert from "node:assert/strict";
import { Buffer } from "node:buffer";
import { chownSync, existsSync, mkdirSync, readdirSync } from "node:fs";
import { open, readFile } from "node:fs/promises";
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import {
  type PostgresMajor,
  serverUser,
  type TestPostgres,
} from "../../scripts/servers/embedded_postgres.ts";
import { archiveCurrentSegment } from "../../scripts/servers/write_load.ts";
import { skipUnless } from "../skips.ts";
import { runProgram } from "./executable.ts";
import { type Host, makeDirectory, newHost } from "./host.ts";
import { newStore, testOnStores, type TestStore } from "./stores.ts";

const PG_VERIFYBACKUP = "/usr/lib/postgresql/15/bin/pg_verifybackup";
const havePgVerifybackup = !skipUnless(
  existsSync(PG_VERIFYBACKUP),
  "restored directories are not given to pg_verifybackup",
  "apt-get install postgresql-15",
);
/** Any more would be a test of waiting. */
const QUICK = ["--immediate-checkpoint", "--wal-timeout", "20"];

const FILLED = `
  create table filler as select i, md5(i::text) as text from generate_series(1, 60000) i;
  create table elsewhere tablespace one as select * from filler limit 2000;
  create index on filler (text);
  create unlogged table forgotten as select * from filler limit 2000;
  vacuum (analyze) filler`;

async function filledServer(
  host: Host,
  options: { readonly major?: PostgresMajor; readonly checksums?: boolean } = {},
): Promise<TestPostgres> {
  const server = await host.start({ tablespaces: { one: "one" }, ...options });
  for (const statement of FILLED.split(";")) await server.query(statement);
  return server;
}

const connection = (server: TestPostgres) => ["-d", server.conninfo()];

async function backUp(host: Host, server: TestPostgres, ...options: string[]): Promise<string> {
  await host.ok("backup", [...QUICK, ...options, ...connection(server)]);
  return (await backups(host)).at(-1) ?? "";
}

async function backups(host: Host): Promise<string[]> {
  const list = JSON.parse(await host.ok("backup-list", ["--format", "json"]));
  return list.backups_list.map((backup: { backup_id: string }) => backup.backup_id);
}

interface Verification {
  readonly ok: boolean;
  readonly status: string;
  readonly archives: readonly { readonly key: string; readonly members: number }[];
  readonly manifest: { readonly version: number; readonly files: number } | null;
  readonly pages: {
    readonly checked: number;
    readonly failures: number;
    readonly failed_pages: readonly { readonly file: string; readonly block: number }[];
  } | null;
  readonly wal: { readonly missing: number } | null;
  readonly problems: readonly string[];
}

async function verify(
  host: Host,
  id = "latest",
  options: readonly string[] = [],
): Promise<Verification> {
  const { code, stdout, stderr } = await host.cloud(
    "backup-verify",
    ["--format", "json", ...options],
    [id],
  );
  assert.notEqual(stdout, "", stderr);
  const document: Verification = JSON.parse(stdout);
  assert.equal(code, document.ok ? 0 : 1, stderr);
  assert.equal(document.ok, document.problems.length === 0);
  return document;
}

async function only(store: TestStore, pattern: RegExp): Promise<string> {
  const paths = (await store.paths()).filter((path) => pattern.test(path));
  assert.equal(paths.length, 1, `${pattern}: ${paths}`);
  return paths[0] ?? "";
}

interface Case {
  readonly major: PostgresMajor;
  readonly checksums: boolean;
  readonly options: readonly string[];
}

const CASES: readonly Case[] = [
  { major: 13, checksums: true, options: ["--gzip", "--manifest-checksums", "crc32c"] },
  { major: 15, checksums: true, options: ["--zstd"] },
  { major: 15, checksums: false, options: ["--manifest-checksums", "none"] },
  { major: 17, checksums: false, options: ["--lz4"] },
  { major: 18, checksums: true, options: [] },
];

for (const { major, checksums, options } of CASES) {
  const kinds = major === 15 && checksums ? ["file", "s3"] as const : ["file"] as const;
  testOnStores(
    `PostgreSQL ${major}, checksums ${
      checksums ? "on" : "off"
    }: what was backed up verifies, restored or not`,
    async (store) => {
      await using host = await newHost(store);
      const server = await filledServer(host, { major, checksums });
      const id = await backUp(host, server, "--max-archive-size", "4MB", ...options);
      const report = await verify(host);
      assert.deepEqual(report.problems, []);
      assert.equal(report.manifest?.version, major >= 17 ? 2 : 1);
      assert.ok((report.manifest?.files ?? 0) > 900);
      assert.equal(report.wal?.missing, 0);
      if (checksums) assert.ok((report.pages?.checked ?? 0) > 3000);
      else assert.equal(report.pages, null);
      const text = await host.ok("backup-verify", [], [id]);
      assert.match(text, /\nNo problems\n$/);

      const target = host.newPath("restored");
      const one = host.newPath("one");
      await host.ok("restore", ["--tablespace", `one:${one}`], [id, target]);
      const manifest = await readFile(join(target, "backup_manifest"), "utf8");
      assert.match(manifest, /"Path": "pg_tblspc\/\d+\/PG_\d+_\d+\/\d+\/\d+"/);
      if (havePgVerifybackup && major < 17) {
        const verified = await runProgram(PG_VERIFYBACKUP, ["-n", target]);
        assert.equal(verified.code, 0, verified.stderr);
        assert.match(verified.stdout, /^backup successfully verified/);
        const table = readdirSync(join(target, "base")).map((database) =>
          join(target, "base", database, "1259")
        ).find(existsSync);
        const handle = await open(table ?? "", "r+");
        await handle.write(Buffer.from([1, 2, 3, 4]), 0, 4, 100);
        await handle.close();
        const damaged = await runProgram(PG_VERIFYBACKUP, ["-n", target]);
        const summed = !options.includes("none");
        assert.equal(damaged.code, summed ? 1 : 0, damaged.stderr);
        return;
      }
      const restored = await host.startRestored(target, { major });
      await restored.waitUntilReady({ promoted: true });
      const [row] = await restored.query("select count(*)::int as rows from elsewhere");
      assert.equal(row?.["rows"], 2000);
    },
    kinds,
  );
}

/** Overwrites a piece of a page of a table that nobody reads meanwhile. @returns its file */
async function damagePage(server: TestPostgres, table: string, block: number): Promise<string> {
  const [row] = await server.query(`select pg_relation_filepath('${table}') as path`);
  const file = String(row?.["path"]);
  await server.stop();
  const handle = await open(join(server.dataDirectory, file), "r+");
  await handle.write(Buffer.from("damaged"), 0, 7, block * 8192 + 5000);
  await handle.close();
  await server.start();
  return file;
}

Deno.test("a damaged page is told, recorded and found again; whether it fails the backup is an option", async () => {
  await using store = await newStore("file");
  await using host = await newHost(store);
  const server = await filledServer(host, { major: 17 });
  const file = await damagePage(server, "filler", 70);
  const inSpace = await damagePage(server, "elsewhere", 3);

  const warned = await host.cloud("backup", [...QUICK, ...connection(server)]);
  assert.equal(warned.code, 0, warned.stderr);
  assert.match(warned.stderr, new RegExp(`Page 70 of ${file} is damaged: its checksum is `));
  assert.match(warned.stderr, new RegExp(`Page 3 of ${inSpace} is damaged: its checksum is `));
  assert.match(warned.stderr, /2 of \d+ pages are damaged/);
  const record = JSON.parse(
    new TextDecoder().decode(await store.read(await only(store, /\/verification\.json$/))),
  );
  const failed = record.page_checksums.failed_pages.map((
    page: { file: string; block: number },
  ) => [page.file, page.block]);
  assert.deepEqual(failed.sort(), [[file, 70], [inSpace, 3]].sort());
  const report = await verify(host);
  assert.equal(report.status, "DONE");
  assert.equal(report.pages?.failures, 2);
  assert.equal(report.problems.length, 2);

  const failing = ["--page-checksum-failure", "fail"];
  const refused = await host.cloud("backup", [...QUICK, ...failing, ...connection(server)]);
  assert.equal(refused.code, 1, refused.stderr);
  const failedId = (await backups(host)).at(-1) ?? "";
  const shown = JSON.parse(await host.ok("backup-show", ["--format", "json"], [failedId]));
  assert.equal(shown.cloud.status, "FAILED");
  assert.match(shown.cloud.error, /2 of \d+ pages are damaged/);

  const quiet = await host.cloud("backup", [
    ...QUICK,
    "--no-verify-page-checksums",
    ...connection(server),
  ]);
  assert.equal(quiet.code, 0);
  assert.doesNotMatch(quiet.stderr, /damaged/);
});

Deno.test("damage of an unlogged table is no matter: recovery empties it", async () => {
  await using store = await newStore("file");
  await using host = await newHost(store);
  const server = await filledServer(host, { major: 15 });
  await damagePage(server, "forgotten", 3);
  const { code, stderr } = await host.cloud("backup", [...QUICK, ...connection(server)]);
  assert.equal(code, 0, stderr);
  assert.doesNotMatch(stderr, /damaged/);
  assert.deepEqual((await verify(host)).problems, []);
});

Deno.test("without checksums pages are not looked at", async () => {
  await using store = await newStore("file");
  await using host = await newHost(store);
  const server = await filledServer(host, { major: 13, checksums: false });
  await damagePage(server, "filler", 7);
  const { code, stderr } = await host.cloud("backup", [...QUICK, ...connection(server)]);
  assert.equal(code, 0, stderr);
  assert.doesNotMatch(stderr, /damaged/);
});

testOnStores("backup-verify finds what became of the objects", async (store) => {
  await using host = await newHost(store);
  const server = await filledServer(host, { major: 15 });
  const id = await backUp(host, server, "--max-archive-size", "100KB", "--zstd");
  const base = `${host.serverName}/base/${id}`;
  const paths = (await store.paths()).filter((path) => path.includes(`/base/${id}/`));
  const last = paths.filter((path) => /\/data_\d+\.tar\.zst$/.test(path)).at(-1) ?? "";
  const end = JSON.parse(await host.ok("backup-show", ["--format", "json"], [id])).cloud.end_wal;
  const wal = (await store.paths()).find((path) => path.includes(`/${end}`)) ?? "";
  const manifest = `${base}/backup_manifest`;
  assert.deepEqual((await verify(host, id)).problems, []);

  const cases: readonly (readonly [string, RegExp, (bytes: Uint8Array) => Uint8Array | null])[] = [
    [`${base}/data.tar.zst`, /data\.tar\.zst/, (bytes) => {
      const damaged = Uint8Array.from(bytes);
      damaged[damaged.length >> 1] = 1 ^ (damaged[damaged.length >> 1] ?? 0);
      return damaged;
    }],
    [`${base}/data.tar.zst`, /data\.tar\.zst: /, (bytes) => bytes.slice(0, bytes.length - 100)],
    [last, /data_\d+\.tar\.zst is missing$/, () => null],
    [`${base}/data_0001.tar.zst`, /data_0001\.tar/, () => null],
    [manifest, /backup_manifest is damaged: its own checksum is wrong/, (bytes) => {
      const text = new TextDecoder().decode(bytes);
      return new TextEncoder().encode(text.replace(/"Size": \d+/, '"Size": 1'));
    }],
    [
      manifest,
      /backup_manifest is damaged: its last line is cut off/,
      (bytes) => bytes.slice(0, 50_000),
    ],
    [wal, new RegExp(`WAL that the backup needs is missing: ${end}`), () => null],
  ];
  for (const [path, problem, change] of cases) {
    const original = await store.read(path);
    const changed = change(original);
    if (changed === null) await store.remove(path);
    else await store.write(path, changed);
    const report = await verify(host, id);
    assert.ok(!report.ok, path);
    assert.ok(report.problems.some((each) => problem.test(each)), report.problems.join("\n"));
    await store.write(path, original);
  }
  assert.deepEqual((await verify(host, id)).problems, []);
  await store.remove(wal);
  const warned = await verify(host, id, ["--missing-wal", "warn"]);
  assert.deepEqual(warned.problems, []);
  assert.equal(warned.wal?.missing, 1);
  assert.equal((await verify(host, id, ["--missing-wal", "ignore"])).wal, null);
});

Deno.test("the WAL of the backup is waited for, or the backup tells that it is not there", async () => {
  await using store = await newStore("file");
  await using host = await newHost(store);
  const server = await host.start({ major: 18, settings: { archive_command: "/bin/true" } });
  const elsewhere = await host.cloud("backup", [
    "--immediate-checkpoint",
    "--wal-timeout",
    "3600",
    ...connection(server),
  ]);
  // The archive holds nothing at all, so there is nothing to wait for.
  assert.equal(elsewhere.code, 0, elsewhere.stderr);
  assert.match(elsewhere.stderr, /needs WAL that is not in .*\/wals\/: 0000000100000000000000/);

  const fail = ["--immediate-checkpoint", "--missing-wal", "fail", "--wal-timeout"];
  const failed = await host.cloud("backup", [...fail, "0", ...connection(server)]);
  assert.equal(failed.code, 1, failed.stderr);
  assert.match(failed.stderr, /Backup \S+ failed: The backup needs WAL that is not in/);
  const ignored = await host.cloud("backup", [
    "--immediate-checkpoint",
    "--missing-wal",
    "ignore",
    ...connection(server),
  ]);
  assert.equal(ignored.code, 0);
  assert.doesNotMatch(ignored.stderr, /needs WAL/);

  // An archiver that is late: what it says is done is done a little later.
  const copies = makeDirectory(host.newPath("copies"));
  const archive = host.archiveCommand().replace("%p", `${copies}/%f`).replaceAll("'", "''");
  await server.query(
    `alter system set archive_command = 'cp %p ${copies}/%f && (sleep 1; ${archive}) >/dev/null 2>&1 &'`,
  );
  await server.reload();
  await archiveCurrentSegment(server);
  // Until the archive holds something, there would be nothing to wait for.
  for (let tries = 0; !(await store.paths()).some((path) => path.includes("/wals/")); tries++) {
    assert.ok(tries < 300, "nothing was archived");
    await new Promise((resolve) => setTimeout(resolve, 100));
  }
  const late = await host.cloud("backup", ["-v", ...fail, "60", ...connection(server)]);
  assert.equal(late.code, 0, late.stderr);
});

testOnStores("wal-verify tells a whole archive from one with gaps", async (store) => {
  await using host = await newHost(store);
  const server = await host.start({ major: 17, walSegSizeMb: 1, wal: ["--zstd"] });
  const id = await backUp(host, server);
  for (let i = 0; i < 4; i++) await archiveCurrentSegment(server);
  const fine = JSON.parse(await host.ok("wal-verify", ["--format", "json"]));
  assert.deepEqual(fine.problems, []);
  assert.equal(fine.segment_size, 1024 ** 2);
  assert.match(fine.system_identifier, /^[0-9]{19}$/);
  assert.deepEqual(fine.backups.map((backup: { backup_id: string }) => backup.backup_id), [id]);
  assert.equal(fine.backups[0].missing, null);
  assert.equal(fine.backups[0].recoverable_to, fine.timelines[0].last);
  assert.match(await host.ok("wal-verify"), /\nNo problems\n$/);

  const segments = (await store.paths()).filter((path) =>
    /\/wals\/.*\/[0-9A-F]{24}\.zst$/.test(path)
  );
  const name = (path: string) => path.slice(path.lastIndexOf("/") + 1, -".zst".length);
  const needed = segments.find((path) => name(path) === fine.backups[0].begin_wal) ?? "";
  const later = segments.at(-2) ?? "";
  await store.remove(needed);
  await store.remove(later);
  const broken = await host.cloud("wal-verify");
  assert.equal(broken.code, 1, broken.stderr);
  assert.match(broken.stdout, new RegExp(`Backup ${id} can't be restored: ${name(needed)} of`));
  assert.match(broken.stdout, new RegExp(`segment ${name(later)} is missing`));
  const json = await host.cloud("wal-verify", ["--format", "json"]);
  assert.equal(json.code, 1);
  assert.ok(JSON.parse(json.stdout).gaps.total >= 1);

  const gone = await host.cloud("wal-verify", [], [], {
    storeOptions: store.kind === "s3" ? ["--endpoint-url", "http://127.0.0.1:1"] : [],
    env: { AWS_MAX_ATTEMPTS: "1" },
  });
  assert.equal(gone.code, store.kind === "s3" ? 2 : 1, gone.stderr);
});

Deno.test({
  name: "who may not look into the archive is told so, and the backup is DONE all the same",
  // Root may look anywhere, so somebody else has to run it.
  ignore: serverUser() === undefined,
  async fn() {
    await using store = await newStore("file");
    await using host = await newHost(store);
    const server = await host.start({ major: 18, settings: { archive_command: "/bin/true" } });
    const archive = join(fileURLToPath(store.url), host.serverName, "wals");
    mkdirSync(archive, { recursive: true, mode: 0o700 });
    const { uid, gid } = serverUser() ?? {};
    chownSync(join(archive, ".."), uid ?? 0, gid ?? 0);
    const words = ["--immediate-checkpoint", ...connection(server)];
    const blind = await host.cloud("backup", words);
    assert.equal(blind.code, 0, blind.stderr);
    assert.match(blind.stderr, /Cannot tell whether the WAL of the backup is in the archive/);
    const strict = await host.cloud("backup", ["--missing-wal", "fail", ...words]);
    assert.equal(strict.code, 1, strict.stderr);
  },
});
