/** Runs in a worker thread: works on the pieces that it is sent, one after the other. */
import { parentPort } from "node:worker_threads";
import { createPieceCodec, type Piece } from "./pieces.ts";

export interface PieceRequest {
  readonly piece: Omit<Piece, "input">;
  readonly input: SharedArrayBuffer;
  /** Bytes of `input`. */
  readonly length: number;
  /** Where the result is wanted. */
  readonly output: SharedArrayBuffer;
}

export interface PieceAnswer {
  readonly length: number;
  readonly bits: number;
  readonly problem?: string | undefined;
  /** The result, when there was no room for it. */
  readonly unfitting?: ArrayBuffer;
}

const workOn = createPieceCodec();

parentPort?.on("message", ({ piece, input, length, output }: PieceRequest) => {
  const view = new Uint8Array(input, 0, length);
  const { bytes, bits, problem } = workOn({ ...piece, input: view } as Piece);
  const answer = { length: bytes.length, bits, problem };
  if (bytes.length <= output.byteLength) {
    new Uint8Array(output).set(bytes);
    parentPort?.postMessage(answer);
  } else {
    parentPort?.postMessage({ ...answer, unfitting: bytes.slice().buffer } satisfies PieceAnswer);
  }
});
