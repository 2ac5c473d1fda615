import assert from "node:assert/strict";
import { spawnSync } from "node:child_process";
import {
  chmodSync,
  existsSync,
  lstatSync,
  mkdirSync,
  readdirSync,
  readFileSync,
  readlinkSync,
  statSync,
  symlinkSync,
  writeFileSync,
} from "node:fs";
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import { crc32, gzipSync } from "node:zlib";
import type { BackupInfo } from "../../../lib/backup/backup_info.ts";
import { formatRecord } from "../../../lib/backup/record.ts";
import { serverLayout } from "../../../lib/layout.ts";
import type { Progress } from "../../../lib/progress.ts";
import { RestoreError } from "../../../lib/restore/restore_error.ts";
import { restoreBackup, type RestoreJob } from "../../../lib/restore/restore.ts";
import { openFileStore } from "../../../providers/file/store.ts";
import type { ObjectStore } from "../../../providers/object_store.ts";
import { skipUnless } from "../../skips.ts";
import {
  dataArchive,
  dataMembers,
  doneInfo,
  LABEL,
  lastMembers,
  recordingLog,
  type Workspace,
  workspace,
} from "./fixtures.ts";
import { archive, concat, member } from "./raw_tar.ts";

const ID = "20260115T103000";
const isRoot = process.geteuid?.() === 0;
const notRoot = skipUnless(
  isRoot,
  "restoring owners, which only root can",
  "run the tests as root",
);

interface Done {
  readonly lines: readonly string[];
  readonly progress: readonly Progress[];
  /** What it failed with. */
  readonly error: unknown;
}

async function restore(
  space: Workspace,
  known: Partial<BackupInfo> = {},
  job: Partial<RestoreJob> = {},
  wrap: (store: ObjectStore) => ObjectStore = (store) => store,
): Promise<Done> {
  const { log, lines } = recordingLog();
  const progress: Progress[] = [];
  const { store } = await openFileStore(space.url, { env: {} });
  let error: unknown;
  try {
    await restoreBackup({
      store: wrap(store),
      layout: serverLayout("", "main"),
      backupId: ID,
      info: doneInfo(known),
      destination: join(space.directory, "new/pgdata"),
      tablespaceRules: [],
      log,
      signal: new AbortController().signal,
      onProgress: (step) => progress.push(step),
      ...job,
    });
  } catch (reason) {
    error = reason;
  } finally {
    await store.close();
  }
  return { lines, progress, error };
}

async function restored(...words: Parameters<typeof restore>): Promise<Done> {
  const done = await restore(...words);
  if (done.error !== undefined) throw done.error;
  return done;
}

function assertFails(done: Done, kind: string, message: RegExp): void {
  assert(done.error instanceof RestoreError, String(done.error));
  assert.equal(done.error.kind, kind);
  assert.match(done.error.message, message);
}

const pgdataOf = (space: Workspace) => join(space.directory, "new/pgdata");
const warnings = (done: Done) => done.lines.filter((line) => line.startsWith("WARNING"));
const mode = (...path: string[]) => lstatSync(join(...path)).mode & 0o7777;

Deno.test("restore: a plain backup, with pg_wal made and progress told", async () => {
  await using space = await workspace();
  const whole = dataArchive();
  await space.put(ID, "data.tar", whole);
  const done = await restored(space);
  const pgdata = pgdataOf(space);
  assert.deepEqual(
    readdirSync(pgdata).sort(),
    ["PG_VERSION", "backup_label", "base", "global", "pg_tblspc", "pg_wal"],
  );
  assert.equal(readFileSync(join(pgdata, "base/5/1249"), "utf8"), "a".repeat(100_000));
  assert.equal(readFileSync(join(pgdata, "backup_label"), "utf8"), LABEL);
  assert.deepEqual(["", "base/5", "base/5/1249", "pg_wal"].map((path) => mode(pgdata, path)), [
    0o700,
    0o750,
    0o640,
    0o700,
  ]);
  assert.equal(statSync(pgdata).mtimeMs, 1700000000_000);
  assert.equal(statSync(join(pgdata, "base/5")).mtimeMs, 1700000003_000);
  assert.deepEqual(warnings(done), []);
  assert.deepEqual(done.progress.at(-1), {
    activity: "completing directories and flushing to disk",
    doneBytes: whole.length,
    totalBytes: whole.length,
  });
});

Deno.test("restore: archives are compared with what was sent, where that was recorded", async () => {
  const whole = dataArchive();
  const record = (sum: number, size = whole.length) =>
    new TextEncoder().encode(formatRecord({
      backupId: ID,
      archives: [{ name: "data.tar", size, crc32: sum }],
      pages: null,
      missingWal: null,
    }));
  const run = async (bytes: Uint8Array) => {
    await using space = await workspace();
    await space.put(ID, "data.tar", whole);
    await space.put(ID, "verification.json", bytes);
    return await restore(space);
  };
  assert.deepEqual(warnings(await run(record(crc32(whole)))), []);
  assertFails(
    await run(record((crc32(whole) ^ 1) >>> 0)),
    "archive",
    /data\.tar: it .*checksum is wrong/,
  );
  assertFails(
    await run(record(crc32(whole), whole.length + 1)),
    "archive",
    /data\.tar: it has \d+/,
  );
  const damaged = await run(new TextEncoder().encode("{"));
  assert.equal(damaged.error, undefined);
  assert.match(warnings(damaged).join(), /verification\.json is damaged .* are not compared/);
});

Deno.test("restore: split archives and compressions, several at once, the last label counts", async () => {
  for (const jobs of [1, 2, 8]) {
    await using space = await workspace();
    const files = Array.from(
      { length: 30 },
      (_, i) => member({ name: `base/5/${i}`, content: String(i).repeat(3000) }),
    );
    const [root, ...others] = dataMembers().slice(0, -2);
    assert(root !== undefined);
    const stale = member({ name: "./backup_label", content: "stale ".repeat(10_000) });
    await space.put(
      ID,
      "data.tar.gz",
      gzipSync(archive(root, ...others, stale, ...files.slice(0, 10))),
    );
    await space.put(ID, "data_0001.tar.gz", gzipSync(archive(...files.slice(10, 20))));
    await space.put(
      ID,
      "data_0002.tar.gz",
      gzipSync(archive(...files.slice(20), ...lastMembers())),
    );
    await restored(space, {}, { jobs });
    const pgdata = pgdataOf(space);
    for (let i = 0; i < 30; i++) {
      assert.equal(readFileSync(join(pgdata, `base/5/${i}`), "utf8"), String(i).repeat(3000));
    }
    assert.equal(readFileSync(join(pgdata, "backup_label"), "utf8"), LABEL);
  }
});

Deno.test("restore: tablespaces, by rule, at their place, and inside PGDATA", async () => {
  await using space = await workspace();
  const inTablespace = (content: string) =>
    archive(
      member({ name: "PG_17_202406281", type: "5", mode: 0o700 }),
      member({ name: "PG_17_202406281/5", type: "5", mode: 0o700 }),
      member({ name: "PG_17_202406281/5/16386", content }),
    );
  await space.put(
    ID,
    "data.tar",
    dataArchive(
      // What old backups store twice.
      member({ name: "my/ts/PG_17_202406281/5/16386", content: "stale" }),
      member({ name: "pg_tblspc/16384", type: "2", linkTarget: "/somewhere/else" }),
    ),
  );
  await space.put(ID, "16384.tar", inTablespace("one"));
  await space.put(ID, "16385.tar", inTablespace("two"));
  await space.put(ID, "16386.tar", inTablespace("three"));
  const pgdata = pgdataOf(space);
  const original = join(space.directory, "srv/ts2");
  mkdirSync(join(space.directory, "really"));
  symlinkSync("really", join(space.directory, "seemingly"));
  const done = await restored(space, {
    pgdata: "/old/pgdata",
    tablespaces: [
      { name: "ts:1", oid: 16384, location: "/srv/ts1" },
      { name: "ts2", oid: 16385, location: original },
      { name: "inside", oid: 16386, location: "/old/pgdata/my/ts" },
    ],
  }, {
    tablespaceRules: [
      { name: "ts:1", location: join(space.directory, "seemingly/new") },
      { name: "inside", location: join(pgdata, "my/ts") },
    ],
  });
  const link = (oid: number) => readlinkSync(join(pgdata, "pg_tblspc", String(oid)));
  assert.equal(link(16384), join(space.directory, "really/new"));
  assert.equal(link(16385), original);
  assert.equal(link(16386), join(pgdata, "my/ts"));
  const content = (oid: number) =>
    readFileSync(join(pgdata, `pg_tblspc/${oid}/PG_17_202406281/5/16386`), "utf8");
  assert.deepEqual([content(16384), content(16385), content(16386)], ["one", "two", "three"]);
  assert.equal(mode(original), 0o700);
  assert.equal(mode(pgdata, "my/ts"), 0o700);
  assert.deepEqual(warnings(done), []);
});

Deno.test("restore: nothing is written when a directory is not empty", async () => {
  await using space = await workspace();
  await space.put(ID, "data.tar", dataArchive());
  await space.put(ID, "16384.tar", archive(member({ name: "PG_17_202406281", type: "5" })));
  const tablespaces = [{ name: "ts1", oid: 16384, location: join(space.directory, "ts1") }];
  mkdirSync(join(space.directory, "ts1"));
  writeFileSync(join(space.directory, "ts1/file"), "");
  assertFails(
    await restore(space, { tablespaces }),
    "destination",
    /tablespace ts1 into .*\/ts1: the directory is not empty/,
  );
  assert(!existsSync(join(space.directory, "new")));
  const occupied = { destination: join(space.directory, "ts1") };
  assertFails(await restore(space, {}, occupied), "destination", /PGDATA into .*not empty/);
  const file = { destination: join(space.directory, "ts1/file") };
  assertFails(await restore(space, {}, file), "destination", /is not a directory/);
});

Deno.test("restore: an empty directory and a symbolic link to one are fine", async () => {
  await using space = await workspace();
  await space.put(ID, "data.tar", dataArchive());
  const real = join(space.directory, "real");
  mkdirSync(real);
  chmodSync(real, 0o755);
  symlinkSync("real", join(space.directory, "link"));
  await restored(space, {}, { destination: join(space.directory, "link") });
  assert(existsSync(join(real, "PG_VERSION")));
  assert.equal(mode(real), 0o700);
});

Deno.test("restore: what is broken fails, names the archive, and says what was left", async () => {
  const whole = dataArchive();
  const zipped = gzipSync(whole);
  const damaged = zipped.slice();
  damaged[damaged.length - 6] = (damaged[damaged.length - 6] ?? 0) ^ 1;
  const cases: readonly (readonly [string, Uint8Array, RegExp])[] = [
    [
      "data.tar",
      whole.subarray(0, 5000),
      /base\/ID\/data\.tar: The archive is cut off at byte 5000/,
    ],
    ["data.tar", new Uint8Array(0), /data\.tar: The archive is empty/],
    ["data.tar", new TextEncoder().encode("garbage".repeat(1000)), /damaged at byte 0/],
    ["data.tar.gz", whole, /data\.tar\.gz: Cannot decompress gzip data/],
    ["data.tar.gz", zipped.subarray(0, zipped.length - 20), /data\.tar\.gz: .*cut off/],
    ["data.tar.gz", damaged, /data\.tar\.gz: Cannot decompress gzip data/],
    ["data.tar", dataArchive(member({ name: "../x" })), /data\.tar: Refused member \.\.\/x/],
    ["data.tar", archive(...dataMembers().slice(0, -2)), /hold no global\/pg_control/],
  ];
  for (const [name, content, message] of cases) {
    await using space = await workspace();
    await space.put(ID, name, content);
    const done = await restore(space);
    assertFails(done, "archive", new RegExp(message.source.replace("ID", ID)));
    assert.match(warnings(done).at(-1) ?? "", /incomplete .* empty .*new\/pgdata before/);
  }
});

Deno.test("restore: a failing archive ends the others", async () => {
  await using space = await workspace();
  await space.put(ID, "data.tar", dataArchive());
  await space.put(ID, "data_0001.tar", new Uint8Array(512));
  const { body } = { body: concat(dataMembers()) };
  const done = await restore(space, {}, { jobs: 2 }, (store) => ({
    ...bound(store),
    get: async (key, options) => {
      const reader = await store.get(key, options);
      if (!key.endsWith("data.tar")) return reader;
      async function* stuck() {
        yield body.subarray(0, 1024);
        await new Promise((_, reject) => {
          options?.signal?.addEventListener("abort", () => reject(options.signal?.reason));
        });
      }
      return { ...reader, body: stuck() };
    },
  }));
  assertFails(done, "archive", /data_0001\.tar: .*cut off at byte 512/);
});

Deno.test("restore: an abort ends it with the signal's reason", async () => {
  await using space = await workspace();
  await space.put(ID, "data.tar", dataArchive());
  const controller = new AbortController();
  const reason = new Error("SIGTERM");
  const done = await restore(space, {}, {
    signal: controller.signal,
    onProgress: ({ doneBytes }) => doneBytes > 0 && controller.abort(reason),
  });
  assert.equal(done.error, reason);
  assert.match(warnings(done).at(-1) ?? "", /incomplete/);
});

Deno.test("restore: missing archives and snapshot backups", async () => {
  await using space = await workspace();
  await space.put(ID, "data_0001.tar", dataArchive());
  assertFails(await restore(space), "missing-archive", /data\.tar/);
  const snapshotsInfo = { provider: "aws" } as unknown as BackupInfo["snapshotsInfo"];
  assertFails(await restore(space, { snapshotsInfo }), "invalid", /disk snapshots/);
  assert(!existsSync(join(space.directory, "new")));
});

Deno.test("restore: status, label and tablespace_map that deserve a warning", async () => {
  await using space = await workspace();
  const withoutLabel = dataMembers(member({ name: "tablespace_map", content: "16384 /x\n" }))
    .slice(0, -1);
  await space.put(ID, "data.tar", archive(...withoutLabel));
  const first = await restored(space, { status: "FAILED" });
  assert.match(warnings(first)[0] ?? "", /status FAILED, not DONE/);
  assert.match(warnings(first)[1] ?? "", /holds no backup_label/);
  assert.match(warnings(first)[2] ?? "", /Renamed .*tablespace_map/);
  assert(existsSync(join(pgdataOf(space), "tablespace_map.old")));
  const second = await restored(space, { backupLabel: LABEL }, {
    destination: join(space.directory, "other"),
  });
  assert.match(warnings(second)[0] ?? "", /made it from backup\.info/);
  assert.equal(readFileSync(join(space.directory, "other/backup_label"), "utf8"), LABEL);
});

Deno.test({
  name: "restore: owners by name, else by number; roots of tablespaces and old labels too",
  ignore: notRoot,
  fn: async () => {
    await using space = await workspace();
    const owned = { uid: 1234, gid: 1235 };
    await space.put(
      ID,
      "data.tar",
      archive(
        member({ name: ".", type: "5", mode: 0o750, ...owned }),
        member({ name: "named", userName: "nobody", groupName: "nobody-here", ...owned }),
        member({ name: "link", type: "2", linkTarget: "/nowhere", ...owned }),
        member({ name: "setuid", mode: 0o6755, ...owned }),
        ...lastMembers(),
      ),
    );
    await space.put(ID, "16384.tar", archive(member({ name: "PG_17_1", type: "5", ...owned })));
    const location = join(space.directory, "ts1");
    const tablespaces = [{ name: "ts1", oid: 16384, location }];
    await restored(space, { tablespaces });
    const pgdata = pgdataOf(space);
    const owner = (...path: string[]) => {
      const { uid, gid } = lstatSync(join(...path));
      return [uid, gid];
    };
    const nobody = Number(
      /^nobody:[^:]*:(\d+)/m.exec(readFileSync("/etc/passwd", "utf8"))?.[1] ?? "1234",
    );
    assert.deepEqual(owner(pgdata), [1234, 1235]);
    assert.deepEqual(owner(pgdata, "named"), [nobody, 1235]);
    for (const path of ["link", "backup_label", "pg_wal", "pg_tblspc", "pg_tblspc/16384"]) {
      assert.deepEqual(owner(pgdata, path), [1234, 1235], path);
    }
    assert.deepEqual(owner(location), [1234, 1235]);
    assert.equal(mode(location), 0o750);
    assert.equal(mode(pgdata, "pg_wal"), 0o750);
    assert.equal(mode(pgdata, "setuid"), 0o755);
  },
});

Deno.test({
  name: "restore: without root's rights everything belongs to who restores",
  ignore: notRoot,
  fn: async () => {
    await using space = await workspace();
    const owned = dataMembers(member({ name: "theirs", uid: 1234, gid: 1, userName: "root" }));
    await space.put(ID, "data.tar", archive(...owned));
    chmodSync(space.directory, 0o777);
    const script = fileURLToPath(new URL("./as_nobody.ts", import.meta.url));
    const pgdata = join(space.directory, "pgdata");
    const { status, stderr } = spawnSync(
      Deno.execPath(),
      ["run", "-A", "--no-check", script, space.url, ID, pgdata],
      { encoding: "utf8", timeout: 60_000 },
    );
    assert.equal(status, 0, stderr);
    for (const path of ["", "theirs", "base/5/1249", "pg_wal"]) {
      assert.equal(lstatSync(join(pgdata, path)).uid, 65534, path);
    }
    assert.equal(mode(pgdata, "base/5/1249"), 0o640);
  },
});

/** Methods of a class do not survive a spread. */
function bound(store: ObjectStore): ObjectStore {
  return {
    ...store,
    provider: store.provider,
    description: store.description,
    limits: store.limits,
    capabilities: store.capabilities,
    list: (prefix, options) => store.list(prefix, options),
  } as ObjectStore;
}
