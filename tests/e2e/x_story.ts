/**
 * The main job as one story: backups under write load, the server lost, recovery to a chosen point, life on the new
 * timeline, the server lost again, recovery to the end of the new and of the old timeline. After each recovery every
 * row is looked for.
 */
import assert from "node:assert/strict";
import { readdir, rm, stat } from "node:fs/promises";
import { join } from "node:path";
import type { PostgresMajor, TestPostgres } from "../../scripts/servers/embedded_postgres.ts";
import {
  archiveCurrentSegment,
  compareRows,
  type ConfirmedRow,
  startWriteLoad,
} from "../../scripts/servers/write_load.ts";
import { checkDatabase, type Host, newHost } from "./host.ts";
import type { TestStore } from "./stores.ts";

export type TargetKind = "time" | "lsn" | "name" | "xid";

/** Three of each: for the first backup and its WAL, the second, and the one on timeline 2. Empty: plain. */
export interface Story {
  readonly major: PostgresMajor;
  readonly target: TargetKind;
  readonly backups: readonly [string, string, string];
  readonly wal: readonly [string, string, string];
}

/** In different tablespaces, so that rows are lost if one is missing. */
const LEDGER_IN_TABLESPACES = `
  create table ledger (id bigserial primary key, amount int not null, note text not null)
    partition by hash (id);
  create table ledger_0 partition of ledger for values with (modulus 3, remainder 0);
  create table ledger_1 partition of ledger for values with (modulus 3, remainder 1) tablespace one;
  create table ledger_2 partition of ledger for values with (modulus 3, remainder 2)
    tablespace "two words";
  create index in_one on ledger_2 (amount) tablespace one;
  create table filler as select i, md5(i::text) as text from generate_series(1, 40000) i`;

export async function recoveryStory(store: TestStore, story: Story): Promise<void> {
  console.error(((performance.now())/1000).toFixed(1), 41);
  await using host = await newHost(store);
  const { major } = story;

  // The first life.
  console.error(((performance.now())/1000).toFixed(1), 45);
  const primary = await host.start({
    major,
    tablespaces: { one: "one", "two words": "tablespace two" },
    settings: { max_wal_size: "64MB" },
    wal: flags(story.wal[0]),
  });
  console.error(((performance.now())/1000).toFixed(1), 51);
  await primary.query(LEDGER_IN_TABLESPACES);
  console.error(((performance.now())/1000).toFixed(1), 52);
  const load = await startWriteLoad(primary);
  console.error(((performance.now())/1000).toFixed(1), 53);
  await load.more(100);
  const split = ["--max-archive-size", "1MB", "--jobs", "3"];
  console.error(((performance.now())/1000).toFixed(1), 55);
  await backUp(host, primary, "monday", story.backups[0], split);
  console.error(((performance.now())/1000).toFixed(1), 56);
  const archives = (await store.paths()).filter((path) => /\/base\//.test(path));
  console.error(((performance.now())/1000).toFixed(1), 57);
  assert.ok(archives.some((path) => /\/data_0002\.tar/.test(path)), archives.join(" "));
  console.error(((performance.now())/1000).toFixed(1), 58);
  assert.equal(archives.filter((path) => /\/\d+\.tar/.test(path)).length, 2, archives.join(" "));

  console.error(((performance.now())/1000).toFixed(1), 60);
  await useWalCodec(host, primary, story.wal[1]);
  console.error(((performance.now())/1000).toFixed(1), 61);
  await load.more(200);
  console.error(((performance.now())/1000).toFixed(1), 62);
  const target = await chooseTarget(story.target, primary, load.confirmed);
  console.error(((performance.now())/1000).toFixed(1), 63);
  await load.more(200);
  console.error(((performance.now())/1000).toFixed(1), 64);
  await backUp(host, primary, "tuesday", story.backups[1], []);
  console.error(((performance.now())/1000).toFixed(1), 65);
  await load.more(100);
  console.error(((performance.now())/1000).toFixed(1), 66);
  await load.stop();
  console.error(((performance.now())/1000).toFixed(1), 67);
  await archiveCurrentSegment(primary);
  const old = { location: join(primary.dir, "one"), moved: host.newPath("one-moved") };
  console.error(((performance.now())/1000).toFixed(1), 69);
  await primary.kill9();
  console.error(((performance.now())/1000).toFixed(1), 70);
  await rm(primary.dataDirectory, { recursive: true, force: true });
  // The second tablespace comes back where it was, the first one elsewhere.
  const two = join(primary.dir, "tablespace two");
  console.error(((performance.now())/1000).toFixed(1), 73);
  await rm(two, { recursive: true, force: true });

  // Back to the chosen point, from the backup that lies before it.
  const restored = host.newPath("to the target");
  console.error(((performance.now())/1000).toFixed(1), 77);
  await host.ok("restore", [
    ...target.choice,
    "--tablespace",
    `one:${old.moved}`,
  ], ["auto", restored]);
  console.error(((performance.now())/1000).toFixed(1), 82);
  assert.equal((await stat(restored)).mode & 0o7777, 0o700);
  console.error(((performance.now())/1000).toFixed(1), 83);
  assert.ok((await readdir(old.moved)).some((name) => name.startsWith("PG_")));
  console.error(((performance.now())/1000).toFixed(1), 84);
  assert.ok((await readdir(two)).some((name) => name.startsWith("PG_")));
  console.error(((performance.now())/1000).toFixed(1), 85);
  const again = await host.startRestored(restored, {
    major,
    settings: { ...target.settings, recovery_target_action: "promote" },
    wal: flags(story.wal[2]),
  });
  console.error(((performance.now())/1000).toFixed(1), 90);
  await again.waitUntilReady({ promoted: true });
  console.error(((performance.now())/1000).toFixed(1), 91);
  await expectRows(again, target.present, target.absent);
  console.error(((performance.now())/1000).toFixed(1), 92);
  await checkDatabase(again);
  console.error(((performance.now())/1000).toFixed(1), 93);
  assert.equal(await timelineOf(again), 2);

  // Life goes on, on timeline 2.
  console.error(((performance.now())/1000).toFixed(1), 96);
  await again.query("select setval('ledger_id_seq', 1000000)");
  console.error(((performance.now())/1000).toFixed(1), 97);
  const second = await startWriteLoad(again);
  console.error(((performance.now())/1000).toFixed(1), 98);
  await second.more(50);
  console.error(((performance.now())/1000).toFixed(1), 99);
  await backUp(host, again, "wednesday", story.backups[2], ["--jobs", "1"]);
  console.error(((performance.now())/1000).toFixed(1), 100);
  await second.more(50);
  console.error(((performance.now())/1000).toFixed(1), 101);
  await second.stop();
  console.error(((performance.now())/1000).toFixed(1), 102);
  await archiveCurrentSegment(again);
  console.error(((performance.now())/1000).toFixed(1), 103);
  assert.ok(
    (await store.paths()).some((path) => /\/wals\/00000002\.history/.test(path)),
    "the history file is in the archive",
  );
  console.error(((performance.now())/1000).toFixed(1), 107);
  await again.kill9();

  // To the end of the newest timeline.
  const latest = host.newPath("latest");
  const aside = ["--tablespace", `one:${host.newPath("one")}`, "--tablespace"];
  console.error(((performance.now())/1000).toFixed(1), 112);
  await host.ok("restore", [...aside, `two words:${host.newPath("two")}`], ["last", latest]);
  console.error(((performance.now())/1000).toFixed(1), 113);
  const newest = await host.startRestored(latest, { major, settings: { archive_mode: "off" } });
  console.error(((performance.now())/1000).toFixed(1), 114);
  await newest.waitUntilReady({ promoted: true });
  console.error(((performance.now())/1000).toFixed(1), 115);
  await expectRows(newest, [...target.present, ...second.confirmed], target.absent);
  console.error(((performance.now())/1000).toFixed(1), 116);
  await checkDatabase(newest);
  console.error(((performance.now())/1000).toFixed(1), 117);
  assert.equal(await timelineOf(newest), 3);
  console.error(((performance.now())/1000).toFixed(1), 118);
  await newest.stop("immediate");

  // To the end of the old one.
  const former = host.newPath("former");
  const elsewhere = ["--tablespace", `one:${host.newPath("one")}`, "--tablespace"];
  console.error(((performance.now())/1000).toFixed(1), 123);
  await host.ok("restore", [...elsewhere, `two words:${host.newPath("two")}`], ["tuesday", former]);
  console.error(((performance.now())/1000).toFixed(1), 124);
  const oldest = await host.startRestored(former, {
    major,
    settings: { archive_mode: "off", recovery_target_timeline: "1" },
  });
  console.error(((performance.now())/1000).toFixed(1), 128);
  await oldest.waitUntilReady({ promoted: true });
  console.error(((performance.now())/1000).toFixed(1), 129);
  await expectRows(oldest, load.confirmed, second.confirmed);
  console.error(((performance.now())/1000).toFixed(1), 130);
  await checkDatabase(oldest);
  console.error(((performance.now())/1000).toFixed(1), 131);
  assert.deepEqual(await store.leftovers(), []);
}

function flags(codec: string): string[] {
  return codec === "" ? [] : [`--${codec}`];
}

async function backUp(
  host: Host,
  server: TestPostgres,
  name: string,
  codec: string,
  options: readonly string[],
): Promise<void> {
  const words = [...flags(codec), "--immediate-checkpoint", "--name", name, ...options];
  console.error(((performance.now())/1000).toFixed(1), 146);
  assert.equal(await host.ok("backup", [...words, "-d", server.conninfo()]), "");
  const extension = { "": "tar", gzip: "tar.gz", bzip2: "tar.bz2" }[codec] ??
    `tar.${{ zstd: "zst" }[codec] ?? codec}`;
  console.error(((performance.now())/1000).toFixed(1), 149);
  const show = await host.ok("backup-show", ["--format", "json"], [name]);
  const { backup_id: id, status } = JSON.parse(show)["cloud"];
  console.error(((performance.now())/1000).toFixed(1), 151);
  assert.equal(status, "DONE");
  console.error(((performance.now())/1000).toFixed(1), 152);
  const paths = await host.store.paths();
  console.error(((performance.now())/1000).toFixed(1), 153);
  assert.ok(paths.includes(`${host.serverName}/base/${id}/data.${extension}`), paths.join(" "));
}

async function useWalCodec(host: Host, server: TestPostgres, codec: string): Promise<void> {
  const command = host.archiveCommand(...flags(codec)).replaceAll("'", "''");
  console.error(((performance.now())/1000).toFixed(1), 158);
  await server.query(`alter system set archive_command = '${command}'`);
  console.error(((performance.now())/1000).toFixed(1), 159);
  await server.reload();
}

interface Target {
  /** For `restore auto`. */
  readonly choice: readonly string[];
  readonly settings: Readonly<Record<string, string>>;
  readonly present: readonly ConfirmedRow[];
  /** Known not to be there; filled while the clients go on. */
  readonly absent: readonly ConfirmedRow[];
}

/** A point to come back to, while the clients write. */
async function chooseTarget(
  kind: TargetKind,
  server: TestPostgres,
  confirmed: readonly ConfirmedRow[],
): Promise<Target> {
  // What was confirmed before the point was asked for is before it; what is sent after the answer is after it.
  const before = [...confirmed];
  console.error(((performance.now())/1000).toFixed(1), 179);
  const [row] = await server.query(
    {
      time: "select clock_timestamp()::text as target, pg_current_wal_insert_lsn()::text as lsn",
      lsn:
        "select pg_current_wal_insert_lsn()::text as target, pg_current_wal_insert_lsn()::text lsn",
      name: "select pg_create_restore_point('before the accident')::text as lsn",
      xid:
        `create table mark (); select xmin::text as target, pg_current_wal_insert_lsn()::text as lsn
            from pg_class where relname = 'mark'`,
    }[kind],
  );
  const after = Date.now();
  const word = kind === "name" ? "before the accident" : String(row?.["target"]);
  return {
    choice: kind === "time"
      ? ["--target-time", word]
      : ["--target-lsn", String(row?.["lsn"]), "--target-tli", "1"],
    settings: { [`recovery_target_${kind}`]: word },
    present: before,
    get absent() {
      return confirmed.filter((each) => each.sent > after);
    },
  };
}

async function expectRows(
  server: TestPostgres,
  present: readonly ConfirmedRow[],
  absent: readonly ConfirmedRow[],
): Promise<void> {
  console.error(((performance.now())/1000).toFixed(1), 209);
  assert.ok(present.length >= 200 && absent.length >= 50, `${present.length} ${absent.length}`);
  console.error(((performance.now())/1000).toFixed(1), 210);
  const { missing, late } = await compareRows(server, { present, absent });
  console.error(((performance.now())/1000).toFixed(1), 211);
  assert.deepEqual({ missing, late }, { missing: [], late: [] });
  console.error(((performance.now())/1000).toFixed(1), 212);
  const [filler] = await server.query(
    "select count(*)::int as rows, count(*) filter (where text = md5(i::text))::int as good from filler",
  );
  console.error(((performance.now())/1000).toFixed(1), 215);
  assert.deepEqual({ ...filler }, { rows: 40000, good: 40000 });
}

async function timelineOf(server: TestPostgres): Promise<number> {
  console.error(((performance.now())/1000).toFixed(1), 219);
  const [row] = await server.query("select substr(pg_walfile_name(pg_current_wal_lsn()), 1, 8) tl");
  return parseInt(String(row?.["tl"]), 16);
}
