/** Servers that are written in Go, for tests: built where Go and its modules can be had, once. */
import { access, mkdir, mkdtemp, readFile, rename, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import process from "node:process";
import { setTimeout as sleep } from "node:timers/promises";
import { repositoryRoot } from "./npm_package.ts";
import { runProgram } from "./server_processes.ts";

/** One to two minutes of two idle cores are usual; the modules come from the network besides. */
const BUILD_TIMEOUT_MS = 15 * 60_000;

export type GoProgram = { readonly path: string } | { readonly missing: string };

/**
 * A program, built with `go install` when it is not in .cache yet. Concurrent callers, also in different processes,
 * are fine: one builds, the others wait.
 * @param version without the `v`
 * @param packagePath the last part of it is the program's name
 * @returns its path, or why it can't be had
 */
export async function ensureGoProgram(
  name: string,
  version: string,
  packagePath: string,
  tell: (text: string) => void = () => {},
): Promise<GoProgram> {
  const cache = join(repositoryRoot, ".cache", `${name}-${version}`);
  const program = join(cache, name);
  if (await exists(program)) return { path: program };
  const go = await findGo();
  if (go === undefined) return { missing: "there is no Go (`go` in PATH)" };
  await mkdir(cache, { recursive: true });
  const lock = join(cache, "building");
  const end = performance.now() + BUILD_TIMEOUT_MS;
  while (!await takeLock(lock)) {
    if (await exists(program)) return { path: program };
    if (performance.now() > end) {
      return { missing: "another process has been building it for long" };
    }
    await sleep(500);
  }
  try {
    if (await exists(program)) return { path: program };
    tell(`building ${name} ${version} with Go (a minute or two, once)`);
    const directory = await mkdtemp(join(cache, "gobin-"));
    try {
      const args = [`GOBIN=${directory}`, go, "install", `${packagePath}@v${version}`];
      await runProgram("env", args, { timeoutMs: BUILD_TIMEOUT_MS, cwd: tmpdir() });
      await rename(join(directory, name), program);
    } finally {
      await rm(directory, { recursive: true, force: true });
    }
    return { path: program };
  } catch (error) {
    const why = error instanceof Error ? error.message : String(error);
    return { missing: why.replace(/\s+/g, " ").slice(0, 300) };
  } finally {
    await rm(lock, { force: true });
  }
}

/** The lock is a file with our process id; one of a process that is no more is removed. */
async function takeLock(lock: string): Promise<boolean> {
  try {
    await writeFile(lock, String(process.pid), { flag: "wx" });
    return true;
  } catch {
    const holder = Number(await readFile(lock, "utf8").catch(() => ""));
    if (holder > 0 && !isAlive(holder)) await rm(lock, { force: true });
    return false;
  }
}

function isAlive(pid: number): boolean {
  try {
    process.kill(pid, 0);
    return true;
  } catch (error) {
    return error instanceof Error && "code" in error && error.code === "EPERM";
  }
}

async function findGo(): Promise<string | undefined> {
  const directories = [...(Deno.env.get("PATH") ?? "").split(":"), "/usr/local/go/bin"];
  for (const directory of directories) {
    const path = join(directory, "go");
    if (directory !== "" && await exists(path)) return path;
  }
  return undefined;
}

async function exists(path: string): Promise<boolean> {
  return await access(path).then(() => true, () => false);
}
