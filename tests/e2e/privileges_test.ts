/** Backups by a role that is no superuser. */
import assert from "node:assert/strict";
import { newHost } from "./host.ts";
import { newStore } from "./stores.ts";

/** As README.md tells; the functions got other names in 15. */
const DOCUMENTED = {
  13: ["pg_start_backup(text, boolean, boolean)", "pg_stop_backup(boolean, boolean)"],
  18: ["pg_backup_start(text, boolean)", "pg_backup_stop(boolean)"],
};

for (const major of [13, 18] as const) {
  Deno.test(`PostgreSQL ${major}: a role without privileges is refused with the statements that help`, async () => {
    await using store = await newStore("file");
    await using host = await newHost(store);
    const server = await host.start({ major });
    await server.query('create role "back up" login');
    const conninfo = server.conninfo().replace("user=postgres", "user='back up'");
    const backup = () => host.cloud("backup", ["--immediate-checkpoint", "-d", conninfo]);

    const refused = await backup();
    assert.equal(refused.code, 1, refused.stderr);
    assert.deepEqual(
      await server.query("select 1 from pg_stat_activity where usename = 'back up'"),
      [],
    );
    const statements = [...refused.stderr.matchAll(/GRANT [^;]*? TO "back up"/g)].map(([text]) =>
      text
    );
    for (const name of [...DOCUMENTED[major], "pg_switch_wal()", "pg_create_restore_point(text)"]) {
      assert.ok(statements.some((text) => text.includes(name)), `${name}: ${refused.stderr}`);
    }
    assert.ok(statements.some((text) => text.startsWith("GRANT pg_monitor ")), refused.stderr);
    assert.ok(!(await store.paths()).some((path) => path.includes("data.tar")));

    // The message is the cure.
    for (const statement of statements) await server.query(statement);
    const taken = await backup();
    assert.deepEqual([taken.code, taken.stdout, taken.stderr], [0, "", ""]);
    const shown = JSON.parse(await host.ok("backup-show", ["--format", "json"], ["last"]))["cloud"];
    assert.equal(shown.status, "DONE");
    assert.ok(shown.cluster_size > 1e6);
    assert.notEqual(shown.systemid, null);

    const restored = host.newPath("restored");
    await host.ok("restore", [], ["auto", restored]);
    await server.stop();
    const again = await host.startRestored(restored, { major, settings: { archive_mode: "off" } });
    await again.waitUntilReady({ promoted: true });
  });
}

Deno.test("a password that is wrong, missing or right: said without the password", async () => {
  await using store = await newStore("file");
  await using host = await newHost(store);
  const server = await host.start({
    hba: [
      "local all postgres trust",
      "host all postgres 127.0.0.1/32 trust",
      "host all guarded 127.0.0.1/32 scram-sha-256",
    ],
  });
  await server.query("create role guarded superuser login password 'op3n-sesame'");
  const where = ["-h", "127.0.0.1", "-p", String(server.port), "-U", "guarded"];
  const backup = (env: Record<string, string>) =>
    host.cloud("backup", ["-vv", "--immediate-checkpoint", ...where], [], { env });
  const wrong = await backup({ PGPASSWORD: "wr0ng-sesame" });
  assert.equal(wrong.code, 1);
  assert.match(wrong.stderr, /password authentication failed for user "guarded"/);
  assert.doesNotMatch(wrong.stderr, /wr0ng-sesame/);
  const missing = await backup({ HOME: host.directory });
  assert.equal(missing.code, 1);
  assert.match(missing.stderr, /password/);
  const right = await backup({ PGPASSWORD: "op3n-sesame" });
  assert.equal(right.code, 0, right.stderr);
  assert.doesNotMatch(right.stderr, /op3n-sesame/);
  await server.stop();
  const down = await backup({ PGPASSWORD: "op3n-sesame" });
  assert.equal(down.code, 1);
  assert.match(down.stderr, new RegExp(`127\\.0\\.0\\.1.*${server.port}`));
});
