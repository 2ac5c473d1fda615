/**
 * moto's server, an EC2 in memory that others wrote (https://docs.getmoto.org): tests of EBS snapshots run on it
 * where Python packages can be had, beside the fake of ours, which has what moto lacks. Tests only.
 */
import { spawn } from "node:child_process";
import { access } from "node:fs/promises";
import { join } from "node:path";
import { setTimeout as sleep } from "node:timers/promises";
import { fileURLToPath } from "node:url";
import { installPythonPackages, newestPython } from "./python_packages.ts";
import { freePort } from "./server_processes.ts";

const ROOT = fileURLToPath(new URL("../..", import.meta.url));
const VERSION = "5.2.5";
const START_TIMEOUT_MS = 60_000;

/** Holds why it can't be had, when whoever started this process has tried already. */
export const MOTO_MISSING = "TEST_MOTO_MISSING";

/** @returns the path of its program, or why it can't be had */
export async function ensureMoto(
  tell: (text: string) => void,
): Promise<{ readonly path: string } | { readonly missing: string }> {
  const tried = Deno.env.get(MOTO_MISSING);
  if (tried) return { missing: tried };
  const python = await newestPython();
  if (python === null) return { missing: "there is no python3 with venv" };
  const directory = join(ROOT, ".cache", `moto-${VERSION}-python${python.version}`);
  const path = join(directory, "bin", "moto_server");
  const isThere = await access(path).then(() => true, () => false);
  if (isThere) return { path };
  tell(`installing moto ${VERSION} from Python packages`);
  const missing = await installPythonPackages(python.program, directory, [
    `moto[server]==${VERSION}`,
  ]);
  return missing === null ? { path } : { missing };
}

export interface Moto extends AsyncDisposable {
  /** `http://127.0.0.1:PORT` */
  readonly endpoint: string;
}

const WATCHED = `"$@" & pid=$!; cat >/dev/null; kill -KILL $pid; wait`;

/** Start a server of its own, on a free port. @throws Error when it does not answer in time */
export async function startMoto(path: string): Promise<Moto> {
  const port = await freePort();
  // The shell reads from a pipe whose other end only we hold, so it notices every kind of end of ours.
  const child = spawn("sh", ["-c", WATCHED, "sh", path, "-H", "127.0.0.1", "-p", `${port}`], {
    env: { PATH: Deno.env.get("PATH") ?? "" },
    stdio: ["pipe", "ignore", "pipe"],
  });
  let output = "";
  child.stderr.on("data", (chunk: Uint8Array) => {
    output = (output + new TextDecoder().decode(chunk)).slice(-2000);
  });
  const ended = new Promise<void>((resolve) => child.on("close", () => resolve()));
  const endpoint = `http://127.0.0.1:${port}`;
  const stop = async () => {
    child.stdin.end();
    await ended;
  };
  const deadline = performance.now() + START_TIMEOUT_MS;
  while (!(await answers(endpoint))) {
    if (child.exitCode !== null || performance.now() > deadline) {
      await stop();
      throw new Error(`moto does not start: ${output}`);
    }
    await sleep(100);
  }
  return { endpoint, [Symbol.asyncDispose]: stop };
}

async function answers(endpoint: string): Promise<boolean> {
  try {
    const response = await fetch(`${endpoint}/moto-api/data.json`, {
      signal: AbortSignal.timeout(5000),
    });
    await response.body?.cancel();
    return response.ok;
  } catch {
    return false;
  }
}
