/**
 * Throwaway PostgreSQL clusters, 13 to 18, from npm's embedded binaries: for tests, the demo and
 * benchmarks. A cluster is ended and its files are removed even when the process that started it is
 * killed.
 */
import {
  chmod,
  chown,
  mkdir,
  mkdtemp,
  open,
  readFile,
  rm,
  stat,
  writeFile,
} from "node:fs/promises";
import { tmpdir } from "node:os";
import { join, resolve } from "node:path";
import process from "node:process";
import { setTimeout as sleep } from "node:timers/promises";
import postgres from "postgres";
import {
  appendSettings,
  copyDataDirectory,
  giveToServer,
  openParents,
  type Settings,
  writeSignalFile,
} from "./data_directory.ts";
import {
  type PostgresBinaries,
  postgresBinaries,
  type PostgresMajor,
  type ServerUser,
  serverUser,
} from "./postgres_binaries.ts";
import { freePort, runProgram, startWatchdog } from "./server_processes.ts";

export type { PostgresMajor, Settings };
export { postgresBinaries, reachableByServer, serverUser } from "./postgres_binaries.ts";

export interface StartOptions {
  /** 18 when absent. */
  readonly major?: PostgresMajor | undefined;
  /** Directory for everything, made when absent; a temporary one (removed at the end) by default. */
  readonly dir?: string | undefined;
  /** Appended to postgresql.conf. */
  readonly settings?: Settings | undefined;
  /** Lines of pg_hba.conf; all connections are trusted when absent. */
  readonly hba?: readonly string[] | undefined;
  /** Tablespaces to create: name → directory, relative ones are below `dir`. */
  readonly tablespaces?: Readonly<Record<string, string>> | undefined;
  /** WAL segment size in MiB: 1, 2, 4 … 1024. */
  readonly walSegSizeMb?: number | undefined;
  /** Data checksums; on when absent. */
  readonly checksums?: boolean | undefined;
  /** TCP port on 127.0.0.1 and number of the socket; a free one when absent. */
  readonly port?: number | undefined;
  readonly initdbArgs?: readonly string[] | undefined;
}

export interface FromDirectoryOptions {
  readonly major: PostgresMajor;
  /** Appended to postgresql.auto.conf: `restore_command`, `recovery_target_time` … */
  readonly settings?: Settings | undefined;
  /** Which signal file is made; `recovery` when absent. */
  readonly signal?: "recovery" | "standby" | "none" | undefined;
  readonly port?: number | undefined;
  /** How long the server may take until it accepts connections, in milliseconds; 60 s when absent. */
  readonly timeoutMs?: number | undefined;
}

export interface StandbyOptions {
  readonly dir?: string | undefined;
  readonly settings?: Settings | undefined;
  readonly port?: number | undefined;
}

export interface ConnectOptions {
  readonly user?: string | undefined;
  readonly password?: string | undefined;
  readonly database?: string | undefined;
  /** Connections at most; 2 when absent. */
  readonly max?: number | undefined;
  /** Over TCP instead of the socket. */
  readonly tcp?: boolean | undefined;
}

export type StopMode = "smart" | "fast" | "immediate";

export interface TestPostgres {
  readonly major: PostgresMajor;
  /** For example `18.4`. */
  readonly version: string;
  /** Holds the data directory (unless started from one), the log, tablespaces; others can enter it. */
  readonly dir: string;
  readonly dataDirectory: string;
  readonly port: number;
  /** Short enough for a socket. */
  readonly socketDirectory: string;
  /** The superuser. */
  readonly user: "postgres";
  /** Directory of `initdb`, `pg_ctl` and `postgres`. */
  readonly bin: string;
  readonly logFile: string;
  /** `host=… port=… user=postgres dbname=postgres`, over the socket. */
  conninfo(): string;
  /** A pool of connections; the caller ends it (`await sql.end()`), or uses `await using`. */
  connect(options?: ConnectOptions): postgres.Sql & AsyncDisposable;
  /** Runs statements as the superuser and returns the last one's rows; no parameters. */
  query(sql: string): Promise<Record<string, unknown>[]>;
  /** Starts again after `stop` or `kill9`. */
  start(): Promise<void>;
  /** `fast` when absent. */
  stop(mode?: StopMode): Promise<void>;
  restart(mode?: StopMode): Promise<void>;
  reload(): Promise<void>;
  /** Kills the postmaster; its children notice and go. */
  kill9(): Promise<void>;
  /** Waits until a query is answered and, with `promoted`, until recovery has ended. */
  waitUntilReady(options?: { promoted?: boolean; timeoutMs?: number }): Promise<void>;
  /** Waits until this standby has replayed what the primary has written up to now. */
  waitForReplay(primary: TestPostgres, timeoutMs?: number): Promise<void>;
  promote(): Promise<void>;
  /** A streaming standby, copied from this server with the low-level backup functions. */
  startStandby(options?: StandbyOptions): Promise<TestPostgres>;
  /** The last part of the server's log. */
  logTail(characters?: number): Promise<string>;
  /** Ends the server and removes what was made for it. Standbys are not included. */
  destroy(): Promise<void>;
  [Symbol.asyncDispose](): Promise<void>;
}

/**
 * Makes a cluster and starts it. It trusts local connections, listens on 127.0.0.1 and a socket,
 * and does not sync to disk.
 *
 * @throws Error with the end of the server's log when it does not start
 */
export async function startPostgres(options: StartOptions = {}): Promise<TestPostgres> {
  const place = await makePlace(options.major ?? 18, options.dir, undefined);
  return await orCleanUp(place, async () => {
    await initdb(place, options);
    const server = await launch(place, options.port, startTimeoutMs);
    for (const [name, location] of Object.entries(options.tablespaces ?? {})) {
      const directory = resolve(place.dir, location);
      await mkdir(directory, { recursive: true });
      await chmod(directory, 0o700);
      if (place.user !== undefined) await chown(directory, place.user.uid, place.user.gid);
      await server.query(
        `CREATE TABLESPACE "${name.replaceAll('"', '""')}" LOCATION '${
          directory.replaceAll("'", "''")
        }'`,
      );
    }
    return server;
  });
}

/**
 * Starts a server on a data directory that is there already, for example a restored one: gives it
 * (and its tablespaces) to the server's user, appends settings, makes the signal file. The data
 * directory itself is not removed at the end.
 *
 * @throws Error with the end of the server's log when it does not start
 */
export async function startFromDirectory(
  dataDirectory: string,
  options: FromDirectoryOptions,
): Promise<TestPostgres> {
  const place = await makePlace(options.major, undefined, resolve(dataDirectory));
  return await orCleanUp(place, async () => {
    await openParents(place.dataDirectory);
    await appendSettings(place.dataDirectory, "postgresql.auto.conf", options.settings ?? {});
    const signal = options.signal ?? "recovery";
    if (signal !== "none") await writeSignalFile(place.dataDirectory, signal);
    await giveToServer(place.dataDirectory, place.user);
    return await launch(place, options.port, options.timeoutMs ?? startTimeoutMs);
  });
}

const startTimeoutMs = 60_000;
const stopTimeoutMs = 60_000;
/** Bytes of a socket's path that every system allows. */
const maxSocketPath = 100;

/** Where a cluster lives and what it runs with. */
interface Place extends PostgresBinaries {
  readonly major: PostgresMajor;
  readonly dir: string;
  readonly dataDirectory: string;
  readonly socketDirectory: string;
  readonly logFile: string;
  readonly user: ServerUser | undefined;
  /** Ends the server and removes what we made. */
  cleanUp(): Promise<void>;
}

async function makePlace(
  major: PostgresMajor,
  givenDir: string | undefined,
  givenData: string | undefined,
): Promise<Place> {
  const binaries = await postgresBinaries(major);
  const user = serverUser();
  const remove: string[] = [];
  const ownedDirectory = async (path: string | undefined): Promise<string> => {
    const directory = path ?? await mkdtemp(join(tmpdir(), "bcpg-"));
    if (path === undefined) remove.push(directory);
    else await mkdir(directory, { recursive: true });
    await chmod(directory, 0o755);
    if (user !== undefined) await chown(directory, user.uid, user.gid);
    return directory;
  };
  const dir = await ownedDirectory(givenDir === undefined ? undefined : resolve(givenDir));
  await openParents(dir);
  const socketDirectory = dir.length < maxSocketPath - 20 ? dir : await ownedDirectory(undefined);
  const dataDirectory = givenData ?? join(dir, "data");
  const watchdog = startWatchdog(dataDirectory, remove);
  return {
    ...binaries,
    major,
    dir,
    dataDirectory,
    socketDirectory,
    logFile: join(dir, "server.log"),
    user,
    cleanUp: () => watchdog.finish(),
  };
}

async function orCleanUp<T>(place: Place, work: () => Promise<T>): Promise<T> {
  try {
    return await work();
  } catch (error) {
    await place.cleanUp();
    throw error;
  }
}

async function initdb(place: Place, options: StartOptions): Promise<void> {
  const args = ["-D", place.dataDirectory, "-U", "postgres", "-A", "trust", "-N"];
  args.push("--no-locale", "-E", "UTF8");
  if (options.checksums ?? true) args.push("--data-checksums");
  else if (place.major >= 18) args.push("--no-data-checksums");
  if (options.walSegSizeMb !== undefined) args.push(`--wal-segsize=${options.walSegSizeMb}`);
  args.push(...options.initdbArgs ?? []);
  await runProgram(join(place.bin, "initdb"), args, {
    user: place.user,
    cwd: place.dir,
    timeoutMs: startTimeoutMs,
  });
  await appendSettings(place.dataDirectory, "postgresql.conf", {
    fsync: false,
    shared_buffers: "16MB",
    max_connections: 40,
    // A standby starts without a slot and must find the WAL since its copy began.
    wal_keep_size: "128MB",
    ...options.settings,
  });
  if (options.hba !== undefined) {
    await writeFile(join(place.dataDirectory, "pg_hba.conf"), `${options.hba.join("\n")}\n`);
  }
}

/** Starts the server, on other ports when the free one was taken meanwhile. */
async function launch(
  place: Place,
  givenPort: number | undefined,
  timeoutMs: number,
): Promise<TestPostgres> {
  for (let attempt = 1;; attempt++) {
    const port = givenPort ?? await freePort();
    try {
      await startServer(place, port, timeoutMs);
      return serverAt(place, port);
    } catch (error) {
      const taken = error instanceof Error && error.message.includes("Address already in use");
      if (!taken || givenPort !== undefined || attempt === 5) throw error;
    }
  }
}

async function startServer(place: Place, port: number, timeoutMs: number): Promise<void> {
  // On the command line, since a restored or copied data directory has the original's in its files.
  const forced: Settings = {
    port,
    listen_addresses: "127.0.0.1",
    unix_socket_directories: place.socketDirectory,
  };
  const flags = Object.entries(forced).map(([name, value]) => `-c ${name}=${shellWord(value)}`)
    .join(" ");
  const before = await stat(place.logFile).then((file) => file.size, () => 0);
  const args = ["start", "-w", "-t", String(Math.ceil(timeoutMs / 1000)), "-s"];
  args.push("-D", place.dataDirectory, "-l", place.logFile, "-o", flags);
  for (let attempt = 1;; attempt++) {
    try {
      await pgCtl(place, args, timeoutMs + 5000);
      return;
    } catch (error) {
      const log = await logSince(place.logFile, before);
      // After kill9 children of the old server may live a moment longer.
      if (attempt < 20 && /shared memory block .*is still in use/.test(log)) {
        await sleep(250);
        continue;
      }
      const reason = error instanceof Error ? error.message : String(error);
      throw new Error(
        `Cannot start PostgreSQL ${place.version} on ${place.dataDirectory}: ${reason}\n` +
          `End of ${place.logFile}:\n${log.slice(-3000)}`,
      );
    }
  }
}

/** `pg_ctl -o` goes through a shell. */
function shellWord(value: string | number | boolean): string {
  return `'${String(value).replaceAll("'", "'\\''")}'`;
}

function pgCtl(place: Place, args: readonly string[], timeoutMs: number): Promise<string> {
  const options = { user: place.user, cwd: place.dir, timeoutMs };
  return runProgram(join(place.bin, "pg_ctl"), args, options);
}

function serverAt(place: Place, port: number): TestPostgres {
  const connect = (options: ConnectOptions = {}): postgres.Sql & AsyncDisposable => {
    const sql = postgres({
      host: options.tcp === true ? "127.0.0.1" : place.socketDirectory,
      port,
      username: options.user ?? "postgres",
      database: options.database ?? "postgres",
      max: options.max ?? 2,
      connect_timeout: 10,
      onnotice: () => {},
      ...(options.password === undefined ? {} : { password: options.password }),
    });
    const disposable = { [Symbol.asyncDispose]: () => sql.end({ timeout: 5 }) };
    return Object.assign(sql, disposable);
  };
  const server: TestPostgres = {
    major: place.major,
    version: place.version,
    dir: place.dir,
    dataDirectory: place.dataDirectory,
    port,
    socketDirectory: place.socketDirectory,
    user: "postgres",
    bin: place.bin,
    logFile: place.logFile,
    conninfo: () => `host=${place.socketDirectory} port=${port} user=postgres dbname=postgres`,
    connect,
    async query(text) {
      await using sql = connect({ max: 1 });
      const rows: unknown = await sql.unsafe(text);
      // Several statements give one list of rows each.
      const last: unknown = Array.isArray(rows) && Array.isArray(rows.at(-1)) ? rows.at(-1) : rows;
      return [...last as Record<string, unknown>[]];
    },
    start: () => startServer(place, port, startTimeoutMs),
    async stop(mode = "fast") {
      const args = ["stop", "-w", "-t", String(stopTimeoutMs / 1000), "-s", "-m", mode];
      await pgCtl(place, [...args, "-D", place.dataDirectory], stopTimeoutMs + 5000);
    },
    async restart(mode = "fast") {
      await server.stop(mode);
      await server.start();
    },
    async reload() {
      await pgCtl(place, ["reload", "-s", "-D", place.dataDirectory], stopTimeoutMs);
    },
    kill9: () => killPostmaster(place),
    waitUntilReady: (options = {}) =>
      until(
        place,
        options.timeoutMs ?? startTimeoutMs,
        options.promoted === true ? "has not ended recovery" : "does not answer",
        async () => {
          const [row] = await server.query("SELECT pg_is_in_recovery() AS recovering");
          return options.promoted !== true || row?.["recovering"] === false;
        },
      ),
    async waitForReplay(primary, timeoutMs = startTimeoutMs) {
      const [row] = await primary.query("SELECT pg_current_wal_flush_lsn()::text AS lsn");
      const lsn = String(row?.["lsn"]);
      await until(place, timeoutMs, `has not replayed ${lsn}`, async () => {
        const query = `SELECT pg_last_wal_replay_lsn() >= '${lsn}'::pg_lsn AS done`;
        return (await server.query(query))[0]?.["done"] === true;
      });
    },
    async promote() {
      const args = ["promote", "-w", "-t", "60", "-s", "-D", place.dataDirectory];
      await pgCtl(place, args, stopTimeoutMs + 5000);
    },
    startStandby: (options = {}) => startStandbyOf(server, place, options),
    async logTail(characters = 3000) {
      return (await logSince(place.logFile, 0)).slice(-characters);
    },
    destroy: () => place.cleanUp(),
    [Symbol.asyncDispose]: () => place.cleanUp(),
  };
  return server;
}

async function startStandbyOf(
  primary: TestPostgres,
  from: Place,
  options: StandbyOptions,
): Promise<TestPostgres> {
  const place = await makePlace(from.major, options.dir, undefined);
  return await orCleanUp(place, async () => {
    const sql = primary.connect({ max: 1 });
    try {
      const modern = from.major >= 15;
      await sql.unsafe(
        modern
          ? "SELECT pg_backup_start('standby', true)"
          : "SELECT pg_start_backup('standby', true, false)",
      );
      const { dataDirectory } = place;
      await copyDataDirectory(from.dataDirectory, dataDirectory, join(place.dir, "tablespaces"));
      const [row] = await sql.unsafe(
        modern
          ? "SELECT labelfile FROM pg_backup_stop(false)"
          : "SELECT labelfile FROM pg_stop_backup(false, false)",
      );
      await writeFile(join(dataDirectory, "backup_label"), String(row?.["labelfile"]));
    } finally {
      await sql.end({ timeout: 5 });
    }
    await appendSettings(place.dataDirectory, "postgresql.auto.conf", {
      primary_conninfo: primary.conninfo(),
      ...options.settings,
    });
    await writeSignalFile(place.dataDirectory, "standby");
    await giveToServer(place.dataDirectory, place.user);
    const standby = await launch(place, options.port, startTimeoutMs);
    await standby.waitUntilReady();
    return standby;
  });
}

async function killPostmaster(place: Place): Promise<void> {
  const pidFile = join(place.dataDirectory, "postmaster.pid");
  const text = await readFile(pidFile, "utf8");
  const pid = Number(text.split("\n")[0]);
  process.kill(pid, "SIGKILL");
  for (let attempt = 0; attempt < 200; attempt++) {
    const state = await processState(pid);
    if (state === "gone") return;
    // Where nobody collects orphans (many containers) the dead process stays in the table, and the
    // next server would take it for a living one.
    if (state === "zombie" && attempt >= 10) {
      await rm(pidFile, { force: true });
      const port = text.split("\n")[3];
      return await rm(join(place.socketDirectory, `.s.PGSQL.${port}.lock`), { force: true });
    }
    await sleep(50);
  }
  throw new Error(`Cannot kill the postmaster of ${place.dataDirectory}, process ${pid}`);
}

async function processState(pid: number): Promise<"alive" | "zombie" | "gone"> {
  try {
    process.kill(pid, 0);
  } catch {
    return "gone";
  }
  const line = await readFile(`/proc/${pid}/stat`, "utf8").catch(() => "");
  return / Z /.test(line) ? "zombie" : "alive";
}

async function until(
  place: Place,
  timeoutMs: number,
  complaint: string,
  done: () => Promise<boolean>,
): Promise<void> {
  const deadline = Date.now() + timeoutMs;
  let last: unknown;
  while (Date.now() < deadline) {
    try {
      if (await done()) return;
    } catch (error) {
      last = error;
    }
    await sleep(100);
  }
  const reason = last instanceof Error ? ` (${last.message})` : "";
  throw new Error(
    `PostgreSQL on ${place.dataDirectory} ${complaint} within ${timeoutMs / 1000} s${reason}\n` +
      `End of ${place.logFile}:\n${(await logSince(place.logFile, 0)).slice(-3000)}`,
  );
}

async function logSince(path: string, position: number): Promise<string> {
  const file = await open(path).catch(() => undefined);
  if (file === undefined) return "";
  try {
    const { size } = await file.stat();
    const start = Math.max(position, size - 64 * 1024);
    const { buffer, bytesRead } = await file.read({
      buffer: new Uint8Array(Math.max(0, size - start)),
      position: start,
    });
    return new TextDecoder().decode(buffer.subarray(0, bytesRead));
  } finally {
    await file.close();
  }
}
