/** Running the servers' programs: bounded in time, and cleaned up even after a `kill -9` of ours. */
import { type ChildProcess, spawn } from "node:child_process";
import { createServer } from "node:net";
import process from "node:process";
import type { ServerUser } from "./postgres_binaries.ts";

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
