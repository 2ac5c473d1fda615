/** Command lines of the compared tools: each backs a cluster up, in every way that it can. */
import { mkdir, rm } from "node:fs/promises";
import { join } from "node:path";
import type { BenchCluster } from "./data.ts";
import type { Candidate } from "./measure.ts";
import {
  type BenchContext,
  configurePgBackRest,
  type PgBackRestRepository,
  walGEnvironment,
  type WalGStorage,
} from "./setup.ts";

export const CODECS = ["gzip", "zstd", "lz4", "none", "bzip2"] as const;
export type Codec = (typeof CODECS)[number];

/** pgBackRest's names. Levels are its defaults, as ours are ours. */
export const PGBACKREST_CODECS: Readonly<Record<Codec, string>> = {
  none: "none",
  gzip: "gz",
  zstd: "zst",
  lz4: "lz4",
  bzip2: "bz2",
};

export function flagsOf(codec: Codec): string[] {
  return codec === "none" ? [] : [`--${codec}`];
}

/**
 * A command for a new directory, whose files are not made where others were deleted: for some minutes ext4 looks at each
 * deleted inode before it takes one, which takes up to a sixth of a restore's time. Below a directory with the attribute
 * T it chooses a place for each directory by its name; one that does not know the attribute does without.
 */
function newDirectory(path: string): string {
  const parent = `"$(dirname '${path}')"`;
  return [
    `rm -rf '${path}'`,
    `mkdir -p ${parent}`,
    `{ chattr +T ${parent} 2>/dev/null || true; }`,
    `mkdir -m 700 '${path}'.$$`,
    `mv '${path}'.$$ '${path}'`,
    "sync",
  ].join(" && ");
}

export function connectionOf({ server }: BenchCluster): string[] {
  return ["-h", server.socketDirectory, "-p", String(server.port), "-U", "postgres"];
}

/** What backs up to one bucket and, where a tool can, to one directory. */
export interface BackupPlaces {
  readonly bucket: string;
  readonly directory: string;
  readonly backups: readonly Candidate[];
  /** How to restore what `backups` with the same name has stored last. */
  readonly restores: readonly Candidate[];
}

/**
 * All tools for one codec. The peers of a pair speak to the same store in the same way: Barman by HTTP, pgBackRest by
 * HTTPS (it knows nothing else) and to a directory.
 */
export async function backupTools(
  { executable, peers, data, ...context }: BenchContext,
  cluster: BenchCluster,
  codec: Codec,
  destination: string,
): Promise<BackupPlaces> {
  const s3 = await context.s3();
  const { env } = s3;
  const bucket = await s3.newBucket();
  const directory = join(data.directory, "store");
  await rm(directory, { recursive: true, force: true });
  await mkdir(directory, { recursive: true });
  const backups: Candidate[] = [];
  const restores: Candidate[] = [];
  const prepare = ["sync"];
  const emptied = ["sh", "-c", newDirectory(destination)];

  const likeBarman = (name: string, program: (command: string) => string[], place: string[]) => {
    const server = name.replace(/\W+/g, "-").toLowerCase();
    const backup = program("backup");
    const options = [...flagsOf(codec), "--immediate-checkpoint", ...connectionOf(cluster)];
    const command = (
      extra: readonly string[],
      name: string,
    ) => [...backup, ...options, ...extra, "-n", name, ...place, server];
    backups.push({ name, command: (run) => command([], `run${run}`), env, prepare });
    const restore = program("restore");
    restores.push({
      name,
      command: [...restore, ...place, server, "run0", destination],
      env,
      prepare: emptied,
    });
    return command;
  };
  const ours = (command: string) => [executable, command];
  const url = `s3://${bucket}/backups`;
  const command = likeBarman("barman-cloud", ours, ["--endpoint-url", s3.rgw.endpoint, url]);
  // What WAL-G and Barman do: they look at no pages, and make no manifest.
  const unchecked = ["--no-verify-page-checksums", "--no-manifest"];
  backups.push({
    name: "barman-cloud, no checks",
    command: (run) => command(unchecked, `unchecked${run}`),
    env,
    prepare,
  });
  if (peers.barman !== null) {
    const bin = peers.barman;
    const program = (command: string) => [join(bin, `barman-cloud-${command}`)];
    likeBarman("Barman", program, ["--endpoint-url", s3.rgw.endpoint, url]);
  }
  if (codec === "none" && peers.rclone !== null) {
    // The plainest way: what tar writes into parts of one object, with nothing compressed and no checksum of the whole.
    const { dataDirectory } = cluster.server;
    const sink = `'${peers.rclone}' rcat -q --s3-no-check-bucket --s3-disable-checksum`;
    const pipe = `tar -cf - --exclude=pg_wal '${dataDirectory}' 2>/dev/null | ${sink}`;
    const rcloneEnv = {
      PATH: env["PATH"] ?? "",
      AWS_ACCESS_KEY_ID: s3.rgw.accessKeyId,
      AWS_SECRET_ACCESS_KEY: s3.rgw.secretAccessKey,
      RCLONE_S3_ENV_AUTH: "true",
      RCLONE_S3_PROVIDER: "Ceph",
      RCLONE_S3_ENDPOINT: s3.rgw.endpoint,
      RCLONE_CONFIG: "/dev/null",
    };
    backups.push({
      name: "tar into rclone",
      command: (run) => ["sh", "-c", `${pipe} :s3:${bucket}/tar${run}`],
      env: rcloneEnv,
      prepare,
    });
    const source = `'${peers.rclone}' cat -q :s3:${bucket}/tar0`;
    restores.push({
      name: "rclone into tar",
      command: ["sh", "-c", `${source} | tar -xf - -C '${destination}'`],
      env: rcloneEnv,
      prepare: emptied,
    });
  }
  const pgbackrest = async (name: string, repository: PgBackRestRepository) => {
    if (peers.pgbackrest === null) return;
    const { command } = await configurePgBackRest(
      peers.pgbackrest,
      join(data.directory, `pgbackrest-${repository.kind}`),
      cluster,
      repository,
      { "compress-type": PGBACKREST_CODECS[codec], "process-max": 2, "repo1-retention-full": 99 },
    );
    backups.push({ name, command: command(["--type=full", "backup"]), env, prepare });
    restores.push({
      name,
      command: command([`--pg1-path=${destination}`, "restore"]),
      env,
      prepare: emptied,
    });
  };
  const walg = (name: string, storage: WalGStorage) => {
    // It has neither gzip nor bzip2.
    if (peers.walg === null || codec === "gzip" || codec === "bzip2") return;
    const env = walGEnvironment(cluster, codec, storage);
    const program = peers.walg;
    backups.push({
      name,
      command: [program, "backup-push", "--full", cluster.server.dataDirectory],
      env,
      prepare,
    });
    // Without compression it does not find what it has stored ("Expect pg_control archive, but not found", 3.0.8).
    if (codec === "none") return;
    restores.push({
      name,
      command: [program, "backup-fetch", destination, "LATEST"],
      env,
      prepare: emptied,
    });
  };
  walg("WAL-G", { kind: "s3", server: s3.rgw, bucket });
  likeBarman("barman-cloud, HTTPS", ours, ["--endpoint-url", s3.tlsEndpoint, url]);
  await pgbackrest("pgBackRest, HTTPS", { kind: "s3", s3, bucket });
  likeBarman("barman-cloud, directory", ours, [`file://${directory}`]);
  await pgbackrest("pgBackRest, directory", {
    kind: "directory",
    path: join(directory, "pgbackrest"),
  });
  const walgDirectory = join(directory, "wal-g");
  await mkdir(walgDirectory);
  walg("WAL-G, directory", { kind: "directory", path: walgDirectory });
  return { bucket, directory, backups, restores };
}
