import { crc32 } from "node:zlib";
import { abortable, ByteReader, concat, createPace, CUT_OFF } from "./byte_reader.ts";
import { type Bits, BitWriter } from "./bzip2_encoder.ts";
import { findMarks, LARGEST_BLOCK, type Mark, MARK_BITS } from "./bzip2_marks.ts";
import { CorruptDataError } from "./corrupt_data_error.ts";
import { inPieces } from "./in_pieces.ts";
import type { Piece } from "./pieces.ts";
import type { CodecOptions, DecompressOptions } from "./table.ts";
import { WORTH_A_THREAD } from "./worker_files.ts";

const BLOCK_UNIT = 100_000;
/** Bytes of a stream's header: `BZh` and a digit. */
const HEADER = 4;
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

/**
 * Reads bzip2 streams until the end of the data. Where blocks begin is found before they are decoded, so that several can
 * be decoded at the same time.
 */
export async function* decompressBzip2(
  source: AsyncIterable<Uint8Array>,
  { threads = 0, reuse = false, signal }: DecompressOptions = {},
): AsyncGenerator<Uint8Array, void, void> {
  const reader = new ByteReader("bzip2", source, signal);
  const memory = reuse ? new Uint8Array(OUTPUT) : undefined;
  const pace = createPace(signal);
  const streams = new Streams();
  // Of the pieces under way.
  const marks: Mark[] = [];
  let length = 0;
  const pieces = async function* (take: (size: number) => Uint8Array): AsyncGenerator<Piece> {
    const found = findMarks(reader, HEADER);
    for (;;) {
      const { done, value } = await found.next();
      if (done === true) {
        length = value;
        return;
      }
      const { bytes, ...mark } = value;
      // Or someone could fill a block with what looks like others, for us to decode.
      if (streams.isInside(mark)) continue;
      const input = take(LARGEST_BLOCK).subarray(0, bytes.length);
      input.set(bytes);
      marks.push(mark);
      if (mark.isEnd) yield { codec: "stored", input };
      else yield { codec: "bzip2-block", offset: mark.position & 7, input };
    }
  };
  try {
    const isShort = (await reader.peek(WORTH_A_THREAD)).length < WORTH_A_THREAD;
    streams.begin(await reader.peek(HEADER));
    reader.consume(HEADER);
    const workers = isShort ? 0 : Math.min(threads, MOST_WORKERS);
    for await (const { bytes, bits, problem } of inPieces(pieces, { workers, signal })) {
      const mark = marks.shift() as Mark;
      if (!streams.comesTo(mark)) continue;
      if (mark.isEnd) {
        streams.end(mark, bytes);
        continue;
      }
      if (problem !== undefined) throw corrupt(problem);
      streams.block(mark, bytes.length, bits);
      yield* expand(bytes, mark.crc, memory);
      await pace.done(bytes.length + BLOCK_COST);
    }
    streams.finish(length);
  } finally {
    await reader.close();
  }
}

/** The order that blocks and streams have to come in. */
class Streams {
  /** Bits of the source before what has to come next. */
  #next = 8 * HEADER;
  #count = 0;
  #mostInBlock = 0;
  #combined = 0;
  #ended = false;

  /** @param header of a stream, or what is there instead */
  begin(header: Uint8Array): void {
    const level = (header[3] ?? 0) - 0x30;
    if ([0x42, 0x5a, 0x68].some((byte, i) => i < header.length && header[i] !== byte)) {
      throw corrupt(
        this.#count === 0 ? "it does not begin with a bzip2 header" : "garbage follows its end",
      );
    }
    if (header.length < HEADER) throw corrupt(CUT_OFF);
    if (level < 1 || level > 9) throw corrupt("its block size is not known");
    this.#count++;
    this.#mostInBlock = level * BLOCK_UNIT;
    this.#combined = 0;
  }

  /** Whether it is known to be part of a block, and no mark. */
  isInside({ position }: Mark): boolean {
    return position < this.#next;
  }

  /** Whether a mark that was found is one. @throws when it is, but something else had to come before */
  comesTo(mark: Mark): boolean {
    if (mark.position > this.#next) throw corrupt("a block does not begin as it should");
    return !this.isInside(mark);
  }

  /** @param end behind so many bits, from the byte on that the mark begins in */
  block({ position, crc }: Mark, count: number, end: number): void {
    if (count > this.#mostInBlock) throw corrupt("a block is too long");
    this.#combined = ((this.#combined << 1) | (this.#combined >>> 31)) ^ (crc ?? 0);
    this.#next = position - (position & 7) + end;
  }

  /** @param bytes from the one on that the mark begins in, with what may be the next stream's header */
  end({ position, crc }: Mark, bytes: Uint8Array): void {
    if (crc === undefined) throw corrupt(CUT_OFF);
    if (crc !== this.#combined) throw corrupt("its CRC does not match");
    const behind = ((position & 7) + MARK_BITS + 7) >>> 3;
    const header = bytes.subarray(behind, behind + HEADER);
    if (header.length === 0) {
      this.#ended = true;
      return;
    }
    this.begin(header);
    this.#next = position - (position & 7) + 8 * (behind + HEADER);
  }

  /** @param length of all, in bits */
  finish(length: number): void {
    if (this.#ended) return;
    throw corrupt(
      length - this.#next < MARK_BITS ? CUT_OFF : "a block does not begin as it should",
    );
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
  let block = take(size + 5);
  let filled = 0;
  let sum = new BlockSum();
  let previous = -1;
  let run = 0;
  const iterator = source[Symbol.asyncIterator]();
  let finished = false;
  try {
    for (;;) {
      const next = await abortable(iterator.next(), options.signal);
      if (next.done) break;
      const chunk = next.value;
      // Up to there the bytes are in the sum.
      let summed = 0;
      for (let i = 0; i < chunk.length; i++) {
        const byte = chunk[i] as number;
        if (byte === previous && run < 259) {
          run++;
          if (run <= 4) block[filled++] = byte;
        } else {
          if (run >= 4) block[filled++] = run - 4;
          // Blocks end between two runs only.
          if (filled >= size - 4) {
            sum.update(chunk.subarray(summed, i));
            summed = i;
            yield { block: block.subarray(0, filled), crc: sum.value };
            block = take(size + 5);
            filled = 0;
            sum = new BlockSum();
          }
          block[filled++] = byte;
          previous = byte;
          run = 1;
        }
      }
      sum.update(chunk.subarray(summed));
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
  if (filled > 0) yield { block: block.subarray(0, filled), crc: sum.value };
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

/**
 * Undoes the first run-length coding of a block's bytes.
 * @param memory for all that it gives; new memory for each when undefined
 */
function* expand(
  bytes: Uint8Array,
  expected: number | undefined,
  memory: Uint8Array | undefined,
): Generator<Uint8Array, void, void> {
  const sum = new BlockSum();
  let previous = -1;
  let same = 0;
  let out = memory ?? new Uint8Array(OUTPUT);
  let filled = 0;
  for (let i = 0; i < bytes.length;) {
    const byte = bytes[i++] as number;
    out[filled++] = byte;
    if (byte !== previous) {
      previous = byte;
      same = 1;
    } else if (++same === 4) {
      const more = bytes[i++] ?? 0;
      out.fill(byte, filled, filled + more);
      filled += more;
      previous = -1;
    }
    if (filled > OUTPUT - 256) {
      const full = out.subarray(0, filled);
      sum.update(full);
      yield full;
      out = memory ?? new Uint8Array(OUTPUT);
      filled = 0;
    }
  }
  const rest = out.subarray(0, filled);
  sum.update(rest);
  if (filled > 0) yield rest;
  if (sum.value !== expected) throw corrupt("a block's CRC does not match");
}

/**
 * bzip2's CRC-32 has the most significant bit first: that of zlib, which the processor helps with, of bytes whose bits are
 * reversed, is the same reversed.
 */
class BlockSum {
  #crc = 0;

  update(bytes: Uint8Array): void {
    for (let from = 0; from < bytes.length; from += SCRATCH.length) {
      const part = bytes.subarray(from, from + SCRATCH.length);
      for (let i = 0; i < part.length; i++) SCRATCH[i] = REVERSED[part[i] as number] as number;
      this.#crc = crc32(SCRATCH.subarray(0, part.length), this.#crc);
    }
  }

  /** Signed. */
  get value(): number {
    let value = 0;
    for (let shift = 0; shift < 32; shift += 8) {
      value = (value << 8) | (REVERSED[(this.#crc >>> shift) & 255] as number);
    }
    return value;
  }
}

/** For one update at a time. */
const SCRATCH = new Uint8Array(32 * 1024);

/** Bytes with their bits in reverse. */
const REVERSED = Uint8Array.from({ length: 256 }, (_, byte) => {
  let reversed = 0;
  for (let bit = 0; bit < 8; bit++) reversed |= ((byte >>> bit) & 1) << (7 - bit);
  return reversed;
});

function corrupt(reason: string): CorruptDataError {
  return new CorruptDataError("bzip2", reason);
}
