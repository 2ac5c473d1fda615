/** A whole restore by each tool of what it has stored itself. Barman leaves the files to the kernel; the others flush. */
import { rm } from "node:fs/promises";
import { join } from "node:path";
import { DATASETS } from "./data.ts";
import { measure, runsOr, table } from "./measure.ts";
import type { Bench } from "./setup.ts";
import { backupTools, type Codec } from "./tools.ts";

const RUNS = 3;
const CODECS: readonly Codec[] = ["gzip", "zstd", "lz4", "none", "bzip2"];

export const restore: Bench = async (context, partial) => {
  const sections: string[] = [];
  const restores = join(context.data.directory, "restores");
  const destination = join(restores, "restored");
  for (const dataset of DATASETS) {
    const cluster = await context.data.cluster(dataset);
    for (const codec of CODECS) {
      // A minute for each backup, and a quarter for each restore: once is enough.
      if (codec === "bzip2" && dataset !== "text") continue;
      context.tell(`restore: ${dataset}, ${codec}`);
      const places = await backupTools(context, cluster, codec, destination);
      try {
        await measure(places.backups, { runs: 1, warmups: 0 });
        const figures = await measure(
          places.restores,
          codec === "bzip2" ? { runs: 1, warmups: 0 } : { runs: runsOr(RUNS) },
        );
        const text = `**${dataset} cluster (${Math.round(cluster.size / 1024 ** 2)} MiB), ${
          codec === "none" ? "not compressed" : codec
        }**\n\n${table(figures, { bytes: cluster.size })}`;
        context.tell(text);
        sections.push(text);
        await partial(sections.join("\n"));
      } finally {
        await (await context.s3()).emptyBucket(places.bucket);
        await rm(places.directory, { recursive: true, force: true });
        await rm(restores, { recursive: true, force: true });
      }
    }
  }
  return sections.join("\n");
};
