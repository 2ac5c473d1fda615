/** A server that archives by look-ahead, is lost and recovers by prefetch, is promoted and goes on. */
import assert from "node:assert/strict";
import { rm } from "node:fs/promises";
import { archiveCurrentSegment } from "../../scripts/servers/write_load.ts";
import { newHost } from "./host.ts";
import { testOnStores } from "./stores.ts";

testOnStores(
  "PostgreSQL 17 archives by look-ahead and recovers by prefetch, over a promotion",
  async (store) => {
    await using host = await newHost(store);
    const spool = ["--spool-dir", host.newPath("spool")];
    const ahead = ["--look-ahead", "8", ...spool, "--zstd"];
    const primary = await host.start({ major: 17, walSegSizeMb: 1, wal: ahead });
    await primary.query("create table numbers as select generate_series(1, 1000) n");
    await host.ok("backup", ["-d", primary.conninfo(), "--immediate-checkpoint"]);

    // Nothing can be archived for a while, so that many segments are ready at once.
    const archiving = host.archiveCommand(...ahead).replaceAll("'", "''");
    await primary.query("alter system set archive_command = 'false'");
    await primary.query("select pg_reload_conf()");
    for (let number = 0; number < 40; number++) {
      await primary.query(`insert into numbers values (${2000 + number})`);
      await primary.query("select pg_switch_wal()");
    }
    await primary.query(`alter system set archive_command = '${archiving}'`);
    await primary.query("select pg_reload_conf()");
    await archiveCurrentSegment(primary);
    const [archiver] = await primary.query(
      "select last_failed_wal as failed, archived_count::int as count from pg_stat_archiver",
    );
    assert.ok(Number(archiver?.["count"]) > 40, JSON.stringify(archiver));
    await primary.kill9();
    await rm(primary.dataDirectory, { recursive: true, force: true });
    assert.match(await host.ok("wal-verify"), /\nNo problems\n$/);

    const directory = host.newPath("restored");
    await host.ok("restore", [], ["last", directory]);
    const restored = await host.startRestored(directory, {
      major: 17,
      wal: ahead,
      settings: {
        restore_command: host.restoreCommand("-p", "8", ...spool, "--stop-recovery-on-error"),
      },
    });
    await restored.waitUntilReady({ promoted: true });
    const [row] = await restored.query("select count(*)::int as count, max(n) as max from numbers");
    assert.deepEqual([row?.["count"], row?.["max"]], [1040, 2039]);

    // The new timeline goes into the same archive, by the same spool.
    for (let number = 0; number < 10; number++) {
      await restored.query(`insert into numbers values (${3000 + number})`);
      await restored.query("select pg_switch_wal()");
    }
    await archiveCurrentSegment(restored);
    const report = JSON.parse(await host.ok("wal-verify", ["--format", "json"]));
    assert.deepEqual(report.problems, []);
    assert.deepEqual(
      report.timelines.map(({ timeline }: { timeline: number }) => timeline),
      [1, 2],
    );
    assert.match(report.backups[0].recoverable_to, /^00000002/);
    await restored.kill9();

    const latest = host.newPath("latest");
    await host.ok("restore", [], ["last", latest]);
    const newest = await host.startRestored(latest, {
      major: 17,
      settings: {
        archive_mode: "off",
        restore_command: host.restoreCommand("-p", "8", ...spool),
      },
    });
    await newest.waitUntilReady({ promoted: true });
    const [all] = await newest.query("select count(*)::int as count, max(n) as max from numbers");
    assert.deepEqual([all?.["count"], all?.["max"]], [1050, 3009]);
    assert.deepEqual(await store.leftovers(), []);
  },
);
