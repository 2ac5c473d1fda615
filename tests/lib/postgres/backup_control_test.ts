import assert from "node:assert/strict";
import { readdir } from "node:fs/promises";
import { join } from "node:path";
import { parseTimestamp } from "../../../lib/backup/timestamp.ts";
import {
  createRestorePoint,
  startBackup,
  stopBackup,
  StopTimeoutError,
  switchWal,
} from "../../../lib/postgres/backup_control.ts";
import { backupServerOf } from "../../../lib/postgres/backup_server.ts";
import { compareLsn, formatLsn, lsnOf } from "../../../lib/postgres/lsn.ts";
import { missingPrivileges } from "../../../lib/postgres/privileges.ts";
import {
  majorVersionIn,
  readIdentity,
  readServerFacts,
  readSystemIdentifier,
} from "../../../lib/postgres/server_facts.ts";
import { QueryError, SessionLostError } from "../../../lib/postgres/session.ts";
import { type PostgresMajor, startPostgres } from "../../../scripts/servers/embedded_postgres.ts";
import { eventually, recordingLog, sessionOf } from "./fixtures.ts";

Deno.test("major version in version()", () => {
  assert.equal(majorVersionIn("PostgreSQL 15.18 on x86_64"), "15");
  assert.equal(majorVersionIn("PostgreSQL 15.18 (Debian 15.18-0) on x86_64"), "15");
  assert.equal(majorVersionIn("PostgreSQL 9.6.24 on x86_64"), "9.6");
  assert.equal(majorVersionIn("PostgreSQL 17beta1 on x86_64"), "17");
  assert.equal(majorVersionIn("PostgreSQL 18devel on x86_64"), "18");
  assert.equal(majorVersionIn("EnterpriseDB 15.4.0 on x86_64"), "15");
  assert.equal(majorVersionIn("EnterpriseDB 9.6.2.7 on x86_64"), "9.6");
  assert.equal(majorVersionIn("something"), undefined);
});

for (const major of [13, 15, 17, 18] as const) {
  Deno.test(`PostgreSQL ${major}: facts, privileges, backups`, (t) => onServer(major, t));
}

async function onServer(major: PostgresMajor, t: Deno.TestContext): Promise<void> {
  await using pg = await startPostgres({
    major,
    walSegSizeMb: 2,
    checksums: major !== 15,
    tablespaces: { "it's fast": "fast" },
    settings: {
      archive_mode: true,
      archive_command: "test ! -e stuck",
      log_checkpoints: true,
    },
  });
  await pg.query("ALTER SYSTEM SET work_mem = '5MB'");
  await pg.reload();
  const log = recordingLog();

  await t.step("facts", async () => {
    await using session = await sessionOf(pg.conninfo());
    const identity = await readIdentity(session);
    assert.equal(Math.floor(identity.version / 10_000), major);
    assert.equal(identity.majorVersion, String(major));
    assert.equal(identity.inRecovery, false);
    const facts = await readServerFacts(session, identity, log, { withSize: true });
    const { clusterSize, tablespaces, ...rest } = facts;
    assert.ok(clusterSize !== null && clusterSize > 10_000_000);
    assert.equal(tablespaces.length, 1);
    assert.ok((tablespaces[0]?.oid ?? 0) >= 16384);
    assert.deepEqual({ ...tablespaces[0], oid: 0 }, {
      name: "it's fast",
      oid: 0,
      location: join(pg.dir, "fast"),
    });
    const [versionDirectory = ""] = await readdir(join(pg.dir, "fast"));
    assert.ok(versionDirectory.startsWith(`PG_${identity.majorVersion}_`));
    assert.deepEqual(rest, {
      dataDirectory: pg.dataDirectory,
      segmentSize: 2 * 1024 ** 2,
      blockSize: 8192,
      segmentBlocks: 131072,
      configFile: join(pg.dataDirectory, "postgresql.conf"),
      hbaFile: join(pg.dataDirectory, "pg_hba.conf"),
      identFile: join(pg.dataDirectory, "pg_ident.conf"),
      includedFiles: [join(pg.dataDirectory, "postgresql.auto.conf")],
      dataChecksums: major === 15 ? "off" : "on",
      summarizeWal: major >= 17 ? "off" : null,
      archiveMode: "on",
      walLevel: "replica",
    });
    const [row] = await pg.query("SELECT system_identifier::text AS id FROM pg_control_system()");
    assert.equal(await readSystemIdentifier(session, log), row?.["id"]);
    assert.deepEqual(log.lines, []);
  });

  await t.step("privileges: none, some, enough", async () => {
    await pg.query('CREATE ROLE "backup er" LOGIN');
    const conninfo = `host=${pg.socketDirectory} port=${pg.port} dbname=postgres user='backup er'`;
    await using session = await sessionOf(conninfo);
    const identity = await readIdentity(session);
    const all = await missingPrivileges(session, identity);
    assert.equal(all.length, 5);
    assert.match(all[0] ?? "", /GRANT pg_monitor TO "backup er"/);
    await assert.rejects(
      readServerFacts(session, identity, log, { withSize: false }),
      /Cannot tell the server's data directory.*GRANT pg_read_all_settings/,
    );
    await assert.rejects(
      startBackup(session, identity, { label: "x", fast: true }),
      (error) => error instanceof QueryError && error.sqlState === "42501",
    );

    // The statements that the messages tell.
    const told = (messages: readonly string[]) =>
      messages.map((message) => /GRANT .*(?=\)$)/.exec(message)?.[0] ?? "nothing told");
    await pg.query(told(all.slice(1)).join("; "));
    assert.deepEqual(await missingPrivileges(session, identity), all.slice(0, 1));
    await pg.query(`GRANT pg_read_all_settings TO "backup er"`);
    assert.deepEqual(await missingPrivileges(session, identity), all.slice(0, 1));
    await pg.query(`GRANT pg_read_all_stats TO "backup er"`);
    assert.deepEqual(await missingPrivileges(session, identity), []);

    const server = await backupServerOf(session, log);
    const facts = await server.facts();
    assert.equal(facts.dataDirectory, pg.dataDirectory);
    assert.ok((facts.clusterSize ?? 0) > 10_000_000);
    const { signal } = new AbortController();
    const start = await server.start("by a plain role", true, signal);
    const stop = await server.stop({ signal, archiveTimeout: 60 });
    assert.ok(stop.lsn > start.lsn);
    await server.switchWal();
    await server.createRestorePoint("barman_x");

    await pg.query("CREATE DATABASE other");
    await using elsewhere = await sessionOf(conninfo.replace("dbname=postgres", "dbname=other"));
    const there = await missingPrivileges(elsewhere, identity);
    assert.equal(there.length, 4, "functions are granted per database");
    assert.match(there[0] ?? "", /in database other/);
  });

  await t.step("start, stop, restore point, switch", async () => {
    await using session = await sessionOf(
      `${pg.conninfo()} options='-c TimeZone=Asia/Kolkata -c DateStyle=German -c statement_timeout=20s'`,
    );
    const identity = await readIdentity(session);
    const before = Math.floor(Date.now() / 1000);
    const label = "Barman backup cloud 20260101T000000";
    const start = await startBackup(session, identity, { label, fast: true });
    await pg.query(`CREATE TABLE t_${major} AS SELECT generate_series(1, 1000)`);
    const [limits] = await session.query("SHOW statement_timeout");
    assert.equal(limits?.["statement_timeout"], "0");
    const stop = await stopBackup(session, identity, { timeoutMs: 60_000 });
    for (const { time } of [start, stop]) {
      assert.match(time, /^\d{4}-\d\d-\d\d \d\d:\d\d:\d\d(\.\d{6})?\+05:30$/);
      const seconds = parseTimestamp(time).epochSeconds;
      assert.ok(seconds >= before && seconds <= Date.now() / 1000);
    }
    assert.equal(start.timeline, 1);
    assert.equal(stop.timeline, 1);
    assert.ok(compareLsn(start.lsn, stop.lsn) < 0);
    assert.ok(stop.label.includes(`LABEL: ${label}\n`));
    assert.ok(stop.label.includes(`START WAL LOCATION: ${formatLsn(start.lsn)} `));
    assert.match(stop.tablespaceMap, /^\d+ .*\/fast\n$/);
    const point = await createRestorePoint(session, "barman_20260101T000000");
    assert.ok(compareLsn(stop.lsn, point) < 0);
    await switchWal(session, identity);
    const [row] = await pg.query("SELECT pg_current_wal_lsn() - '0/0'::pg_lsn AS at");
    assert.ok(lsnOf(BigInt(String(row?.["at"]))) > point);
  });

  await t.step("a stuck archiver: told each while, bounded, cancelled by a signal", async () => {
    await pg.query("COPY (SELECT 1) TO PROGRAM 'cat > stuck'");
    await using session = await sessionOf(pg.conninfo());
    const identity = await readIdentity(session);
    const waited: number[] = [];
    await startBackup(session, identity, { label: "stuck", fast: true });
    const began = performance.now();
    await assert.rejects(
      stopBackup(session, identity, {
        timeoutMs: 700,
        everyMs: 200,
        onWaiting: (ms) => waited.push(ms),
      }),
      StopTimeoutError,
    );
    assert.ok(performance.now() - began < 5000);
    assert.ok(waited.length >= 2 && waited.length <= 4, `told ${waited.length} times`);

    await using second = await sessionOf(pg.conninfo());
    await startBackup(second, identity, { label: "stuck again", fast: true });
    const controller = new AbortController();
    const reason = new Error("SIGTERM");
    setTimeout(() => controller.abort(reason), 300);
    await assert.rejects(
      stopBackup(second, identity, { signal: controller.signal }),
      (error) => error === reason,
    );
    await pg.query("COPY (SELECT 1) TO PROGRAM 'cat > /dev/null; rm stuck'");
  });

  await t.step("time limits of a role do not end a backup", async () => {
    await pg.query("CREATE ROLE hurried SUPERUSER LOGIN");
    const limits = ["statement_timeout", "idle_in_transaction_session_timeout"];
    if (major >= 14) limits.push("idle_session_timeout");
    if (major >= 17) limits.push("transaction_timeout");
    for (const limit of limits) await pg.query(`ALTER ROLE hurried SET ${limit} = '1s'`);
    await using session = await sessionOf(pg.conninfo().replace("user=postgres", "user=hurried"));
    const identity = await readIdentity(session);
    await startBackup(session, identity, { label: "slow", fast: true });
    // Idle first, and then in a statement that takes as long: the wait for the archiver.
    await new Promise((resolve) => setTimeout(resolve, 2000));
    await pg.query("COPY (SELECT 1) TO PROGRAM 'cat > stuck'");
    // An archiver that has failed three times takes a minute's rest.
    const stopping = stopBackup(session, identity, { timeoutMs: 150_000 });
    await new Promise((resolve) => setTimeout(resolve, 2000));
    await pg.query("COPY (SELECT 1) TO PROGRAM 'cat > /dev/null; rm stuck'");
    assert.match((await stopping).label, /LABEL: slow/);
  });

  await t.step("a session lost between start and stop is an error at once", async () => {
    await using session = await sessionOf(`${pg.conninfo()} application_name=loser`);
    const server = await backupServerOf(session, log);
    const { signal } = new AbortController();
    await server.start("lost", true, signal);
    await pg.query(
      "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE application_name = 'loser'",
    );
    await eventually(() => session.lost.aborted, "loss noticed", 5000);
    await assert.rejects(server.stop({ signal, archiveTimeout: 5 }), SessionLostError);
    await using next = await sessionOf(pg.conninfo());
    await assert.rejects(
      stopBackup(next, await readIdentity(next), {}),
      QueryError,
      "a new session cannot end it",
    );
  });

  await t.step("a standby", async () => {
    await using standby = await pg.startStandby();
    await standby.waitForReplay(pg);
    await using session = await sessionOf(standby.conninfo());
    const server = await backupServerOf(session, log);
    assert.equal(server.inRecovery, true);
    assert.deepEqual(await server.missingPrivileges(), []);
    const { signal } = new AbortController();
    const start = await server.start("standby", true, signal);
    await pg.query("SELECT pg_switch_wal()");
    await standby.waitForReplay(pg);
    const stop = await server.stop({ signal, archiveTimeout: 30 });
    assert.equal(start.timeline, 1);
    assert.equal(stop.timeline, 1);
    assert.ok(stop.lsn >= start.lsn);
    assert.match(stop.label, /BACKUP FROM: standby/);
    await assert.rejects(server.switchWal(), /recovery is in progress/);

    await standby.promote();
    await standby.waitUntilReady({ promoted: true });
    await using promoted = await sessionOf(standby.conninfo());
    const identity = await readIdentity(promoted);
    assert.equal(identity.inRecovery, false);
    const next = await startBackup(promoted, identity, { label: "timeline 2", fast: true });
    assert.equal(next.timeline, 2);
    assert.equal((await stopBackup(promoted, identity, { timeoutMs: 30_000 })).timeline, 2);
  });
}
