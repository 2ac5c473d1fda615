/** Worker threads of ours: where their code is, and how they are started. */
import type { WorkerOptions } from "node:worker_threads";

/** Bun's heap then grows less before it looks for garbage; other runtimes don't know the option. */
export const FRUGAL: WorkerOptions & { readonly smol: boolean } = { smol: true };

/** The bundle (scripts/compile.ts) has each worker as an entry of its own, beside the file that this is in. */
export function workerFile(name: "piece_worker" | "decompress_worker"): URL {
  const extension = import.meta.url.endsWith(".ts") ? "ts" : "js";
  return new URL(`./${name}.${extension}`, import.meta.url);
}
