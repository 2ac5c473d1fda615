/** Running the servers' programs: bounded in time, and cleaned up even after a `kill -9` of ours. */
import { type ChildProcess, spawn } from "node:child_process";
import { connect, createServer } from "node:net";
import { tmpdir } from "node:os";
import process from "node:process";
import { setTimeout as sleep } from "node:timers/promises";
import type { ServerUser } from "./postgres_binaries.ts";

/** Until a server listens, if nothing else is said. */
const START_TIMEOUT_MS = 30_000;

export interface ProgramOptions {
  readonly user?: ServerUser | undefined;
  readonly timeoutMs: number;
  readonly cwd: string;
}

/**
 * Runs a program to its end without libpq's variables in its environment.
 *
 * @returns what it printed on both outputs
 * @throws Error with what it printed when it fails or takes too long
 */
export function runProgram(
  program: string,
  args: readonly string[],
  options: ProgramOptions,
): Promise<string> {
  return new Promise((resolve, reject) => {
    const child = spawn(program, args, {
      cwd: options.cwd,
      env: serverEnvironment(),
      stdio: ["ignore", "pipe", "pipe"],
      ...(options.user === undefined ? {} : options.user),
    });
    let output = "";
    let timedOut = false;
    const timer = setTimeout(() => {
      timedOut = true;
      child.kill("SIGKILL");
    }, options.timeoutMs);
    const collect = (chunk: Uint8Array) => {
      output = (output + new TextDecoder().decode(chunk)).slice(-8000);
    };
    child.stdout.on("data", collect);
    child.stderr.on("data", collect);
    const name = program.slice(program.lastIndexOf("/") + 1);
    child.on("error", (error) => {
      clearTimeout(timer);
      reject(new Error(`Cannot run ${name}: ${error.message}`));
    });
    child.on("close", (code, signal) => {
      clearTimeout(timer);
      if (code === 0) return resolve(output);
      const end = timedOut
        ? `took longer than ${options.timeoutMs / 1000} s`
        : `ended with ${signal ?? `exit code ${code}`}`;
      reject(new Error(`${name} ${end}: ${output.trim()}`));
    });
  });
}

function serverEnvironment(): NodeJS.ProcessEnv {
  const env: NodeJS.ProcessEnv = { LC_ALL: "C" };
  for (const [name, value] of Object.entries(process.env)) {
    if (!/^(PG|LC_|LANG|DENO_|npm_)/.test(name)) env[name] = value;
  }
  return env;
}

/** A shell that waits for the end of this process and then ends a server and removes its files. */
export interface Watchdog {
  /** Ends the server (if it still runs), removes the directories, and the shell. */
  finish(): Promise<void>;
}

/**
 * Watches over one server. The shell reads from a pipe whose other end only this process holds, so
 * it notices every kind of end.
 *
 * @param dataDirectory the server whose postmaster.pid is there gets an immediate shutdown
 * @param remove directories to remove afterwards
 */
export function startWatchdog(dataDirectory: string, remove: readonly string[]): Watchdog {
  const child: ChildProcess = spawn("sh", ["-c", watchdogScript, "sh", dataDirectory, ...remove], {
    cwd: "/",
    detached: true,
    stdio: ["pipe", "ignore", "ignore"],
  });
  const ended = new Promise<void>((resolve, reject) => {
    child.on("close", () => resolve());
    child.on("error", reject);
  });
  child.unref();
  (child.stdin as unknown as { unref?(): void } | null)?.unref?.();
  return {
    finish() {
      child.ref();
      child.stdin?.end();
      return ended;
    },
  };
}

// A stale postmaster.pid may name a process of somebody else: its command line is looked at first.
const watchdogScript = `
cat >/dev/null
data=$1; shift
ours() {
  command=$(tr '\\0' ' ' <"/proc/$pid/cmdline" 2>/dev/null || ps -o command= -p "$pid" 2>/dev/null)
  case "$command" in *"$data"*) kill -0 "$pid" 2>/dev/null ;; *) false ;; esac
}
pid=$(head -n 1 "$data/postmaster.pid" 2>/dev/null)
if [ -n "$pid" ] && ours; then
  kill -QUIT "$pid"
  n=0
  while ours && [ $n -lt 50 ]; do sleep 0.1; n=$((n + 1)); done
  if ours; then kill -KILL "$pid"; sleep 0.2; fi
fi
for directory; do rm -rf "$directory" || { sleep 1; rm -rf "$directory"; }; done
`;

/**
 * Starts a server that ends with this process, however that ends.
 * @param name for messages
 * @param port of 127.0.0.1; it is waited for until somebody listens there
 * @returns how to stop it
 * @throws Error with what it printed when it does not start in time
 */
export async function startServer(
  name: string,
  port: number,
  program: string,
  args: readonly string[],
  options: {
    /** The whole of it; our own when absent. */
    readonly env?: Readonly<Record<string, string | undefined>>;
    /** Milliseconds until it must listen. */
    readonly timeoutMs?: number;
    /** A directory that is removed when the server has ended. */
    readonly remove?: string;
  } = {},
): Promise<() => Promise<void>> {
  // The shell reads from a pipe whose other end only we hold, so it notices every kind of end of ours.
  const child = spawn("sh", ["-c", WATCHED, "sh", program, ...args], {
    cwd: tmpdir(),
    detached: true,
    env: { ...(options.env ?? process.env), FILES_OF_SERVER: options.remove ?? "" },
    stdio: ["pipe", "pipe", "pipe"],
  });
  let output = "";
  const collect = (chunk: Uint8Array) => {
    output = (output + new TextDecoder().decode(chunk)).slice(-2000);
  };
  child.stdout.on("data", collect);
  child.stderr.on("data", collect);
  const ended = new Promise<void>((resolve) => child.on("close", () => resolve()));
  const stop = async () => {
    child.stdin.end();
    await ended;
  };
  try {
    await untilListening(port, child, options.timeoutMs ?? START_TIMEOUT_MS);
  } catch (error) {
    await stop();
    const why = error instanceof Error ? error.message : String(error);
    throw new Error(`Cannot start ${name}: ${why}: ${output.trim() || "no output"}`);
  }
  return stop;
}

const WATCHED = `
exec 3<&0
"$@" </dev/null 3<&- &
server=$!
( cat <&3 >/dev/null; kill -9 "$server" 2>/dev/null ) &
exec 3<&-
wait "$server"
[ -z "$FILES_OF_SERVER" ] || rm -rf "$FILES_OF_SERVER"
`;

async function untilListening(
  port: number,
  child: ChildProcess,
  timeoutMs: number,
): Promise<void> {
  const end = performance.now() + timeoutMs;
  while (!await isListening(port)) {
    if (child.exitCode !== null) throw new Error("it ended at once");
    if (performance.now() > end) throw new Error(`no answer within ${timeoutMs / 1000} s`);
    await sleep(50);
  }
}

function isListening(port: number): Promise<boolean> {
  return new Promise((resolve) => {
    const socket = connect({ host: "127.0.0.1", port });
    socket.on("connect", () => {
      socket.destroy();
      resolve(true);
    });
    socket.on("error", () => resolve(false));
  });
}

/** A TCP port of 127.0.0.1 that is free now, below the range that clients get theirs from. */
export async function freePort(): Promise<number> {
  for (let attempt = 0; attempt < 50; attempt++) {
    const port = 15000 + Math.floor(Math.random() * 17000);
    if (await isFree(port)) return port;
  }
  throw new Error("Cannot find a free TCP port between 15000 and 32000 on 127.0.0.1");
}

function isFree(port: number): Promise<boolean> {
  return new Promise((resolve) => {
    const server = createServer();
    server.once("error", () => resolve(false));
    server.listen(port, "127.0.0.1", () => server.close(() => resolve(true)));
  });
}
