import { type BlockPiece, Blocks, PIECE } from "./blocks.ts";
import { inBlocks } from "./byte_reader.ts";
import type { CodecOptions } from "./table.ts";

/** Matters where many cores are: this thread can't feed more. */
const MOST_WORKERS = 4;

/**
 * What LZ4 and snappy make of a stream, in this thread or in `options.concurrency - 1` workers.
 * @param pieceOf called for each piece of the input, in order
 */
export async function* throughBlocks(
  source: AsyncIterable<Uint8Array>,
  pieceOf: (input: Uint8Array) => BlockPiece,
  { signal, reuse, concurrency = 1 }: CodecOptions,
): AsyncGenerator<Uint8Array, void, void> {
  // One core is left to this thread, which has to feed the others.
  const workers = Math.min(concurrency - 1, MOST_WORKERS);
  if (workers <= 0) {
    const blocks = new Blocks();
    for await (const input of inBlocks(source, PIECE, signal, () => blocks.input)) {
      const bytes = blocks.compress(pieceOf(input));
      yield reuse === true ? bytes : bytes.slice();
    }
    return;
  }
  const pieces = async function* (take: (size: number) => Uint8Array) {
    for await (const input of inBlocks(source, PIECE, signal, take)) yield pieceOf(input);
  };
  // The code of worker threads, which a push of WAL does without.
  const { inPieces } = await import("./in_pieces.ts");
  for await (const { bytes } of inPieces(pieces, { workers, signal })) {
    yield reuse === true ? bytes : bytes.slice();
  }
}
