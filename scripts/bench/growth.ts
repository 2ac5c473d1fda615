/** How backups grow with the size of the database, the number of files and tablespaces, and the store's latency. */
import { copyFile, mkdir, readdir, rm, stat, writeFile } from "node:fs/promises";
import { join } from "node:path";
import { mapInParallel } from "../../lib/parallel.ts";
import { startFaultProxy } from "../servers/fault_proxy.ts";
import { type BenchCluster, databaseSize, ownedByServer } from "./data.ts";
import { PICTURES } from "./document.ts";
import { type Figures, markdownTable, measure, median } from "./measure.ts";
import { plot } from "./plot.ts";
import type { Bench, BenchContext } from "./setup.ts";
import { type Codec, connectionOf, flagsOf } from "./tools.ts";

const GIB = 1024 ** 3;
/** Databases, GiB. */
const SIZES = [1, 4, 16];
const FILES = [1_000, 30_000, 100_000, 300_000];
const TABLESPACES = [1, 8, 32];
const LATENCIES = [0, 10, 25, 50];
/** Numbers of files that the server does not use, for copies of its own ones. */
const FIRST_NUMBER = 2_000_000_000;

export const growth: Bench = async (context, partial) => {
  const cluster = await context.data.cluster("pgbench");
  const sections: string[] = [];
  const section = async (
    title: string,
    xTitle: string,
    points: readonly { readonly x: number; readonly figures: readonly Figures[] }[],
    file: string,
  ) => {
    const names = points[0]?.figures.map(({ name }) => name) ?? [];
    const lines = (of: (figures: Figures) => number) =>
      names.map((name) => ({
        name,
        points: points.map(({ x, figures }) => {
          const row = figures.find((row) => row.name === name);
          return [x, row === undefined ? NaN : of(row)] as const;
        }),
      }));
    const wall = (row: Figures) => median(row.wallMs) / 1000;
    const peak = (row: Figures) => median(row.peakMiB);
    await mkdir(PICTURES, { recursive: true });
    await writeFile(
      join(PICTURES, `${file}.svg`),
      plot(xTitle, [
        { title: "wall, s", series: lines(wall) },
        { title: "peak memory, MiB", series: lines(peak) },
      ]),
    );
    const rows = points.map(({ x, figures }) => [
      x.toLocaleString("en"),
      ...figures.flatMap((row) => [
        wall(row).toFixed(1),
        (median(row.cpuMs) / 1000).toFixed(1),
        peak(row).toFixed(0),
      ]),
    ]);
    const heads = names.flatMap((name) => [`${name}: wall s`, "CPU s", "peak MiB"]);
    const text = `**${title}**\n\n![${title}](benchmarks/${file}.svg)\n\n` +
      markdownTable([xTitle, ...heads], rows);
    context.tell(text);
    sections.push(text);
    await partial(sections.join("\n"));
  };

  await section(
    "Size of the database",
    "GiB",
    await pointsOf(SIZES, async (size) => {
      await growTo(cluster, size * GIB);
      return await backUp(context, cluster, ["zstd", "gzip"]);
    }),
    "size",
  ).finally(() => removeCopies(cluster));
  await section(
    "Number of files (relations of 8 KiB)",
    "files",
    await pointsOf(FILES, async (count) => {
      await makeFiles(cluster, count);
      return await backUp(context, cluster, ["zstd"]);
    }),
    "files",
  ).finally(() => removeCopies(cluster));
  await section(
    "Number of tablespaces",
    "tablespaces",
    await pointsOf(TABLESPACES, async (count) => {
      await makeTablespaces(cluster, join(context.data.directory, "tablespaces"), count);
      return await backUp(context, cluster, ["zstd"]);
    }),
    "tablespaces",
  ).finally(() => dropTablespaces(cluster));
  await section(
    "Latency of the store: so much more for each piece of data, both ways (not compressed)",
    "ms",
    await pointsOf(LATENCIES, async (delayMs) => {
      const s3 = await context.s3();
      const proxy = await startFaultProxy(s3.rgw.endpoint, delayMs === 0 ? {} : { delayMs });
      try {
        return [
          ...await backUp(context, cluster, ["none"], proxy.endpoint, 2),
          ...await backUp(context, cluster, ["none"], proxy.endpoint, 8),
        ];
      } finally {
        await proxy.stop();
      }
    }),
    "latency",
  );
  return sections.join("\n");
};

async function pointsOf(
  values: readonly number[],
  measured: (x: number) => Promise<readonly Figures[]>,
): Promise<{ x: number; figures: readonly Figures[] }[]> {
  const points = [];
  for (const x of values) points.push({ x, figures: await measured(x) });
  return points;
}

async function backUp(
  { executable, ...context }: BenchContext,
  cluster: BenchCluster,
  codecs: readonly Codec[],
  endpoint?: string,
  jobs?: number,
): Promise<readonly Figures[]> {
  const s3 = await context.s3();
  const bucket = await s3.newBucket();
  const place = ["--endpoint-url", endpoint ?? s3.rgw.endpoint, `s3://${bucket}/pg`, "main"];
  context.tell(`growth: ${codecs}, ${await databaseSize(cluster.server)} bytes`);
  try {
    return await measure(
      codecs.map((codec) => ({
        name: jobs === undefined ? codec : `--jobs ${jobs}`,
        command: [
          executable,
          "backup",
          "--immediate-checkpoint",
          ...flagsOf(codec),
          ...jobs === undefined ? [] : ["--jobs", String(jobs)],
          ...connectionOf(cluster),
          ...place,
        ],
        env: s3.env,
      })),
      { runs: 1, warmups: 0 },
    );
  } finally {
    await s3.emptyBucket(bucket);
  }
}

/** Files are copied as they are: what backs up does not know that the server does not use them. */
async function growTo(cluster: BenchCluster, size: number): Promise<void> {
  const { directory, largest } = await databaseFiles(cluster);
  const bytes = (await stat(largest)).size;
  const copies = Math.floor((size - await databaseSize(cluster.server)) / bytes);
  const there = await copiesIn(directory);
  for (let i = 0; i < copies; i++) {
    const path = join(directory, String(FIRST_NUMBER + there.length + i));
    await copyFile(largest, path);
    await ownedByServer(path);
  }
}

async function makeFiles(cluster: BenchCluster, count: number): Promise<void> {
  const { directory } = await databaseFiles(cluster);
  const there = await copiesIn(directory);
  const numbers = Array.from({ length: count - there.length }, (_, i) => there.length + i);
  const page = new Uint8Array(8192);
  await mapInParallel(
    numbers,
    16,
    (number) => writeFile(join(directory, String(FIRST_NUMBER + number)), page),
  );
}

async function removeCopies(cluster: BenchCluster): Promise<void> {
  const { directory } = await databaseFiles(cluster);
  const names = await copiesIn(directory);
  await mapInParallel(names, 16, (name) => rm(join(directory, name)));
}

async function copiesIn(directory: string): Promise<string[]> {
  return (await readdir(directory)).filter((name) => Number(name) >= FIRST_NUMBER);
}

async function databaseFiles({ server }: BenchCluster) {
  const [row] = await server.query(
    "select pg_relation_filepath('pgbench_accounts') as path, " +
      "(select oid from pg_database where datname = 'postgres') as oid",
  );
  return {
    directory: join(server.dataDirectory, "base", String(row?.["oid"])),
    largest: join(server.dataDirectory, String(row?.["path"])),
  };
}

async function makeTablespaces(
  { server }: BenchCluster,
  parent: string,
  count: number,
): Promise<void> {
  await mkdir(parent, { recursive: true });
  await ownedByServer(parent);
  for (let i = 0; i < count; i++) {
    const location = join(parent, String(i));
    if (await stat(location).then(() => true, () => false)) continue;
    await mkdir(location, { mode: 0o700 });
    await ownedByServer(location);
    await server.query(`create tablespace bench${i} location '${location}'`);
    await server.query(
      `create table in_bench${i} tablespace bench${i} as select n from generate_series(1, 10000) n`,
    );
  }
}

async function dropTablespaces({ server }: BenchCluster): Promise<void> {
  const rows = await server.query(
    "select spcname as name, pg_tablespace_location(oid) as location from pg_tablespace " +
      "where spcname like 'bench%'",
  );
  for (const { name, location } of rows) {
    await server.query(`drop table if exists in_${name}`);
    await server.query(`drop tablespace ${name}`);
    await rm(String(location), { recursive: true, force: true });
  }
}
