/**
 * `deno task endurance [--minutes N] [--seed N]`: does anything get lost? A PostgreSQL under write load archives to an S3
 * server through a proxy that breaks every tenth connection, while backups, retention and keeps go on at once and every
 * hundredth process is killed (SIGKILL) at some moment. Meanwhile and at the end it is restored to random times, every
 * row is looked for, every segment between the oldest backup and the newest is looked for, and so are backups that were
 * said to be kept. At the end what the killed processes have left is cleaned up, and every backup is verified. Not a part
 * of CI; ends with 1 when anything is lost.
 */
import { existsSync } from "node:fs";
import { chmod, chown, mkdtemp, readFile, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { setTimeout as sleep } from "node:timers/promises";
import { parseArgs } from "node:util";
import { stop as stopEsbuild } from "esbuild";
import { executeCleanup, planCleanup } from "../../lib/backup/cleanup.ts";
import { serverLayout } from "../../lib/layout.ts";
import { openStore } from "../../providers/open.ts";
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
/** No backup is at work for so long without a sign of life, milliseconds. */
const SILENCE_MS = 5 * 60_000;
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
const seconds = () => ((performance.now() - started) / 1000).toFixed(0);
const tell = (text: string) => console.log(`${seconds().padStart(5)} s  ${text}`);

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
/** Ids of backups of which a keep was acknowledged and no release was tried since. */
const kept = new Set<string>();
/** Ids of backups that are being kept or released. */
const inHand = new Set<string>();
/** Keeps and releases, one line each. */
const history: string[] = [];
/** What must never be, one line each. */
const wrongs: string[] = [];

// A client whose server has just ended may reject when nobody waits for it any more.
addEventListener("unhandledrejection", (event) => {
  event.preventDefault();
  count(`left behind by a client: ${event.reason?.code ?? event.reason}`);
});
tell(`seed ${values.seed}, ${minutes} minutes, ${url} at ${s3.endpoint} through ${proxy.endpoint}`);
let code = 1;
try {
  await endure();
  code = restores.missing + restores.late + wrongs.length > 0 ? 1 : 0;
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
    await Promise.all([deletion, backUp(primary), keepOne(), keepOne()]);
    await sleep(random(5000));
    if (round % 4 === 0) {
      await checkArchive();
      await cleanUp(SILENCE_MS);
    }
    if (round % 4 === 0) await restoreAndCompare(primary, confirmed, await aMoment(confirmed));
  }
  await load.stop();
  tell(`The clients have stopped: ${confirmed.length} rows`);
  for (let i = 0; i < 3; i++) await restoreAndCompare(primary, confirmed, await aMoment(confirmed));
  await restoreAndCompare(primary, confirmed, null);
  await cleanUp(0);
  await checkArchive();
  for (const { id } of await doneBackups()) {
    const { code, stdout } = await patiently(() =>
      run("backup-verify", ["--format", "json"], [id])
    );
    count(code === 0 ? "backups verified" : "backups that are damaged");
    if (code !== 0) wrong(`backup-verify of ${id} ended with ${code}: ${stdout.slice(0, 1000)}`);
  }
}

/**
 * Remove what killed processes have left, by the library and not by the command, which takes an hour at least.
 * @param silenceMs 0 when nothing is at work any more
 */
async function cleanUp(silenceMs: number): Promise<void> {
  if (s3 === null) return;
  const { store, location } = await openStore(url, {
    endpointUrl: s3.endpoint,
    env: { ...s3.env },
  });
  try {
    const layout = serverLayout(location.prefix, SERVER);
    const nothing = () => {};
    const log = {
      debug: nothing,
      info: nothing,
      warning: nothing,
      error: nothing,
      critical: nothing,
      shows: () => false,
    };
    const context = { store, layout, log, signal: AbortSignal.timeout(COMMAND_TIMEOUT_MS) };
    const request = {
      olderThanMs: silenceMs,
      failed: true,
      now: new Date(Date.now() + (silenceMs === 0 ? 60_000 : 0)),
    };
    const result = await executeCleanup(context, request, await planCleanup(context, request));
    for (const { kind } of result.removed) count(`${kind} of a killed process cleaned up`);
    if (result.failed) wrong("cleanup could not remove something");
    if (silenceMs > 0) return;
    const { remove, leave } = await planCleanup(context, request);
    for (const { key, reason } of [...remove, ...leave]) wrong(`cleanup left ${key}: ${reason}`);
  } finally {
    await store.close();
  }
}

/** Every segment from the oldest backup to the newest file is there, and every backup that is kept. */
async function checkArchive(): Promise<void> {
  const { code, stdout } = await patiently(() => run("wal-verify", ["--format", "json"]));
  count(code === 0 ? "archive without gaps" : "archive with gaps");
  if (code !== 0) wrong(`wal-verify ended with ${code}: ${stdout.slice(0, 1000)}`);
  const ids = new Set((await doneBackups()).map(({ id }) => id));
  for (const id of kept) {
    if (ids.has(id)) continue;
    const steps = history.filter((step) => step.includes(id)).join("; ");
    wrong(`backup ${id} was kept and is gone (${steps})`);
    kept.delete(id);
  }
}

/** A command that only reads, tried again when its connections break or it is killed. */
async function patiently(
  attempt: () => Promise<{ code: number; stdout: string; stderr: string }>,
): Promise<{ code: number; stdout: string; stderr: string }> {
  for (let attempts = 1;; attempts++) {
    const result = await attempt();
    if (![2, 4, 137].includes(result.code) || attempts === 8) return result;
  }
}

function wrong(what: string): void {
  wrongs.push(what);
  tell(`WRONG: ${what}`);
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
  // The oldest is the one that retention is about to delete.
  const id = random(2) === 0 ? ids[0] : ids[random(ids.length)];
  // A keep and a release of one backup at once may end either way.
  if (id === undefined || inHand.has(id)) return;
  inHand.add(id);
  const began = seconds();
  let code: number;
  if (random(3) === 0) {
    code = await call("backup-keep", ["--target=full"], [id]);
    if (code === 0) kept.add(id);
    history.push(`${began}-${seconds()} s: keep of ${id} ended with ${code}`);
  } else {
    kept.delete(id);
    code = await call("backup-keep", ["--release"], [id]);
    history.push(`${began}-${seconds()} s: release of ${id} ended with ${code}`);
  }
  inHand.delete(id);
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
    ["other wrongs", wrongs.length],
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
