/** Decompresses in a worker thread, while this one talks to the store and writes files. */
import { Worker } from "node:worker_threads";
import { abortable } from "./byte_reader.ts";
import { CorruptDataError } from "./corrupt_data_error.ts";
import type { FromDecompressor, ToDecompressor } from "./decompress_worker.ts";
import { Mailbox } from "./mailbox.ts";
import { type CompressionName, type DecompressOptions, decompressStream } from "./table.ts";
import { FRUGAL, workerFile } from "./worker_files.ts";

/** Compressed bytes up to which a thread is not worth its start, which takes some 20 ms. */
const SHORT = 1024 * 1024;
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
  const iterator = source[Symbol.asyncIterator]();
  const beginning: Uint8Array[] = [];
  let ended = false;
  const whole = async function* () {
    try {
      yield* beginning.splice(0);
      while (!ended) {
        const { done, value } = await iterator.next();
        if (done === true) ended = true;
        else yield value;
      }
    } finally {
      if (!ended) await iterator.return?.();
    }
  };
  try {
    for (let length = 0; length <= SHORT && !ended;) {
      const { done, value } = await abortable(iterator.next(), signal);
      if (done === true) ended = true;
      else {
        beginning.push(value);
        length += value.length;
      }
    }
  } catch (error) {
    // Not waited for: it may be hanging in a read.
    iterator.return?.()?.catch(() => undefined);
    throw error;
  }
  if (ended) yield* decompressStream(codec, whole(), { reuse: true, signal });
  else yield* throughWorker(codec, whole(), signal);
}

async function* throughWorker(
  codec: CompressionName,
  source: AsyncGenerator<Uint8Array, void, void>,
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
  const feeding = feed(source, { input, free, send })
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
    const ending = Promise.all([thread.terminate(), source.return(), feeding]);
    // A source that is hanging in a read cannot be waited for once the signal is aborted.
    if (signal?.aborted) ending.catch(() => undefined);
    else await ending;
  }
}

/** Copies the source into slots that are free, in turn. */
async function feed(
  source: AsyncIterable<Uint8Array>,
  { input, free, send }: {
    readonly input: readonly SharedArrayBuffer[];
    readonly free: Mailbox<void>;
    readonly send: (message: ToDecompressor) => void;
  },
): Promise<void> {
  let turn = 0;
  let slot: Uint8Array | undefined;
  let filled = 0;
  const full = () => {
    send({ kind: "filled", length: filled });
    slot = undefined;
    filled = 0;
  };
  for await (const chunk of source) {
    for (let rest = chunk; rest.length > 0;) {
      if (slot === undefined) {
        await free.take();
        slot = new Uint8Array(input[turn++ % SLOTS] as SharedArrayBuffer);
      }
      const part = rest.subarray(0, INPUT - filled);
      slot.set(part, filled);
      filled += part.length;
      rest = rest.subarray(part.length);
      if (filled === INPUT) full();
    }
  }
  if (filled > 0) full();
  send({ kind: "ended" });
}

function slots(size: number): SharedArrayBuffer[] {
  return Array.from({ length: SLOTS }, () => new SharedArrayBuffer(size));
}
