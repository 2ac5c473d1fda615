/** Backups taken on a standby. */
import assert from "node:assert/strict";
import { setTimeout as sleep } from "node:timers/promises";
import type { PostgresMajor, TestPostgres } from "../../scripts/servers/embedded_postgres.ts";
import {
  archiveCurrentSegment,
  compareRows,
  startWriteLoad,
} from "../../scripts/servers/write_load.ts";
import { checkDatabase, type Host, newHost } from "./host.ts";
import { testOnStores, type TestStore } from "./stores.ts";

testOnStores(
  "PostgreSQL 18: a backup of a standby that archives itself",
  (store) => standbyStory(store, 18, "always"),
  ["file"],
);

testOnStores(
  "PostgreSQL 13: a backup of a standby whose primary archives",
  (store) => standbyStory(store, 13, "on"),
  ["s3"],
);

testOnStores(
  "PostgreSQL 16: a backup of a standby whose primary archives",
  (store) => standbyStory(store, 16, "on"),
  ["file"],
);

async function standbyStory(
  store: TestStore,
  major: PostgresMajor,
  archiving: "always" | "on",
): Promise<void> {
  await using host = await newHost(store);
  const primary = await host.start({ major, tablespaces: { apart: "apart" }, wal: ["--lz4"] });
  await primary.query("create table far tablespace apart as select generate_series(1, 5000) i");
  const load = await startWriteLoad(primary);
  await load.more(50);
  const standby = host.own(
    await primary.startStandby({ settings: { archive_mode: archiving } }),
  );
  const words = [
    "--zstd",
    "--immediate-checkpoint",
    "--name",
    "from-standby",
    "-d",
    standby.conninfo(),
  ];
  await switchingMeanwhile(primary, () => host.ok("backup", words));
  await load.more(100);
  await load.stop();
  await archiveCurrentSegment(primary);

  const shown = JSON.parse(await host.ok("backup-show", ["--format", "json"], ["last"]))["cloud"];
  assert.equal(shown.status, "DONE");
  assert.equal(shown.timeline, 1);
  assert.match(shown.backup_label, /BACKUP FROM: standby/);
  await host.ok("backup-verify", [], ["last"]);
  assert.ok(position(shown.end_xlog) > position(shown.begin_xlog), JSON.stringify(shown));
  await standby.kill9();
  await primary.kill9();

  const again = await restored(host, major);
  const { missing } = await compareRows(again, { present: load.confirmed });
  assert.deepEqual(missing, []);
  assert.ok(load.confirmed.length > 150);
  const [far] = await again.query("select count(*)::int as n from far");
  assert.equal(far?.["n"], 5000);
  await checkDatabase(again);
}

/** An LSN as a number. */
function position(lsn: string): bigint {
  const [high = "", low = ""] = lsn.split("/");
  return BigInt(`0x${high}`) << 32n | BigInt(`0x${low}`);
}

async function restored(host: Host, major: PostgresMajor): Promise<TestPostgres> {
  const directory = host.newPath("restored");
  await host.ok("restore", ["--tablespace", `apart:${host.newPath("apart")}`], [
    "from-standby",
    directory,
  ]);
  const server = await host.startRestored(directory, {
    major,
    settings: { archive_mode: "off", primary_conninfo: "" },
  });
  await server.waitUntilReady({ promoted: true });
  return server;
}

/** A standby can't switch WAL: its backup ends when the primary does, and starts at a restart point. */
async function switchingMeanwhile(
  primary: TestPostgres,
  work: () => Promise<unknown>,
): Promise<void> {
  let working = true;
  const switching = (async () => {
    while (working) {
      await primary.query("checkpoint");
      await primary.query("select pg_switch_wal()");
      await sleep(300);
    }
  })();
  try {
    await work();
  } finally {
    working = false;
    await switching;
  }
}
