import { Blocks } from "./blocks.ts";
import { ByteReader, concat } from "./byte_reader.ts";
import { XxHash32, xxHash32 } from "./checksums.ts";
import { CorruptDataError } from "./corrupt_data_error.ts";
import type { CodecOptions, DecompressOptions } from "./table.ts";
import { throughBlocks } from "./through_blocks.ts";

const MAGIC = 0x184d2204;
const SKIPPABLE = 0x184d2a50;
const RAW = 0x80000000;

/**
 * Writes one LZ4 frame as Barman does: linked blocks of 64 KiB, the content size if that is known, and no checksum
 * unless it is asked for.
 */
export async function* compressLz4(
  source: AsyncIterable<Uint8Array>,
  options: CodecOptions,
): AsyncGenerator<Uint8Array, void, void> {
  const { level, contentSize } = options;
  const sum = options.contentChecksum === true ? new XxHash32() : undefined;
  yield frameHeader(contentSize, sum !== undefined);
  yield* throughBlocks(source, (input) => {
    sum?.update(input);
    return { codec: "lz4", level, input };
  }, options);
  yield sizeField(0);
  if (sum !== undefined) yield sizeField(sum.digest());
}

/** Reads LZ4 frames, with linked or independent blocks, until the end of the stream. */
export async function* decompressLz4(
  source: AsyncIterable<Uint8Array>,
  options: DecompressOptions = {},
): AsyncGenerator<Uint8Array, void, void> {
  const reader = new ByteReader("lz4", source, options.signal);
  const blocks = new Blocks();
  try {
    let frame = 0;
    do {
      const magic = little32(await reader.read(4), 0);
      if (magic >= SKIPPABLE && magic <= SKIPPABLE + 15) {
        await reader.skip(little32(await reader.read(4), 0));
      } else if (magic === MAGIC) {
        yield* decompressFrame(reader, blocks, options.reuse === true);
      } else {
        throw corrupt(
          frame === 0 ? "it does not begin with an LZ4 frame" : "garbage follows its end",
        );
      }
      frame++;
    } while (!await reader.atEnd());
  } finally {
    await reader.close();
  }
}

function frameHeader(contentSize: number | undefined, hasChecksum: boolean): Uint8Array {
  const descriptor = new Uint8Array(contentSize === undefined ? 2 : 10);
  // Version 1, linked blocks; 64 KiB at most.
  descriptor[0] = 0x40 | (contentSize === undefined ? 0 : 0x08) | (hasChecksum ? 0x04 : 0);
  descriptor[1] = 0x40;
  if (contentSize !== undefined) {
    new DataView(descriptor.buffer).setBigUint64(2, BigInt(contentSize), true);
  }
  return concat([
    Uint8Array.of(0x04, 0x22, 0x4d, 0x18),
    descriptor,
    Uint8Array.of((xxHash32(descriptor) >>> 8) & 255),
  ]);
}

interface Frame {
  linked: boolean;
  blockChecksums: boolean;
  contentChecksum: boolean;
  contentSize: bigint | undefined;
  largestBlock: number;
}

async function* decompressFrame(
  reader: ByteReader,
  blocks: Blocks,
  reuse: boolean,
): AsyncGenerator<Uint8Array, void, void> {
  const frame = await readDescriptor(reader);
  blocks.beginLz4Frame(frame.largestBlock);
  const checksum = new XxHash32(blocks);
  let size = 0;
  for (;;) {
    const field = little32(await reader.read(4), 0);
    if (field === 0) break;
    const length = field % RAW;
    if (length > frame.largestBlock) throw corrupt("a block is too large");
    const block = await reader.read(length);
    if (frame.blockChecksums && xxHash32(block) !== little32(await reader.read(4), 0)) {
      throw corrupt("a block's checksum does not match");
    }

    const content = blocks.decompressLz4(block, { stored: field >= RAW, linked: frame.linked });
    if (content === undefined) throw corrupt("a block is damaged");
    if (content.length === 0) continue;
    if (frame.contentChecksum) checksum.update(content);
    size += content.length;
    yield reuse ? content : content.slice();
  }
  if (frame.contentChecksum && checksum.digest() !== little32(await reader.read(4), 0)) {
    throw corrupt("its checksum does not match");
  }
  if (frame.contentSize !== undefined && frame.contentSize !== BigInt(size)) {
    throw corrupt("its size does not match");
  }
}

async function readDescriptor(reader: ByteReader): Promise<Frame> {
  const [flags = 0, blockInfo = 0] = await reader.peek(2);
  const sized = (flags & 0x08) !== 0;
  const length = 2 + (sized ? 8 : 0) + (flags & 1 ? 4 : 0);
  const descriptor = await reader.read(length + 1);
  if (((xxHash32(descriptor.subarray(0, length)) >>> 8) & 255) !== descriptor[length]) {
    throw corrupt("its header checksum does not match");
  }
  if (flags >>> 6 !== 1) throw corrupt(`version ${flags >>> 6} of the frame format is not known`);
  if ((flags & 0x02) !== 0 || (blockInfo & 0x8f) !== 0 || blockInfo < 0x40) {
    throw corrupt("its header is damaged");
  }
  if (flags & 1) throw corrupt("it needs a dictionary");
  return {
    linked: (flags & 0x20) === 0,
    blockChecksums: (flags & 0x10) !== 0,
    contentChecksum: (flags & 0x04) !== 0,
    contentSize: sized
      ? new DataView(descriptor.buffer, descriptor.byteOffset).getBigUint64(2, true)
      : undefined,
    largestBlock: 2 ** (8 + 2 * (blockInfo >>> 4)),
  };
}

function sizeField(value: number): Uint8Array {
  const bytes = new Uint8Array(4);
  new DataView(bytes.buffer).setUint32(0, value, true);
  return bytes;
}

function little32(bytes: Uint8Array, at: number): number {
  return new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength).getUint32(at, true);
}

function corrupt(reason: string): CorruptDataError {
  return new CorruptDataError("lz4", reason);
}
