/** Worker threads of ours: where their code is, and how and when they are started. */
import type { WorkerOptions } from "node:worker_threads";

/** The modules that run in threads. The bundle (scripts/compile.ts) has each as an entry of its own, beside the others. */
export const WORKERS = ["piece_worker", "decompress_worker"] as const;

/** Compressed bytes; less is not worth the start of a thread to decompress it, which takes some 20 ms. */
export const WORTH_A_THREAD = 1024 * 1024;

/** Bun's heap then grows less before it looks for garbage; other runtimes don't know the option. */
export const FRUGAL: WorkerOptions & { readonly smol: boolean } = { smol: true };

export function workerFile(name: (typeof WORKERS)[number]): URL {
  const extension = import.meta.url.endsWith(".ts") ? "ts" : "js";
  return new URL(`./${name}.${extension}`, import.meta.url);
}
