/** The lines of `command_lines.ts` on the compiled executable, against a real S3 server, each caller's story in its order. */
import assert from "node:assert/strict";
import { chmod, readdir, readFile, writeFile } from "node:fs/promises";
import { join } from "node:path";
import { startFromDirectory, type TestPostgres } from "../../scripts/servers/embedded_postgres.ts";
import { type S3ForTests, startS3ForTests } from "../../scripts/servers/s3_for_tests.ts";
import { s3CallerHost } from "./caller_host.ts";
import { CLOUDNATIVE_PG, ENVIRONMENT, fillIn, POSTGRES_FLEX } from "./command_lines.ts";
import { newSegments } from "./segments.ts";
import { cloudNativePgList, cloudNativePgShow, postgresFlexList } from "./parsing.ts";

Deno.test("callers", async (test) => {
  const s3 = await startS3ForTests();
  if (s3 === null) return;
  try {
    await test.step("CloudNativePG", () => cloudNativePg(s3));
    await test.step("Fly's postgres-flex", () => postgresFlex(s3));
  } finally {
    await s3.stop();
  }
});

const POSTGRES_MAJOR = 18;

async function cloudNativePg(s3: S3ForTests): Promise<void> {
  await using host = await s3CallerHost(s3, true);
  const env = { ...host.keys };
  const $SERVER = "cluster-example";
  const $URL = `${host.bucketUrl}/backups/`;
  const call = { $SERVER, $URL };

  const version = await host.run(CLOUDNATIVE_PG.version, {});
  const told = /barman-cloud.* (?<version>.*)/.exec(version.stdout + version.stderr);
  const [major = 0, minor = 0] = (told?.groups?.["version"] ?? "").split(".").map(Number);
  assert.ok(major > 3 || (major === 3 && minor >= 4), version.stdout);

  // A new cluster's archive must be empty, one that has WAL is refused.
  assert.equal((await host.run(CLOUDNATIVE_PG.check, call, { env })).code, 0);

  const server = await host.startPostgres({});
  const wals = await newSegments(server, 4);
  const archived = await Promise.all(
    wals.map((name) =>
      host.run(CLOUDNATIVE_PG.walArchive, { ...call, $WAL: `pg_wal/${name}` }, {
        env,
        cwd: server.dataDirectory,
      })
    ),
  );
  for (const { code, stdout, stderr } of archived) {
    assert.deepEqual([code, stdout], [0, ""], stderr);
  }
  const fifth = `pg_wal/${(await newSegments(server, 1))[0]}`;
  const additional = { ...call, $WAL: fifth };
  const more = await host.run(CLOUDNATIVE_PG.walArchiveAdditional, additional, {
    env,
    cwd: server.dataDirectory,
  });
  assert.equal(more.code, 0, more.stderr);
  assert.equal((await host.run(CLOUDNATIVE_PG.check, call, { env })).code, 1);

  const backupEnv = {
    ...env,
    PGHOST: server.socketDirectory,
    PGPORT: String(server.port),
    TMPDIR: await host.newDirectory("tmp"),
  };
  assertEnvironment("cloudnative-pg", backupEnv);
  const $NAME = "backup-20260115103000";
  const backup = await host.run(CLOUDNATIVE_PG.backup, { ...call, $NAME }, { env: backupEnv });
  assert.deepEqual([backup.code, backup.stdout], [0, ""], backup.stderr);
  assert.deepEqual(await readdir(backupEnv.TMPDIR), []);
  const wrong = await host.run(CLOUDNATIVE_PG.backupWrong, { ...call, $NAME }, { env: backupEnv });
  assert.deepEqual([wrong.code, wrong.stdout], [3, ""]);

  const shown = await host.run(CLOUDNATIVE_PG.show, { ...call, $NAME }, { env });
  const read = cloudNativePgShow(shown.stdout);
  const { begin, end } = read;
  assert.deepEqual([shown.code, read["backup_name"], read["timeline"]], [0, $NAME, 1]);
  assert.ok(begin !== null && end !== null && begin <= end && Date.now() - end.getTime() < 600_000);
  for (const field of ["backup_id", "begin_wal", "end_wal", "begin_xlog", "end_xlog", "systemid"]) {
    assert.notEqual(read[field], "", field);
  }
  const $ID = String(read["backup_id"]);
  // A backup that can't begin, as its server is not there, leaves nothing.
  const failed = await host.run(CLOUDNATIVE_PG.backupBare, { ...call, $NAME: "later" }, {
    env: { ...backupEnv, PGPORT: "1" },
  });
  assert.equal(failed.code, 1);
  const listed = await host.run(CLOUDNATIVE_PG.list, call, { env });
  assert.deepEqual([listed.code, cloudNativePgList(listed.stdout)], [0, [read]]);
  const unknown = await host.run(CLOUDNATIVE_PG.show, { ...call, $NAME: "unknown" }, { env });
  assert.deepEqual([unknown.code, unknown.stdout], [4, ""]);

  const deleted = await host.run(CLOUDNATIVE_PG.delete, call, { env });
  assert.deepEqual([deleted.code, deleted.stdout, deleted.stderr], [0, "", ""]);
  const again = await host.run(CLOUDNATIVE_PG.list, call, { env });
  assert.equal(again.stdout, listed.stdout);

  // Fetched ahead, in parallel; the one that is not there ends the stream with exit code 1.
  const spool = await host.newDirectory("spool");
  const missing = "0000000100000000000000FF";
  const fetched = await Promise.all(
    [...wals, missing, "not-a-wal"].map((name) =>
      host.run(
        CLOUDNATIVE_PG.walRestore,
        { ...call, $WAL: name, $DESTINATION: join(spool, name) },
        {
          env,
        },
      )
    ),
  );
  assert.deepEqual(fetched.map(({ code }) => code), [0, 0, 0, 0, 1, 3]);
  assert.deepEqual((await readdir(spool)).sort(), [...wals].sort());
  for (const name of wals) {
    const original = await readFile(join(server.dataDirectory, "pg_wal", name));
    assert.ok(original.equals(await readFile(join(spool, name))), name);
  }
  const verbose = await host.run(CLOUDNATIVE_PG.walRestoreAdditional, {
    ...call,
    $WAL: wals[0] ?? "",
    $DESTINATION: join(spool, "again"),
  }, { env });
  assert.deepEqual([verbose.code, verbose.stdout], [0, ""]);

  for (
    const [name, line] of [["job", CLOUDNATIVE_PG.restore], [
      "old",
      CLOUDNATIVE_PG.restoreInTree,
    ]] as const
  ) {
    const $DESTINATION = join(host.directory, `pgdata-${name}`);
    const restored = await host.run(line, { ...call, $ID, $DESTINATION }, { env });
    assert.deepEqual([restored.code, restored.stdout], [0, ""], restored.stderr);
    assert.ok((await readdir($DESTINATION)).includes("PG_VERSION"));
  }
  const absent = { ...call, $ID: "20200101T000000", $DESTINATION: join(host.directory, "none") };
  assert.equal((await host.run(CLOUDNATIVE_PG.restore, absent, { env })).code, 1);
}

async function postgresFlex(s3: S3ForTests): Promise<void> {
  await using host = await s3CallerHost(s3, true);
  const credentials = join(host.directory, "credentials");
  const { AWS_ACCESS_KEY_ID = "", AWS_SECRET_ACCESS_KEY = "", ...others } = host.keys;
  await writeFile(
    credentials,
    `[barman]\naws_access_key_id=${AWS_ACCESS_KEY_ID}\naws_secret_access_key=${AWS_SECRET_ACCESS_KEY}\n\n`,
  );
  await chmod(credentials, 0o644);
  const env = { ...others, AWS_SHARED_CREDENTIALS_FILE: credentials };
  const call = { $SERVER: "app" };
  const asCommand = ({ command, words }: typeof POSTGRES_FLEX.walArchive) =>
    `env ${Object.entries({ PATH: host.path, ...env }).map((pair) => pair.join("=")).join(" ")} ` +
    [command, ...fillIn(words, { $ENDPOINT: host.endpoint, $URL: host.bucketUrl, ...call })].join(
      " ",
    );

  const server = await host.startPostgres({
    archive_mode: "on",
    archive_command: asCommand(POSTGRES_FLEX.walArchive),
  });
  await server.query("create role repmgr superuser login; create table t as select 42 as answer");
  // Over TCP it connects to the database of `--dbname`'s default.
  const backupEnv = {
    ...env,
    TMPDIR: await host.newDirectory("barman.tmp"),
    PGPORT: String(server.port),
  };
  assertEnvironment("postgres-flex", { ...env, TMPDIR: backupEnv.TMPDIR });
  const values = { ...call, $HOST: "127.0.0.1" };
  const taken = await host.run(POSTGRES_FLEX.backup, { ...values, $NAME: "first-one" }, {
    env: backupEnv,
  });
  assert.deepEqual([taken.code, taken.stdout], [0, ""], taken.stderr);
  // It makes sure itself that a name is free, from the list.
  const listed = await host.run(POSTGRES_FLEX.list, call, { env });
  const backups = postgresFlexList(listed.stdout);
  assert.deepEqual([
    listed.code,
    backups.map((backup) => [backup["backup_name"], backup["status"]]),
  ], [
    0,
    [["first-one", "DONE"]],
  ]);
  const $ID = String(backups[0]?.["backup_id"]);
  const shown = await host.run(POSTGRES_FLEX.show, { ...call, $ID }, { env });
  assert.equal(shown.code, 0);
  assert.match(shown.stdout, new RegExp(`^Backup ${$ID}:\n  Backup Name            : first-one\n`));
  const deleted = await host.run(POSTGRES_FLEX.delete, call, { env });
  assert.deepEqual([deleted.code, deleted.stdout, deleted.stderr], [0, "", ""]);

  await server.query("insert into t values (43)");
  await server.query("select pg_switch_wal()");
  await archivedAll(server);
  await server.stop();
  const $DESTINATION = join(host.directory, "restored");
  const restored = await host.run(POSTGRES_FLEX.restore, { ...call, $ID, $DESTINATION }, {
    env: backupEnv,
  });
  assert.deepEqual([restored.code, restored.stdout], [0, ""], restored.stderr);
  await using recovered = await startFromDirectory($DESTINATION, {
    major: POSTGRES_MAJOR,
    settings: { archive_mode: "off", restore_command: asCommand(POSTGRES_FLEX.walRestore) },
  });
  await recovered.waitUntilReady({ promoted: true });
  assert.deepEqual(await recovered.query("select answer from t order by 1"), [
    { answer: 42 },
    { answer: 43 },
  ]);
}

/** The replay sets what the caller sets, and no more. */
function assertEnvironment(
  caller: keyof typeof ENVIRONMENT,
  env: Readonly<Record<string, string>>,
): void {
  const names: readonly string[] = [...ENVIRONMENT[caller], "AWS_CA_BUNDLE"];
  assert.deepEqual(Object.keys(env).filter((name) => !names.includes(name)), []);
}

async function archivedAll(server: TestPostgres): Promise<void> {
  const deadline = Date.now() + 60_000;
  const status = join(server.dataDirectory, "pg_wal", "archive_status");
  while ((await readdir(status)).some((name) => name.endsWith(".ready"))) {
    if (Date.now() > deadline) assert.fail(`WAL is not archived: ${await server.logTail(2000)}`);
    await new Promise((passed) => setTimeout(passed, 100));
  }
}
