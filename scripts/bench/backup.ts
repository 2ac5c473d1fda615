/** A whole base backup by each tool, compressed and not. */
import { join } from "node:path";
import { type BenchCluster, DATASETS } from "./data.ts";
import { type Figures, measure, runsOr, table } from "./measure.ts";
import type { Bench, BenchContext } from "./setup.ts";
import { backupTools, type Codec, CODECS } from "./tools.ts";

const RUNS = 3;

export const backup: Bench = async (context, partial) => {
  const sections: string[] = [];
  for (const dataset of DATASETS) {
    const cluster = await context.data.cluster(dataset);
    for (const codec of CODECS) {
      // Takes minutes for each run of the peers.
      if (codec === "bzip2" && dataset !== "text") continue;
      context.tell(`backup: ${dataset}, ${codec}`);
      const figures = await measureBackups(context, cluster, codec);
      const text = sectionOf(cluster, codec, figures);
      context.tell(text);
      sections.push(text);
      await partial(sections.join("\n"));
    }
  }
  return sections.join("\n");
};

async function measureBackups(
  context: BenchContext,
  cluster: BenchCluster,
  codec: Codec,
): Promise<readonly Figures[]> {
  const places = await backupTools(context, cluster, codec, join(context.data.directory, "none"));
  try {
    const few = codec === "bzip2";
    return await measure(places.backups, { runs: few ? 1 : runsOr(RUNS), warmups: 0 });
  } finally {
    await (await context.s3()).emptyBucket(places.bucket);
    await Deno.remove(places.directory, { recursive: true });
  }
}

function sectionOf(cluster: BenchCluster, codec: Codec, figures: readonly Figures[]): string {
  const mib = Math.round(cluster.size / 1024 ** 2);
  const title = `**${cluster.name} cluster (${mib} MiB), ${
    codec === "none" ? "not compressed" : codec
  }**`;
  return `${title}\n\n${table(figures, { bytes: cluster.size })}`;
}
