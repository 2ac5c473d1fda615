/** Decompresses in a worker thread, while this one talks to the store and writes files. */
import { Worker } from "node:worker_threads";
import { abortable, ByteReader } from "./byte_reader.ts";
import { CorruptDataError } from "./corrupt_data_error.ts";
import type { FromDecompressor, ToDecompressor } from "./decompress_worker.ts";
import { Mailbox } from "./mailbox.ts";
import { type CompressionName, type DecompressOptions, decompressStream } from "./table.ts";
import { FRUGAL, workerFile, WORTH_A_THREAD } from "./worker_files.ts";

/** One is read while the next is written, on both sides. */
const SLOTS = 3;
const INPUT = 256 * 1024;
const OUTPUT = 512 * 1024;

/**
 * As `decompressStream`, in a thread of its own when the source is long. Chunks of the result are overwritten when the
 * next is asked for.
 */
export async function* decompressInWorker(
  codec: CompressionName,
  source: AsyncIterable<Uint8Array>,
  { signal }: DecompressOptions,
): AsyncGenerator<Uint8Array, void, void> {
  const reader = new ByteReader(codec, source, signal);
  try {
    if ((await reader.peek(WORTH_A_THREAD)).length < WORTH_A_THREAD) {
      yield* decompressStream(codec, chunksOf(reader), { reuse: true, signal });
    } else yield* throughWorker(codec, reader, signal);
  } finally {
    await reader.close();
  }
}

async function* chunksOf(reader: ByteReader): AsyncGenerator<Uint8Array, void, void> {
  for (let chunk = await reader.take(); chunk !== undefined; chunk = await reader.take()) {
    yield chunk;
  }
}

async function* throughWorker(
  codec: CompressionName,
  reader: ByteReader,
  signal: AbortSignal | undefined,
): AsyncGenerator<Uint8Array, void, void> {
  const input = slots(INPUT);
  const output = slots(OUTPUT);
  const free = new Mailbox<void>();
  const answers = new Mailbox<Exclude<FromDecompressor, { readonly kind: "taken" }>>();
  const thread = new Worker(workerFile("decompress_worker"), FRUGAL);
  const send = (message: ToDecompressor) => thread.postMessage(message);
  const died = (cause?: unknown) => {
    const reason = cause instanceof Error ? `: ${cause.message}` : "";
    answers.fail(new Error(`Cannot decompress: a worker thread ended${reason}`, { cause }));
  };
  thread.on("message", (answer: FromDecompressor) => {
    if (answer.kind === "taken") free.put();
    else answers.put(answer);
  });
  thread.on("error", died);
  thread.on("exit", () => died());
  for (const _ of input) free.put();
  send({ kind: "begin", codec, input, output });
  const feeding = feed(reader, { input, free, send })
    // Whoever reads has to know; after its end nobody does.
    .catch((error) => answers.fail(error));
  try {
    for (let turn = 0;; turn++) {
      const answer = await abortable(answers.take(), signal);
      if (answer.kind === "end") return;
      if (answer.kind === "corrupt") throw new CorruptDataError(codec, answer.reason);
      if (answer.kind === "failed") throw new Error(answer.message);
      yield new Uint8Array(output[turn % SLOTS] as SharedArrayBuffer, 0, answer.length);
      send({ kind: "freed" });
    }
  } finally {
    free.fail(new Error("nobody reads what is decompressed"));
    await Promise.all([thread.terminate(), feeding]);
  }
}

/** Copies what the reader gives into slots that are free, in turn. */
async function feed(
  reader: ByteReader,
  { input, free, send }: {
    readonly input: readonly SharedArrayBuffer[];
    readonly free: Mailbox<void>;
    readonly send: (message: ToDecompressor) => void;
  },
): Promise<void> {
  for (let turn = 0;; turn++) {
    await free.take();
    const slot = new Uint8Array(input[turn % SLOTS] as SharedArrayBuffer);
    let filled = 0;
    while (filled < INPUT) {
      const chunk = await reader.take(INPUT - filled);
      if (chunk === undefined) break;
      slot.set(chunk, filled);
      filled += chunk.length;
    }
    if (filled > 0) send({ kind: "filled", length: filled });
    if (filled < INPUT) return send({ kind: "ended" });
  }
}

function slots(size: number): SharedArrayBuffer[] {
  return Array.from({ length: SLOTS }, () => new SharedArrayBuffer(size));
}
