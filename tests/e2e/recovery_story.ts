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
  await using host = await newHost(store);
  const { major } = story;

  // The first life.
  const primary = await host.start({
    major,
    tablespaces: { one: "one", "two words": "tablespace two" },
    settings: { max_wal_size: "64MB" },
    wal: flags(story.wal[0]),
  });
  await primary.query(LEDGER_IN_TABLESPACES);
  const load = await startWriteLoad(primary);
  await load.more(100);
  const split = ["--max-archive-size", "100KB", "--jobs", "3"];
  await backUp(host, primary, "monday", story.backups[0], split);
  const archives = (await store.paths()).filter((path) => /\/base\//.test(path));
  assert.ok(archives.some((path) => /\/data_0002\.tar/.test(path)), archives.join(" "));
  assert.equal(archives.filter((path) => /\/\d+\.tar/.test(path)).length, 2, archives.join(" "));

  await useWalCodec(host, primary, story.wal[1]);
  await load.more(200);
  const target = await chooseTarget(story.target, primary, load.confirmed);
  await load.more(200);
  await backUp(host, primary, "tuesday", story.backups[1], []);
  await load.more(100);
  await load.stop();
  await archiveCurrentSegment(primary);
  const old = { location: join(primary.dir, "one"), moved: host.newPath("one-moved") };
  await primary.kill9();
  await rm(primary.dataDirectory, { recursive: true, force: true });
  // The second tablespace comes back where it was, the first one elsewhere.
  const two = join(primary.dir, "tablespace two");
  await rm(two, { recursive: true, force: true });

  // Back to the chosen point, from the backup that lies before it.
  const restored = host.newPath("to the target");
  await host.ok("restore", [
    ...target.choice,
    "--tablespace",
    `one:${old.moved}`,
  ], ["auto", restored]);
  assert.equal((await stat(restored)).mode & 0o7777, 0o700);
  assert.ok((await readdir(old.moved)).some((name) => name.startsWith("PG_")));
  assert.ok((await readdir(two)).some((name) => name.startsWith("PG_")));
  const again = await host.startRestored(restored, {
    major,
    settings: { ...target.settings, recovery_target_action: "promote" },
    wal: flags(story.wal[2]),
  });
  await again.waitUntilReady({ promoted: true });
  await expectRows(again, target.present, target.absent);
  await checkDatabase(again);
  assert.equal(await timelineOf(again), 2);

  // Life goes on, on timeline 2.
  await again.query("select setval('ledger_id_seq', 1000000)");
  const second = await startWriteLoad(again);
  await second.more(50);
  await backUp(host, again, "wednesday", story.backups[2], ["--jobs", "1"]);
  await second.more(50);
  await second.stop();
  await archiveCurrentSegment(again);
  assert.ok(
    (await store.paths()).some((path) => /\/wals\/00000002\.history/.test(path)),
    "the history file is in the archive",
  );
  await again.kill9();

  // To the end of the newest timeline.
  const latest = host.newPath("latest");
  // With more than two jobs, codecs of ours have threads of their own.
  const aside = ["--jobs", "3", "--tablespace", `one:${host.newPath("one")}`, "--tablespace"];
  await host.ok("restore", [...aside, `two words:${host.newPath("two")}`], ["last", latest]);
  const newest = await host.startRestored(latest, { major, settings: { archive_mode: "off" } });
  await newest.waitUntilReady({ promoted: true });
  await expectRows(newest, [...target.present, ...second.confirmed], target.absent);
  await checkDatabase(newest);
  assert.equal(await timelineOf(newest), 3);
  await newest.stop("immediate");

  // To the end of the old one.
  const former = host.newPath("former");
  const elsewhere = ["--tablespace", `one:${host.newPath("one")}`, "--tablespace"];
  await host.ok("restore", [...elsewhere, `two words:${host.newPath("two")}`], ["tuesday", former]);
  const oldest = await host.startRestored(former, {
    major,
    settings: { archive_mode: "off", recovery_target_timeline: "1" },
  });
  await oldest.waitUntilReady({ promoted: true });
  await expectRows(oldest, load.confirmed, second.confirmed);
  await checkDatabase(oldest);
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
  assert.equal(await host.ok("backup", [...words, "-d", server.conninfo()]), "");
  const extension = { "": "tar", gzip: "tar.gz", bzip2: "tar.bz2" }[codec] ??
    `tar.${{ zstd: "zst" }[codec] ?? codec}`;
  const show = await host.ok("backup-show", ["--format", "json"], [name]);
  const { backup_id: id, status } = JSON.parse(show)["cloud"];
  assert.equal(status, "DONE");
  // Taken under write load: pages that were caught in a write are no damage.
  await host.ok("backup-verify", ["--jobs", "3"], [name]);
  const paths = await host.store.paths();
  assert.ok(paths.includes(`${host.serverName}/base/${id}/data.${extension}`), paths.join(" "));
}

async function useWalCodec(host: Host, server: TestPostgres, codec: string): Promise<void> {
  const command = host.archiveCommand(...flags(codec)).replaceAll("'", "''");
  await server.query(`alter system set archive_command = '${command}'`);
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
  assert.ok(present.length >= 200 && absent.length >= 50, `${present.length} ${absent.length}`);
  const { missing, late } = await compareRows(server, { present, absent });
  assert.deepEqual({ missing, late }, { missing: [], late: [] });
  const [filler] = await server.query(
    "select count(*)::int as rows, count(*) filter (where text = md5(i::text))::int as good from filler",
  );
  assert.deepEqual({ ...filler }, { rows: 40000, good: 40000 });
}

async function timelineOf(server: TestPostgres): Promise<number> {
  const [row] = await server.query("select substr(pg_walfile_name(pg_current_wal_lsn()), 1, 8) tl");
  return parseInt(String(row?.["tl"]), 16);
}
