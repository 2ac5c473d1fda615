import { availableParallelism } from "node:os";
import { constants, crc32, createInflateRaw, deflateRaw } from "node:zlib";
import { abortable, ByteReader, CUT_OFF, inBlocks } from "./byte_reader.ts";
import { CorruptDataError } from "./corrupt_data_error.ts";
import type { CodecOptions, DecompressOptions } from "./table.ts";
import { INPUT_AT_ONCE, OUTPUT_AT_ONCE, throughZlib, type ZlibStream } from "./through_zlib.ts";

const BLOCK = 512 * 1024;
const WINDOW = 32 * 1024;

/**
 * Writes one gzip member (RFC 1952). Its data is deflated in blocks at the same time on the
 * runtime's thread pool; each ends with a sync flush, so that joined they are one deflate stream.
 */
export async function* compressGzip(
  source: AsyncIterable<Uint8Array>,
  options: CodecOptions,
): AsyncGenerator<Uint8Array, void, void> {
  const { level, signal } = options;
  const atOnce = Math.max(1, options.concurrency ?? availableParallelism());
  const underWay: { block: Uint8Array; deflating: Promise<Uint8Array> }[] = [];
  // Blocks are used again: what is left to the garbage collector stays in memory for long.
  const free: Uint8Array[] = [];
  const take = (bytes: number) => free.pop() ?? new Uint8Array(bytes);
  // The end of a block is the window of the next, so it is free only when that one is done.
  let done: Uint8Array | undefined;
  const next = async (): Promise<Uint8Array> => {
    const first = underWay.shift();
    if (first === undefined) throw new RangeError("The queue of gzip blocks is empty");
    const packed = await abortable(first.deflating, signal);
    if (done !== undefined && done.byteLength === BLOCK) free.push(done);
    done = first.block;
    return packed;
  };
  let checksum = 0;
  let size = 0;
  let window: Uint8Array | undefined;

  yield header(level, options.modifiedAt ?? new Date());
  for await (const block of inBlocks(source, BLOCK, signal, take)) {
    const deflating = deflateBlock(block, level, window);
    // Its failure is seen when its turn comes; until then, or when nobody reads on, it is no crash.
    deflating.catch(() => undefined);
    underWay.push({ block, deflating });
    checksum = crc32(block, checksum);
    size += block.length;
    window = block.subarray(-WINDOW);
    if (underWay.length >= atOnce) yield await next();
  }
  while (underWay.length > 0) yield await next();

  const end = new Uint8Array(10);
  end[0] = 3; // An empty last block, in the fixed code.
  const view = new DataView(end.buffer);
  view.setUint32(2, checksum, true);
  view.setUint32(6, size % 2 ** 32, true);
  yield end;
}

/** Reads gzip members (RFC 1952) until the end of the stream. */
export async function* decompressGzip(
  source: AsyncIterable<Uint8Array>,
  options: DecompressOptions = {},
): AsyncGenerator<Uint8Array, void, void> {
  const reader = new ByteReader("gzip", source, options.signal);
  try {
    let member = 0;
    do {
      await readHeader(reader, member++);
      let checksum = 0;
      let size = 0;
      for await (const chunk of inflate(reader)) {
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
  dictionary: Uint8Array | undefined,
): Promise<Uint8Array> {
  return new Promise((resolve, reject) => {
    deflateRaw(block, {
      level,
      // Matches may reach back into the block before (Deno takes no dictionary here and does without).
      ...(dictionary === undefined ? {} : { dictionary }),
      finishFlush: constants.Z_SYNC_FLUSH,
      chunkSize: 128 * 1024,
    }, (error, result) => error ? reject(error) : resolve(result));
  });
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

async function* inflate(reader: ByteReader): AsyncGenerator<Uint8Array, void, void> {
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
    yield* throughZlib(stream, next, (unused) => reader.putBack(unused));
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
