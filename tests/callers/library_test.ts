/** CloudNativePG's own library calls our executables, where Go and the library's modules can be had. */
import assert from "node:assert/strict";
import { spawn } from "node:child_process";
import { readdir, readFile, writeFile } from "node:fs/promises";
import { join } from "node:path";
import { serverUser } from "../../scripts/servers/embedded_postgres.ts";
import { type S3ForTests, startS3ForTests } from "../../scripts/servers/s3_for_tests.ts";
import { skipUnless } from "../skips.ts";
import { type CallerHost, s3CallerHost } from "./caller_host.ts";
import { CLOUDNATIVE_PG, fillIn } from "./command_lines.ts";
import { goDriver } from "./go_driver.ts";

interface Answer {
  readonly error: string;
  readonly options: readonly string[] | null;
  readonly backups: readonly Readonly<Record<string, unknown>>[] | null;
  readonly latest: string;
  readonly first: string | null;
  readonly wals:
    | readonly {
      readonly wal: string;
      readonly error: string;
      readonly class: string;
    }[]
    | null;
}

Deno.test("CloudNativePG's library", async () => {
  const driver = await goDriver();
  if ("missing" in driver) {
    skipUnless(
      false,
      `CloudNativePG's Go library driving the executables (${driver.missing})`,
      "install Go 1.25 or newer, and let it reach the Go module proxy",
    );
    return;
  }
  const s3 = await startS3ForTests();
  if (s3 === null) return;
  try {
    await story(s3, driver.path);
  } finally {
    await s3.stop();
  }
});

async function story(s3: S3ForTests, driver: string): Promise<void> {
  await using host = await s3CallerHost(s3, false);
  const server = await host.startPostgres({});
  const spool = await host.newDirectory("spool");
  // Where the server's user can run it.
  const reachable = join(host.directory, "driver");
  await writeFile(reachable, await readFile(driver), { mode: 0o755 });
  const destinationPath = `${host.bucketUrl}/backups/`;
  const configuration = { destinationPath, endpointURL: host.endpoint };
  const ask = async (
    operation: string,
    request: Readonly<Record<string, unknown>> = {},
    env: Readonly<Record<string, string>> = host.keys,
  ) =>
    await call(reachable, host, {
      operation,
      configuration,
      server: "cluster-example",
      environment: Object.entries({ PATH: host.path, ...env }).map((pair) => pair.join("=")),
      spool,
      dataDir: server.dataDirectory,
      ...request,
    });
  const store = { $ENDPOINT: host.endpoint, $URL: destinationPath, $SERVER: "cluster-example" };

  const check = await ask("check");
  assert.equal(check.error, "");
  assert.deepEqual(check.options, fillIn(CLOUDNATIVE_PG.check.words, store));

  const segments: string[] = [];
  for (let i = 0; i < 3; i++) {
    await server.query(`create table t${i} ()`);
    const [row] = await server.query("select pg_walfile_name(pg_switch_wal()) as name");
    segments.push(String(row?.["name"]));
  }
  const archived = await ask("archive", {
    configuration: {
      ...configuration,
      wal: { compression: "gzip", encryption: "AES256", maxParallel: 3 },
      tags: { owner: "dba" },
      historyTags: { keep: "yes" },
    },
    wals: [...segments.map((name) => `pg_wal/${name}`), "pg_wal/000000010000000000000077"],
  });
  assert.deepEqual(archived.options, [
    ...["--gzip", "-e", "AES256", "--endpoint-url", host.endpoint, "--tags", "owner,dba"],
    ...["--history-tags", "keep,yes", "--cloud-provider", "aws-s3"],
    ...[destinationPath, "cluster-example"],
  ]);
  assert.deepEqual(archived.wals?.map(({ error }) => error === ""), [true, true, true, false]);
  assert.match((await ask("check")).error, /exit status 1/);

  const taken = await ask("backup", {
    name: "backup-1",
    configuration: {
      ...configuration,
      data: { compression: "gzip", immediateCheckpoint: true, jobs: 2 },
    },
    tempDir: await host.newDirectory("tmp"),
  }, { ...host.keys, PGHOST: server.socketDirectory, PGPORT: String(server.port) });
  assert.equal(taken.error, "");
  const wrong = await ask("backup", {
    name: "backup-2",
    configuration: { ...configuration, data: { additionalCommandArgs: ["--nonsense"] } },
    tempDir: join(host.directory, "tmp"),
  });
  assert.notEqual(wrong.error, "");

  const shown = await ask("show", { name: "backup-1" });
  assert.equal(shown.error, "");
  const [backup = {}] = shown.backups ?? [];
  assert.equal(backup["backup_name"], "backup-1");
  for (const name of ["backup_id", "begin_wal", "end_wal", "begin_xlog", "end_xlog", "systemid"]) {
    assert.ok(backup[name], name);
  }
  assert.equal(backup["timeline"], 1);
  const age = (name: string) => Date.now() - Date.parse(String(backup[name]));
  assert.ok(
    age("EndTime") <= age("BeginTime") && age("EndTime") > -60_000 && age("BeginTime") < 600_000,
  );
  const listed = await ask("list");
  assert.deepEqual(listed.backups, [backup]);
  assert.equal(listed.latest, backup["backup_id"]);
  assert.equal(listed.first, backup["EndTime"]);
  for (
    const target of [{}, { targetTime: new Date(Date.now() + 60_000).toISOString() }, {
      targetLSN: "F/0",
      targetTLI: "latest",
    }, { backupID: backup["backup_id"] }]
  ) {
    assert.deepEqual((await ask("find", target)).backups, [backup], JSON.stringify(target));
  }
  assert.deepEqual((await ask("find", { targetTime: "2020-01-01T00:00:00Z" })).backups, null);
  assert.match((await ask("show", { name: "unknown" })).error, /exit status 4/);

  for (const policy of ["7d", "4w", "1m"]) {
    assert.equal((await ask("delete", { policy })).error, "");
  }
  assert.deepEqual((await ask("list")).backups, [backup]);

  const destination = join(host.directory, "RECOVERYXLOG");
  const restored = await ask("restore", {
    configuration: { ...configuration, wal: {} },
    wals: [segments[0], segments[1], "0000000100000000000000FF", "no-wal"],
    destination,
  });
  assert.deepEqual(restored.wals?.map((result) => result.class), [
    "",
    "",
    "not-found",
    "invalid-name",
  ]);
  assert.ok((await readFile(destination)).equals(
    await readFile(join(server.dataDirectory, "pg_wal", segments[0] ?? "")),
  ));
  assert.ok((await readdir(spool)).includes(segments[1] ?? ""));
  const nowhere = { ...configuration, wal: {}, endpointURL: "http://127.0.0.1:1" };
  const unreachable = await ask("restore", {
    configuration: nowhere,
    wals: [segments[0]],
    destination,
  }, { ...host.keys, AWS_MAX_ATTEMPTS: "1" });
  assert.deepEqual(unreachable.wals?.map((result) => result.class), ["connectivity"]);
  // A list that can't be had is an error, never an empty one.
  const none = await ask("list", { configuration: nowhere }, {
    ...host.keys,
    AWS_MAX_ATTEMPTS: "1",
  });
  assert.deepEqual([none.error, none.backups], ["exit status 4", null]);
}

/** One operation of the library, in a process of the server's user. */
async function call(
  driver: string,
  host: CallerHost,
  request: Readonly<Record<string, unknown>>,
): Promise<Answer> {
  const user = serverUser();
  return await new Promise((resolve, reject) => {
    const child = spawn(driver, [], {
      // The library finds the commands by its own PATH.
      env: { PATH: host.path },
      cwd: host.directory,
      stdio: ["pipe", "pipe", "pipe"],
      timeout: 120_000,
      ...user,
    });
    let stdout = "";
    let stderr = "";
    child.stdout.on("data", (chunk: Uint8Array) => stdout += Buffer.from(chunk).toString());
    child.stderr.on("data", (chunk: Uint8Array) => stderr += Buffer.from(chunk).toString());
    child.on("error", reject);
    child.on("close", (code) => {
      if (code === 0) resolve(JSON.parse(stdout));
      else reject(new Error(`The driver ended with ${code}: ${stderr}`));
    });
    child.stdin.end(JSON.stringify(request));
  });
}
