import { abortable, ByteReader, concat, createPace, CUT_OFF, type Pace } from "./byte_reader.ts";
import { BitReader, BlockError, decodeBzip2Block, type DecodedBlock } from "./bzip2_decoder.ts";
import { type Bits, BitWriter } from "./bzip2_encoder.ts";
import { CorruptDataError } from "./corrupt_data_error.ts";
import { inPieces } from "./in_pieces.ts";
import type { CodecOptions, DecompressOptions } from "./table.ts";

const BLOCK_UNIT = 100_000;
const OUTPUT = 128 * 1024;
/** What a block costs beside its bytes, in bytes. */
const BLOCK_COST = 4096;
/** Each takes about 20 MiB for sorting. */
const MOST_WORKERS = 8;

/** Writes one bzip2 stream, block by block. */
export async function* compressBzip2(
  source: AsyncIterable<Uint8Array>,
  options: CodecOptions,
): AsyncGenerator<Uint8Array, void, void> {
  const joiner = new BitJoiner();
  let combined = 0;
  yield Uint8Array.of(0x42, 0x5a, 0x68, 0x30 + options.level);
  const pieces = async function* (take: (size: number) => Uint8Array) {
    for await (const { block, crc } of inRunLengthBlocks(source, options, take)) {
      combined = ((combined << 1) | (combined >>> 31)) ^ crc;
      yield { codec: "bzip2" as const, crc, input: block };
    }
  };
  const { concurrency = 1, signal } = options;
  const workers = concurrency === 1 ? 0 : Math.min(concurrency, MOST_WORKERS);
  for await (const run of inPieces(pieces, { workers, signal })) {
    const bytes = joiner.join(run);
    if (bytes.length > 0) yield bytes;
  }
  const end = new BitWriter(new Uint8Array(24));
  end.put(24, 0x177245);
  end.put(24, 0x385090);
  end.put(16, combined >>> 16);
  end.put(16, combined & 0xffff);
  yield concat([joiner.join(end.finish()), joiner.rest()]);
}

/** Reads bzip2 streams until the end of the data. */
export async function* decompressBzip2(
  source: AsyncIterable<Uint8Array>,
  options: DecompressOptions = {},
): AsyncGenerator<Uint8Array, void, void> {
  const reader = new ByteReader("bzip2", source, options.signal);
  const pace = createPace(options.signal);
  // Of the largest block so far.
  let links = new Uint32Array(0);
  try {
    let stream = 0;
    do {
      const magic = await reader.peek(4);
      const level = (magic[3] ?? 0) - 0x30;
      if ([0x42, 0x5a, 0x68].some((byte, i) => i < magic.length && magic[i] !== byte)) {
        throw corrupt(
          stream === 0 ? "it does not begin with a bzip2 header" : "garbage follows its end",
        );
      }
      if (magic.length < 4) throw corrupt(CUT_OFF);
      if (level < 1 || level > 9) throw corrupt("its block size is not known");
      reader.consume(4);
      if (links.length < level * BLOCK_UNIT) links = new Uint32Array(level * BLOCK_UNIT);
      yield* decompressBlocks(reader, links.subarray(0, level * BLOCK_UNIT), pace);
      stream++;
    } while (!await reader.atEnd());
  } finally {
    await reader.close();
  }
}

/**
 * Cuts the source into blocks as bzip2 does: runs of 4 to 259 equal bytes become 4 and a count.
 */
async function* inRunLengthBlocks(
  source: AsyncIterable<Uint8Array>,
  options: CodecOptions,
  take: (size: number) => Uint8Array,
): AsyncGenerator<{ block: Uint8Array; crc: number }, void, void> {
  const size = options.level * BLOCK_UNIT - 19;
  const table = crcTable();
  let block = take(size + 5);
  let filled = 0;
  let crc = -1;
  let previous = -1;
  let run = 0;
  const iterator = source[Symbol.asyncIterator]();
  let finished = false;
  try {
    for (;;) {
      const next = await abortable(iterator.next(), options.signal);
      if (next.done) break;
      const chunk = next.value;
      for (let i = 0; i < chunk.length; i++) {
        const byte = chunk[i] as number;
        if (byte === previous && run < 259) {
          run++;
          if (run <= 4) block[filled++] = byte;
        } else {
          if (run >= 4) block[filled++] = run - 4;
          // Blocks end between two runs only.
          if (filled >= size - 4) {
            yield { block: block.subarray(0, filled), crc: ~crc };
            block = take(size + 5);
            filled = 0;
            crc = -1;
          }
          block[filled++] = byte;
          previous = byte;
          run = 1;
        }
        crc = (crc << 8) ^ (table[(crc >>> 24) ^ byte] as number);
      }
    }
    finished = true;
  } finally {
    if (!finished) {
      const closing = iterator.return?.();
      if (options.signal?.aborted) closing?.catch(() => undefined);
      else await closing;
    }
  }
  if (run >= 4) block[filled++] = run - 4;
  if (filled > 0) yield { block: block.subarray(0, filled), crc: ~crc };
}

/** Joins runs of bits; whole bytes come out, the rest waits. */
class BitJoiner {
  #waiting = 0;
  #count = 0;

  join(run: Bits): Uint8Array {
    const shift = this.#count;
    const total = shift + run.bits;
    const out = new Uint8Array((total + 7) >>> 3);
    const bytes = run.bytes;
    let carry = this.#waiting;
    for (let i = 0; i < bytes.length; i++) {
      const byte = bytes[i] as number;
      out[i] = carry | (byte >>> shift);
      carry = (byte << (8 - shift)) & 255;
    }
    if (out.length > bytes.length) out[bytes.length] = carry;
    const whole = total >>> 3;
    this.#count = total & 7;
    this.#waiting = this.#count > 0 ? (out[whole] as number) : 0;
    return out.subarray(0, whole);
  }

  rest(): Uint8Array {
    return this.#count > 0 ? Uint8Array.of(this.#waiting) : new Uint8Array(0);
  }
}

async function* decompressBlocks(
  reader: ByteReader,
  links: Uint32Array,
  pace: Pace,
): AsyncGenerator<Uint8Array, void, void> {
  const most = links.length;
  // A block's end is known only when it has been read: have as many bytes as it can take.
  const largest = Math.ceil(most * 20 / 8) + 32 * 1024;
  let offset = 0;
  let combined = 0;
  for (;;) {
    const bits = new BitReader(await reader.peek(largest), offset);
    const magic = bits.take(24) * 2 ** 24 + bits.take(24);
    const crc = (bits.take(16) << 16) | bits.take(16);
    if (bits.exhausted) throw corrupt(CUT_OFF);
    if (magic === 0x177245385090) {
      if (crc !== combined) throw corrupt("its CRC does not match");
      reader.consume((bits.position + 7) >>> 3);
      return;
    }
    if (magic !== 0x314159265359) throw corrupt("a block does not begin as it should");
    const block = decoded(bits, links);
    reader.consume(bits.position >>> 3);
    offset = bits.position & 7;
    combined = ((combined << 1) | (combined >>> 31)) ^ crc;
    yield* expand(block, crc);
    await pace.done(block.count + BLOCK_COST);
  }
}

function decoded(bits: BitReader, links: Uint32Array): DecodedBlock {
  try {
    return decodeBzip2Block(bits, links);
  } catch (error) {
    if (error instanceof BlockError) throw corrupt(error.message);
    throw error;
  }
}

/** Walks through a block, undoing the first run-length coding. */
function* expand(block: DecodedBlock, expected: number): Generator<Uint8Array, void, void> {
  const { links, count } = block;
  const table = crcTable();
  let at = block.start;
  let crc = -1;
  let previous = -1;
  let same = 0;
  let out = new Uint8Array(OUTPUT);
  let filled = 0;
  for (let i = 0; i < count; i++) {
    const entry = links[at] as number;
    const byte = entry & 255;
    at = entry >>> 8;
    if (same === 4) {
      for (let left = byte; left > 0; left--) {
        crc = (crc << 8) ^ (table[(crc >>> 24) ^ previous] as number);
        out[filled++] = previous;
      }
      same = 0;
      previous = -1;
    } else {
      same = byte === previous ? same + 1 : 1;
      previous = byte;
      crc = (crc << 8) ^ (table[(crc >>> 24) ^ byte] as number);
      out[filled++] = byte;
    }
    if (filled > OUTPUT - 256) {
      yield out.subarray(0, filled);
      out = new Uint8Array(OUTPUT);
      filled = 0;
    }
  }
  if (filled > 0) yield out.subarray(0, filled);
  if (~crc !== expected) throw corrupt("a block's CRC does not match");
}

let crcs: Int32Array | undefined;

/** CRC-32 with the most significant bit first, as only bzip2 has it. */
function crcTable(): Int32Array {
  if (crcs !== undefined) return crcs;
  crcs = new Int32Array(256);
  for (let n = 0; n < 256; n++) {
    let crc = n << 24;
    for (let bit = 0; bit < 8; bit++) crc = crc < 0 ? (crc << 1) ^ 0x04c11db7 : crc << 1;
    crcs[n] = crc;
  }
  return crcs;
}

function corrupt(reason: string): CorruptDataError {
  return new CorruptDataError("bzip2", reason);
}
