import { Blocks } from "./blocks.ts";
import { ByteReader } from "./byte_reader.ts";
import { CorruptDataError } from "./corrupt_data_error.ts";
import type { CodecOptions, DecompressOptions } from "./table.ts";
import { throughBlocks } from "./through_blocks.ts";

const BLOCK = 64 * 1024;
/** The stream identifier, a chunk of its own: `sNaPpY`. */
const IDENTIFIER = [0xff, 0x06, 0x00, 0x00, 0x73, 0x4e, 0x61, 0x50, 0x70, 0x59];
/** Bytes that a block of 64 KiB takes at most, by the reference implementation. */
const LARGEST_PACKED = 32 + BLOCK + Math.floor(BLOCK / 6);
const COMPRESSED = 0x00;
const RAW = 0x01;

/** Writes the snappy framing format: the identifier, then a chunk for each 64 KiB. */
export async function* compressSnappy(
  source: AsyncIterable<Uint8Array>,
  options: CodecOptions,
): AsyncGenerator<Uint8Array, void, void> {
  yield Uint8Array.from(IDENTIFIER);
  yield* throughBlocks(source, (input) => ({ codec: "snappy", input }), options);
}

/** Reads the snappy framing format until the end of the stream. An empty object is an empty file. */
export async function* decompressSnappy(
  source: AsyncIterable<Uint8Array>,
  options: DecompressOptions = {},
): AsyncGenerator<Uint8Array, void, void> {
  const reader = new ByteReader("snappy", source, options.signal);
  const blocks = new Blocks();
  try {
    let identified = false;
    while (!await reader.atEnd()) {
      const [type = 0, low = 0, middle = 0, high = 0] = await reader.read(4);
      const length = low | (middle << 8) | (high << 16);
      if (type === 0xff) {
        if (length !== 6) throw corrupt("its stream identifier is damaged");
        const name = await reader.read(6);
        if (IDENTIFIER.slice(4).some((byte, i) => byte !== name[i])) {
          throw corrupt("its stream identifier is damaged");
        }
        identified = true;
      } else if (!identified) {
        throw corrupt("it does not begin with the stream identifier");
      } else if (type === COMPRESSED || type === RAW) {
        if (length < 4 || length - 4 > LARGEST_PACKED) {
          throw corrupt("the length of a chunk is wrong");
        }
        const content = contentOf(type, await reader.read(length), blocks);
        if (content.length > 0) yield options.reuse === true ? content : content.slice();
      } else if (type >= 0x80) {
        await reader.skip(length);
      } else {
        throw corrupt(`a chunk is of the unknown type ${type}`);
      }
    }
  } finally {
    await reader.close();
  }
}

function contentOf(type: number, chunk: Uint8Array, blocks: Blocks): Uint8Array {
  const checksum = new DataView(chunk.buffer, chunk.byteOffset).getUint32(0, true);
  const body = chunk.subarray(4);
  const content = type === RAW ? body : blocks.decompressSnappy(body);
  if (content === undefined || content.length > BLOCK) throw corrupt("a chunk is damaged");
  if (maskedCrc(blocks.crc32c(content)) !== checksum) {
    throw corrupt("a chunk's CRC-32C does not match");
  }
  return content;
}

/** Snappy stores CRCs altered, so that a CRC of data that holds CRCs is no special case. */
function maskedCrc(crc: number): number {
  return (((crc >>> 15) | (crc << 17)) + 0xa282ead8) >>> 0;
}

function corrupt(reason: string): CorruptDataError {
  return new CorruptDataError("snappy", reason);
}
