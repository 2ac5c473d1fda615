/** Clusters whose files are not where they usually are, are very many, or have other sizes. */
import assert from "node:assert/strict";
import {
  chmod,
  chown,
  readdir,
  readFile,
  rename,
  rm,
  stat,
  symlink,
  writeFile,
} from "node:fs/promises";
import { join } from "node:path";
import { serverUser, type TestPostgres } from "../../scripts/servers/embedded_postgres.ts";
import {
  archiveCurrentSegment,
  compareRows,
  startWriteLoad,
} from "../../scripts/servers/write_load.ts";
import { checkDatabase, makeDirectory, newHost } from "./host.ts";
import { testOnStores } from "./stores.ts";

testOnStores("every unusual place at once comes back in the same place", async (store) => {
  await using host = await newHost(store);
  const outside = makeDirectory(host.newPath("etc"));
  const hba = join(outside, "other_hba.conf");
  const ident = join(outside, "other_ident.conf");
  const included = join(outside, "included.conf");
  await writeFile(hba, "local all all trust\nhost all all 127.0.0.1/32 trust\n");
  await writeFile(ident, "# none\n");
  await writeFile(included, "work_mem = '5MB'\n");
  for (const file of [hba, ident, included]) await giveFile(file);
  const pgWal = host.newPath("wal");
  const server = await host.start({
    major: 17,
    initdbArgs: [`--waldir=${pgWal}`],
    walSegSizeMb: 1,
    settings: { hba_file: hba, ident_file: ident, include: included },
    wal: ["--gzip"],
  });
  // PGDATA behind a symbolic link, and a tablespace inside it.
  await server.stop();
  const real = host.newPath("real data");
  await rename(server.dataDirectory, real);
  await symlink(real, server.dataDirectory);
  makeDirectory(join(real, "inside"));
  await server.start();
  await server.query(`create tablespace inside location '${join(server.dataDirectory, "inside")}'`);
  await server.query("create table here (i int) tablespace inside");
  await server.query("insert into here select generate_series(1, 1000)");
  await server.query(manyTables(300));
  await server.query("create unlogged table volatile as select generate_series(1, 9000) i");
  await using session = server.connect({ max: 1 });
  await session`create temporary table passing as select generate_series(1, 50000) i`;

  const load = await startWriteLoad(server);
  await load.more(50);
  const said = await host.cloud("backup", [
    ...["--bzip2", "--immediate-checkpoint", "-d", server.conninfo()],
  ]);
  assert.equal(said.code, 0, said.stderr);
  assert.match(said.stderr, /WARNING: Not stored: .*included\.conf/);
  await load.more(50);
  await load.stop();
  const segment = await archiveCurrentSegment(server);
  const fetched = host.newPath("segment");
  await host.ok("wal-restore", [], [segment, fetched]);
  assert.equal((await stat(fetched)).size, 1024 ** 2);
  await session.end();
  await server.kill9();
  // Everything is lost but the configuration beside it. The link stays, to an empty directory.
  for (const name of await readdir(real)) await rm(join(real, name), { recursive: true });
  await rm(pgWal, { recursive: true });

  await host.ok("restore", [], ["auto", server.dataDirectory]);
  assert.equal(await readFile(join(real, "other_hba.conf"), "utf8"), await readFile(hba, "utf8"));
  assert.ok((await readdir(join(real, "inside"))).some((name) => /^PG_17_/.test(name)));
  assert.ok((await stat(join(real, "pg_wal"))).isDirectory());
  const files = await readdir(real, { recursive: true });
  assert.deepEqual(
    files.filter((name) => /(^|\/)t\d+_\d+|pgsql_tmp|postmaster\.pid/.test(name)),
    [],
  );
  const again = await host.startRestored(server.dataDirectory, {
    major: 17,
    settings: { archive_mode: "off" },
  });
  await again.waitUntilReady({ promoted: true });
  const { missing } = await compareRows(again, { present: load.confirmed });
  assert.deepEqual(missing, []);
  assert.equal(await count(again, "here"), 1000);
  assert.equal(await count(again, "volatile"), 0);
  const [tables] = await again.query(
    "select count(*)::int as n from pg_class where relname ~ '^many_' and relkind = 'r'",
  );
  assert.equal(tables?.["n"], 300);
  const [memory] = await again.query("show work_mem");
  assert.equal(memory?.["work_mem"], "5MB");
  await checkDatabase(again);
});

testOnStores("PostgreSQL 14 with segments of 64 MB, names that need care", async (store) => {
  await using host = await newHost(store);
  const spaces = { "täble späce": 'with "quotes" and ünicode', plain: "plain" };
  const server = await host.start({
    major: 14,
    walSegSizeMb: 64,
    tablespaces: spaces,
    settings: { min_wal_size: "128MB", max_wal_size: "256MB" },
    wal: ["--zstd", "--compression-level", "low"],
  });
  await server.query('create table odd tablespace "täble späce" as select 1 i');
  const name = "x".repeat(120);
  for (const file of [`${name}.conf`, "ünusual näme.txt", "line\nbreak"]) {
    await writeFile(join(server.dataDirectory, file), `about ${file}`);
    await giveFile(join(server.dataDirectory, file));
  }
  const load = await startWriteLoad(server);
  await load.more(50);
  await host.ok("backup", ["--snappy", "--immediate-checkpoint", "-d", server.conninfo()]);
  await load.more(50);
  await load.stop();
  const segment = await archiveCurrentSegment(server);
  const fetched = host.newPath("segment");
  await host.ok("wal-restore", [], [segment, fetched]);
  assert.equal((await stat(fetched)).size, 64 * 1024 ** 2);
  await server.kill9();
  const restored = host.newPath("restored");
  const moved = host.newPath("moved: with a colon");
  await host.ok("restore", [
    ...["--tablespace", `täble späce:${moved}`, "--tablespace", `plain:${host.newPath("plain")}`],
  ], ["auto", restored]);
  for (const file of [`${name}.conf`, "ünusual näme.txt", "line\nbreak"]) {
    assert.equal(await readFile(join(restored, file), "utf8"), `about ${file}`);
  }
  const again = await host.startRestored(restored, {
    major: 14,
    settings: { archive_mode: "off" },
  });
  await again.waitUntilReady({ promoted: true });
  const { missing } = await compareRows(again, { present: load.confirmed });
  assert.deepEqual(missing, []);
  assert.equal(await count(again, "odd"), 1);
  // Its owner must be able to work in it, to the point of dropping it.
  await again.query("drop table odd");
  await again.query('drop tablespace "täble späce"');
}, ["s3"]);

async function count(server: TestPostgres, table: string): Promise<number> {
  const [row] = await server.query(`select count(*)::int as n from ${table}`);
  return Number(row?.["n"]);
}

function manyTables(tables: number): string {
  return `do $$ begin
    for i in 1..${tables} loop
      execute format('create table many_%s (id int primary key, note text)', i);
      execute format('insert into many_%s values (1, %L)', i, 'one');
    end loop;
  end $$`;
}

async function giveFile(path: string): Promise<void> {
  await chmod(path, 0o600);
  const user = serverUser();
  if (user !== undefined) await chown(path, user.uid, user.gid);
}
