/** The commands as CloudNativePG and Fly.io's postgres-flex call them, and what these read from the answers. */
import assert from "node:assert/strict";
import { Buffer } from "node:buffer";
import { symlinkSync } from "node:fs";
import { basename, join } from "node:path";
import { serverUser } from "../../scripts/servers/embedded_postgres.ts";
import { archiveCurrentSegment } from "../../scripts/servers/write_load.ts";
import { runProgram, type RunResult } from "./executable.ts";
import { type Host, newHost } from "./host.ts";
import { testOnStores } from "./stores.ts";

/** RFC 3339 as Go's time.RFC3339 parses it (which takes fractions too). */
const RFC3339 = /^\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d+)?([+-]\d\d:\d\d|Z)$/;
/** Python's ctime: `Mon Jan  5 10:30:01 2026`, what Go's layout `Mon Jan 2 15:04:05 2006` parses. */
const CTIME = /^(Mon|Tue|Wed|Thu|Fri|Sat|Sun) [A-Z][a-z]{2} [ \d]\d \d\d:\d\d:\d\d \d{4}$/;
const WAL = /^[0-9A-F]{24}$/;
const LSN = /^[0-9A-F]+\/[0-9A-F]+$/;
const STORES = ["file", "s3", "minio"] as const;

testOnStores("CloudNativePG's calls", async (store) => {
  await using host = await newHost(store);
  const server = await host.start();
  const provider = ["--cloud-provider", store.kind === "file" ? "local" : "aws-s3"];
  const place = [...store.options, ...provider, store.url, host.serverName];
  const env = { PGHOST: server.socketDirectory, PGPORT: String(server.port) };
  const call = await callByName(host);

  // Before the first WAL of a new cluster.
  await call("barman-cloud-check-wal-archive", [...store.options, ...provider, store.url, "new"]);
  const used = await call("barman-cloud-check-wal-archive", place, {}, null);
  assert.ok(used.code === 0 || used.code === 1, used.stderr);

  const tags = ["--tags", "backupType,base", "env,prod stage"];
  await call("barman-cloud-backup", [
    ...["--user", "postgres", "--name", "backup-20261122", "--gzip", "--immediate-checkpoint"],
    ...["--jobs", "2", ...tags, ...place],
  ], env);
  const shown = await call("barman-cloud-backup-show", [
    ...["--format", "json", ...place, "backup-20261122"],
  ]);
  const json: unknown = JSON.parse(shown.stdout);
  assert.deepEqual(Object.keys(json as object), ["cloud"]);
  const fields = (json as { cloud: Record<string, unknown> }).cloud;
  expectFields(fields, "backup-20261122");

  const listed = await call("barman-cloud-backup-list", ["--format", "json", ...place]);
  assert.match(listed.stdout, /^\{"backups_list": \[\{.*\}\]\}\n$/);
  const { backups_list: list } = JSON.parse(listed.stdout);
  assert.deepEqual(list, [fields]);

  await archiveCurrentSegment(server);
  const full = await call("barman-cloud-check-wal-archive", place, {}, null);
  assert.equal(full.code, 1, "an archive with WAL is not for a new cluster");

  await call("barman-cloud-backup", [
    ...["--user", "postgres", "--name", "second", "--bzip2", "--immediate-checkpoint", ...place],
  ], env);
  const deleted = await call("barman-cloud-backup-delete", [
    ...store.options,
    ...provider,
    ...["--retention-policy", "RECOVERY WINDOW OF 30 DAYS", store.url, host.serverName],
  ]);
  assert.equal(deleted.stdout, "");
  await call("barman-cloud-backup-delete", [
    ...["--retention-policy", "REDUNDANCY 1", ...place],
  ]);
  const rest = JSON.parse(
    (await call("barman-cloud-backup-list", ["--format", "json", ...place])).stdout,
  );
  assert.deepEqual(rest.backups_list.map((each: Record<string, unknown>) => each["backup_name"]), [
    "second",
  ]);
  const [{ begin_wal: begin }] = rest.backups_list;
  const older = (await store.paths()).filter((path) =>
    path.includes("/wals/") && WAL.test(basename(path)) && basename(path) < begin
  );
  assert.deepEqual(older, [], "WAL that no backup needs is gone");

  const nothing = await call(
    "barman-cloud-wal-restore",
    [
      ...[...place, "00000009.history", join(host.directory, "history")],
    ],
    {},
    null,
  );
  assert.deepEqual([nothing.code, nothing.stdout], [1, ""]);
  const wrong = await call("barman-cloud-wal-restore", [...place, "nonsense", "x"], {}, null);
  assert.equal(wrong.code, 3);
  const archiveVersion = await call("barman-cloud-wal-archive", ["--version"]);
  assert.match(archiveVersion.stdout, /^barman-cloud-wal-archive (\d+\.\d+\.\d+)\n$/);
}, STORES);

testOnStores("Fly.io's calls, and the table people read", async (store) => {
  await using host = await newHost(store);
  const server = await host.start();
  await host.ok("backup", ["--immediate-checkpoint", "-n", "nightly", "-d", server.conninfo()]);
  const { backups_list: [backup] } = JSON.parse(
    await host.ok("backup-list", ["--format", "json"]),
  );
  for (const name of ["backup_id", "backup_name", "status", "begin_time", "end_time"]) {
    assert.equal(typeof backup[name], "string", name);
  }
  for (const name of ["begin_wal", "end_wal"]) assert.match(backup[name], WAL);

  const [heading = "", line = "", ...more] = (await host.ok("backup-list")).split("\n");
  assert.deepEqual(more, [""]);
  assert.match(heading, /^Backup ID +End Time +Begin Wal +Archival Status +Name +$/);
  assert.equal(line.slice(0, 20).trim(), backup.backup_id);
  assert.match(line.slice(20, 45), /^\d{4}-\d\d-\d\d \d\d:\d\d:\d\d +$/);
  assert.equal(line.slice(45, 75).trim(), backup.begin_wal);
  assert.equal(line.slice(92).trim(), "nightly");

  await host.ok("backup-keep", ["--target", "standalone"], ["nightly"]);
  assert.match((await host.ok("backup-list")).split("\n")[1] ?? "", / KEEP:STANDALONE +nightly/);
  assert.equal(await host.ok("backup-keep", ["--status"], ["last"]), "Keep: standalone\n");
  const refused = await host.cloud("backup-delete", ["-b", "nightly"]);
  assert.equal(refused.code, 1, refused.stderr);
  await host.ok("backup-keep", ["--release"], ["nightly"]);

  const shown = await host.ok("backup-show", [], ["nightly"]);
  const rows = new Map(
    shown.split("\n").map((row) => [row.slice(0, 25).trim().replace(/ *:$/, ""), row.slice(27)]),
  );
  assert.equal(rows.get("Backup Name"), "nightly");
  assert.equal(rows.get("Status"), "DONE");
  assert.equal(rows.get("Server Name"), "cloud");
  assert.match(shown, /\n {4}Begin WAL {12}: [0-9A-F]{24}\n/);

  await host.ok("backup-delete", ["-b", backup.backup_id]);
  assert.deepEqual((await store.paths()).filter((path) => path.includes("/base/")), []);
}, STORES);

function expectFields(fields: Readonly<Record<string, unknown>>, name: string): void {
  const text = (key: string) => String(fields[key]);
  assert.equal(fields["backup_name"], name);
  assert.equal(fields["status"], "DONE");
  assert.equal(fields["error"], null);
  assert.equal(fields["timeline"], 1);
  assert.match(text("backup_id"), /^\d{8}T\d{6}$/);
  assert.match(text("systemid"), /^\d{19}$/);
  assert.match(text("backup_label"), /START WAL LOCATION: /);
  for (const key of ["begin_time", "end_time"]) {
    assert.match(text(key), CTIME);
    assert.match(text(`${key}_iso`), RFC3339);
    const written = Date.parse(`${text(key)} UTC`);
    assert.equal(Math.floor(Date.parse(text(`${key}_iso`)) / 1000), written / 1000);
  }
  assert.ok(Date.parse(text("begin_time_iso")) <= Date.parse(text("end_time_iso")));
  for (const key of ["begin_wal", "end_wal"]) assert.match(text(key), WAL);
  for (const key of ["begin_xlog", "end_xlog"]) assert.match(text(key), LSN);
}

type Call = (
  name: string,
  words: readonly string[],
  env?: Readonly<Record<string, string>>,
  /** Null for any. */
  code?: number | null,
) => Promise<RunResult>;

/** Calls the nine by their names on PATH. */
async function callByName(host: Host): Promise<Call> {
  const directory = host.newPath("bin");
  await Deno.mkdir(directory);
  const linked = await runProgram(host.executable, ["links", directory]);
  assert.equal(linked.code, 0, linked.stderr);
  symlinkSync(host.executable, join(directory, "barman-cloud"));
  return async (name, words, env = {}, code = 0) => {
    const result = await runProgram(join(directory, name), words, {
      ...(serverUser() ?? {}),
      env: { ...host.store.env, ...env },
      cwd: host.directory,
    });
    if (code !== null) assert.equal(result.code, code, `${name}: ${result.stderr}`);
    assert.equal(
      Buffer.byteLength(result.stdout) > 0,
      /show|list|--version/.test(`${name} ${words}`),
    );
    return result;
  };
}
