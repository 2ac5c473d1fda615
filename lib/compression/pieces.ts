/** The work of the codecs that are written here, cut into pieces that depend on nothing but themselves. */
import { Arena } from "./arena.ts";
import { type BlockPiece, Blocks } from "./blocks.ts";
import { BitReader, BlockError, BlockMemory, decodeBzip2Block } from "./bzip2_decoder.ts";
import { MARK_BITS } from "./bzip2_marks.ts";
import { ARENA_SIZE, type Bits, encodeBzip2Block } from "./bzip2_encoder.ts";

/** A plain value, so that it can be sent to a worker. */
export type Piece =
  | BlockPiece
  /** `input` is run-length coded, `crc` that of the bytes before. */
  | { readonly codec: "bzip2"; readonly crc: number; readonly input: Uint8Array }
  /** To be decompressed: a block that begins so many bits into the input, and what may follow it. */
  | { readonly codec: "bzip2-block"; readonly offset: number; readonly input: Uint8Array }
  /** Between blocks: given back as it is, when its turn comes. */
  | { readonly codec: "stored"; readonly input: Uint8Array };

/** Of a block that was decompressed, `bits` are those of its input that it ends behind. */
export interface PieceResult extends Bits {
  /** Why there are no bytes. */
  readonly problem?: string | undefined;
}

/**
 * Makes a function that gives a piece's part of the stream, which is whole bytes but for bzip2. The next call overwrites
 * the result: new memory for each piece would be garbage that makes a heap grow.
 */
export function createPieceCodec(): (piece: Piece) => PieceResult {
  let blocks: Blocks | undefined;
  let arena: Arena | undefined;
  let memory: BlockMemory | undefined;
  return (piece) => {
    switch (piece.codec) {
      case "bzip2":
        arena ??= new Arena(ARENA_SIZE);
        return encodeBzip2Block(piece.input, piece.crc, arena);
      case "bzip2-block":
        memory ??= new BlockMemory();
        return decodedBlock(piece.input, piece.offset, memory);
      case "stored":
        return { bytes: piece.input, bits: 8 * piece.input.length };
    }
    blocks ??= new Blocks();
    const bytes = blocks.compress(piece);
    return { bytes, bits: 8 * bytes.length };
  };
}

function decodedBlock(input: Uint8Array, offset: number, memory: BlockMemory): PieceResult {
  const bits = new BitReader(input, offset + MARK_BITS);
  try {
    return { bytes: decodeBzip2Block(bits, memory), bits: bits.position };
  } catch (error) {
    if (!(error instanceof BlockError)) throw error;
    return { bytes: new Uint8Array(0), bits: bits.position, problem: error.message };
  }
}
