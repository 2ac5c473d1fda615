/** What goes wrong in the middle of a backup: the end is quick, clear and clean, and the next backup is fine. */
import assert from "node:assert/strict";
import process from "node:process";
import { setTimeout as sleep } from "node:timers/promises";
import type { TestPostgres } from "../../scripts/servers/embedded_postgres.ts";
import { startFaultProxy } from "../../scripts/servers/fault_proxy.ts";
import { archiveCurrentSegment } from "../../scripts/servers/write_load.ts";
import type { RunResult } from "./executable.ts";
import { type CloudOptions, type Host, newHost } from "./host.ts";
import { testOnStores } from "./stores.ts";

/** Slow enough to be interrupted: the copy takes some ten seconds, and parts are small. */
const SLOWLY = [
  ...["--immediate-checkpoint", "--max-bandwidth", "4MB", "--max-archive-size", "10GB"],
  // What waits in memory for its upload no longer needs PostgreSQL.
  ...["--jobs", "1"],
];
/** From a signal or a lost connection to the end of the process, in milliseconds. */
const SOON = 8000;

testOnStores("a backup ended by SIGTERM or SIGINT is FAILED and leaves nothing", async (store) => {
  await using host = await newHost(store);
  const server = await startFilled(host);
  for (const signal of ["SIGTERM", "SIGINT"] as const) {
    const { result, took } = await disturbed(host, server, (pid) => process.kill(pid, signal));
    assert.equal(result.code, 1, result.stderr);
    assert.match(result.stderr, new RegExp(`Stopped by ${signal}`));
    assert.equal(result.stdout, "");
    assert.ok(took < SOON, `${took} ms`);
    await expectFailed(host, new RegExp(`^failure .*Stopped by ${signal}`));
    await expectNothingLeft(host, server);
  }
  await nextBackupIsFine(host, server);
});

testOnStores("a backup ended by kill -9 is ignored, and the next one is fine", async (store) => {
  await using host = await newHost(store);
  const server = await startFilled(host);
  const { result } = await disturbed(host, server, (pid) => process.kill(pid, "SIGKILL"));
  assert.equal(result.signal, "SIGKILL");
  await sessionGone(server);
  assert.equal((await host.ok("backup-list")).trimEnd().split("\n").length, 1);
  assert.deepEqual(JSON.parse(await host.ok("backup-list", ["--format", "json"])), {
    backups_list: [],
  });
  await nextBackupIsFine(host, server);
});

testOnStores("a backup fails at once when PostgreSQL goes down", async (store) => {
  await using host = await newHost(store);
  const server = await startFilled(host);
  const { result, took } = await disturbed(host, server, () => server.stop("immediate"));
  assert.equal(result.code, 1);
  assert.match(result.stderr, /ERROR: .*(PostgreSQL|session|terminating connection)/);
  assert.ok(took < SOON, `${took} ms`);
  await expectFailed(host, /PostgreSQL|session|terminating connection/);
  await server.start();
  await expectNothingLeft(host, server);
  // A killed session alone has the same effect.
  const killed = await disturbed(host, server, async () => {
    await server.query(
      "select pg_terminate_backend(pid) from pg_stat_activity where application_name = 'barman_cloud_backup'",
    );
  });
  assert.equal(killed.result.code, 1);
  assert.match(killed.result.stderr, /terminating connection due to administrator command/);
  assert.ok(killed.took < SOON, `${killed.took} ms`);
  await nextBackupIsFine(host, server);
});

testOnStores("a backup survives some seconds without the store", async (store) => {
  await using host = await newHost(store);
  const server = await startFilled(host);
  const proxy = await startFaultProxy(store.endpoint ?? "");
  try {
    const { result } = await disturbed(host, server, async () => {
      proxy.plan({ drop: true, reset: true });
      proxy.cut();
      await sleep(4000);
      proxy.plan({});
    }, { storeOptions: ["--endpoint-url", proxy.endpoint] });
    assert.equal(result.code, 0, result.stderr);
    assert.match(result.stderr, /WARNING: Trying again to /);
    await expectNothingLeft(host, server);
    await restores(host, server);
  } finally {
    await proxy.stop();
  }
}, ["s3"]);

testOnStores("a backup fails clearly when the store does not come back", async (store) => {
  await using host = await newHost(store);
  const server = await startFilled(host);
  const proxy = await startFaultProxy(store.endpoint ?? "");
  try {
    const { result, took } = await disturbed(host, server, () => {
      proxy.plan({ drop: true, reset: true });
      proxy.cut();
      return Promise.resolve();
    }, { storeOptions: ["--endpoint-url", proxy.endpoint], env: { AWS_MAX_ATTEMPTS: "3" } });
    assert.equal(result.code, 1);
    assert.match(result.stderr, /ERROR: Backup \d{8}T\d{6} failed: Cannot write .*127\.0\.0\.1/);
    assert.match(result.stderr, /Cannot store backup\.info of the failed backup/);
    assert.ok(took < 40_000, `${took} ms`);
    await sessionGone(server);
  } finally {
    await proxy.stop();
  }
  await nextBackupIsFine(host, server);
}, ["s3"]);

testOnStores(
  "archiving waits for the store, and restoring tells it from a missing file",
  async (store) => {
    await using host = await newHost(store);
    const proxy = await startFaultProxy(store.endpoint ?? "", { drop: true, reset: true });
    const storeOptions = ["--endpoint-url", proxy.endpoint];
    try {
      const server = await host.start({
        settings: {
          archive_command: host.archiveCommand("--zstd", "--read-timeout", "2").replaceAll(
            store.endpoint ?? "",
            proxy.endpoint,
          ).replace("env -i", "env -i AWS_MAX_ATTEMPTS=2"),
        },
      });
      await server.query("create table t as select generate_series(1, 1000) i");
      const [row] = await server.query("select pg_walfile_name(pg_switch_wal()) as segment");
      const segment = String(row?.["segment"]);
      await until(async () => {
        const [state] = await server.query("select failed_count::int as n from pg_stat_archiver");
        return Number(state?.["n"]) > 0;
      });
      assert.match(await server.logTail(), /archive command failed with exit code 4/);

      const began = performance.now();
      const env = { AWS_MAX_ATTEMPTS: "2" };
      const down = await host.cloud("wal-restore", [], [segment, host.newPath("wal")], {
        storeOptions,
        env,
      });
      assert.equal(down.code, 2, down.stderr);
      assert.match(down.stderr, /127\.0\.0\.1/);
      // Something that accepts connections and says nothing.
      proxy.plan({ blackhole: true });
      const dumb = await host.cloud("wal-archive", ["--read-timeout", "1"], [
        `${server.dataDirectory}/pg_wal/${segment}`,
      ], { storeOptions, env });
      assert.equal(dumb.code, 4, dumb.stderr);
      assert.ok(performance.now() - began < 20_000);

      proxy.plan({});
      proxy.cut();
      await archiveCurrentSegment(server);
      const target = host.newPath("wal");
      await host.ok("wal-restore", [], [segment, target]);
      assert.equal((await Deno.stat(target)).size, 16 * 1024 ** 2);
      const missing = host.newPath("wal");
      const none = await host.cloud("wal-restore", [], ["0000000100000000000000FF", missing]);
      assert.deepEqual([none.code, none.stdout, none.stderr], [1, "", ""]);
      await assert.rejects(Deno.stat(missing), Deno.errors.NotFound);
    } finally {
      await proxy.stop();
    }
  },
  ["s3"],
);

testOnStores("a restore names the archive that is broken or missing", async (store) => {
  await using host = await newHost(store);
  const server = await startFilled(host);
  // Codecs have some 10 MB under way when it is decided that an archive is full.
  for (let i = 0; i < 8; i++) {
    await server.query(
      `create table more_${i} as select md5(random()::text) from generate_series(1, 150000)`,
    );
  }
  for (const [flag, extension] of [["--zstd", "tar.zst"], [undefined, "tar"]] as const) {
    const name = `broken-${extension}`;
    await host.ok("backup", [
      ...(flag === undefined ? [] : [flag]),
      ...["--immediate-checkpoint", "--max-archive-size", "100KB", "--name", name],
      ...["-d", server.conninfo()],
    ]);
    const id: string =
      JSON.parse(await host.ok("backup-list", ["--format", "json"]))["backups_list"]
        .at(-1)["backup_id"];
    const paths = await store.paths();
    assert.ok(paths.some((each) => each.endsWith(`/${id}/data_0002.${extension}`)), "too few");
    const path = paths.find((each) => each.endsWith(`/${id}/data_0001.${extension}`)) ?? "";
    const whole = await store.read(path);
    const restore = () => host.cloud("restore", [], [name, host.newPath("broken")]);
    const broken = async (bytes: Uint8Array) => {
      await store.write(path, bytes);
      const { code, stderr } = await restore();
      assert.equal(code, 4, stderr);
      assert.match(stderr, /ERROR: Cannot restore .*data_0001\.tar/);
    };
    await broken(whole.subarray(0, whole.length >> 1));
    await broken(whole.subarray(0, whole.length - 1));
    await broken(new Uint8Array(0));
    // In the middle of a file's content only a checksum tells.
    const flipped = whole.slice();
    const middle = whole.length >> 1;
    flipped[middle] = (flipped[middle] ?? 0) ^ 1;
    await broken(flipped);
    await store.remove(path);
    const gap = await restore();
    assert.equal(gap.code, 1, gap.stderr);
    assert.match(gap.stderr, /data_0001/);
    await store.remove(path.replace("_0001", ""));
    const missing = await restore();
    assert.equal(missing.code, 1, missing.stderr);
    assert.match(missing.stderr, /data\.tar/);
  }
  const unknown = await host.cloud("restore", [], ["20200101T000000", host.newPath("none")]);
  assert.equal(unknown.code, 1);
  assert.match(unknown.stderr, /20200101T000000/);
});

/** With some 40 MB. */
async function startFilled(host: Host): Promise<TestPostgres> {
  const server = await host.start({ settings: { max_wal_size: "256MB" } });
  await server.query(
    "create table filler as select repeat(md5(i::text), 30) from generate_series(1, 20000) i",
  );
  return server;
}

/** Run a slow backup and disturb it when it uploads. */
async function disturbed(
  host: Host,
  server: TestPostgres,
  disturb: (pid: number) => unknown,
  run: CloudOptions = {},
): Promise<{ result: RunResult; took: number }> {
  let pid = 0;
  const ended = host.cloud("backup", [...SLOWLY, "-d", server.conninfo()], [], {
    ...run,
    onSpawn: (spawned) => {
      pid = spawned;
    },
  });
  let result: RunResult | undefined;
  ended.then((value) => result = value, () => undefined);
  await until(async () => {
    assert.equal(result, undefined, `too early: ${result?.stderr}`);
    return (await host.store.leftovers()).length > 0;
  });
  // In the middle of the copy, with parts that are there already.
  await sleep(1500);
  assert.equal(result, undefined, `too early: ${result?.stderr}`);
  const began = performance.now();
  await disturb(pid);
  return { result: await ended, took: performance.now() - began };
}

async function expectFailed(host: Host, error: RegExp): Promise<void> {
  const table = (await host.ok("backup-list")).split("\n");
  assert.match(table.at(-2) ?? "", /^\d{8}T\d{6} .* FAILED +$/, table.join("\n"));
  const json = JSON.parse(await host.ok("backup-list", ["--format", "json"]));
  const last = json["backups_list"].at(-1);
  assert.equal(last.status, "FAILED");
  assert.match(last.error, error);
  assert.match(await host.ok("backup-show", [], ["last-failed"]), /Status +: FAILED/);
}

async function expectNothingLeft(host: Host, server: TestPostgres): Promise<void> {
  assert.deepEqual(await host.store.leftovers(), []);
  await sessionGone(server);
}

async function sessionGone(server: TestPostgres): Promise<void> {
  await until(async () => {
    const rows = await server.query(
      "select 1 from pg_stat_activity where application_name = 'barman_cloud_backup'",
    );
    return rows.length === 0;
  });
}

async function nextBackupIsFine(host: Host, server: TestPostgres): Promise<void> {
  await host.ok("backup", ["--immediate-checkpoint", "--lz4", "-d", server.conninfo()]);
  const lines = (await host.ok("backup-list")).split("\n").slice(1, -1);
  assert.equal(lines.filter((line) => !/ FAILED +$/.test(line)).length, 1, lines.join("\n"));
  await restores(host, server);
}

async function restores(host: Host, server: TestPostgres): Promise<void> {
  const restored = host.newPath("restored");
  await host.ok("restore", [], ["auto", restored]);
  const again = await host.startRestored(restored, {
    major: server.major,
    settings: { archive_mode: "off" },
  });
  await again.waitUntilReady({ promoted: true });
  await again.query("select count(*) from pg_class");
}

async function until(done: () => Promise<boolean>): Promise<void> {
  const end = Date.now() + 30_000;
  while (!await done()) {
    if (Date.now() > end) throw new Error("What was waited for did not come within 30 s");
    await sleep(50);
  }
}
