/**
 * Segments a second that one archiver gets done, call after call as PostgreSQL makes them, with and without look-ahead,
 * and the same for recovery with prefetch. Segments of small change: 64 KiB of 16 MiB are used.
 */
import { spawnSync } from "node:child_process";
import { mkdirSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { setTimeout as sleep } from "node:timers/promises";
import { segmentNameOf } from "../../lib/wal/segment.ts";
import { walSegment } from "../../tests/lib/wal/wal_files.ts";
import { markdownTable, spread } from "./measure.ts";
import type { BenchContext } from "./setup.ts";

const SIZE = 16 * 1024 ** 2;
const USED = 64 * 1024;
const SEGMENTS = 129;
const SETTLING_MS = 6000;
const ROUNDS = 3;
const FILES = [1, 8, 32, 64] as const;

export async function lookAhead(context: BenchContext): Promise<string> {
  const directory = join(context.data.directory, "look-ahead");
  rmSync(directory, { recursive: true, force: true });
  try {
    const names = makeSegments(directory);
    const s3 = await context.s3();
    const bucket = await s3.newBucket();
    const places = [
      { name: "directory", place: [`file://${join(directory, "store")}`], env: {} },
      {
        name: "S3",
        place: ["--endpoint-url", s3.rgw.endpoint, `s3://${bucket}/bench`],
        env: s3.env,
      },
    ];
    const onceFor = (files: number, place: readonly string[], round: number): Once => {
      const { executable } = context;
      return { executable, directory, names, files, place, server: `r${round}f${files}` };
    };
    // Every archive has its first file some seconds before, in which archivers look for copies of others.
    for (let round = 0; round < ROUNDS; round++) {
      for (const { place, env } of places) {
        for (const files of FILES) archiveOne(onceFor(files, place, round), env, names[0] ?? "");
      }
    }
    await sleep(SETTLING_MS);
    const rows = new Map<string, { archive: number[]; restore: number[] }>();
    for (let round = 0; round < ROUNDS; round++) {
      for (const { name, place, env } of places) {
        for (const files of FILES) {
          context.tell(`look-ahead: ${name}, ${files} files, round ${round + 1}`);
          const title = `${name} | ${files === 1 ? "off" : files}`;
          const row = rows.get(title) ?? { archive: [], restore: [] };
          rows.set(title, row);
          const once = onceFor(files, place, round);
          row.archive.push(archive(once, env));
          row.restore.push(restore(once, env));
        }
      }
    }
    await s3.emptyBucket(bucket);
    return markdownTable(
      ["store", "files a call", "wal-archive, segments/s", "wal-restore, segments/s"],
      [...rows].map(([title, row]) => [
        title,
        spread(row.archive, 1),
        spread(row.restore, 1),
      ]),
    );
  } finally {
    rmSync(directory, { recursive: true, force: true });
  }
}

interface Once {
  readonly executable: string;
  readonly directory: string;
  readonly names: readonly string[];
  /** Look-ahead or prefetch; 1 is without. */
  readonly files: number;
  readonly place: readonly string[];
  readonly server: string;
}

/** pg_wal with segments that are ready to be archived. @returns their names */
function makeSegments(directory: string): string[] {
  const pgWal = join(directory, "pg_wal");
  mkdirSync(join(pgWal, "archive_status"), { recursive: true });
  mkdirSync(join(directory, "store"));
  const names = Array.from(
    { length: SEGMENTS },
    (_, index) => segmentNameOf(BigInt(index + 1) * BigInt(SIZE), 1, SIZE),
  );
  for (const [seed, name] of names.entries()) {
    const content = new Uint8Array(SIZE);
    content.set(walSegment(name, { size: SIZE, seed: seed + 1 }).subarray(0, USED));
    writeFileSync(join(pgWal, name), content);
    writeFileSync(join(pgWal, "archive_status", `${name}.ready`), "");
  }
  return names;
}

type Env = Readonly<Record<string, string>>;

/** @returns segments a second */
function archive(once: Once, env: Env): number {
  return rate(once, (name) => archiveOne(once, env, name, spoolOf(once, "--look-ahead")));
}

function archiveOne(once: Once, env: Env, name: string, spool: readonly string[] = []): void {
  const words = [...spool, ...once.place, once.server, pathOf(once, name)];
  run(env, once.executable, "wal-archive", "--zstd", ...words);
}

function restore(once: Once, env: Env): number {
  const destination = join(once.directory, "RECOVERYXLOG");
  const done = rate(once, (name) => {
    const words = [...spoolOf(once, "--parallel"), ...once.place, once.server];
    run(env, once.executable, "wal-restore", ...words, name, destination);
  });
  const last = once.names.at(-1) ?? "";
  if (!readFileSync(destination).equals(readFileSync(pathOf(once, last)))) {
    throw new Error("What was restored is something else");
  }
  return done;
}

function spoolOf({ files, directory, server }: Once, option: string): string[] {
  if (files === 1) return [];
  return [option, String(files), "--spool-dir", join(directory, `spool-${server}`)];
}

function pathOf({ directory }: Once, name: string): string {
  return join(directory, "pg_wal", name);
}

function rate({ names: [, ...names] }: Once, work: (name: string) => void): number {
  const began = performance.now();
  for (const name of names) work(name);
  return names.length / ((performance.now() - began) / 1000);
}

function run(env: Env, executable: string, ...words: string[]): void {
  const { status, stderr } = spawnSync(executable, words, { env, encoding: "utf8" });
  if (status !== 0) throw new Error(`${words.join(" ")}: ${stderr}`);
}
