/**
 * Segments a second that one archiver gets done, call after call as PostgreSQL makes them, with and without look-ahead,
 * and the same for recovery with prefetch. Segments of small change: 64 KiB of 16 MiB are used.
 *
 *   deno run -A scripts/bench/look_ahead.ts [SEGMENTS]
 */
import { spawnSync } from "node:child_process";
import { mkdirSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { segmentNameOf } from "../../lib/wal/segment.ts";
import { executablePath } from "../../tests/e2e/executable.ts";
import { walSegment } from "../../tests/lib/wal/wal_files.ts";
import { startS3ForTests } from "../servers/s3_for_tests.ts";

const SIZE = 16 * 1024 ** 2;
const USED = 64 * 1024;
const count = Number(Deno.args[0] ?? "128");
const executable = await executablePath();
const directory = mkdtempSync(join(tmpdir(), "bench-look-ahead-"));
const pgWal = join(directory, "pg_wal");
mkdirSync(join(pgWal, "archive_status"), { recursive: true });
mkdirSync(join(directory, "store"));
const names = Array.from(
  { length: count },
  (_, index) => segmentNameOf(BigInt(index + 1) * BigInt(SIZE), 1, SIZE),
);
for (const [seed, name] of names.entries()) {
  const content = new Uint8Array(SIZE);
  content.set(walSegment(name, { size: SIZE, seed: seed + 1 }).subarray(0, USED));
  writeFileSync(join(pgWal, name), content);
  writeFileSync(join(pgWal, "archive_status", `${name}.ready`), "");
}

function run(env: Record<string, string>, ...words: string[]): void {
  const { status, stderr } = spawnSync(executable, words, { env, encoding: "utf8" });
  if (status !== 0) throw new Error(`${words.join(" ")}: ${stderr}`);
}

function rate(what: string, work: () => void): void {
  const began = performance.now();
  work();
  const seconds = (performance.now() - began) / 1000;
  console.log(`${what.padEnd(52)} ${(count / seconds).toFixed(1).padStart(7)} segments/s`);
}

function measure(where: string, url: string, options: string[], env: Record<string, string>): void {
  let round = 0;
  for (const files of [1, 32, 64]) {
    const server = `s${++round}`;
    const spool = join(directory, `spool-${where}-${files}`);
    const ahead = (option: string) =>
      files === 1 ? [] : [option, String(files), "--spool-dir", spool];
    rate(`${where}: wal-archive --zstd --look-ahead ${files}`, () => {
      for (const name of names) {
        run(
          env,
          "wal-archive",
          "--zstd",
          ...ahead("--look-ahead"),
          ...options,
          url,
          server,
          join(pgWal, name),
        );
      }
    });
    const destination = join(directory, "RECOVERYXLOG");
    rate(`${where}: wal-restore --parallel ${files}`, () => {
      for (const name of names) {
        run(env, "wal-restore", ...ahead("--parallel"), ...options, url, server, name, destination);
      }
    });
    if (!readFileSync(destination).equals(readFileSync(join(pgWal, names.at(-1) ?? "")))) {
      throw new Error("What was restored is something else");
    }
  }
}

try {
  measure("directory", `file://${directory}/store`, [], {});
  const s3 = await startS3ForTests();
  if (s3 !== null) {
    const url = `s3://${await s3.newBucket()}/bench`;
    measure("S3", url, ["--endpoint-url", s3.endpoint], { ...s3.env });
    await s3.stop();
  }
} finally {
  rmSync(directory, { recursive: true, force: true });
}
