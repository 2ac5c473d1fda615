import { Buffer } from "node:buffer";
import { availableParallelism } from "node:os";
import { constants, crc32, createInflateRaw, deflateRaw, inflateRaw, type Zlib } from "node:zlib";
import { abortable, ByteReader, concat, CUT_OFF, inBlocks } from "./byte_reader.ts";
import { CorruptDataError } from "./corrupt_data_error.ts";
import type { CodecOptions, DecompressOptions } from "./table.ts";
import {
  giveBack,
  INPUT_AT_ONCE,
  OUTPUT_AT_ONCE,
  plain,
  throughZlib,
  type ZlibStream,
} from "./through_zlib.ts";

const BLOCK = 1024 * 1024;
/** Blocks at the same time: this thread can't feed more, and each takes some MiB. */
const MOST_AT_ONCE = 16;
/** Of a segment of WAL, and more, blocks are smaller, which takes 6 MiB less. Bytes. */
const SHORT = 64 * 1024 * 1024;
const BLOCK_OF_SHORT = 512 * 1024;
const WINDOW = 32 * 1024;

/** An empty block that is stored, from one whole byte to the next (RFC 1951, 3.2.4). */
const EMPTY_BLOCK = Uint8Array.of(0, 0, 0, 0xff, 0xff);
/**
 * What our data begins with. It says nothing to others; `decompressGzip` looks for `MARK` in it, by which data in
 * independent blocks can be inflated by several threads.
 */
const OPENING = Uint8Array.from([...EMPTY_BLOCK, ...EMPTY_BLOCK]);
/** The end of a sync flush, and one more empty block: nothing behind it refers to what is before. */
const MARK = Uint8Array.from([...EMPTY_BLOCK.subarray(1), ...EMPTY_BLOCK]);
/** An empty last block. */
const LAST_BLOCK = Uint8Array.of(1, ...EMPTY_BLOCK.subarray(1));
/** A block deflated, at most, with its mark: level 1 gives no byte more than nine bits, others store what does not get smaller. */
const DEFLATED = BLOCK + BLOCK / 8 + 4096;
const PIECE = DEFLATED + LAST_BLOCK.length;

/**
 * Writes one gzip member (RFC 1952). Its data is deflated in independent blocks at the same time on the runtime's thread
 * pool; each ends with a sync flush, so that joined they are one deflate stream. A dictionary for each, the end of the
 * one before, would save 0.3 %, take a tenth longer, and leave only one thread to inflate.
 */
export async function* compressGzip(
  source: AsyncIterable<Uint8Array>,
  options: CodecOptions,
): AsyncGenerator<Uint8Array, void, void> {
  const { level, reuse = false, signal, contentSize = Infinity } = options;
  const blockSize = contentSize > SHORT ? BLOCK : BLOCK_OF_SHORT;
  // Most blocks are not larger, deflated.
  const chunkSize = blockSize / 2;
  const wanted = options.concurrency ?? availableParallelism();
  const atOnce = Math.min(MOST_AT_ONCE, Math.max(1, wanted));
  const underWay: { block: Uint8Array; deflating: Promise<Uint8Array<ArrayBuffer>> }[] = [];
  // Blocks are used again: what is left to the garbage collector stays in memory for long.
  const free: Uint8Array[] = [];
  const take = (bytes: number) => free.pop() ?? new Uint8Array(bytes);
  const next = async function* () {
    const first = underWay.shift();
    if (first === undefined) throw new RangeError("The queue of gzip blocks is empty");
    const deflated = await abortable(first.deflating, signal);
    if (first.block.byteLength === blockSize) free.push(first.block);
    yield deflated;
    if (reuse) giveBack(deflated);
  };
  let checksum = 0;
  let size = 0;

  yield concat([header(level, options.modifiedAt ?? new Date()), OPENING]);
  for await (const block of inBlocks(source, blockSize, signal, take)) {
    const deflating = deflateBlock(block, level, chunkSize)
      .then((deflated) => marked(deflated, reuse ? chunkSize : null));
    // Its failure is seen when its turn comes; until then, or when nobody reads on, it is no crash.
    deflating.catch(() => undefined);
    underWay.push({ block, deflating });
    checksum = crc32(block, checksum);
    size += block.length;
    if (underWay.length >= atOnce) yield* next();
  }
  while (underWay.length > 0) yield* next();

  const end = new Uint8Array(10);
  end[0] = 3; // An empty last block, in the fixed code.
  const view = new DataView(end.buffer);
  view.setUint32(2, checksum, true);
  view.setUint32(6, size % 2 ** 32, true);
  yield end;
}

/** Reads gzip members (RFC 1952) until the end of the stream, with several threads what `compressGzip` wrote. */
export async function* decompressGzip(
  source: AsyncIterable<Uint8Array>,
  options: DecompressOptions = {},
): AsyncGenerator<Uint8Array, void, void> {
  const reader = new ByteReader("gzip", source, options.signal);
  try {
    let member = 0;
    do {
      await readHeader(reader, member);
      let checksum = 0;
      let size = 0;
      // We write one. Many small ones would take far longer with several threads.
      const threads = member++ === 0 ? options.threads : 0;
      for await (const chunk of inflate(reader, { ...options, threads })) {
        checksum = crc32(chunk, checksum);
        size += chunk.length;
        yield chunk;
      }
      const trailer = await reader.read(8);
      const view = new DataView(trailer.buffer, trailer.byteOffset, 8);
      if (view.getUint32(0, true) !== checksum) throw corrupt("its CRC-32 does not match");
      if (view.getUint32(4, true) !== size % 2 ** 32) throw corrupt("its size does not match");
    } while (!await reader.atEnd());
  } finally {
    await reader.close();
  }
}

function header(level: number, modifiedAt: Date): Uint8Array {
  const bytes = Uint8Array.of(
    0x1f,
    0x8b,
    8,
    0,
    0,
    0,
    0,
    0,
    level === 9 ? 2 : level === 1 ? 4 : 0,
    255,
  );
  new DataView(bytes.buffer).setUint32(4, Math.floor(modifiedAt.getTime() / 1000), true);
  return bytes;
}

function deflateBlock(
  block: Uint8Array,
  level: number,
  chunkSize: number,
): Promise<Uint8Array<ArrayBuffer>> {
  return new Promise((resolve, reject) => {
    deflateRaw(block, {
      level,
      finishFlush: constants.Z_SYNC_FLUSH,
      chunkSize,
    }, (error, result) => error ? reject(error) : resolve(plain(result)));
  });
}

/**
 * With an empty block behind it: in what is left of the memory that zlib was given, which holds nothing else, or copied where
 * nothing is left, or the memory is not to be kept.
 * @param given bytes of that memory; null when the result is kept. Memory of another size may be others', too
 */
function marked(deflated: Uint8Array<ArrayBuffer>, given: number | null): Uint8Array<ArrayBuffer> {
  const { buffer, byteOffset, length } = deflated;
  const whole = length + EMPTY_BLOCK.length;
  if (buffer.byteLength !== given || byteOffset + whole > given) {
    const copy = concat([deflated, EMPTY_BLOCK]);
    giveBack(deflated);
    return copy;
  }
  const extended = new Uint8Array(buffer, byteOffset, whole);
  extended.set(EMPTY_BLOCK, length);
  return extended;
}

async function readHeader(reader: ByteReader, member: number): Promise<void> {
  const fixed = await reader.peek(10);
  if (fixed.length === 0) throw corrupt(CUT_OFF);
  if (fixed[0] !== 0x1f || (fixed.length > 1 && fixed[1] !== 0x8b)) {
    throw corrupt(
      member === 0 ? "it does not begin with a gzip header" : "garbage follows its end",
    );
  }
  if (fixed.length < 10) throw corrupt(CUT_OFF);
  reader.consume(10);
  if (fixed[2] !== 8) throw corrupt(`compression method ${fixed[2]} is not known`);
  const flags = fixed[3] ?? 0;
  if (flags & 0xe0) throw corrupt("reserved header flags are set");
  let checksum = crc32(fixed);
  if (flags & 4) {
    const lengthBytes = await reader.read(2);
    const extra = await reader.read((lengthBytes[0] ?? 0) | ((lengthBytes[1] ?? 0) << 8));
    checksum = crc32(extra, crc32(lengthBytes, checksum));
  }
  if (flags & 8) checksum = await skipText(reader, checksum);
  if (flags & 16) checksum = await skipText(reader, checksum);
  if (flags & 2) {
    const [low = 0, high = 0] = await reader.read(2);
    if ((low | (high << 8)) !== (checksum & 0xffff)) throw corrupt("its header CRC does not match");
  }
}

/** Passes over a file name or comment, which ends with a zero byte and may be empty. */
async function skipText(reader: ByteReader, checksum: number): Promise<number> {
  for (let length = 0; length <= 65536;) {
    const bytes = await reader.take();
    if (bytes === undefined) throw corrupt(CUT_OFF);
    const end = bytes.indexOf(0);
    const text = end < 0 ? bytes : bytes.subarray(0, end + 1);
    checksum = crc32(text, checksum);
    if (end >= 0) {
      reader.putBack(bytes.subarray(end + 1));
      return checksum;
    }
    length += text.length;
  }
  throw corrupt("the file name in its header does not end");
}

async function* inflate(
  reader: ByteReader,
  options: DecompressOptions,
): AsyncGenerator<Uint8Array, void, void> {
  let known = 0;
  if ((options.threads ?? 0) > 1) {
    const opening = await reader.peek(OPENING.length);
    if (Buffer.compare(opening, OPENING) === 0) {
      reader.consume(OPENING.length);
      const window = yield* inflatePieces(reader, options);
      reader.putBack(storedBlock(window));
      known = window.length;
    }
  }
  for await (const chunk of inflateAll(reader, options)) {
    const old = Math.min(known, chunk.length);
    known -= old;
    if (old < chunk.length) yield chunk.subarray(old);
  }
}

/**
 * Inflates what is between marks, several pieces at the same time, as long as each proves to be what `compressGzip` makes:
 * content, and the data of others, may hold what looks like a mark.
 * @returns the last of what was yielded, 32 KiB at most, to which what comes next may refer
 */
async function* inflatePieces(
  reader: ByteReader,
  { threads = 1, reuse = false, signal }: DecompressOptions,
): AsyncGenerator<Uint8Array, Uint8Array, void> {
  const underWay: {
    deflated: Uint8Array;
    inflating: Promise<Uint8Array<ArrayBuffer> | undefined>;
  }[] = [];
  const free: Uint8Array[] = [];
  let window: Uint8Array = new Uint8Array(0);
  let more = true;
  for (;;) {
    while (more && underWay.length < threads) {
      const deflated = await nextPiece(reader, free.pop() ?? new Uint8Array(PIECE));
      if (deflated === undefined) {
        more = false;
        break;
      }
      const inflating = inflatePiece(deflated);
      // Its failure is seen when its turn comes, if it does.
      inflating.catch(() => undefined);
      underWay.push({ deflated, inflating });
    }
    const first = underWay.shift();
    if (first === undefined) return window;
    const inflated = await abortable(first.inflating, signal);
    if (inflated === undefined) {
      const pieces = [first, ...underWay];
      reader.putBack(concat(pieces.map((piece) => piece.deflated.subarray(0, -LAST_BLOCK.length))));
      return window;
    }
    free.push(new Uint8Array(first.deflated.buffer));
    // Of ours only the last one is; many small ones would take far longer than in sequence.
    if (inflated.length < BLOCK_OF_SHORT) more = false;
    window = (inflated.length < WINDOW ? concat([window, inflated]) : inflated).slice(-WINDOW);
    yield inflated;
    if (reuse) giveBack(inflated);
  }
}

/**
 * What is up to the next mark, and a last block. Undefined when there is no mark where there should be one: then nothing was
 * read.
 */
async function nextPiece(reader: ByteReader, memory: Uint8Array): Promise<Uint8Array | undefined> {
  const bytes = Buffer.from(memory.buffer);
  let filled = 0;
  while (filled < DEFLATED) {
    const some = await reader.take(DEFLATED - filled);
    if (some === undefined) break;
    bytes.set(some, filled);
    const found = bytes.subarray(0, filled + some.length).indexOf(
      MARK,
      Math.max(0, filled - MARK.length),
    );
    filled += some.length;
    if (found >= 0) {
      const end = found + MARK.length;
      reader.putBack(some.subarray(some.length - (filled - end)));
      bytes.set(LAST_BLOCK, end);
      return memory.subarray(0, end + LAST_BLOCK.length);
    }
  }
  reader.putBack(memory.slice(0, filled));
  return undefined;
}

/**
 * Undefined unless these are whole blocks that refer to nothing before them: only at the end of a block is the last one,
 * which is behind them, taken for a block, and the whole of it used. (A bit or two before it, its bytes would be the end of
 * another one, with some left.) What is wrong, if anything is, is found out when the same is inflated in sequence.
 *
 * A last block with a mark in it could end with those bytes as its content. Of ours none has any; where it is stored, that is
 * looked at; in a code that somebody made for it, the CRC-32 tells.
 */
function inflatePiece(deflated: Uint8Array): Promise<Uint8Array<ArrayBuffer> | undefined> {
  return new Promise((resolve) => {
    // One byte more than comes out, or zlib would ask for another chunk.
    const options = { info: true, maxOutputLength: BLOCK, chunkSize: BLOCK + 1 };
    inflateRaw(deflated, options, (error, result) => {
      if (error) return resolve(undefined);
      // With `info`, Node gives both.
      const { buffer, engine } = result as unknown as {
        buffer: Buffer;
        engine: Zlib;
      };
      const isContent = Buffer.compare(buffer.subarray(-LAST_BLOCK.length), LAST_BLOCK) === 0;
      const isWhole = engine.bytesWritten === deflated.length && !isContent;
      resolve(isWhole ? plain(buffer) : undefined);
    });
  });
}

/** A block (RFC 1951, 3.2.4) that inflates to what blocks behind it may refer to: Deno takes no dictionary. */
function storedBlock(window: Uint8Array): Uint8Array {
  const block = new Uint8Array(EMPTY_BLOCK.length + window.length);
  const view = new DataView(block.buffer);
  view.setUint16(1, window.length, true);
  view.setUint16(3, ~window.length, true);
  block.set(window, EMPTY_BLOCK.length);
  return block;
}

/** Inflates in sequence, to the end of the last block. */
async function* inflateAll(
  reader: ByteReader,
  { reuse }: DecompressOptions,
): AsyncGenerator<Uint8Array, void, void> {
  const stream = createInflateRaw({ chunkSize: OUTPUT_AT_ONCE }) as ZlibStream;
  let sourceFailed = false;
  const next = async () => {
    try {
      const bytes = await reader.peek(INPUT_AT_ONCE);
      reader.consume(bytes.length);
      return bytes.length > 0 ? bytes : undefined;
    } catch (error) {
      sourceFailed = true;
      throw error;
    }
  };
  try {
    yield* throughZlib(stream, next, (unused) => reader.putBack(unused), reuse);
  } catch (error) {
    if (sourceFailed || !(error instanceof Error)) throw error;
    const code = "code" in error ? error.code : undefined;
    if (code === "Z_BUF_ERROR") throw corrupt(CUT_OFF, error);
    if (code === "Z_DATA_ERROR") throw corrupt(error.message, error);
    throw error;
  }
}

function corrupt(reason: string, cause?: unknown): CorruptDataError {
  return new CorruptDataError("gzip", reason, cause === undefined ? undefined : { cause });
}
