/**
 * LZ4's and snappy's blocks, CRC-32C and xxHash-32: the WebAssembly made of assembly/blocks.ts, with a memory laid out
 * for it. A `Blocks` is for one stream at a time; what it returns is overwritten by its next call.
 */
import { BLOCKS_WASM } from "./blocks_wasm.ts";

/** To be compressed: at most `PIECE` bytes. */
export type BlockPiece =
  | { readonly codec: "lz4"; readonly level: number; readonly input: Uint8Array }
  | { readonly codec: "snappy"; readonly input: Uint8Array };

/** Bytes of input that are compressed at once at most: blocks of 64 KiB, linked within. */
export const PIECE = 512 * 1024;
/** What a block of 64 KiB may have besides its content; nothing is larger than stored as it is. */
const HEADER = 8;
const BLOCK = 64 * 1024;
/** How far back a match of LZ4 can reach, rounded up. */
const HISTORY = 64 * 1024;
/** The functions may read and write so far behind a region, and encode so much more than they keep. */
const SLACK = 1024;

const LANES = 16;
const CRC_TABLE = 1024;
const TABLES = CRC_TABLE + 8 * 1024;
const INPUT = TABLES + 256 * 1024;
const OUTPUT = INPUT + PIECE + SLACK;
const PAGE = 64 * 1024;

interface Functions {
  readonly memory: WebAssembly.Memory;
  compressLz4(level: number, tables: number, input: number, length: number, out: number): number;
  decompressLz4(block: number, length: number, out: number, at: number, limit: number): number;
  compressSnappy(
    table: number,
    crcTable: number,
    input: number,
    length: number,
    out: number,
  ): number;
  decompressSnappy(block: number, length: number, out: number, most: number): number;
  prepareCrc32c(table: number): void;
  crc32c(table: number, before: number, at: number, length: number): number;
  xxHash32Stripes(lanes: number, at: number, length: number): void;
}

let compiled: WebAssembly.Module | undefined;

export class Blocks {
  readonly #functions: Functions;
  #bytes: Uint8Array = new Uint8Array(0);
  #hasCrcTable = false;
  /** Of the LZ4 frame being read: where its content is, how much a block may hold, and what is there. */
  #content = OUTPUT;
  #room = 0;
  #largestBlock = 0;
  #filled = 0;

  constructor() {
    compiled ??= new WebAssembly.Module(bytesOfBase64(BLOCKS_WASM));
    this.#functions = new WebAssembly.Instance(compiled, {}).exports as unknown as Functions;
    this.#reserve(OUTPUT + PIECE + HEADER * PIECE / BLOCK + SLACK);
  }

  /** `PIECE` bytes: a piece that begins here need not be copied. */
  get input(): Uint8Array {
    return this.#bytes.subarray(INPUT, INPUT + PIECE);
  }

  /** A piece's part of the stream. */
  compress(piece: BlockPiece): Uint8Array {
    return piece.codec === "lz4"
      ? this.compressLz4(piece.input, piece.level)
      : this.compressSnappy(piece.input);
  }

  /**
   * Blocks of an LZ4 frame, each behind its size.
   * @param level 0..16
   * @param input at most `PIECE` bytes
   */
  compressLz4(input: Uint8Array, level: number): Uint8Array {
    this.#take(input, PIECE);
    const length = this.#functions.compressLz4(level, TABLES, INPUT, input.length, OUTPUT);
    return this.#bytes.subarray(OUTPUT, OUTPUT + length);
  }

  /** Before the first block of a frame. @param largestBlock bytes of content, up to 4 MiB */
  beginLz4Frame(largestBlock: number): void {
    this.#largestBlock = largestBlock;
    this.#filled = 0;
    this.#content = INPUT + Math.max(largestBlock, PIECE) + SLACK;
    // Room for some more blocks, so that history is not moved for each.
    this.#room = HISTORY + Math.max(largestBlock, PIECE);
    this.#reserve(this.#content + this.#room + SLACK);
  }

  /**
   * The content of a block.
   * @param linked matches may reach back into the blocks before, of this frame only
   * @returns undefined when the block is damaged
   */
  decompressLz4(
    block: Uint8Array,
    { stored, linked }: { readonly stored: boolean; readonly linked: boolean },
  ): Uint8Array | undefined {
    const largest = this.#largestBlock;
    const content = this.#content;
    let at = linked ? this.#filled : 0;
    if (at + largest > this.#room) {
      this.#bytes.copyWithin(content, content + at - HISTORY, content + at);
      at = HISTORY;
    }
    let end = at + block.length;
    if (stored) {
      if (block.length > largest) return undefined;
      this.#bytes.set(block, content + at);
    } else {
      this.#take(block, largest);
      end = this.#functions.decompressLz4(INPUT, block.length, content, at, at + largest);
      if (end < 0) return undefined;
    }
    this.#filled = end;
    return this.#bytes.subarray(content + at, content + end);
  }

  /** Chunks of snappy's framing format. @param input at most `PIECE` bytes */
  compressSnappy(input: Uint8Array): Uint8Array {
    this.#take(input, PIECE);
    const length = this.#functions.compressSnappy(
      TABLES,
      this.#crcTable(),
      INPUT,
      input.length,
      OUTPUT,
    );
    return this.#bytes.subarray(OUTPUT, OUTPUT + length);
  }

  /** The content of a block in snappy's raw format, at most 64 KiB; undefined when it is damaged. */
  decompressSnappy(block: Uint8Array): Uint8Array | undefined {
    this.#take(block, PIECE);
    const length = this.#functions.decompressSnappy(INPUT, block.length, OUTPUT, BLOCK);
    return length < 0 ? undefined : this.#bytes.subarray(OUTPUT, OUTPUT + length);
  }

  /** CRC-32C (Castagnoli) of some bytes, continuing from `before`. Unsigned. */
  crc32c(bytes: Uint8Array, before = 0): number {
    const table = this.#crcTable();
    let crc = before;
    for (let at = 0; at < bytes.length; at += PIECE) {
      const part = bytes.subarray(at, at + PIECE);
      crc = this.#functions.crc32c(table, crc, this.#place(part), part.length);
    }
    return crc >>> 0;
  }

  /** Stripes of 16 bytes into the four lanes of an xxHash-32. */
  xxHash32Stripes(lanes: Int32Array, bytes: Uint8Array): void {
    for (let at = 0; at < bytes.length; at += PIECE) {
      const part = bytes.subarray(at, at + PIECE);
      const place = this.#place(part);
      const here = new Int32Array(this.#bytes.buffer, LANES, 4);
      here.set(lanes);
      this.#functions.xxHash32Stripes(LANES, place, part.length);
      lanes.set(here);
    }
  }

  /** Where the bytes are: they may have come from here. */
  #place(bytes: Uint8Array): number {
    if (bytes.buffer === this.#bytes.buffer) return bytes.byteOffset;
    this.#take(bytes, PIECE);
    return INPUT;
  }

  #take(input: Uint8Array, most: number): void {
    if (input.length > most) {
      throw new RangeError(`${input.length} bytes are more than ${most}, which is the most`);
    }
    const isThere = input.buffer === this.#bytes.buffer && input.byteOffset === INPUT;
    if (!isThere) this.#bytes.set(input, INPUT);
  }

  #crcTable(): number {
    if (!this.#hasCrcTable) this.#functions.prepareCrc32c(CRC_TABLE);
    this.#hasCrcTable = true;
    return CRC_TABLE;
  }

  #reserve(size: number): void {
    const { memory } = this.#functions;
    const missing = size - this.#bytes.length;
    if (missing <= 0) return;
    memory.grow(Math.ceil(missing / PAGE));
    this.#bytes = new Uint8Array(memory.buffer);
  }
}

function bytesOfBase64(text: string): Uint8Array<ArrayBuffer> {
  return Uint8Array.from(atob(text), (character) => character.charCodeAt(0));
}
