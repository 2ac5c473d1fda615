import { availableParallelism } from "node:os";
import { constants, createZstdCompress, createZstdDecompress, zstdCompress } from "node:zlib";
import { ByteReader, concat, inBlocks } from "./byte_reader.ts";
import { CorruptDataError } from "./corrupt_data_error.ts";
import type { CodecOptions, DecompressOptions } from "./table.ts";
import { INPUT_AT_ONCE, OUTPUT_AT_ONCE, throughZlib, type ZlibStream } from "./through_zlib.ts";

const MAGIC = 0xfd2fb528;
const SKIPPABLE = 0x184d2a50;
/** What the reference decoder allows without being asked for more: 128 MiB. */
const LARGEST_WINDOW = 2 ** 27;
const LARGEST_BLOCK = 128 * 1024;

/** Input for each thread at once, a job of the library's: a few threads wait for each other a fifth less with … */
const JOB = 1024 * 1024;
/** … than with the smallest that it takes, which saves the memory of many. */
const SMALL_JOB = 512 * 1024;
const FEW_THREADS = 4;
const FEW_THREADS_OF_SHORT = 2;
/** A segment of WAL, and more. Bytes. */
const SHORT = 64 * 1024 * 1024;
/** This thread can't feed more, and each takes some MiB. */
const MOST_THREADS = 8;

/**
 * Level 3, which base backups have when no level is given, with tables half as large, which stay in a core's second cache,
 * and a window of 1 MiB: an eighth less time for what is as large (text 0.3 % more, pgbench 0.3 % less).
 */
const OF_LEVEL_3 = {
  [constants.ZSTD_c_windowLog]: 20,
  [constants.ZSTD_c_hashLog]: 16,
  [constants.ZSTD_c_chainLog]: 15,
};

/**
 * Writes one Zstandard frame (RFC 8878), without content size, and as Barman without a checksum unless it is asked
 * for, on several threads where the runtime's library has them (Bun).
 */
export async function* compressZstd(
  source: AsyncIterable<Uint8Array>,
  options: CodecOptions,
): AsyncGenerator<Uint8Array, void, void> {
  const { signal, contentSize = Infinity } = options;
  const threads = Math.min(options.concurrency ?? availableParallelism(), MOST_THREADS);
  const isShort = contentSize <= SHORT;
  const job = threads <= (isShort ? FEW_THREADS_OF_SHORT : FEW_THREADS) ? JOB : SMALL_JOB;
  // Threads wait for each other at the end of what they are given: a sixth less with two jobs for each.
  const jobs = !isShort && threads <= 2 ? 2 * threads : threads;
  const size = Math.max(1, Math.min(jobs * job, contentSize));
  // One is compressed while the other is filled.
  const memory: Uint8Array[] = [];
  let taken = 0;
  const take = () => memory[taken++ % 2] ??= spareOf(size);
  const blocks = inBlocks(source, size, signal, take);
  let ahead = blocks.next();
  const next = async () => {
    const { done, value } = await ahead;
    if (done) return undefined;
    ahead = blocks.next();
    // A failure is seen when its turn comes.
    ahead.catch(() => undefined);
    return value;
  };
  try {
    const stream = compressor(options, contentSize > job ? threads : 1, job);
    yield* throughZlib(stream, next, (left) => {
      throw new Error(`Cannot compress: zstd left ${left.length} bytes`);
    }, options.reuse);
    // Not after a failure: the runtime's threads may still read there.
    spare = memory;
  } finally {
    // A source that is hanging in a read cannot be waited for once the signal is aborted.
    const closing = blocks.return();
    if (signal?.aborted) closing.catch(() => undefined);
    else await closing;
  }
}

/** What the last stream has left to the next: archives come one after the other, and it would be garbage otherwise. */
let spare: Uint8Array[] = [];

function spareOf(size: number): Uint8Array {
  const left = spare.pop();
  return left?.length === size ? left : new Uint8Array(size);
}

/** One frame of all that is in memory, made by the runtime's thread pool while this thread does something else. */
export function compressZstdAtOnce(bytes: Uint8Array, level: number): Promise<Uint8Array> {
  const params = { [constants.ZSTD_c_compressionLevel]: level };
  return new Promise((resolve, reject) => {
    zstdCompress(bytes, { params }, (error, frame) => error ? reject(error) : resolve(frame));
  });
}

/**
 * Reads Zstandard frames (RFC 8878) until the end of the stream. The frames and blocks are told
 * apart here, because the runtimes' decoders stay silent about data that is cut off and differ in
 * what they do after the first frame.
 */
export async function* decompressZstd(
  source: AsyncIterable<Uint8Array>,
  options: DecompressOptions = {},
): AsyncGenerator<Uint8Array, void, void> {
  const reader = new ByteReader("zstd", source, options.signal);
  try {
    let frame = 0;
    do {
      const magic = little(await reader.read(4));
      if (magic >= SKIPPABLE && magic <= SKIPPABLE + 15) {
        await reader.skip(little(await reader.read(4)));
      } else if (magic === MAGIC) {
        yield* decompressFrame(reader, options.reuse);
      } else {
        throw corrupt(
          frame === 0 ? "it does not begin with a zstd frame" : "garbage follows its end",
        );
      }
      frame++;
    } while (!await reader.atEnd());
  } finally {
    await reader.close();
  }
}

function compressor(
  { level, contentSize = Infinity, contentChecksum = false }: CodecOptions,
  threads: number,
  job: number,
): ZlibStream {
  const params = {
    [constants.ZSTD_c_compressionLevel]: level,
    ...(level === 3 ? OF_LEVEL_3 : {}),
    [constants.ZSTD_c_checksumFlag]: contentChecksum ? 1 : 0,
  };
  // Each chunk of a result takes a trip to another thread.
  const chunkSize = Math.min(job, Math.max(contentSize, LARGEST_BLOCK));
  if (threads > 1 && multithreaded !== false) {
    try {
      const stream = createZstdCompress({
        params: {
          ...params,
          [constants.ZSTD_c_nbWorkers]: threads,
          [constants.ZSTD_c_jobSize]: job,
        },
        chunkSize,
        // Each write waits for all of its jobs. Without, the library may leave a part of what it is given for later,
        // which the runtimes take for the end of the stream: most of the data would be missing.
        flush: constants.ZSTD_e_flush,
      });
      return stream as ZlibStream;
    } catch {
      // Deno's library has no threads.
      multithreaded = false;
    }
  }
  return createZstdCompress({ params, chunkSize }) as ZlibStream;
}

let multithreaded: boolean | undefined;

async function* decompressFrame(
  reader: ByteReader,
  reuse: boolean | undefined,
): AsyncGenerator<Uint8Array, void, void> {
  const header = await readFrameHeader(reader);
  let lost: { error: unknown } | undefined;
  let last = false;
  let first = true;
  const next = async (): Promise<Uint8Array | undefined> => {
    if (last) return undefined;
    try {
      const pieces = first ? [header.bytes] : [];
      first = false;
      let length = 0;
      while (!last && length < INPUT_AT_ONCE) {
        const blockHeader = await reader.read(3);
        const bits = little(blockHeader);
        const kind = (bits >>> 1) & 3;
        const size = bits >>> 3;
        if (kind === 3) throw corrupt("a block is of an unknown kind");
        if (size > header.largestBlock) throw corrupt("a block is too large");
        const content = await reader.read(kind === 1 ? 1 : size);
        pieces.push(blockHeader, content);
        length += 3 + content.length;
        last = (bits & 1) === 1;
      }
      if (last && header.checksum) pieces.push(await reader.read(4));
      return concat(pieces);
    } catch (error) {
      lost = { error };
      throw error;
    }
  };
  const stream = createZstdDecompress({ chunkSize: OUTPUT_AT_ONCE }) as ZlibStream;
  let size = 0;
  let unused = 0;
  try {
    const rest = (bytes: Uint8Array) => unused += bytes.length;
    for await (const chunk of throughZlib(stream, next, rest, reuse)) {
      size += chunk.length;
      yield chunk;
    }
  } catch (error) {
    if (lost !== undefined) throw lost.error;
    if (!(error instanceof Error)) throw error;
    // Bun gives a code, Deno only the words; the decoder fails for no other reason but memory.
    const code = "code" in error ? String(error.code ?? "") : "";
    if (/^(?!ZSTD_error_)./.test(code) || /memory/i.test(`${code} ${error.message}`)) throw error;
    throw corrupt(error.message, error);
  }
  if (unused > 0) throw corrupt("its frame ends too early");
  if (header.contentSize !== undefined && header.contentSize !== BigInt(size)) {
    throw corrupt("its size does not match");
  }
}

interface FrameHeader {
  /** Magic number included. */
  bytes: Uint8Array;
  contentSize: bigint | undefined;
  checksum: boolean;
  largestBlock: number;
}

async function readFrameHeader(reader: ByteReader): Promise<FrameHeader> {
  const [descriptor = 0] = await reader.peek(1);
  const singleSegment = (descriptor & 0x20) !== 0;
  const dictionaryBytes = [0, 1, 2, 4][descriptor & 3] ?? 0;
  const sizeBytes = [singleSegment ? 1 : 0, 2, 4, 8][descriptor >>> 6] ?? 0;
  const rest = await reader.read(1 + (singleSegment ? 0 : 1) + dictionaryBytes + sizeBytes);
  if (descriptor & 8) throw corrupt("a reserved header bit is set");

  let at = 1;
  let window = 0;
  if (!singleSegment) {
    const bits = rest[at++] ?? 0;
    const base = 2 ** (10 + (bits >>> 3));
    window = base + base / 8 * (bits & 7);
  }
  for (const byte of rest.subarray(at, at + dictionaryBytes)) {
    if (byte !== 0) throw corrupt("it needs a dictionary");
  }
  at += dictionaryBytes;
  let contentSize: bigint | undefined;
  if (sizeBytes > 0) {
    contentSize = 0n;
    for (let i = sizeBytes - 1; i >= 0; i--) {
      contentSize = contentSize << 8n | BigInt(rest[at + i] ?? 0);
    }
    if (sizeBytes === 2) contentSize += 256n;
    if (singleSegment) window = Number(contentSize);
  }
  if (window > LARGEST_WINDOW) {
    throw corrupt(
      `it needs a window of ${window} bytes, more than ${LARGEST_WINDOW} are not supported`,
    );
  }
  return {
    bytes: concat([Uint8Array.of(0x28, 0xb5, 0x2f, 0xfd), rest]),
    contentSize,
    checksum: (descriptor & 4) !== 0,
    largestBlock: LARGEST_BLOCK,
  };
}

function little(bytes: Uint8Array): number {
  let value = 0;
  for (let i = bytes.length - 1; i >= 0; i--) value = value * 256 + (bytes[i] ?? 0);
  return value;
}

function corrupt(reason: string, cause?: unknown): CorruptDataError {
  return new CorruptDataError("zstd", reason, cause === undefined ? undefined : { cause });
}
