/** Runs in a worker thread: decompresses one stream, which arrives in shared memory and leaves in such. */
import { parentPort } from "node:worker_threads";
import { CorruptDataError } from "./corrupt_data_error.ts";
import { Mailbox } from "./mailbox.ts";
import { type CompressionName, decompressStream } from "./table.ts";

/** The slots of both rings are used in turn. */
export type ToDecompressor =
  | {
    readonly kind: "begin";
    readonly codec: CompressionName;
    readonly input: readonly SharedArrayBuffer[];
    readonly output: readonly SharedArrayBuffer[];
  }
  /** So many bytes are in the next slot of the input. */
  | { readonly kind: "filled"; readonly length: number }
  /** There is no more input. */
  | { readonly kind: "ended" }
  /** One more slot of the output may be overwritten. */
  | { readonly kind: "freed" };

export type FromDecompressor =
  /** One more slot of the input may be overwritten. */
  | { readonly kind: "taken" }
  /** So many bytes are in the next slot of the output. */
  | { readonly kind: "filled"; readonly length: number }
  | { readonly kind: "end" }
  | { readonly kind: "corrupt"; readonly reason: string }
  | { readonly kind: "failed"; readonly message: string };

type Begin = Extract<ToDecompressor, { readonly kind: "begin" }>;

/** Lengths of what is in the input; 0 is its end. */
const arrived = new Mailbox<number>();
const free = new Mailbox<void>();

function send(message: FromDecompressor): void {
  parentPort?.postMessage(message);
}

async function* source(input: readonly SharedArrayBuffer[]): AsyncGenerator<Uint8Array> {
  for (let turn = 0;; turn++) {
    const length = await arrived.take();
    if (length === 0) return;
    // A copy: the decompressor may look back at it for a while.
    const chunk = new Uint8Array(length);
    chunk.set(new Uint8Array(input[turn % input.length] as SharedArrayBuffer, 0, length));
    send({ kind: "taken" });
    yield chunk;
  }
}

async function decompress({ codec, input, output }: Begin): Promise<void> {
  let turn = 0;
  let slot: Uint8Array | undefined;
  let filled = 0;
  for await (const chunk of decompressStream(codec, source(input), { reuse: true })) {
    for (let rest = chunk; rest.length > 0;) {
      if (slot === undefined) {
        if (turn >= output.length) await free.take();
        slot = new Uint8Array(output[turn++ % output.length] as SharedArrayBuffer);
      }
      const part = rest.subarray(0, slot.length - filled);
      slot.set(part, filled);
      filled += part.length;
      rest = rest.subarray(part.length);
      if (filled === slot.length) {
        send({ kind: "filled", length: filled });
        slot = undefined;
        filled = 0;
      }
    }
  }
  if (filled > 0) send({ kind: "filled", length: filled });
  send({ kind: "end" });
}

parentPort?.on("message", (message: ToDecompressor) => {
  switch (message.kind) {
    case "begin":
      decompress(message).catch((error) => {
        if (error instanceof CorruptDataError) send({ kind: "corrupt", reason: error.reason });
        else send({ kind: "failed", message: error instanceof Error ? error.message : `${error}` });
      });
      break;
    case "filled":
      arrived.put(message.length);
      break;
    case "ended":
      arrived.put(0);
      break;
    case "freed":
      free.put();
      break;
  }
});
