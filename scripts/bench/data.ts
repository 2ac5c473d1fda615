/**
 * What is measured on: two clusters of PostgreSQL 15 (the newest that all peers know), one of pgbench's tables and one of
 * text and JSON that gzip makes about a third of, and WAL of both.
 */
import { existsSync } from "node:fs";
import { chown, cp, mkdir, mkdtemp, readdir, rm, stat, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import {
  serverUser,
  startFromDirectory,
  startPostgres,
  type TestPostgres,
} from "../servers/embedded_postgres.ts";

export const MAJOR = 15;
export const DATASETS = ["text", "pgbench"] as const;
export type Dataset = (typeof DATASETS)[number];

export interface BenchCluster {
  readonly name: Dataset;
  readonly server: TestPostgres;
  /** Bytes of all databases. */
  readonly size: number;
  /** Complete segments of 16 MiB, outside of pg_wal, in order. */
  readonly wal: readonly string[];
}

export interface BenchData {
  /** For everything that benches write. Removed at the end, unless `BENCH_DATA` names it. */
  readonly directory: string;
  cluster(name: Dataset): Promise<BenchCluster>;
  stop(): Promise<void>;
}

const MIB = 1024 ** 2;
/** About this many bytes in each cluster: `BENCH_SIZE`, in MiB. */
const SIZE = Number(Deno.env.get("BENCH_SIZE") ?? "512") * MIB;
/** Segments kept of each. */
const SEGMENTS = 24;

/** Clusters are made when first asked for. With `BENCH_DATA=DIRECTORY` they stay there for the next time. */
export async function openBenchData(tell: (text: string) => void): Promise<BenchData> {
  const kept = Deno.env.get("BENCH_DATA");
  const directory = kept ?? await mkdtemp(join(tmpdir(), "barman-cloud-bench-"));
  await mkdir(directory, { recursive: true });
  const clusters = new Map<Dataset, Promise<BenchCluster>>();
  return {
    directory,
    cluster(name) {
      const known = clusters.get(name) ?? openCluster(join(directory, name), name, tell);
      clusters.set(name, known);
      return known;
    },
    async stop() {
      for (const cluster of clusters.values()) await (await cluster).server.destroy();
      if (kept === undefined) await rm(directory, { recursive: true, force: true });
    },
  };
}

async function openCluster(
  directory: string,
  name: Dataset,
  tell: (text: string) => void,
): Promise<BenchCluster> {
  const ready = join(directory, "ready");
  const made = existsSync(ready);
  if (!made) await rm(directory, { recursive: true, force: true });
  const server = made
    ? await startFromDirectory(join(directory, "data"), { major: MAJOR, signal: "none" })
    : await startPostgres({
      major: MAJOR,
      dir: directory,
      settings: { wal_keep_size: "2GB", max_wal_size: "2GB", shared_buffers: "128MB" },
    });
  try {
    if (!made) {
      tell(`filling the ${name} cluster`);
      await (name === "pgbench" ? fillPgbench(server) : fillText(server));
      await keepWal(server, join(directory, "wal"));
      await server.query("checkpoint");
      await writeFile(ready, "");
    }
    const wal = (await readdir(join(directory, "wal"))).sort();
    return {
      name,
      server,
      size: await databaseSize(server),
      wal: wal.map((segment) => join(directory, "wal", segment)),
    };
  } catch (error) {
    await server.destroy();
    throw error;
  }
}

export async function databaseSize(server: TestPostgres): Promise<number> {
  const [row] = await server.query(
    "select sum(pg_database_size(oid))::text as size from pg_database",
  );
  return Number(row?.["size"]);
}

/** pgbench's scale 1 has about 15 MiB. */
async function fillPgbench(server: TestPostgres): Promise<void> {
  await pgbench(server, ["-i", "-q", "-s", String(Math.round(SIZE / MIB / 15))]);
  // WAL of many small changes.
  const until = await position(server) + SEGMENTS * 16 * MIB;
  while (await position(server) < until) await pgbench(server, ["-c", "8", "-j", "2", "-T", "5"]);
}

async function pgbench(server: TestPostgres, words: readonly string[]): Promise<void> {
  const { code, stderr } = await new Deno.Command("pgbench", {
    args: [
      "-h",
      server.socketDirectory,
      "-p",
      String(server.port),
      "-U",
      "postgres",
      ...words,
      "postgres",
    ],
    stdout: "null",
    stderr: "piped",
  }).output();
  if (code !== 0) {
    throw new Error(
      `pgbench ended with ${code} (Debian: apt-get install postgresql-15): ` +
        new TextDecoder().decode(stderr).slice(-500),
    );
  }
}

async function position(server: TestPostgres): Promise<number> {
  const [row] = await server.query("select (pg_current_wal_lsn() - '0/0'::pg_lsn)::text as at");
  return Number(row?.["at"]);
}

/** Documents as applications keep them: the same keys over and over, words, numbers, and ids that nothing compresses. */
async function fillText(server: TestPostgres): Promise<void> {
  await server.query(`
    create table documents (id bigserial primary key, at timestamptz not null, body jsonb not null, note text not null);
    alter table documents alter body set storage external, alter note set storage external`);
  while (await databaseSize(server) < SIZE) {
    await server.query(`
      insert into documents (at, body, note)
      select now() - random() * interval '1 year', jsonb_build_object(
          'id', gen_random_uuid(), 'customer', (random() * 1e6)::int, 'status', (array['new', 'paid', 'sent'])[1 + i % 3],
          'email', 'user' || (random() * 1e5)::int || '@example.com', 'amount', round((random() * 1e4)::numeric, 2),
          'items', (select jsonb_agg(jsonb_build_object('sku', 'SKU-' || (random() * 1e4)::int, 'quantity', k, 'price',
            round((random() * 100)::numeric, 2))) from generate_series(1, 3 + i % 5) k)),
        (select string_agg(words[1 + (2999 * power(random(), 3))::int + k * 0], ' ') from generate_series(1, 40 + i % 20) k)
      from generate_series(1, 20000) i,
        (select array_agg(substr(md5(n::text), 1, 3 + n % 8)) as words from generate_series(1, 3000) n) dictionary`);
  }
}

/** The last complete segments, copied for good: the server recycles its own. */
async function keepWal(server: TestPostgres, directory: string): Promise<void> {
  const [row] = await server.query(
    "select pg_walfile_name(pg_current_wal_lsn()) as now, pg_switch_wal() as switched",
  );
  const now = String(row?.["now"]);
  const from = join(server.dataDirectory, "pg_wal");
  const names = (await readdir(from)).filter((name) => /^[0-9A-F]{24}$/.test(name) && name < now);
  await mkdir(directory, { recursive: true });
  for (const name of names.sort().slice(-SEGMENTS)) {
    await cp(join(from, name), join(directory, name));
  }
}

/** Bytes of all files below a directory. */
export async function sizeOfFiles(directory: string): Promise<number> {
  let sum = 0;
  for (const entry of await readdir(directory, { recursive: true, withFileTypes: true })) {
    if (entry.isFile()) sum += (await stat(join(entry.parentPath, entry.name))).size;
  }
  return sum;
}

/** Give a file to the user that the server runs as. */
export async function ownedByServer(path: string): Promise<void> {
  const user = serverUser();
  if (user !== undefined) await chown(path, user.uid, user.gid);
}
