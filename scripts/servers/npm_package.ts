/**
 * Fetches npm packages that are not part of the import map (server binaries, the Bun compiler), so
 * that ordinary runs never download them. Versions and integrity are pinned in npm_packages.json.
 */
import { type ChildProcess, spawn } from "node:child_process";
import { createHash } from "node:crypto";
import { createReadStream, existsSync, readFileSync } from "node:fs";
import {
  access,
  chmod,
  constants,
  mkdir,
  mkdtemp,
  readdir,
  rename,
  rm,
  stat,
} from "node:fs/promises";
import { homedir } from "node:os";
import { dirname, join } from "node:path";
import process from "node:process";
import { setTimeout as sleep } from "node:timers/promises";
import { fileURLToPath } from "node:url";
import packages from "./npm_packages.json" with { type: "json" };

interface PinnedPackage {
  readonly package: string;
  readonly version: string;
  /** As npm writes it: `sha512-<base64>`. */
  readonly integrity: string;
}

const pinned: Readonly<Record<string, PinnedPackage>> = packages;

/** The repository's root. */
export const repositoryRoot = join(dirname(fileURLToPath(import.meta.url)), "..", "..");
const cache = join(repositoryRoot, ".cache", "npm");

const attempts = 3;
const downloadTimeoutMs = 10 * 60_000;
const extractTimeoutMs = 3 * 60_000;

/**
 * The directory of a pinned package, downloaded with `npm pack` when it is not there yet (which
 * respects the user's npm configuration: registry, proxy, certificates). Concurrent callers, also
 * in different processes, are fine.
 *
 * @param key a key of npm_packages.json, for example `postgres-18-linux-x64`
 * @throws Error when the key is unknown, or the package cannot be had or is not the pinned one
 */
export function ensureNpmPackage(key: string): Promise<string> {
  const running = underWay.get(key);
  if (running !== undefined) return running;
  const started = ensure(key).finally(() => underWay.delete(key));
  underWay.set(key, started);
  return started;
}

const underWay = new Map<string, Promise<string>>();

/**
 * The path of the Bun executable that is pinned, downloaded when needed.
 *
 * @param target as in the packages' names (`linux-x64`, `linux-x64-baseline`, `linux-aarch64`,
 *   `linux-x64-musl`, `darwin-aarch64` …) or in Bun's `--target` (`bun-linux-arm64`); the host
 *   when absent
 */
export async function ensureBun(target: string = hostBunTarget()): Promise<string> {
  const name = target.replace(/^bun-/, "").replace("arm64", "aarch64");
  return join(await ensureNpmPackage(`bun-${name}`), "bin", "bun");
}

/** Whether npm_packages.json has this key. */
export function hasNpmPackage(key: string): boolean {
  return Object.hasOwn(pinned, key);
}

function hostBunTarget(): string {
  const arch = process.arch === "arm64" ? "aarch64" : process.arch;
  if (process.platform !== "linux") return `${process.platform}-${arch}`;
  const musl = existsSync(`/lib/ld-musl-${arch === "x64" ? "x86_64" : arch}.so.1`) ? "-musl" : "";
  const baseline = arch === "x64" && !readFileSync("/proc/cpuinfo", "utf8").includes(" avx2")
    ? "-baseline"
    : "";
  return `linux-${arch}${musl}${baseline}`;
}

async function ensure(key: string): Promise<string> {
  const wanted = pinned[key];
  if (wanted === undefined || !hasNpmPackage(key)) {
    throw new Error(
      `Cannot fetch ${key}: npm_packages.json has no such entry, only ${
        Object.keys(pinned).join(", ")
      }`,
    );
  }
  const directory = join(cache, `${wanted.package.replace("/", "+")}@${wanted.version}`);
  if (await exists(directory)) return directory;
  const reasons: string[] = [];
  for (let attempt = 1; attempt <= attempts; attempt++) {
    try {
      await install(wanted, directory);
      return directory;
    } catch (error) {
      reasons.push(error instanceof Error ? error.message : String(error));
      if (attempt < attempts) await sleep(1000 * attempt * attempt);
    }
  }
  throw new Error(
    `Cannot fetch ${wanted.package}@${wanted.version} with npm pack: ${
      [...new Set(reasons)].join("; then: ")
    } (check the network and \`npm config get registry\`)`,
  );
}

/** Downloads into a directory beside the final one, and renames. */
async function install(wanted: PinnedPackage, directory: string): Promise<void> {
  await mkdir(cache, { recursive: true });
  await removeAbandoned();
  const work = await mkdtemp(join(cache, `.new-${process.pid}-`));
  try {
    await run("npm", ["pack", "--silent", `${wanted.package}@${wanted.version}`], {
      cwd: work,
      env: await npmEnvironment(),
      timeoutMs: downloadTimeoutMs,
    });
    const name = (await readdir(work)).find((entry) => entry.endsWith(".tgz"));
    if (name === undefined) throw new Error("npm pack wrote no .tgz file");
    const archive = join(work, name);
    const integrity = await integrityOf(archive);
    if (integrity !== wanted.integrity) {
      throw new Error(
        `the archive's integrity is ${integrity}, npm_packages.json says ${wanted.integrity}`,
      );
    }
    await run("tar", ["-xzof", archive], {
      cwd: work,
      env: process.env,
      timeoutMs: extractTimeoutMs,
    });
    // Other users run what is in here when the tests run as root.
    await chmod(join(work, "package"), 0o755);
    try {
      await rename(join(work, "package"), directory);
    } catch (error) {
      // Another process was faster.
      if (!await exists(directory)) throw error;
    }
  } finally {
    await rm(work, { recursive: true, force: true });
  }
}

/** What downloads left behind that were killed a day or more ago. */
async function removeAbandoned(): Promise<void> {
  for (const name of await readdir(cache)) {
    if (!name.startsWith(".new-")) continue;
    const path = join(cache, name);
    const age = Date.now() - await stat(path).then((file) => file.mtimeMs, () => Date.now());
    if (age > 24 * 3600_000) await rm(path, { recursive: true, force: true });
  }
}

/**
 * Under `npx deno task …` the environment carries npx's own command line as npm_config_*
 * variables; those few would change what `npm pack` does. The user's configuration stays.
 */
async function npmEnvironment(): Promise<NodeJS.ProcessEnv> {
  const env = { ...process.env };
  const npxs =
    /^npm_config_(call|package|yes|json|dry_run|pack_destination|workspaces?|global|prefix|local_prefix)$/i;
  for (const name of Object.keys(env)) if (npxs.test(name)) delete env[name];
  const userCache = env["npm_config_cache"] ?? join(env["HOME"] ?? homedir(), ".npm");
  if (!await canBeWritten(userCache)) env["npm_config_cache"] = join(cache, ".npm");
  env["npm_config_update_notifier"] = "false";
  return env;
}

/** Whether a directory can be written, or made when it is not there. */
async function canBeWritten(directory: string): Promise<boolean> {
  let nearest = directory;
  while (!await exists(nearest) && dirname(nearest) !== nearest) nearest = dirname(nearest);
  return await access(nearest, constants.W_OK | constants.X_OK).then(() => true, () => false);
}

async function integrityOf(path: string): Promise<string> {
  const hash = createHash("sha512");
  for await (const chunk of createReadStream(path)) hash.update(chunk);
  return `sha512-${hash.digest("base64")}`;
}

function exists(path: string): Promise<boolean> {
  return stat(path).then(() => true, () => false);
}

interface RunOptions {
  readonly cwd: string;
  readonly env: NodeJS.ProcessEnv;
  readonly timeoutMs: number;
}

/** Runs a command to its end; rejects with its last words when it fails or takes too long. */
function run(command: string, args: readonly string[], options: RunOptions): Promise<void> {
  return new Promise((resolve, reject) => {
    const child: ChildProcess = spawn(command, args, {
      cwd: options.cwd,
      env: options.env,
      stdio: ["ignore", "pipe", "pipe"],
    });
    let output = "";
    let timedOut = false;
    const timer = setTimeout(() => {
      timedOut = true;
      child.kill("SIGKILL");
    }, options.timeoutMs);
    const collect = (chunk: Uint8Array) => {
      output = (output + new TextDecoder().decode(chunk)).slice(-2000);
    };
    child.stdout?.on("data", collect);
    child.stderr?.on("data", collect);
    child.on("error", (error) => {
      clearTimeout(timer);
      reject(new Error(`cannot run ${command}: ${error.message}`));
    });
    child.on("close", (code, signal) => {
      clearTimeout(timer);
      if (code === 0) return resolve();
      const end = timedOut
        ? `took longer than ${options.timeoutMs / 1000} s`
        : `ended with ${signal ?? `exit code ${code}`}`;
      reject(new Error(`${command} ${args[0]} ${end}: ${output.trim() || "no output"}`));
    });
  });
}
