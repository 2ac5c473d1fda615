/** Builds `go/`, the program that calls our executables through CloudNativePG's library. */
import { createHash } from "node:crypto";
import { existsSync } from "node:fs";
import { spawn } from "node:child_process";
import {
  chmod,
  copyFile,
  cp,
  mkdir,
  mkdtemp,
  readdir,
  readFile,
  rename,
  rm,
} from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { fileURLToPath } from "node:url";

const ROOT = fileURLToPath(new URL("../..", import.meta.url));
const SOURCES = join(ROOT, "tests", "callers", "go");

export type GoDriver = { readonly path: string } | { readonly missing: string };

/**
 * The built program, out of `.cache/` when nothing changed since. What it needs comes by Go's own client.
 * @param timeoutMs after which building is given up
 * @returns why there is none, when Go or its modules can't be had here
 */
export async function goDriver(timeoutMs = 180_000): Promise<GoDriver> {
  const cached = join(ROOT, ".cache", "callers", await digest(SOURCES));
  if (existsSync(cached)) return { path: cached };
  // A copy, since a Go module among the sources of another project changes that project's listing of files.
  const directory = await mkdtemp(join(tmpdir(), "barman-cloud-go-"));
  try {
    await cp(SOURCES, directory, { recursive: true });
    const built = join(directory, "driver");
    const failure = await build(directory, built, timeoutMs);
    if (failure !== null) return { missing: failure };
    await mkdir(join(ROOT, ".cache", "callers"), { recursive: true });
    await chmod(built, 0o755);
    // Under another name first: a second test run may look for it meanwhile.
    await copyFile(built, `${cached}.${process.pid}`);
    await rename(`${cached}.${process.pid}`, cached);
    return { path: cached };
  } finally {
    await rm(directory, { recursive: true, force: true });
  }
}

function build(directory: string, output: string, timeoutMs: number): Promise<string | null> {
  return new Promise((resolve) => {
    const child = spawn("go", ["build", "-o", output, "."], {
      cwd: directory,
      env: { ...process.env, GOFLAGS: "-buildvcs=false", GOTOOLCHAIN: "local" },
      stdio: ["ignore", "ignore", "pipe"],
      timeout: timeoutMs,
    });
    let told = "";
    child.stderr.on("data", (chunk: Uint8Array) => told += Buffer.from(chunk).toString());
    child.on("error", (error) => resolve(`go can't be run: ${error.message}`));
    child.on("close", (code, signal) => {
      if (code === 0) resolve(null);
      else {
        const last = told.trim().split("\n").at(-1) ?? "";
        resolve(signal === null ? last : `go build did not end in ${timeoutMs / 1000} s`);
      }
    });
  });
}

async function digest(directory: string): Promise<string> {
  const hash = createHash("sha256");
  const entries = await readdir(directory, { recursive: true, withFileTypes: true });
  const files = entries.filter((entry) => entry.isFile())
    .map((entry) => join(entry.parentPath, entry.name)).sort();
  for (const file of files) hash.update(file.slice(directory.length)).update(await readFile(file));
  return hash.digest("hex").slice(0, 16);
}
