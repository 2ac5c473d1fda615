/** The work of the codecs that are written here, cut into pieces that depend on nothing but themselves. */
import { type Bits, encodeBzip2Block } from "./bzip2_encoder.ts";
import { crc32c } from "./checksums.ts";
import { largestLz4Block, Lz4Encoder } from "./lz4_block.ts";
import { encodeSnappyBlock, largestSnappyBlock, SNAPPY_TABLE_SIZE } from "./snappy_block.ts";

/** Bytes of input that a piece of LZ4 or snappy has at most: blocks of 64 KiB, linked within the piece. */
export const PIECE = 512 * 1024;
const BLOCK = 64 * 1024;
/** In LZ4's size field: the block is stored as it is. */
const LZ4_RAW = 0x80000000;
const SNAPPY_COMPRESSED = 0x00;
const SNAPPY_RAW = 0x01;

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
  const packed = new Uint8Array(Math.max(largestLz4Block(BLOCK), largestSnappyBlock(BLOCK)));
  const out = new Uint8Array(PIECE + 8 * PIECE / BLOCK);
  let encoder: Lz4Encoder | undefined;
  let table: Uint16Array | undefined;
  return (piece) => {
    if (piece.codec === "bzip2") return encodeBzip2Block(piece.input, piece.crc);
    const size = piece.codec === "lz4"
      ? lz4Blocks(piece.input, encoder ??= new Lz4Encoder(piece.level), packed, out)
      : snappyChunks(piece.input, table ??= new Uint16Array(SNAPPY_TABLE_SIZE), packed, out);
    return { bytes: out.subarray(0, size), bits: 8 * size };
  };
}

/**
 * Blocks of a frame, each behind its size. Matches reach back into earlier blocks of the piece.
 * @returns bytes in `out`
 */
function lz4Blocks(
  input: Uint8Array,
  encoder: Lz4Encoder,
  packed: Uint8Array,
  out: Uint8Array,
): number {
  encoder.reset();
  const view = new DataView(out.buffer);
  let used = 0;
  for (let from = 0; from < input.length; from += BLOCK) {
    const to = Math.min(from + BLOCK, input.length);
    const size = encoder.encode(input, from, to, packed);
    const worth = size < to - from;
    const content = worth ? packed.subarray(0, size) : input.subarray(from, to);
    view.setUint32(used, worth ? size : content.length + LZ4_RAW, true);
    out.set(content, used + 4);
    used += 4 + content.length;
  }
  return used;
}

/**
 * Chunks of the framing format, each with its type, length and CRC-32C.
 * @returns bytes in `out`
 */
function snappyChunks(
  input: Uint8Array,
  table: Uint16Array,
  packed: Uint8Array,
  out: Uint8Array,
): number {
  const view = new DataView(out.buffer);
  let used = 0;
  for (let from = 0; from < input.length; from += BLOCK) {
    const block = input.subarray(from, from + BLOCK);
    const size = encodeSnappyBlock(block, packed, table);
    // As in the reference implementation: raw unless an eighth is saved.
    const worth = size < block.length - block.length / 8;
    const content = worth ? packed.subarray(0, size) : block;
    const type = worth ? SNAPPY_COMPRESSED : SNAPPY_RAW;
    view.setUint32(used, type + (content.length + 4) * 256, true);
    view.setUint32(used + 4, maskedCrc(crc32c(block)), true);
    out.set(content, used + 8);
    used += 8 + content.length;
  }
  return used;
}

/** Snappy stores CRCs altered, so that a CRC of data that holds CRCs is no special case. */
export function maskedCrc(crc: number): number {
  return (((crc >>> 15) | (crc << 17)) + 0xa282ead8) >>> 0;
}
