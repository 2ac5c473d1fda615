/** One segment of 16 MiB into the archive, a process each: what archive_command costs. */
import { join } from "node:path";
import { type BenchCluster, DATASETS } from "./data.ts";
import { type Candidate, measure, runsOr, table } from "./measure.ts";
import {
  type Bench,
  type BenchContext,
  type BenchS3,
  configurePgBackRest,
  type S3Address,
  walGEnvironment,
} from "./setup.ts";

const RUNS = 9;
/** For some seconds after the first file ours looks for copies, and it is not that which is measured. */
const WARMUPS = 5;
const CODECS = ["none", "gzip", "zstd", "lz4"] as const;
type Codec = (typeof CODECS)[number];
/** pgBackRest's names and, as ours are medium, its own default levels. */
const PGBACKREST = { none: "none", gzip: "gz", zstd: "zst", lz4: "lz4" } as const;

export const walPush: Bench = async (context, partial) => {
  const s3 = await context.s3();
  const sections: string[] = [];
  for (const dataset of DATASETS) {
    const cluster = await context.data.cluster(dataset);
    for (const codec of CODECS) {
      context.tell(`wal-push: ${dataset}, ${codec}`);
      const candidates = await candidatesOf(context, s3, cluster, codec);
      const figures = await measure(candidates, { runs: runsOr(RUNS), warmups: WARMUPS });
      const text = `**${dataset} WAL, ${codec === "none" ? "not compressed" : codec}**\n\n` +
        table(figures, { heading: "16 MiB segment" });
      context.tell(text);
      sections.push(text);
      await partial(sections.join("\n"));
    }
  }
  return sections.join("\n");
};

/** Each run archives the next segment; the first run, which warms up, finds an empty archive. */
async function candidatesOf(
  { executable, peers, data, versitygw }: BenchContext,
  s3: BenchS3,
  cluster: BenchCluster,
  codec: Codec,
): Promise<Candidate[]> {
  const flags = codec === "none" ? [] : [`--${codec}`];
  const segment = (run: number) => cluster.wal[run] ?? "";
  const bucket = await s3.newBucket();
  const like = (program: string[], endpoint: string, server: string, where = bucket) => {
    return (run: number) => [
      ...program,
      ...flags,
      "--endpoint-url",
      endpoint,
      `s3://${where}/${cluster.name}`,
      server,
      segment(run),
    ];
  };
  const { env } = s3;
  const ours = [executable, "wal-archive"];
  const candidates: Candidate[] = [
    { name: "barman-cloud", command: like(ours, s3.rgw.endpoint, "ours"), env },
  ];
  if (peers.barman !== null) {
    const program = [join(peers.barman, "barman-cloud-wal-archive")];
    candidates.push({
      name: "Barman",
      command: like(program, s3.rgw.endpoint, "barman"),
      env,
    });
  }
  if (peers.oldBarman !== null && (codec === "none" || codec === "gzip")) {
    const program = [join(peers.oldBarman, "barman-cloud-wal-archive")];
    candidates.push({
      name: "Debian's Barman",
      command: like(program, s3.rgw.endpoint, "old"),
      env,
    });
  }
  // It has no gzip.
  const walg = (name: string, server: S3Address, bucket: string) => {
    const program = peers.walg;
    if (program === null || codec === "gzip") return;
    candidates.push({
      name,
      command: (run) => [program, "wal-push", segment(run)],
      env: walGEnvironment(cluster, codec, { kind: "s3", server, bucket }),
    });
  };
  walg("WAL-G", s3.rgw, await s3.newBucket());
  candidates.push({
    name: "barman-cloud, HTTPS",
    command: like(ours, s3.tlsEndpoint, "ours-tls"),
    env,
  });
  if (peers.pgbackrest !== null) {
    const settings = { "compress-type": PGBACKREST[codec] };
    const directory = join(data.directory, "pgbackrest");
    const onS3 = await configurePgBackRest(peers.pgbackrest, join(directory, "s3"), cluster, {
      kind: "s3",
      s3,
      bucket: await s3.newBucket(),
    }, settings);
    candidates.push({
      name: "pgBackRest, HTTPS",
      command: (run) => onS3.command(["archive-push", segment(run)]),
    });
    const path = join(directory, "repository");
    await Deno.remove(path, { recursive: true }).catch(() => undefined);
    const onDisk = await configurePgBackRest(
      peers.pgbackrest,
      join(directory, "disk"),
      cluster,
      { kind: "directory", path },
      settings,
    );
    const store = join(data.directory, "store");
    // What a run before has left would be compared, not stored.
    await Deno.remove(store, { recursive: true }).catch(() => undefined);
    await Deno.mkdir(store, { recursive: true });
    candidates.push({
      name: "barman-cloud, directory",
      command: (run) => [
        ...ours,
        ...flags,
        `file://${store}`,
        `${cluster.name}-${codec}-${bucket}`,
        segment(run),
      ],
      env,
    });
    candidates.push({
      name: "pgBackRest, directory",
      command: (run) => onDisk.command(["archive-push", segment(run)]),
    });
  }
  const second = await versitygw();
  if (second !== null) {
    const where = await second.newBucket();
    candidates.push({
      name: "barman-cloud, versitygw",
      command: like(ours, second.endpoint, "ours", where),
      env: { ...env, ...second.env },
    });
    if (peers.barman !== null) {
      candidates.push({
        name: "Barman, versitygw",
        command: like(
          [join(peers.barman, "barman-cloud-wal-archive")],
          second.endpoint,
          "barman",
          where,
        ),
        env: { ...env, ...second.env },
      });
    }
    walg("WAL-G, versitygw", second, await second.newBucket());
  }
  return candidates;
}
