/** What every bench gets: the executable, the peers that can be had, a store, and data. */
import { access, mkdir, readFile, rm, writeFile } from "node:fs/promises";
import { join } from "node:path";
import { ensureBarman } from "../servers/barman.ts";
import {
  CEPH_RGW_INSTALL,
  type CephRgw,
  cephRgwInstalled,
  startCephRgw,
} from "../servers/ceph_rgw.ts";
import { ensureVersitygw, startVersitygw, VERSITYGW_VERSION } from "../servers/versitygw.ts";
import type { S3Server } from "../servers/s3_access.ts";
import { type BenchCluster, type BenchData, openBenchData } from "./data.ts";

export interface BenchContext {
  readonly executable: string;
  readonly peers: Peers;
  readonly data: BenchData;
  /** Started when first asked for; data is on disk. */
  s3(): Promise<BenchS3>;
  /** A second S3 server, which takes little time itself; null where it can't be had. */
  versitygw(): Promise<S3Server | null>;
  /** What is going on, for whoever waits. */
  readonly tell: (text: string) => void;
}

export interface Bench {
  /** @param partial told what there is so far, since a whole bench may take an hour */
  (context: BenchContext, partial: (text: string) => Promise<void>): Promise<string>;
}

export interface Peers {
  /** Directory of the commands of the newest Barman. */
  readonly barman: string | null;
  /** Directory of the commands of Debian's Barman. */
  readonly oldBarman: string | null;
  readonly pgbackrest: string | null;
  /** Built of its Go sources; `BENCH_WALG` names it. */
  readonly walg: string | null;
  /** A yardstick for what the store takes. */
  readonly rclone: string | null;
}

export interface BenchS3 {
  readonly rgw: CephRgw;
  /** `https://localhost:PORT` */
  readonly tlsEndpoint: string;
  /** For every tool that speaks S3 as Amazon's do. */
  readonly env: Readonly<Record<string, string>>;
  newBucket(): Promise<string>;
  /** Remove all that is in a bucket. */
  emptyBucket(bucket: string): Promise<void>;
}

export interface OpenContext extends BenchContext {
  close(): Promise<void>;
}

export async function openContext(
  executable: string,
  tell: (text: string) => void,
): Promise<OpenContext> {
  const alone = Deno.env.get("BENCH_PEERS") === "none";
  const installed = async (path: string) => !alone && await isThere(path) ? path : null;
  const { newest, packaged } = alone ? { newest: null, packaged: null } : await ensureBarman(tell);
  const data = await openBenchData(tell);
  let s3: Promise<BenchS3> | undefined;
  let versitygw: Promise<S3Server | null> | undefined;
  return {
    executable,
    peers: {
      barman: newest,
      oldBarman: packaged,
      pgbackrest: await installed("/usr/bin/pgbackrest"),
      walg: await installed(Deno.env.get("BENCH_WALG") ?? "/usr/local/bin/wal-g"),
      rclone: await installed("/usr/bin/rclone"),
    },
    data,
    s3: () => s3 ??= startS3(),
    versitygw: () => versitygw ??= startVersitygwIfThere(tell),
    tell,
    async close() {
      await data.stop();
      await (await s3)?.rgw.stop();
      await (await versitygw)?.stop();
    },
  };
}

async function isThere(path: string): Promise<boolean> {
  return await access(path).then(() => true, () => false);
}

async function startVersitygwIfThere(tell: (text: string) => void): Promise<S3Server | null> {
  const found = await ensureVersitygw(tell);
  if (!("missing" in found)) return await startVersitygw(found.path);
  tell(`no versitygw: ${found.missing}`);
  return null;
}

async function startS3(): Promise<BenchS3> {
  if (!await cephRgwInstalled()) throw new Error(`There is no S3 server: ${CEPH_RGW_INSTALL}`);
  const rgw = await startCephRgw({ storage: "file", tls: true, capacity: 24 * 1024 ** 3 });
  const env = {
    PATH: "/usr/local/bin:/usr/bin:/bin",
    HOME: "/nonexistent",
    LANG: "C.UTF-8",
    AWS_ACCESS_KEY_ID: rgw.accessKeyId,
    AWS_SECRET_ACCESS_KEY: rgw.secretAccessKey,
    AWS_REGION: "us-east-1",
    AWS_DEFAULT_REGION: "us-east-1",
    AWS_EC2_METADATA_DISABLED: "true",
    AWS_CA_BUNDLE: rgw.caFile ?? "",
    // Barman's SDK would send streams that Ceph does not take.
    AWS_REQUEST_CHECKSUM_CALCULATION: "when_required",
    AWS_RESPONSE_CHECKSUM_VALIDATION: "when_required",
  };
  let buckets = 0;
  const { CreateBucketCommand, S3Client } = await import("@aws-sdk/client-s3");
  const client = new S3Client({
    endpoint: rgw.endpoint,
    region: "us-east-1",
    forcePathStyle: true,
    credentials: rgw,
  });
  return {
    rgw,
    tlsEndpoint: rgw.tlsEndpoint ?? "",
    env,
    async newBucket() {
      const bucket = `bench${++buckets}`;
      await client.send(new CreateBucketCommand({ Bucket: bucket }));
      return bucket;
    },
    async emptyBucket(bucket) {
      const { openS3Store } = await import("../../providers/s3/store.ts");
      const { store } = await openS3Store(`s3://${bucket}`, { endpointUrl: rgw.endpoint, env });
      const keys: string[] = [];
      for await (const entry of store.list("")) if (entry.kind === "object") keys.push(entry.key);
      const [failure] = await store.deleteMany(keys);
      await store.close();
      if (failure !== undefined) throw failure.error;
    },
  };
}

/** Where pgBackRest keeps a repository. */
export type PgBackRestRepository =
  | { readonly kind: "s3"; readonly s3: BenchS3; readonly bucket: string }
  | { readonly kind: "directory"; readonly path: string };

export interface PgBackRest {
  /** A command line; options go before. */
  command(words: readonly string[]): string[];
}

/** A configured pgBackRest with a stanza `main` for a cluster, in a repository of its own. */
export async function configurePgBackRest(
  program: string,
  directory: string,
  cluster: BenchCluster,
  repository: PgBackRestRepository,
  options: Readonly<Record<string, string | number>>,
): Promise<PgBackRest> {
  await rm(directory, { recursive: true, force: true });
  await mkdir(directory, { recursive: true });
  const where = repository.kind === "directory"
    ? { "repo1-type": "posix", "repo1-path": repository.path }
    : {
      "repo1-type": "s3",
      "repo1-path": "/repo",
      "repo1-s3-bucket": repository.bucket,
      "repo1-s3-endpoint": "localhost",
      "repo1-storage-port": new URL(repository.s3.tlsEndpoint).port,
      "repo1-storage-ca-file": repository.s3.rgw.caFile ?? "",
      "repo1-s3-region": "us-east-1",
      "repo1-s3-uri-style": "path",
      "repo1-s3-key": repository.s3.rgw.accessKeyId,
      "repo1-s3-key-secret": repository.s3.rgw.secretAccessKey,
    };
  const global = {
    ...where,
    "lock-path": join(directory, "lock"),
    "log-path": join(directory, "log"),
    "spool-path": join(directory, "spool"),
    "log-level-console": "error",
    "log-level-file": "off",
    // The servers here do not archive.
    "archive-check": "n",
    "start-fast": "y",
    ...options,
  };
  const stanza = {
    "pg1-path": cluster.server.dataDirectory,
    "pg1-socket-path": cluster.server.socketDirectory,
    "pg1-port": cluster.server.port,
    "pg1-user": "postgres",
  };
  const section = (
    name: string,
    settings: Readonly<Record<string, string | number>>,
  ) => [`[${name}]`, ...Object.entries(settings).map(([key, value]) => `${key}=${value}`), ""];
  const config = join(directory, "pgbackrest.conf");
  await writeFile(config, [...section("global", global), ...section("main", stanza)].join("\n"));
  const command = (words: readonly string[]) => [
    program,
    `--config=${config}`,
    "--stanza=main",
    ...words,
  ];
  await runOrThrow(command(["stanza-create"]));
  return { command };
}

/** Where WAL-G keeps its archive: S3 by HTTP, or a directory. */
export type WalGStorage =
  | { readonly kind: "s3"; readonly server: S3Address; readonly bucket: string }
  | { readonly kind: "directory"; readonly path: string };

export interface S3Address {
  readonly endpoint: string;
  readonly accessKeyId: string;
  readonly secretAccessKey: string;
}

/** WAL-G is told all by its environment. */
export function walGEnvironment(
  cluster: BenchCluster,
  method: string,
  storage: WalGStorage,
): Record<string, string> {
  const { server } = cluster;
  return {
    ...(storage.kind === "directory" ? { WALG_FILE_PREFIX: storage.path } : {
      AWS_ACCESS_KEY_ID: storage.server.accessKeyId,
      AWS_SECRET_ACCESS_KEY: storage.server.secretAccessKey,
      AWS_REGION: "us-east-1",
      AWS_ENDPOINT: storage.server.endpoint,
      AWS_S3_FORCE_PATH_STYLE: "true",
      WALG_S3_PREFIX: `s3://${storage.bucket}/wal-g`,
    }),
    HOME: "/nonexistent",
    WALG_COMPRESSION_METHOD: method,
    WALG_LOG_LEVEL: "ERROR",
    PGHOST: server.socketDirectory,
    PGPORT: String(server.port),
    PGUSER: "postgres",
    PGDATABASE: "postgres",
  };
}

/** Run a command that is not measured. @throws Error with what it said when it fails */
export async function runOrThrow(
  command: readonly string[],
  env: Readonly<Record<string, string>> = {},
): Promise<string> {
  const [program = "", ...args] = command;
  const { code, stdout, stderr } = await new Deno.Command(program, { args, env }).output();
  const text = (bytes: Uint8Array) => new TextDecoder().decode(bytes);
  if (code !== 0) {
    const said = (text(stdout) + text(stderr)).slice(-1500);
    throw new Error(`${command.join(" ")} ended with ${code}: ${said}`);
  }
  return text(stdout);
}

/** Versions of everything, and the machine, in Markdown. */
export async function describeSurroundings({ executable, peers }: BenchContext): Promise<string> {
  const firstLine = async (command: readonly string[]) =>
    (await runOrThrow(command, { PATH: "/usr/bin:/bin", LANG: "C.UTF-8" })).trim().split("\n")[0] ??
      "";
  const cpu = await readFile("/proc/cpuinfo", "utf8");
  const memory = await readFile("/proc/meminfo", "utf8");
  const barmanVersion = (directory: string) =>
    firstLine([join(directory, "barman-cloud-backup"), "--version"]);
  const lines = [
    `machine: ${navigator.hardwareConcurrency} cores (${/model name\s*: (.*)/.exec(cpu)?.[1]}), ` +
    `${Math.round(Number(/MemTotal:\s+(\d+)/.exec(memory)?.[1]) / 1024 ** 2)} GiB of memory, ` +
    `Linux ${Deno.osRelease()}; clients, server and store share it`,
    `barman-cloud: ${await firstLine([executable, "version"])}`,
    ...(peers.barman === null ? [] : [`Barman: ${await barmanVersion(peers.barman)}`]),
    ...(peers.oldBarman === null
      ? []
      : [`Debian's Barman: ${await barmanVersion(peers.oldBarman)}`]),
    ...(peers.pgbackrest === null ? [] : [await firstLine([peers.pgbackrest, "version"])]),
    ...(peers.walg === null
      ? []
      : [`WAL-G ${(await firstLine([peers.walg, "--version"])).split(/\s+/)[2]}`]),
    ...(peers.rclone === null ? [] : [await firstLine([peers.rclone, "version"])]),
    `stores: Ceph ${
      (await firstLine(["radosgw", "--version"])).split(" ")[2]
    } (RGW, one OSD on a file), versitygw ${VERSITYGW_VERSION} (a directory)`,
    "PostgreSQL 15",
  ];
  return lines.map((line) => `- ${line}`).join("\n");
}
