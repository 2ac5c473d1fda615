/** The work of the codecs that are written here, cut into pieces that depend on nothing but themselves. */
import { Blocks } from "./blocks.ts";
import { Arena } from "./arena.ts";
import { ARENA_SIZE, type Bits, encodeBzip2Block } from "./bzip2_encoder.ts";

/** A plain value, so that it can be sent to a worker. */
export type Piece =
  | { readonly codec: "lz4"; readonly level: number; readonly input: Uint8Array }
  | { readonly codec: "snappy"; readonly input: Uint8Array }
  /** `input` is run-length coded, `crc` that of the bytes before. */
  | { readonly codec: "bzip2"; readonly crc: number; readonly input: Uint8Array };

/**
 * Makes a function that gives a piece's part of the stream, which is whole bytes but for bzip2. The next call overwrites
 * the result: new memory for each piece would be garbage that makes a heap grow.
 */
export function createPieceCompressor(): (piece: Piece) => Bits {
  let blocks: Blocks | undefined;
  let arena: Arena | undefined;
  return (piece) => {
    if (piece.codec === "bzip2") {
      arena ??= new Arena(ARENA_SIZE);
      return encodeBzip2Block(piece.input, piece.crc, arena);
    }
    blocks ??= new Blocks();
    const bytes = piece.codec === "lz4"
      ? blocks.compressLz4(piece.input, piece.level)
      : blocks.compressSnappy(piece.input);
    return { bytes, bits: 8 * bytes.length };
  };
}
