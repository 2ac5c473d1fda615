/**
 * moto's server, an EC2 in memory that others wrote (https://docs.getmoto.org): tests of EBS snapshots run on it
 * where Python packages can be had, beside the fake of ours, which has what moto lacks. Tests only.
 */
import { access } from "node:fs/promises";
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import { installPythonPackages, newestPython } from "./python_packages.ts";
import { freePort, startServer } from "./server_processes.ts";

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

/** Start a server of its own, on a free port. @throws Error when it does not listen in time */
export async function startMoto(path: string): Promise<Moto> {
  const port = await freePort();
  const stop = await startServer("moto", port, path, ["-H", "127.0.0.1", "-p", `${port}`], {
    env: { PATH: Deno.env.get("PATH") },
    timeoutMs: START_TIMEOUT_MS,
  });
  return { endpoint: `http://127.0.0.1:${port}`, [Symbol.asyncDispose]: stop };
}
