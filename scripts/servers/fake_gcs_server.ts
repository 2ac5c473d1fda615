/**
 * Servers that speak like Google Cloud Storage, for tests:
 *
 * - fake-gcs-server (github.com/fsouza/fake-gcs-server), built by Go where Go and its modules can be
 *   had. It knows the JSON API but neither multipart uploads of the XML API nor KMS keys.
 * - the fake in gcs_fake.ts, which is always there.
 * - Google's own service, where TEST_GCS_BUCKET names an empty bucket and the environment credentials.
 */
import { type ChildProcess, spawn } from "node:child_process";
import { access, mkdir, mkdtemp, readFile, rename, rm, writeFile } from "node:fs/promises";
import { connect } from "node:net";
import { tmpdir } from "node:os";
import { join } from "node:path";
import process from "node:process";
import { setTimeout as sleep } from "node:timers/promises";
import { fileURLToPath } from "node:url";
import { skipUnless } from "../../tests/skips.ts";
import { repositoryRoot } from "./npm_package.ts";
import { freePort, runProgram } from "./server_processes.ts";

const VERSION = "1.55.1";
const MODULE = `github.com/fsouza/fake-gcs-server@v${VERSION}`;
const CACHE = join(repositoryRoot, ".cache", `fake-gcs-server-${VERSION}`);
const PROGRAM = join(CACHE, "fake-gcs-server");
/** About two minutes of two idle cores; the modules come from the network besides. */
const BUILD_TIMEOUT_MS = 15 * 60_000;
const START_TIMEOUT_MS = 30_000;

/**
 * The program, built with `go install` when it is not in .cache yet. Concurrent callers, also in
 * different processes, are fine: one builds, the others wait.
 * @returns its path, or why it can't be had
 */
export async function ensureFakeGcsServer(
  tell: (text: string) => void = () => {},
): Promise<{ readonly path: string } | { readonly missing: string }> {
  if (await exists(PROGRAM)) return { path: PROGRAM };
  const go = await findGo();
  if (go === undefined) return { missing: "there is no Go (`go` in PATH)" };
  await mkdir(CACHE, { recursive: true });
  const lock = join(CACHE, "building");
  const end = performance.now() + BUILD_TIMEOUT_MS;
  while (!await takeLock(lock)) {
    if (await exists(PROGRAM)) return { path: PROGRAM };
    if (performance.now() > end) {
      return { missing: "another process has been building it for long" };
    }
    await sleep(500);
  }
  try {
    if (await exists(PROGRAM)) return { path: PROGRAM };
    tell(`building fake-gcs-server ${VERSION} with Go (a few minutes, once)`);
    const directory = await mkdtemp(join(CACHE, "gobin-"));
    try {
      const args = [`GOBIN=${directory}`, go, "install", MODULE];
      await runProgram("env", args, { timeoutMs: BUILD_TIMEOUT_MS, cwd: tmpdir() });
      await rename(join(directory, "fake-gcs-server"), PROGRAM);
    } finally {
      await rm(directory, { recursive: true, force: true });
    }
    return { path: PROGRAM };
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

/**
 * Holds why the program can't be had, when whoever started this process has tried already: a build
 * that fails takes its time.
 */
export const FAKE_GCS_SERVER_MISSING = "TEST_FAKE_GCS_SERVER_MISSING";

async function findGo(): Promise<string | undefined> {
  const directories = [...(Deno.env.get("PATH") ?? "").split(":"), "/usr/local/go/bin"];
  for (const directory of directories) {
    const path = join(directory, "go");
    if (directory !== "" && await exists(path)) return path;
  }
  return undefined;
}

export interface GcsForTests {
  /** What the test output calls it. */
  readonly name: string;
  readonly kind: "fake-gcs-server" | "fake" | "google";
  /** `http://127.0.0.1:PORT` */
  readonly endpoint: string;
  /**
   * The environment for stores and for processes under test, with nothing of the developer's own
   * (but on Google's service).
   */
  readonly env: Readonly<Record<string, string>>;
  /** The name of an empty bucket. */
  newBucket(): Promise<string>;
  stop(): Promise<void>;
}

/** The fake of the test tree, in a process of its own. */
export async function startGcsFakeForTests(token?: string): Promise<GcsForTests> {
  const port = await freePort();
  const script = fileURLToPath(new URL("gcs_fake.ts", import.meta.url));
  const settings = token === undefined ? [] : [`token=${token}`];
  const args = ["run", "-A", "--no-check", "--quiet", script, String(port), ...settings];
  const name = "the fake in scripts/servers/gcs_fake.ts";
  return await started("fake", name, port, Deno.execPath(), args, token);
}

/** @returns null when there is none; what would enable it has then been said. */
export async function startFakeGcsServerForTests(): Promise<GcsForTests | null> {
  const tried = Deno.env.get(FAKE_GCS_SERVER_MISSING);
  const found = tried ? { missing: tried } : await ensureFakeGcsServer((text) => console.log(text));
  if ("missing" in found) {
    skipUnless(
      false,
      `Tests against fake-gcs-server (${found.missing}); the test tree's own fake stood in`,
      "install Go with access to its module proxy",
    );
    return null;
  }
  const port = await freePort();
  const host = `127.0.0.1:${port}`;
  const args = [
    ...["-scheme", "http", "-host", "127.0.0.1", "-port", String(port), "-backend", "memory"],
    ...["-public-host", host, "-external-url", `http://${host}`, "-log-level", "error"],
  ];
  return await started("fake-gcs-server", `fake-gcs-server ${VERSION}`, port, found.path, args);
}

/** @returns null when the environment names no bucket of Google's */
export function googleForTests(): GcsForTests | null {
  const bucket = Deno.env.get("TEST_GCS_BUCKET");
  if (bucket === undefined || bucket === "") return null;
  const env: Record<string, string> = {};
  for (const [name, value] of Object.entries(Deno.env.toObject())) {
    if (/^(GOOGLE_|GCE_|CLOUDSDK_|HOME$|https?_proxy$|no_proxy$)/i.test(name)) env[name] = value;
  }
  return {
    name: "Google Cloud Storage",
    kind: "google",
    endpoint: "https://storage.googleapis.com",
    env,
    newBucket: () => Promise.resolve(bucket),
    stop: () => Promise.resolve(),
  };
}

async function started(
  kind: GcsForTests["kind"],
  name: string,
  port: number,
  program: string,
  args: readonly string[],
  token?: string,
): Promise<GcsForTests> {
  const endpoint = `http://127.0.0.1:${port}`;
  const stop = await startProgram(name, port, program, args);
  return {
    name,
    kind,
    endpoint,
    env: token === undefined ? { STORAGE_EMULATOR_HOST: endpoint } : {
      API_ENDPOINT_OVERRIDE: endpoint,
    },
    async newBucket() {
      const bucket = `barman-cloud-test-${crypto.randomUUID()}`;
      const answer = await fetch(`${endpoint}/storage/v1/b?project=test`, {
        method: "POST",
        headers: {
          "content-type": "application/json",
          ...(token === undefined ? {} : { authorization: `Bearer ${token}` }),
        },
        body: JSON.stringify({ name: bucket }),
        signal: AbortSignal.timeout(START_TIMEOUT_MS),
      });
      const text = await answer.text();
      if (!answer.ok) throw new Error(`Cannot make a bucket in ${name}: ${answer.status} ${text}`);
      return bucket;
    },
    stop,
  };
}

/** Starts a server that ends with this process, however that ends. @returns how to stop it */
async function startProgram(
  name: string,
  port: number,
  program: string,
  args: readonly string[],
): Promise<() => Promise<void>> {
  // The shell reads from a pipe whose other end only we hold, so it notices every kind of end of ours.
  const child = spawn("sh", ["-c", WATCHED, "sh", program, ...args], {
    cwd: tmpdir(),
    detached: true,
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
    await untilListening(port, child);
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
`;

async function untilListening(port: number, child: ChildProcess): Promise<void> {
  const end = performance.now() + START_TIMEOUT_MS;
  while (!await isListening(port)) {
    if (child.exitCode !== null) throw new Error("it ended at once");
    if (performance.now() > end) throw new Error(`no answer within ${START_TIMEOUT_MS / 1000} s`);
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

async function exists(path: string): Promise<boolean> {
  return await access(path).then(() => true, () => false);
}
