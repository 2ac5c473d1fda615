/**
 * `deno task endurance [--minutes N] [--seed N]`: does anything get lost? A PostgreSQL under write load archives to an S3
 * server through a proxy that breaks every tenth connection, while backups, retention and keeps go on and every hundredth
 * process is killed (SIGKILL) at some moment. Meanwhile and at the end it is restored to random times, and every row
 * is looked for. Not a part of CI; ends with 1 when anything is lost.
 */
import { existsSync } from "node:fs";
import { chmod, chown, mkdtemp, readFile, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { setTimeout as sleep } from "node:timers/promises";
import { parseArgs } from "node:util";
import { stop as stopEsbuild } from "esbuild";
import { ensureExecutable } from "../compile.ts";
import {
  reachableByServer,
  serverUser,
  startFromDirectory,
  startPostgres,
  type TestPostgres,
} from "../servers/embedded_postgres.ts";
import { type ConnectionPlan, startFaultProxy } from "../servers/fault_proxy.ts";
import { startS3ForTests } from "../servers/s3_for_tests.ts";
import {
  archiveCurrentSegment,
  compareRows,
  type ConfirmedRow,
  startWriteLoad,
} from "../servers/write_load.ts";

const MAJOR = 18;
const SERVER = "endurance";
const REDUNDANCY = 3;
const CODECS = ["", "--gzip", "--zstd", "--lz4", "--snappy"];
const COMMAND_TIMEOUT_MS = 300_000;
/** A killed restore_command ends recovery with an error, as it should; the server is then started again. */
const START_ATTEMPTS = 20;

const { values } = parseArgs({
  args: Deno.args.filter((word) => word !== "--"),
  options: {
    minutes: { type: "string", default: "60" },
    seed: { type: "string", default: String(Date.now() % 1e6) },
  },
});
const minutes = Number(values.minutes);
const random = randomNumbers(Number(values.seed));
const started = performance.now();
const tell = (text: string) =>
  console.log(`${((performance.now() - started) / 1000).toFixed(0).padStart(5)} s  ${text}`);

const s3 = await startS3ForTests();
if (s3 === null) Deno.exit(3);
const bucket = await s3.newBucket();
let broken = 0;
const proxy = await startFaultProxy(s3.endpoint, (connection) => {
  if (connection % 10 !== 0) return {};
  broken++;
  return brokenConnection();
});
const user = serverUser();
const directory = await mkdtemp(join(tmpdir(), "barman-cloud-endurance-"));
await chmod(directory, 0o755);
if (user !== undefined) await chown(directory, user.uid, user.gid);
const program = await writeProgram(await reachableByServer(await ensureExecutable()));
await stopEsbuild();
const url = `s3://${bucket}/archive`;

/** How often each command ended with which code (137: killed). */
const endings = new Map<string, number>();
const restores = { done: 0, rows: 0, missing: 0, late: 0 };

tell(`seed ${values.seed}, ${minutes} minutes, ${url} at ${s3.endpoint} through ${proxy.endpoint}`);
let code = 1;
try {
  await endure();
  code = restores.missing + restores.late > 0 ? 1 : 0;
} catch (error) {
  console.error(`Stopped: ${error instanceof Error ? error.message : String(error)}`);
} finally {
  await report();
  await proxy.stop();
  await s3.stop();
  await rm(directory, { recursive: true, force: true });
}
Deno.exit(code);

async function endure(): Promise<void> {
  await using primary = await startPostgres({
    major: MAJOR,
    walSegSizeMb: 1,
    settings: {
      archive_mode: "on",
      archive_command: commandLine("wal-archive", ["--zstd"], "%p"),
      max_wal_size: "64MB",
    },
  });
  const load = await startWriteLoad(primary, { pauseMs: 10 });
  const { confirmed } = load;
  const end = Date.now() + minutes * 60_000;
  // Nothing can be restored before the first one.
  while (await backUp(primary) !== 0);
  let round = 0;
  while (Date.now() < end) {
    round++;
    const deletion = call("backup-delete", ["--retention-policy", `REDUNDANCY ${REDUNDANCY}`]);
    await Promise.all([deletion, backUp(primary), keepOne()]);
    await sleep(random(5000));
    if (round % 4 === 0) await restoreAndCompare(primary, confirmed, await aMoment(confirmed));
  }
  await load.stop();
  tell(`The clients have stopped: ${confirmed.length} rows`);
  for (let i = 0; i < 3; i++) await restoreAndCompare(primary, confirmed, await aMoment(confirmed));
  await restoreAndCompare(primary, confirmed, null);
}

/** Take a base backup, with whatever codec comes. */
function backUp(primary: TestPostgres): Promise<number> {
  const codec = CODECS[random(CODECS.length)] ?? "";
  const words = codec === "" ? [] : [codec];
  return call("backup", [...words, "--immediate-checkpoint", "-d", primary.conninfo()]);
}

/** Keep or release a backup, any: what is released must go later, what is kept must stay. */
async function keepOne(): Promise<void> {
  const ids = (await doneBackups()).map(({ id }) => id);
  const id = ids[random(ids.length)];
  if (id === undefined) return;
  await call("backup-keep", [random(3) === 0 ? "--target=full" : "--release"], [id]);
}

/** Between the end of the oldest backup that is there and the last commit: later ones can't be recovered to. */
async function aMoment(confirmed: readonly ConfirmedRow[]): Promise<Date> {
  const from = Math.min(...(await doneBackups()).map(({ end }) => end)) + 1000;
  const to = (confirmed.at(-1)?.sent ?? 0) - 1;
  if (!(from < to)) throw new Error("There is no backup that is DONE and before the last commit");
  return new Date(from + random(to - from));
}

async function doneBackups(): Promise<{ id: string; end: number }[]> {
  for (let attempt = 1;; attempt++) {
    const { code, stdout, stderr } = await run("backup-list", ["--format", "json"]);
    if (code === 0) {
      const list: { backups_list: BackupInList[] } = JSON.parse(stdout);
      return list.backups_list.filter(({ status }) => status === "DONE")
        .map((backup) => ({ id: backup.backup_id, end: Date.parse(backup.end_time_iso) }));
    }
    if (attempt === 5) throw new Error(`backup-list ended with ${code}: ${stderr}`);
  }
}

interface BackupInList {
  readonly backup_id: string;
  readonly status: string;
  readonly end_time_iso: string;
}

/** Restore and replay to a moment, or (null) to the end of the archive; then look for each row. */
async function restoreAndCompare(
  primary: TestPostgres,
  confirmed: readonly ConfirmedRow[],
  moment: Date | null,
): Promise<void> {
  await archiveCurrentSegment(primary);
  const target = moment?.getTime() ?? Infinity;
  const present = confirmed.filter((row) => row.confirmed < target);
  const absent = confirmed.filter((row) => row.sent > target);
  const restored = join(directory, "restored");
  const choice = moment === null
    ? { options: [], id: "last" }
    : { options: ["--target-time", moment.toISOString()], id: "auto" };
  for (let attempt = 1;; attempt++) {
    const code = await call("restore", choice.options, [choice.id, restored]);
    if (code === 0) break;
    await rm(restored, { recursive: true, force: true });
    if (attempt === 5) throw new Error(`restore ended with ${code} five times`);
  }
  await using server = await startRestored(restored, moment);
  const { missing, late } = await compareRows(server, { present, absent });
  restores.done++;
  restores.rows += present.length;
  restores.missing += missing.length;
  restores.late += late.length;
  tell(
    `Restored to ${moment?.toISOString() ?? "the end"}: ${present.length} rows, ` +
      `${missing.length} missing, ${late.length} too late`,
  );
  await server.stop("immediate");
  await rm(restored, { recursive: true, force: true });
}

async function startRestored(dataDirectory: string, moment: Date | null): Promise<TestPostgres> {
  const settings = {
    archive_mode: "off",
    restore_command: commandLine("wal-restore", [], "%f %p"),
    ...(moment === null ? {} : {
      recovery_target_time: moment.toISOString().replace("T", " ").replace("Z", "+00"),
      recovery_target_action: "promote",
    }),
  };
  for (let attempt = 1;; attempt++) {
    let server: TestPostgres | undefined;
    try {
      // The data directory stays when a start fails; settings that are there twice do no harm.
      server = await startFromDirectory(dataDirectory, { major: MAJOR, settings });
      await promoted(server);
      return server;
    } catch (error) {
      await server?.destroy();
      count("recovery started again");
      if (attempt === START_ATTEMPTS) throw error;
    }
  }
}

/** @throws Error when the server has ended, too: it does when its restore_command is killed */
async function promoted(server: TestPostgres): Promise<void> {
  const end = Date.now() + COMMAND_TIMEOUT_MS;
  for (;;) {
    try {
      return await server.waitUntilReady({ promoted: true, timeoutMs: 2000 });
    } catch (error) {
      const running = existsSync(join(server.dataDirectory, "postmaster.pid"));
      if (!running || Date.now() > end) throw error;
    }
  }
}

/** Run a command, count how it ended, and tell of what is neither success nor our kill. */
async function call(
  command: string,
  options: readonly string[],
  positionals: readonly string[] = [],
): Promise<number> {
  const { code, stderr } = await run(command, options, positionals);
  if (code !== 0 && code !== 137) {
    tell(`${command} ended with ${code}: ${stderr.trim().slice(-300)}`);
  }
  return code;
}

async function run(
  command: string,
  options: readonly string[],
  positionals: readonly string[] = [],
): Promise<{ code: number; stdout: string; stderr: string }> {
  const child = new Deno.Command(program, {
    args: wordsOf(command, options, positionals),
    env: { ...s3?.env },
    signal: AbortSignal.timeout(COMMAND_TIMEOUT_MS),
    ...(user ?? {}),
  });
  const { code, stdout, stderr } = await child.output();
  count(`${command} ${code}`);
  const text = (bytes: Uint8Array) => new TextDecoder().decode(bytes);
  return { code, stdout: text(stdout), stderr: text(stderr) };
}

function wordsOf(
  command: string,
  options: readonly string[],
  positionals: readonly string[],
): string[] {
  const connection = ["--endpoint-url", proxy.endpoint, "--read-timeout", "3"];
  return [command, ...options, ...connection, url, SERVER, ...positionals];
}

/** For archive_command and restore_command. */
function commandLine(command: string, options: readonly string[], last: string): string {
  const variables = Object.entries(s3?.env ?? {}).map(([name, value]) => `${name}='${value}'`);
  return ["env", ...variables, `'${program}'`, ...wordsOf(command, options, [])].join(" ") +
    ` ${last}`;
}

/** What stands for the executable: counts the processes and kills each hundredth at some moment. */
async function writeProgram(executable: string): Promise<string> {
  const path = join(directory, "barman-cloud");
  await writeFile(
    path,
    `#!/bin/sh
printf . >> '${directory}/processes'
n=$(wc -c < '${directory}/processes')
[ $((n % 100)) -eq 0 ] || exec '${executable}' "$@"
'${executable}' "$@" &
child=$!
case $1 in
  wal-*) sleep 0.$(printf %03d $((n * 7919 % 150))) ;;
  *) sleep $((n * 31 / 100 % 4)).$((n * 7919 % 10)) ;;
esac
kill -9 $child 2>/dev/null && echo "$1" >> '${directory}/killed'
wait $child
`,
  );
  await chmod(path, 0o755);
  return path;
}

function brokenConnection(): ConnectionPlan {
  const plans: ConnectionPlan[] = [
    { drop: true },
    { drop: true, reset: true },
    { cutAfterUp: random(200_000) },
    { cutAfterUp: random(200_000), reset: true },
    { cutAfterDown: random(2000) },
    { cutAfterDown: random(500_000), reset: true },
    { stallAfterUp: random(100_000) },
    { stallAfterDown: random(1000) },
    { blackhole: true },
  ];
  return plans[random(plans.length)] ?? {};
}

async function report(): Promise<void> {
  const lines = async (name: string) =>
    (await readFile(join(directory, name), "utf8").catch(() => "")).trimEnd();
  const killed = (await lines("killed")).split("\n").filter((line) => line !== "");
  for (const command of killed) count(`${command} killed`);
  console.log(`\n| | |\n| --- | --- |`);
  const rows: [string, number | string][] = [
    ["processes started", (await lines("processes")).length],
    ["killed", killed.length],
    ["connections", proxy.connections],
    ["broken", broken],
    ["restores", restores.done],
    ["rows compared", restores.rows],
    ["lost", restores.missing],
    ["from after the target", restores.late],
    ...[...endings].toSorted(([a], [b]) => a < b ? -1 : 1),
  ];
  for (const [name, value] of rows) console.log(`| ${name} | ${value} |`);
}

function count(what: string): void {
  endings.set(what, (endings.get(what) ?? 0) + 1);
}

/** Whole numbers from 0 to below a limit, the same for the same seed (mulberry32). */
function randomNumbers(seed: number): (below: number) => number {
  let state = seed | 0;
  return (below) => {
    state = (state + 0x6d2b79f5) | 0;
    let mixed = Math.imul(state ^ (state >>> 15), 1 | state);
    mixed = (mixed + Math.imul(mixed ^ (mixed >>> 7), 61 | mixed)) ^ mixed;
    return Math.floor(((mixed ^ (mixed >>> 14)) >>> 0) / 2 ** 32 * below);
  };
}
