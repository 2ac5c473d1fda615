/**
 * The compiled executable on Google Cloud Storage, as a PostgreSQL server and its owner use it: WAL
 * archived, a base backup in several parts at once with a bandwidth limit, listed, restored, replayed.
 */
import assert from "node:assert/strict";
import { chmod, chown, mkdtemp, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import {
  reachableByServer,
  serverUser,
  startFromDirectory,
  startPostgres,
} from "../../../scripts/servers/embedded_postgres.ts";
import {
  type GcsForTests,
  startFakeGcsServerForTests,
  startGcsFakeForTests,
} from "../../../scripts/servers/fake_gcs_server.ts";
import { executablePath, runProgram } from "../../e2e/executable.ts";

const MAJOR = 18;
const ROWS = 20_000;

for (const server of [await startGcsFakeForTests(), await startFakeGcsServerForTests()]) {
  if (server === null) continue;
  Deno.test(`The executable backs up to and restores from ${server.name}`, async () => {
    const directory = await mkdtemp(join(tmpdir(), "gcs-executable-"));
    try {
      await chmod(directory, 0o755);
      await backUpAndRestore(server, directory);
    } finally {
      await server.stop();
      await rm(directory, { recursive: true, force: true });
    }
  });
}

async function backUpAndRestore(server: GcsForTests, directory: string): Promise<void> {
  const executable = await reachableByServer(await executablePath());
  const user = serverUser();
  if (user !== undefined) await chown(directory, user.uid, user.gid);
  // A bucket that is not there yet: check-wal-archive makes it.
  const url = `gs://backups-${crypto.randomUUID()}/pg/`;
  const call = async (words: readonly string[]): Promise<string> => {
    const { code, stdout, stderr } = await runProgram(executable, words, {
      env: { ...server.env },
      cwd: directory,
      ...(user ?? {}),
    });
    assert.equal(code, 0, `${words.join(" ")}: ${stderr}`);
    return stdout;
  };
  await call(["check-wal-archive", url, "main"]);

  const variables = Object.entries(server.env).map(([name, value]) => `${name}=${value}`);
  const program = `env ${variables.join(" ")} '${executable}'`;
  await using primary = await startPostgres({
    major: MAJOR,
    settings: {
      archive_mode: "on",
      archive_command: `${program} wal-archive --gzip ${url} main '%p'`,
    },
  });
  await primary.query(
    `CREATE TABLE t AS SELECT g AS id, repeat(md5(g::text), 40) AS text ` +
      `FROM generate_series(1, ${ROWS}) g`,
  );
  // 5 MiB a part: a dozen of them, three under way at once.
  const sizes = ["--max-archive-size", "1GB", "--jobs", "3", "--max-bandwidth", "40MB"];
  const tags = ["--tag", "Env,prod", "--tag", "team,db a"];
  await call([
    ...["backup", "--immediate-checkpoint", "--name", "nightly", "-d", primary.conninfo()],
    ...[...sizes, ...tags, url, "main"],
  ]);
  assert.match(await call(["backup-list", url, "main"]), /^\d{8}T\d{6} .* nightly/m);
  await primary.query("INSERT INTO t VALUES (0, 'after the backup')");
  await primary.query("SELECT pg_switch_wal()");
  await primary.stop();

  const restored = join(directory, "restored");
  await call(["restore", url, "main", "nightly", restored]);
  await using again = await startFromDirectory(restored, {
    major: MAJOR,
    settings: {
      archive_mode: "off",
      restore_command: `${program} wal-restore ${url} main '%f' '%p'`,
    },
  });
  await again.waitUntilReady({ promoted: true });
  const [row] = await again.query("SELECT count(*)::int AS rows FROM t");
  assert.equal(row?.["rows"], ROWS + 1);
}
