/**
 * Servers that speak like Google Cloud Storage, for tests:
 *
 * - fake-gcs-server (github.com/fsouza/fake-gcs-server), built by Go where Go and its modules can be
 *   had. It knows the JSON API but neither multipart uploads of the XML API nor KMS keys.
 * - the fake in gcs_fake.ts, which is always there.
 * - Google's own service, where TEST_GCS_BUCKET names an empty bucket and the environment credentials.
 */
import { fileURLToPath } from "node:url";
import { skipUnless } from "../../tests/skips.ts";
import { ensureGoProgram, type GoProgram } from "./go_program.ts";
import { freePort, startServer } from "./server_processes.ts";

const VERSION = "1.55.1";
/** Of a request for a new bucket. */
const ANSWER_TIMEOUT_MS = 30_000;

/** @returns the path of the program, built when it is not there yet, or why it can't be had */
export function ensureFakeGcsServer(tell?: (text: string) => void): Promise<GoProgram> {
  return ensureGoProgram("fake-gcs-server", VERSION, "github.com/fsouza/fake-gcs-server", tell);
}

/**
 * Holds why the program can't be had, when whoever started this process has tried already: a build
 * that fails takes its time.
 */
export const FAKE_GCS_SERVER_MISSING = "TEST_FAKE_GCS_SERVER_MISSING";

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
  const stop = await startServer(name, port, program, args);
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
        signal: AbortSignal.timeout(ANSWER_TIMEOUT_MS),
      });
      const text = await answer.text();
      if (!answer.ok) throw new Error(`Cannot make a bucket in ${name}: ${answer.status} ${text}`);
      return bucket;
    },
    stop,
  };
}
