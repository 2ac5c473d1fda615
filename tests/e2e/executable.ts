/** Runs the compiled executable, as users do. `scripts/test.ts` has compiled it and tells where it is. */
import { spawn } from "node:child_process";
import { ensureExecutable } from "../../scripts/compile.ts";

export interface RunOptions {
  /** The whole environment; only what is given here is set. Default: empty. */
  readonly env?: Readonly<Record<string, string>>;
  readonly cwd?: string;
  /** The name it is called by. */
  readonly argv0?: string;
  readonly uid?: number;
  readonly gid?: number;
  /** Milliseconds until it is killed and the test fails; 60,000 by default. */
  readonly timeout?: number;
  /** Called with the child, for tests that send signals. */
  readonly onSpawn?: (pid: number) => void;
}

export interface RunResult {
  /** Exit code; null when a signal ended it. */
  readonly code: number | null;
  readonly signal: NodeJS.Signals | null;
  readonly stdout: string;
  readonly stderr: string;
}

/** Path of the executable. */
export async function executablePath(): Promise<string> {
  return Deno.env.get("BARMAN_CLOUD_EXECUTABLE") ?? await ensureExecutable();
}

/** Run it with these words and wait for its end. */
export async function barmanCloud(
  words: readonly string[],
  options: RunOptions = {},
): Promise<RunResult> {
  return await runProgram(await executablePath(), words, options);
}

/** Run any program the same way: for comparing with others. */
export function runProgram(
  path: string,
  words: readonly string[],
  options: RunOptions = {},
): Promise<RunResult> {
  const { env = {}, cwd, argv0, uid, gid, timeout = 60_000, onSpawn } = options;
  return new Promise((resolve, reject) => {
    const child = spawn(path, [...words], {
      env,
      stdio: ["ignore", "pipe", "pipe"],
      ...(cwd === undefined ? {} : { cwd }),
      ...(argv0 === undefined ? {} : { argv0 }),
      ...(uid === undefined ? {} : { uid }),
      ...(gid === undefined ? {} : { gid }),
    });
    const stdout: Uint8Array[] = [];
    const stderr: Uint8Array[] = [];
    child.stdout.on("data", (chunk: Uint8Array) => stdout.push(chunk));
    child.stderr.on("data", (chunk: Uint8Array) => stderr.push(chunk));
    const text = (chunks: Uint8Array[]) => Buffer.concat(chunks).toString("utf8");
    const timer = setTimeout(() => {
      child.kill("SIGKILL");
      reject(
        new Error(
          `${path} ${words.join(" ")} did not end in ${timeout} ms; stderr: ${text(stderr)}`,
        ),
      );
    }, timeout);
    child.on("error", reject);
    child.on("close", (code, signal) => {
      clearTimeout(timer);
      resolve({ code, signal, stdout: text(stdout), stderr: text(stderr) });
    });
    if (child.pid !== undefined) onSpawn?.(child.pid);
  });
}
