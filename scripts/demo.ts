/**
 * `deno task demo [URL]`: the main job from beginning to end. A throwaway PostgreSQL archives its WAL with the
 * executable, a base backup is taken under write load, the data directory is destroyed, restored, and replayed to a
 * chosen moment; then every row that was committed before that moment is looked for.
 *
 * Without a URL a temporary directory is the store. With one (`s3://bucket/path`) it is the user's own; what the demo
 * wrote there stays, under a server name of its own.
 */
import { chmod, chown, mkdir, mkdtemp, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { stop as stopEsbuild } from "esbuild";
import { ensureExecutable } from "./compile.ts";
import {
  reachableByServer,
  serverUser,
  startFromDirectory,
  startPostgres,
  type TestPostgres,
} from "./servers/embedded_postgres.ts";
import { archiveCurrentSegment, compareRows, startWriteLoad } from "./servers/write_load.ts";

const MAJOR = 18;
const SERVER = `demo-${new Date().toISOString().replaceAll(/[-:]|\..*/g, "")}`;
const STEP_TIMEOUT_MS = 120_000;

const started = performance.now();
function tell(text: string): void {
  console.log(`${((performance.now() - started) / 1000).toFixed(1).padStart(5)} s  ${text}`);
}

const url = Deno.args.find((word) => word !== "--");
const user = serverUser();
const directory = await mkdtemp(join(tmpdir(), "barman-cloud-demo-"));
let running: TestPostgres | undefined;
let code = 1;
try {
  await demo();
  code = 0;
} catch (error) {
  console.error(`\nThe demo failed: ${error instanceof Error ? error.message : String(error)}`);
} finally {
  await running?.destroy();
  await rm(directory, { recursive: true, force: true });
  await stopEsbuild();
}
Deno.exit(code);

async function demo(): Promise<void> {
  tell("Preparing: executable and PostgreSQL binaries (downloaded the first time)");
  const executable = await reachableByServer(await ensureExecutable());
  // As root everything runs as the server's user, as on a real host: root's files would not be readable to it.
  await chmod(directory, 0o755);
  if (user !== undefined) await chown(directory, user.uid, user.gid);
  const store = url ?? `file://${join(directory, "store")}`;
  if (url === undefined) {
    await mkdir(join(directory, "store"));
    if (user !== undefined) await chown(join(directory, "store"), user.uid, user.gid);
  }
  const call = (words: readonly string[]) => barmanCloud(executable, words);

  const primary = running = await startPostgres({
    major: MAJOR,
    settings: {
      archive_mode: "on",
      archive_command: `'${executable}' wal-archive --zstd '${store}' ${SERVER} '%p'`,
      max_wal_size: "256MB",
    },
  });
  tell(`Started PostgreSQL ${MAJOR}; archive_command = barman-cloud wal-archive --zstd ${store} …`);

  const load = await startWriteLoad(primary);
  const { confirmed } = load;
  await load.more(200);
  tell(`Two clients write all the time (${confirmed.length} rows so far); taking a base backup`);
  const before = performance.now();
  await call(
    [
      "backup",
      "--zstd",
      "--immediate-checkpoint",
      "--name",
      "demo",
      "-d",
      primary.conninfo(),
      store,
      SERVER,
    ],
  );
  const seconds = ((performance.now() - before) / 1000).toFixed(1);
  const list = (await call(["backup-list", store, SERVER])).trimEnd();
  tell(
    `Base backup done in ${seconds} s while ${confirmed.length} rows were written. backup-list says:`,
  );
  for (const line of list.split("\n")) console.log(`           ${line.trimEnd()}`);

  await load.more(500);
  const target = Date.now();
  tell(`The moment to come back to: ${new Date(target).toISOString()}`);
  await load.more(500);
  await load.stop();
  await archiveCurrentSegment(primary);
  tell(
    `${confirmed.length} rows confirmed in all, WAL archived. Now the server is killed and its data destroyed`,
  );
  await primary.kill9();
  await rm(primary.dataDirectory, { recursive: true, force: true });

  const restored = join(directory, "restored");
  await call(["restore", store, SERVER, "demo", restored]);
  tell(`Restored the base backup into an empty directory`);
  const again = running = await startFromDirectory(restored, {
    major: MAJOR,
    settings: {
      archive_mode: "off",
      restore_command: `'${executable}' wal-restore '${store}' ${SERVER} '%f' '%p'`,
      recovery_target_time: new Date(target).toISOString().replace("T", " ").replace("Z", "+00"),
      recovery_target_action: "promote",
    },
  });
  await again.waitUntilReady({ promoted: true, timeoutMs: STEP_TIMEOUT_MS });
  tell("Replayed the archived WAL through restore_command up to that moment");

  const present = confirmed.filter((row) => row.confirmed < target);
  const absent = confirmed.filter((row) => row.sent > target);
  const { wanted, missing, late } = await compareRows(again, { present, absent });
  if (wanted < 500) throw new Error(`Only ${wanted} rows were written: no proof`);
  if (missing.length > 0) throw new Error(`${missing.length} committed rows are missing or differ`);
  if (late.length > 0) throw new Error(`${late.length} rows are from after the chosen moment`);
  tell(`Compared row by row: all ${wanted} rows committed before that moment are there,`);
  tell(`and none of the ${absent.length} written after it`);
  if (url !== undefined) tell(`Left in your store: ${url} (server name ${SERVER})`);
}

/** Run the executable with our environment (credentials); anything but exit code 0 is an error. */
async function barmanCloud(executable: string, words: readonly string[]): Promise<string> {
  const child = new Deno.Command(executable, {
    args: [...words],
    signal: AbortSignal.timeout(STEP_TIMEOUT_MS),
    ...(user ?? {}),
  });
  const { code, stdout, stderr } = await child.output();
  if (code !== 0) {
    const text = new TextDecoder().decode(stderr);
    throw new Error(`barman-cloud ${words.join(" ")} ended with ${code}\n${text}`);
  }
  return new TextDecoder().decode(stdout);
}
