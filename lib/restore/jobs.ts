/** How much of a restore, or of reading archives through, is done at the same time. */
import { availableParallelism } from "node:os";
import type { CompressionName } from "../compression/table.ts";

/** Up to 4, fewer on small machines: each archive costs up to a core when it is compressed. */
export function defaultRestoreJobs(): number {
  return Math.min(4, Math.max(2, availableParallelism()));
}

/**
 * Threads to decompress an archive with. bzip2 and gzip are slow enough for all there are: an archive gets as many as its share
 * of the bytes, 1 at least. LZ4 and snappy are as fast as what else there is to do: with two jobs, which are two cores, a
 * thread of their own costs more than it brings.
 * @param jobs what may be done at the same time
 * @param share of the archive in all that is read, 0..1
 */
export function threadsFor(
  compression: CompressionName | null,
  jobs: number,
  share: number,
): number {
  if (compression === null) return 0;
  if (compression === "bzip2" || compression === "gzip") {
    return Math.max(1, Math.round(jobs * share));
  }
  return jobs > 2 ? 1 : 0;
}
