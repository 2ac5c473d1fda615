import assert from "node:assert/strict";
import { spawnSync } from "node:child_process";
import { renameSync } from "node:fs";
import {
  chmod,
  chown,
  mkdir,
  mkdtemp,
  readdir,
  readFile,
  rm,
  stat,
  symlink,
} from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { setTimeout as sleep } from "node:timers/promises";
import { type BackupInfo, parseBackupInfo } from "../../../lib/backup/backup_info.ts";
import type { CommandContext } from "../../../lib/cli/command.ts";
import { EXIT, type ExitCode } from "../../../lib/cli/exit_codes.ts";
import { createLogger } from "../../../lib/cli/log.ts";
import { parseCommandLine } from "../../../lib/cli/parser.ts";
import { report } from "../../../lib/cli/run.ts";
import { command } from "../../../lib/commands/backup.ts";
import {
  startFromDirectory,
  startPostgres,
  type TestPostgres,
} from "../../../scripts/servers/embedded_postgres.ts";

interface Outcome {
  readonly code: ExitCode;
  readonly stdout: string;
  readonly log: string;
}

interface RunOptions {
  readonly env?: CommandContext["env"];
  readonly signal?: AbortSignal;
  /** Told of each log line. */
  readonly onLog?: (line: string) => void;
}

/** The command in this process, as `main.ts` would run it. */
async function backup(words: readonly string[], options: RunOptions = {}): Promise<Outcome> {
  const parsed = parseCommandLine(command, words, "barman-cloud-backup", 80);
  if (parsed.kind === "exit") {
    return { code: parsed.code, stdout: parsed.stdout, log: parsed.stderr };
  }
  let stdout = "";
  let lines = "";
  const log = createLogger({
    threshold: 0,
    write: (text) => {
      lines += text;
      options.onLog?.(text);
    },
    redact: (text) => text,
    now: () => new Date(),
    pid: 1,
  });
  const context: CommandContext = {
    program: "barman-cloud-backup",
    env: options.env ?? {},
    log,
    signal: options.signal ?? new AbortController().signal,
    stdout: (text) => stdout += text,
    stderr: () => {},
    stderrIsTerminal: false,
    now: () => new Date(),
  };
  let code: ExitCode;
  try {
    code = await command.run(parsed.values, context);
  } catch (error) {
    code = report(error, log);
  }
  return { code, stdout, log: lines };
}

async function inDirectory(use: (root: string) => Promise<void>): Promise<void> {
  const root = await mkdtemp(join(tmpdir(), "backup-"));
  try {
    await mkdir(join(root, "store"));
    await use(root);
  } finally {
    await rm(root, { recursive: true, force: true });
  }
}

const url = (root: string) => `file://${root}/store`;

interface Stored {
  readonly id: string;
  readonly files: readonly string[];
  readonly directory: string;
  readonly info: BackupInfo;
}

/** The only backup of server `main`. */
async function storedBackup(root: string): Promise<Stored> {
  const base = join(root, "store/main/base");
  const [id = "", ...others] = await readdir(base);
  assert.deepEqual(others, []);
  const directory = join(base, id);
  const info = parseBackupInfo(await readFile(join(directory, "backup.info"), "utf8"));
  return { id, directory, info, files: (await readdir(directory)).sort() };
}

function namesIn(archive: string): string[] {
  const result = spawnSync("tar", ["-tf", archive], { maxBuffer: 1 << 26 });
  assert.equal(result.status, 0, String(result.stderr));
  return String(result.stdout).trimEnd().split("\n");
}

/** Archiving that always works at once. */
const ARCHIVING = { archive_mode: "on", archive_command: "/bin/true", wal_level: "replica" };

async function withServer(
  options: Parameters<typeof startPostgres>[0],
  use: (server: TestPostgres, root: string) => Promise<void>,
): Promise<void> {
  await inDirectory(async (root) => {
    const server = await startPostgres(options);
    try {
      await use(server, root);
    } finally {
      await server.destroy();
    }
  });
}

Deno.test("combinations are refused in Barman's order, before anything is connected", async () => {
  const refused = async (words: string[], code: ExitCode, message: RegExp) => {
    const outcome = await backup([...words, "--endpoint-url", "http://127.0.0.1:1"]);
    assert.equal(outcome.code, code, outcome.log);
    assert.match(outcome.log, message);
    assert.equal(outcome.stdout, "");
  };
  const target = ["s3://b/p", "main"];
  const tags = Array.from({ length: 11 }, (_, i) => ["--tag", `k${i},v`]).flat();
  const everything = [
    "--snapshot-disk=d",
    "-z",
    "--aws-snapshot-lock-mode=governance",
    "--aws-snapshot-lock-cool-off-period=1",
    ...tags,
    "--sse-kms-key-id=k",
  ];
  await refused([...target, ...everything], 4, /Snapshots can't be compressed/);
  await refused([...target, ...everything.filter((word) => word !== "-z")], 4, /cool-off/);
  await refused([...target, ...tags, "--sse-kms-key-id=k"], 4, /11 tags are too many/);
  await refused([...target, "--tag=a,b", "--tag=a,c"], 4, /Tag 'a'/);
  await refused([...target, "--sse-kms-key-id=k", "-e", "AES256"], 4, /-e aws:kms/);
  await refused(
    ["gs://b", "main", "--kms-key-name=k", "--snapshot-instance=i"],
    4,
    /--kms-key-name/,
  );
  await refused(["nonsense", "main"], 4, /nonsense/);
  await refused([...target, "-z", "-j"], 3, /not allowed with/);
  await refused([...target, "--jobs", "0"], 3, /--jobs/);
  await refused([...target, "-n", "latest"], 3, /reserved/);
  await refused(
    [...target, "--aws-snapshot-lock-expiration-date=2026-02-30T00:00:00.0Z"],
    3,
    /time/,
  );
});

Deno.test("hook environments that can't be, and a status that must not be tried again", async () => {
  await inDirectory(async (root) => {
    const hook = { BARMAN_HOOK: "backup_script", BARMAN_PHASE: "post" };
    const run = async (env: CommandContext["env"], ...more: string[]) =>
      (await backup([url(root), "main", ...more], { env })).code;
    assert.equal(await run({ ...hook, BARMAN_PHASE: "pre" }), 4);
    assert.equal(await run(hook, "-n", "x"), 4);
    assert.equal(await run(hook), 4);
    const known = { ...hook, BARMAN_BACKUP_DIR: "/nowhere", BARMAN_BACKUP_ID: "20260101T000000" };
    assert.equal(await run({ ...known, BARMAN_STATUS: "FAILED" }), 63);
    assert.equal(await run({ ...known, BARMAN_STATUS: "DONE" }), 4);
    const complete = { ...known, BARMAN_STATUS: "DONE", BARMAN_BACKUP_INFO_PATH: "/nowhere/info" };
    assert.equal(await run(complete), 1);
    // The connection test comes before.
    assert.equal(await run({ ...hook, BARMAN_PHASE: "pre" }, "-t"), 0);
    assert.deepEqual(await readdir(join(root, "store")), []);
  });
});

Deno.test("without a server: exit code 1, a bad connection string: 4, -t needs none", async () => {
  await inDirectory(async (root) => {
    const nobody = ["-h", join(root, "nowhere"), "-p", "1"];
    assert.equal((await backup([url(root), "main", ...nobody])).code, EXIT.operationFailed);
    assert.equal((await backup([url(root), "main", "-d", "a=b"])).code, EXIT.generalError);
    assert.equal((await backup([url(root), "main", "-t", ...nobody])).code, EXIT.success);
    assert.deepEqual(await readdir(join(root, "store")), []);
  });
});

Deno.test("a backup: archives, order, metadata; snapshots are refused after connecting", async () => {
  await withServer(
    { major: 17, settings: ARCHIVING, tablespaces: { ts1: "ts1" } },
    async (server, root) => {
      await server.query("CREATE TABLE t TABLESPACE ts1 AS SELECT generate_series(1, 10000) AS n");
      const conninfo = ["-d", server.conninfo()];
      const snapshot = await backup([url(root), "main", ...conninfo, "--snapshot-disk", "d"]);
      assert.equal(snapshot.code, EXIT.generalError);
      assert.match(snapshot.log, /need more options: --snapshot-instance/);

      const outcome = await backup(
        [url(root), "main", ...conninfo, "--immediate-checkpoint", "-n", "first backup", "-vv"],
      );
      assert.equal(outcome.code, EXIT.success, outcome.log);
      assert.equal(outcome.stdout, "");
      const { id, info, files, directory } = await storedBackup(root);
      const oid = info.tablespaces?.[0]?.oid;
      assert.deepEqual(files, [
        `${oid}.tar`,
        "backup.info",
        "backup_manifest",
        "data.tar",
        "verification.json",
      ]);
      assert.equal(info.status, "DONE");
      assert.equal(info.serverName, "cloud");
      assert.equal(info.backupName, "first backup");
      assert.equal(info.error, null);
      assert.equal(info.pgdata, server.dataDirectory);
      assert.deepEqual(info.tablespaces?.map(({ name }) => name), ["ts1"]);
      assert.equal(Math.floor((info.version ?? 0) / 10_000), 17);
      assert.equal(info.timeline, 1);
      assert.match(info.beginWal ?? "", /^[0-9A-F]{24}$/);
      assert((info.beginWal ?? "") <= (info.endWal ?? ""));
      assert.match(info.backupLabel ?? "", new RegExp(`LABEL: Barman backup cloud ${id}\n`));
      assert((info.clusterSize ?? 0) > 1e6);
      const [control] = await server.query(
        "SELECT system_identifier::text AS id FROM pg_control_system()",
      );
      assert.equal(info.systemid, control?.["id"]);
      assert.deepEqual([...(info.copyStats ?? new Map()).keys()], [
        "total_time",
        "number_of_workers",
        "analysis_time",
        "analysis_time_per_item",
        "copy_time_per_item",
        "serialized_copy_time_per_item",
        "copy_time",
        "serialized_copy_time",
      ]);
      const names = namesIn(join(directory, "data.tar"));
      assert.deepEqual(names.slice(-2), ["global/pg_control", "backup_label"]);
      assert(!names.some((name) => name.startsWith("pg_wal/0") || name.includes("postmaster")));
      assert(names.includes("pg_wal/") && names.includes("./postgresql.conf"));
      // The session is closed: no backup is going on.
      await sleep(100);
      const [activity] = await server.query(
        "SELECT count(*)::text AS n FROM pg_stat_activity WHERE application_name = 'barman_cloud_backup'",
      );
      assert.equal(activity?.["n"], "0");
    },
  );
});

Deno.test("stopped while it waits for the archiver: exit code 1, FAILED, no open uploads", async () => {
  await withServer(
    { major: 15, settings: { ...ARCHIVING, archive_command: "/bin/false" } },
    async (server, root) => {
      const controller = new AbortController();
      const reason = new Error("Stopped by SIGTERM");
      const running = backup(
        [url(root), "main", "-d", server.conninfo(), "--immediate-checkpoint"],
        { signal: controller.signal },
      );
      for (;;) {
        const [row] = await server.query(
          "SELECT count(*)::text AS n FROM pg_stat_activity WHERE query LIKE '%pg_backup_stop(%' AND pid <> pg_backend_pid()",
        );
        if (row?.["n"] === "1") break;
        await sleep(20);
      }
      controller.abort(reason);
      const outcome = await running;
      assert.equal(outcome.code, EXIT.operationFailed, outcome.log);
      assert.match(outcome.log, /Stopped by SIGTERM/);
      const { info, files } = await storedBackup(root);
      assert.deepEqual(files, ["backup.info"]);
      assert.equal(info.status, "FAILED");
      assert.equal(info.error, "failure uploading data (Stopped by SIGTERM)");
      assert.match(info.beginWal ?? "", /^[0-9A-F]{24}$/);
      assert.equal(info.endWal, null);

      // Bounded by an option it ends by itself.
      await rm(join(root, "store/main"), { recursive: true });
      const bounded = await backup(
        [
          url(root),
          "main",
          "-d",
          server.conninfo(),
          "--immediate-checkpoint",
          "--archive-timeout=1",
        ],
      );
      assert.equal(bounded.code, EXIT.operationFailed);
      assert.match((await storedBackup(root)).info.error ?? "", /not archived within 1 s/);
    },
  );
});

Deno.test("a session that is lost and a file that is missing: FAILED, exit code 1", async () => {
  await withServer({ major: 16, settings: ARCHIVING }, async (server, root) => {
    const words = [url(root), "main", "-d", server.conninfo(), "--immediate-checkpoint"];
    /** What is done once the backup has begun makes it fail with this. */
    const failure = async (action: () => unknown, message: RegExp, more: string[] = []) => {
      const onLog = (line: string) => {
        if (/started at/.test(line)) action();
      };
      const outcome = await backup([...words, ...more], { onLog });
      assert.equal(outcome.code, EXIT.operationFailed, outcome.log);
      const { info, files } = await storedBackup(root);
      assert.equal(info.status, "FAILED");
      assert.match(info.error ?? "", message);
      assert.deepEqual(files, ["backup.info"]);
      await rm(join(root, "store/main"), { recursive: true });
    };
    const terminate = () =>
      server.query(
        "SELECT pg_terminate_backend(pid) FROM pg_stat_activity " +
          "WHERE application_name = 'barman_cloud_backup'",
      );
    await failure(terminate, /session with PostgreSQL was lost/, ["--max-bandwidth=10MB"]);
    const control = join(server.dataDirectory, "global/pg_control");
    await failure(() => renameSync(control, `${control}.saved`), /Cannot read .*pg_control/);
    renameSync(`${control}.saved`, control);
  });
});

Deno.test("a session that is lost when the backup has stopped does no harm: the last parts still leave", async () => {
  await withServer({ major: 17, settings: ARCHIVING }, async (server, root) => {
    let lost: Promise<unknown> = Promise.resolve();
    const outcome = await backup(
      // A few seconds for the parts that wait for their turn when the backup stops.
      [url(root), "main", "-d", server.conninfo(), "--immediate-checkpoint", "--max-bandwidth=6MB"],
      {
        onLog: (line) => {
          if (!/stopped at/.test(line)) return;
          lost = server.query(
            "SELECT pg_terminate_backend(pid, 5000) FROM pg_stat_activity " +
              "WHERE application_name = 'barman_cloud_backup'",
          );
        },
      },
    );
    assert.equal((await lost as unknown[]).length, 1);
    assert.equal(outcome.code, EXIT.success, outcome.log);
    assert.equal((await storedBackup(root)).info.status, "DONE");
  });
});

Deno.test("a server that does not answer a question does not keep the backup from being stopped", async () => {
  await withServer({ major: 17, settings: ARCHIVING }, async (server, root) => {
    await using sql = server.connect({ max: 1 });
    await sql.begin(async (transaction) => {
      await transaction`LOCK TABLE pg_catalog.pg_tablespace`;
      const controller = new AbortController();
      const running = backup(
        [url(root), "main", "-d", server.conninfo(), "--immediate-checkpoint"],
        { signal: controller.signal },
      );
      const waiting = () =>
        transaction`SELECT 1 FROM pg_locks WHERE NOT granted AND relation = 'pg_tablespace'::regclass`;
      while ((await waiting()).length === 0) await sleep(20);
      controller.abort(new Error("Stopped by SIGTERM"));
      // Without an end to the wait the lock would be held for ever.
      const limit = new AbortController();
      const outcome = await Promise.race([
        running,
        sleep(30_000, undefined, { signal: limit.signal }),
      ]).finally(() => limit.abort());
      assert.equal(outcome?.code, EXIT.operationFailed, outcome?.log);
      assert.equal(
        (await storedBackup(root)).info.error,
        "failure uploading data (Stopped by SIGTERM)",
      );
    });
  });
});

Deno.test("what a backup of a primary and of its standby hold is a server that starts", async () => {
  const archive = await mkdtemp(join(tmpdir(), "wal-"));
  await chmod(archive, 0o777);
  const settings = {
    ...ARCHIVING,
    archive_mode: "always",
    archive_command: `test -f ${archive}/%f || cp %p ${archive}/%f`,
    max_wal_senders: "5",
  };
  try {
    await withServer({ major: 17, settings, tablespaces: { ts1: "ts1" } }, async (server, root) => {
      await server.query("CREATE TABLE t (n int PRIMARY KEY) TABLESPACE ts1");
      await server.query("INSERT INTO t SELECT generate_series(1, 1000)");
      await using standby = await server.startStandby();
      for (const source of [server, standby]) {
        // Rows that are written while the backup runs.
        let writing = true;
        const writer = (async () => {
          while (writing) {
            await server.query("INSERT INTO t SELECT max(n) + 1 FROM t");
            await sleep(5);
          }
        })();
        const words = [url(root), "main", "-d", source.conninfo(), "--immediate-checkpoint", "-z"];
        // On the standby the end of the backup waits for a segment that the primary has to end.
        const switching = setInterval(() => server.query("SELECT pg_switch_wal()"), 500);
        const outcome = await backup([...words, "--max-archive-size=1MB"]);
        clearInterval(switching);
        writing = false;
        await writer;
        assert.equal(outcome.code, EXIT.success, outcome.log);
        const { directory, files, info } = await storedBackup(root);
        await server.query("SELECT pg_switch_wal()");
        const target = await mkdtemp(join(tmpdir(), "restored-"));
        try {
          const data = join(target, "data");
          const oid = info.tablespaces?.[0]?.oid;
          await mkdir(data);
          await mkdir(join(target, "ts1"));
          assert(files.includes("data_0001.tar.gz"));
          for (const file of files.filter((it) => it.startsWith("data")).sort(byArchive)) {
            untar(join(directory, file), data);
          }
          untar(join(directory, `${oid}.tar.gz`), join(target, "ts1"));
          await rm(join(data, "pg_tblspc", String(oid)), { force: true });
          await symlink(join(target, "ts1"), join(data, "pg_tblspc", String(oid)));
          for (const path of [target, join(target, "ts1")]) {
            const { uid, gid } = await stat(data);
            await chown(path, uid, gid);
          }
          const restored = await startFromDirectory(data, {
            major: 17,
            settings: {
              restore_command: `cp ${archive}/%f %p`,
              archive_mode: "off",
              primary_conninfo: "",
              recovery_target: "immediate",
              recovery_target_action: "promote",
            },
          });
          try {
            await restored.waitUntilReady({ promoted: true });
            const [row] = await restored.query("SELECT count(*)::int AS n, max(n) AS max FROM t");
            assert.equal(row?.["n"], row?.["max"]);
            assert(Number(row?.["n"]) >= 1000);
          } finally {
            await restored.destroy();
          }
        } finally {
          await rm(target, { recursive: true, force: true });
        }
        await rm(join(root, "store/main"), { recursive: true });
      }
    });
  } finally {
    await rm(archive, { recursive: true, force: true });
  }
});

function untar(archive: string, directory: string): void {
  const result = spawnSync("tar", ["-xpzf", archive, "-C", directory]);
  assert.equal(result.status, 0, String(result.stderr));
}

/** `data.tar.gz` before `data_0001.tar.gz`. */
function byArchive(a: string, b: string): number {
  return a.length - b.length || (a < b ? -1 : 1);
}

Deno.test("a role without the privileges fails at the start, and is told which", async () => {
  await withServer({ major: 18, settings: ARCHIVING }, async (server, root) => {
    await server.query("CREATE ROLE weak LOGIN");
    const conninfo = server.conninfo().replace("user=postgres", "user=weak");
    const outcome = await backup([url(root), "main", "-d", conninfo]);
    assert.equal(outcome.code, EXIT.operationFailed);
    assert.match(outcome.log, /pg_monitor.*pg_backup_start/);
    assert.equal((await storedBackup(root)).info.status, "FAILED");
  });
});
