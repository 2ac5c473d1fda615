/**
 * `deno task test`: brings up the servers, compiles the executable, runs the tests, and says what was skipped.
 * Words after it go to `deno test`: `deno task test tests/lib/wal`.
 *
 * REQUIRE=s3,barman makes it fail when these can't be had instead of skipping their tests (CI does).
 */
import { mkdir, readFile, rm } from "node:fs/promises";
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import { stop as stopEsbuild } from "esbuild";
import { ensureExecutable } from "./compile.ts";
import { ensureDebianPackages } from "./servers/debian_packages.ts";
import { ensureBarman, versionOf } from "./servers/barman.ts";
import { startAzuriteForTests } from "./servers/azurite.ts";
import { ensureFakeGcsServer, FAKE_GCS_SERVER_MISSING } from "./servers/fake_gcs_server.ts";
import { ensureMinio, MINIO_MISSING } from "./servers/minio.ts";
import { ensureMoto, MOTO_MISSING } from "./servers/moto.ts";
import { startS3ForTests } from "./servers/s3_for_tests.ts";
import { ensureVersitygw, VERSITYGW_MISSING } from "./servers/versitygw.ts";

const ROOT = fileURLToPath(new URL("..", import.meta.url));
/** Far more than a run takes; 10 to 15 minutes are usual on two cores. */
const RUN_TIMEOUT_MS = 45 * 60_000;
const started = performance.now();

function tell(text: string): void {
  console.log(`[test ${((performance.now() - started) / 1000).toFixed(0).padStart(4)} s] ${text}`);
}

const required = new Set((Deno.env.get("REQUIRE") ?? "").split(",").filter((word) => word !== ""));
const missing: string[] = [];
const env: Record<string, string> = {};
const cache = join(ROOT, ".cache");
await mkdir(cache, { recursive: true });
const skipsFile = join(cache, `skips-${process.pid}.txt`);
env["TEST_SKIPS_FILE"] = skipsFile;

for (const found of await ensureDebianPackages(tell)) if (!found.present) missing.push(found.name);

// Some minutes of the processor, while what follows waits for the network. One at a time: each takes a gigabyte.
const goPrograms = (async () => ({
  gcs: await ensureFakeGcsServer(tell),
  versitygw: await ensureVersitygw(tell),
  minio: await ensureMinio(tell),
}))();

tell("compiling the executable");
env["BARMAN_CLOUD_EXECUTABLE"] = await ensureExecutable();
await stopEsbuild();

const barman = await ensureBarman(tell);
for (const directory of [barman.newest, barman.packaged]) {
  if (directory !== null) tell(`comparing with ${await versionOf(directory)} in ${directory}`);
}
if (barman.newest !== null) {
  env["BARMAN_NEWEST"] = barman.newest;
  // Its Python has the reference implementation of snappy.
  env["TEST_PYTHON"] = Deno.env.get("TEST_PYTHON") ?? join(barman.newest, "python3");
}
if (barman.packaged !== null) env["BARMAN_PACKAGED"] = barman.packaged;

const moto = await ensureMoto(tell);
if ("missing" in moto) {
  tell(`no moto: ${moto.missing}`);
  env[MOTO_MISSING] = moto.missing;
}

const { gcs, versitygw, minio } = await goPrograms;
// Beside it the tests always run on a fake of their own.
if ("missing" in gcs) {
  tell(`no fake-gcs-server: ${gcs.missing}`);
  env[FAKE_GCS_SERVER_MISSING] = gcs.missing;
} else tell(`fake-gcs-server at ${gcs.path}`);
if ("missing" in versitygw) {
  tell(`no versitygw: ${versitygw.missing}`);
  env[VERSITYGW_MISSING] = versitygw.missing;
  Deno.env.set(VERSITYGW_MISSING, versitygw.missing);
}
if ("missing" in minio) {
  tell(`no MinIO: ${minio.missing}`);
  env[MINIO_MISSING] = minio.missing;
}

const s3 = await startS3ForTests();
if (s3 !== null) {
  tell(`S3 server at ${s3.endpoint} (${s3.kind})`);
  Object.assign(env, s3.env);
}
const azure = await startAzuriteForTests();
if (azure !== null) {
  tell("Azurite is running");
  Object.assign(env, azure.env);
}
let failed = 0;
try {
  // versitygw lacks too much to stand in where all is to be tested.
  if (required.has("s3") && (s3 === null || s3.kind === "versitygw")) {
    tell(`FAILED: no S3 server could be had that has all (missing: ${missing.join(", ")})`);
    failed = 1;
  }
  if (required.has("barman") && barman.newest === null && barman.packaged === null) {
    tell("FAILED: no Barman could be had to compare with");
    failed = 1;
  }
  const words = Deno.args.filter((word) => word !== "--");
  const paths = words.some((word) => !word.startsWith("-")) ? [] : ["tests"];
  tell("running the tests");
  const child = new Deno.Command(Deno.execPath(), {
    args: ["test", "-A", "--no-check", "--parallel", ...words, ...paths],
    cwd: ROOT,
    env: { ...env, DENO_JOBS: Deno.env.get("DENO_JOBS") ?? "2", NO_COLOR: "1" },
    stdout: "piped",
  }).spawn();
  // A test that hangs must not hang the run: SIGINT makes Deno name the tests that were under way.
  const patience = [[RUN_TIMEOUT_MS, "SIGINT"], [RUN_TIMEOUT_MS + 20_000, "SIGKILL"]] as const;
  const timers = patience.map(([after, signal]) =>
    setTimeout(() => {
      tell(`FAILED: the tests did not end in time, sending ${signal}`);
      failed = 1;
      child.kill(signal);
    }, after)
  );
  const summary = await echo(child.stdout);
  const { code } = await child.status;
  timers.forEach(clearTimeout);
  if (code !== 0) failed = 1;
  const skips = [
    ...new Set((await readFile(skipsFile, "utf8").catch(() => "")).split("\n").filter(Boolean)),
  ];
  for (const line of skips) console.log(`SKIPPED: ${line}`);
  if (skips.length === 0) console.log("Nothing was skipped for want of a server or a tool");
  console.log(`${summary.passed} passed, ${summary.failed} failed, ${summary.ignored} skipped`);
  if (summary.passed === 0) failed = 1;
} finally {
  await s3?.stop();
  await azure?.stop();
  await rm(skipsFile, { force: true });
}
Deno.exit(failed);

/** Pass the output on, and read the counts from its last summary line. */
async function echo(
  output: ReadableStream<Uint8Array>,
): Promise<{ passed: number; failed: number; ignored: number }> {
  const decoder = new TextDecoder();
  let tail = "";
  for await (const chunk of output) {
    await Deno.stdout.write(chunk);
    tail = (tail + decoder.decode(chunk, { stream: true })).slice(-4000);
  }
  const line = tail.split("\n").findLast((text) => /\d+ passed/.test(text)) ?? "";
  const counted = (word: string) => Number(new RegExp(`(\\d+) ${word}`).exec(line)?.[1] ?? 0);
  return { passed: counted("passed"), failed: counted("failed"), ignored: counted("ignored") };
}
