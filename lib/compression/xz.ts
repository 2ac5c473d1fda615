import { createHash } from "node:crypto";
import { crc32 } from "node:zlib";
import {
  breathe,
  ByteReader,
  concat,
  createPace,
  CUT_OFF,
  inBlocks,
  type Pace,
} from "./byte_reader.ts";
import { Crc64 } from "./checksums.ts";
import { CorruptDataError } from "./corrupt_data_error.ts";
import { createLzma2Decoder, type Lzma2Decoder } from "./lzma2_decoder.ts";
import { createLzma2Encoder } from "./lzma2_encoder.ts";
import { BLOCK, dictionaryBitsOf } from "./lzma_matches.ts";
import { dictionarySize } from "./lzma_model.ts";
import type { CodecOptions, DecompressOptions } from "./table.ts";

const MAGIC = [0xfd, 0x37, 0x7a, 0x58, 0x5a, 0x00];
const FOOTER_MAGIC = [0x59, 0x5a];
const CHECK_CRC64 = 4;
const LZMA2 = 0x21;
const OUTPUT = 256 * 1024;
/** What a block costs beside its bytes, in bytes. */
const BLOCK_COST = 4096;
/** Twice what `xz -9` uses. */
const LARGEST_DICTIONARY = 128 * 1024 * 1024;

/** Writes one .xz stream of one block, checked by CRC-64, as xz does. */
export async function* compressXz(
  source: AsyncIterable<Uint8Array>,
  options: CodecOptions,
): AsyncGenerator<Uint8Array, void, void> {
  const flags = Uint8Array.of(0, CHECK_CRC64);
  yield concat([Uint8Array.from(MAGIC), flags, crcField(flags)]);

  const records: BlockRecord[] = [];
  const encoder = createLzma2Encoder(options.level);
  const check = new Crc64();
  let size = 0;
  let packed = 0;
  const blockHeader = writeBlockHeader(dictionaryBitsOf(options.level));
  for await (const bytes of inBlocks(source, BLOCK, options.signal)) {
    if (size === 0) yield blockHeader;
    size += bytes.length;
    check.update(bytes);
    let unyielded = 0;
    for (const chunk of encoder.chunks(bytes)) {
      packed += chunk.length;
      unyielded += chunk.length;
      yield chunk;
      if (unyielded > 64 * 1024) {
        unyielded = 0;
        await breathe(options.signal);
      }
    }
    await breathe(options.signal);
  }
  // An empty file has no block at all.
  if (size > 0) {
    packed += 1;
    yield concat([new Uint8Array(1 + padding(packed)), check.digest()]);
    records.push({ unpaddedSize: BigInt(blockHeader.length + packed + 8), size: BigInt(size) });
  }
  const index = writeIndex(records);
  const backward = new Uint8Array(6);
  new DataView(backward.buffer).setUint32(0, index.length / 4 - 1, true);
  backward.set(flags, 4);
  yield concat([index, crcField(backward), backward, Uint8Array.from(FOOTER_MAGIC)]);
}

/** Reads .xz streams, of any number of blocks and any check, until the end of the data. */
export async function* decompressXz(
  source: AsyncIterable<Uint8Array>,
  options: DecompressOptions = {},
): AsyncGenerator<Uint8Array, void, void> {
  const reader = new ByteReader("xz", source, options.signal);
  const shared: SharedWork = { decoder: undefined, pace: createPace(options.signal) };
  try {
    let stream = 0;
    for (;;) {
      const start = await reader.peek(12);
      if (MAGIC.some((byte, i) => i < start.length && byte !== start[i])) {
        throw corrupt(
          stream === 0 ? "it does not begin with an xz header" : "garbage follows its end",
        );
      }
      yield* decompressStream(reader, shared);
      stream++;
      // Streams may be padded with zeros, by four at a time.
      for (;;) {
        const next = await reader.peek(4);
        if (next.length === 0) return;
        if (next[0] !== 0) break;
        if (next.length < 4) throw corrupt(CUT_OFF);
        if (next.some((byte) => byte !== 0)) throw corrupt("garbage follows its end");
        reader.consume(4);
      }
    }
  } finally {
    await reader.close();
  }
}

interface BlockRecord {
  unpaddedSize: bigint;
  size: bigint;
}

/** What all blocks of a source have in common: clearing the memory of a dictionary takes longer than a small block. */
interface SharedWork {
  decoder: { readonly dictionarySize: number; readonly decoder: Lzma2Decoder } | undefined;
  readonly pace: Pace;
}

/** The index repeats the sizes of all blocks: what is compared is a digest, since blocks may be many and tiny. */
class Records {
  count = 0n;
  readonly #hash = createHash("sha256");

  add({ unpaddedSize, size }: BlockRecord): void {
    this.count++;
    this.#hash.update(`${unpaddedSize} ${size}\n`);
  }

  digest(): string {
    return this.#hash.digest("hex");
  }
}

function writeBlockHeader(dictionaryBits: number): Uint8Array {
  // One filter, LZMA2, with one byte of properties, which stands for the dictionary's size.
  const header = Uint8Array.of(2, 0, LZMA2, 1, 2 * (dictionaryBits - 12), 0, 0, 0);
  return concat([header, crcField(header)]);
}

function writeIndex(records: BlockRecord[]): Uint8Array {
  const bytes = [0, ...variable(BigInt(records.length))];
  for (const { unpaddedSize, size } of records) {
    bytes.push(...variable(unpaddedSize), ...variable(size));
  }
  while (bytes.length % 4 !== 0) bytes.push(0);
  const index = Uint8Array.from(bytes);
  return concat([index, crcField(index)]);
}

async function* decompressStream(
  reader: ByteReader,
  shared: SharedWork,
): AsyncGenerator<Uint8Array, void, void> {
  const header = await reader.read(12);
  const flags = header.subarray(6, 8);
  verifyCrc(flags, header.subarray(8), "its header");
  const check = flags[1] ?? 0;
  if (flags[0] !== 0 || !(check in CHECK_SIZES)) throw corrupt("its kind of check is not known");

  const records = new Records();
  for (;;) {
    const [headerSize = 0] = await reader.read(1);
    if (headerSize === 0) break;
    records.add(yield* decompressBlock(reader, headerSize, check, shared));
    await shared.pace.done(BLOCK_COST);
  }

  const indexSize = await readIndex(reader, records);
  const footer = await reader.read(12);
  verifyCrc(footer.subarray(4, 10), footer, "its footer");
  if (
    (little32(footer, 4) + 1) * 4 !== indexSize || footer[8] !== flags[0] ||
    footer[9] !== check || footer[10] !== FOOTER_MAGIC[0] || footer[11] !== FOOTER_MAGIC[1]
  ) {
    throw corrupt("its footer does not match");
  }
}

async function* decompressBlock(
  reader: ByteReader,
  headerSize: number,
  checkKind: number,
  shared: SharedWork,
): AsyncGenerator<Uint8Array, BlockRecord, void> {
  const header = await readBlockHeader(reader, headerSize);
  const { dictionarySize } = header;
  if (shared.decoder?.dictionarySize !== dictionarySize) {
    shared.decoder = { dictionarySize, decoder: createLzma2Decoder(dictionarySize) };
  }
  // The first chunk has to reset it.
  const { decoder } = shared.decoder;
  const check = startCheck(checkKind);
  let packed = 0n;
  let size = 0n;
  for await (const { content, chunkSize } of decompressChunks(reader, decoder)) {
    packed += BigInt(chunkSize);
    size += BigInt(content.length);
    check.update(content);
    for (let at = 0; at < content.length; at += OUTPUT) yield content.slice(at, at + OUTPUT);
    await shared.pace.done(content.length);
  }
  if (
    (header.packedSize !== undefined && header.packedSize !== packed) ||
    (header.size !== undefined && header.size !== size)
  ) {
    throw corrupt("a block's size does not match");
  }
  const pad = await reader.read(padding(Number(packed % 4n)));
  if (pad.some((byte) => byte !== 0)) throw corrupt("a block's padding is not zero");
  const expected = check.digest();
  const found = await reader.read(expected.length);
  if (expected.some((byte, i) => byte !== found[i])) {
    throw corrupt("a block's check does not match");
  }
  return {
    unpaddedSize: BigInt((headerSize + 1) * 4 + expected.length) + packed,
    size,
  };
}

interface BlockHeader {
  packedSize: bigint | undefined;
  size: bigint | undefined;
  dictionarySize: number;
}

async function readBlockHeader(reader: ByteReader, headerSize: number): Promise<BlockHeader> {
  const length = (headerSize + 1) * 4;
  const header = concat([Uint8Array.of(headerSize), await reader.read(length - 1)]);
  const body = header.subarray(0, length - 4);
  verifyCrc(body, header.subarray(length - 4), "a block's header");
  const fields = new Fields(body, 1);
  const flags = fields.byte();
  if (flags & 0x3c) throw corrupt("a block's header has unknown flags");
  const packedSize = flags & 0x40 ? fields.variable() : undefined;
  const size = flags & 0x80 ? fields.variable() : undefined;
  const filters = (flags & 3) + 1;
  const filter = fields.variable();
  if (filters > 1 || filter !== BigInt(LZMA2)) {
    throw corrupt("it is filtered in a way that is not supported: only LZMA2 is");
  }
  if (fields.variable() !== 1n) throw corrupt("a block's header is damaged");
  const dictionary = dictionarySize(fields.byte());
  if (dictionary === undefined || !fields.onlyZerosLeft()) {
    throw corrupt("a block's header is damaged");
  }
  if (dictionary > LARGEST_DICTIONARY) {
    throw corrupt(
      `it needs a dictionary of ${dictionary} bytes, more than ${LARGEST_DICTIONARY} are not supported`,
    );
  }
  return { packedSize, size, dictionarySize: Math.max(4096, dictionary) };
}

/** The chunks of an LZMA2 stream; the last one is its end mark and empty. */
async function* decompressChunks(
  reader: ByteReader,
  decoder: Lzma2Decoder,
): AsyncGenerator<{ content: Uint8Array; chunkSize: number }, void, void> {
  let needsDictionary = true;
  let needsProperties = true;
  let needsState = true;
  for (;;) {
    const [control = 0] = await reader.read(1);
    if (control === 0) {
      yield { content: new Uint8Array(0), chunkSize: 1 };
      return;
    }
    if (control === 1 || control >= 0xe0) {
      decoder.resetDictionary();
      needsDictionary = false;
      needsProperties = true;
    } else if (needsDictionary) {
      throw corrupt("its first chunk does not reset the dictionary");
    }
    if (control < 0x80) {
      if (control > 2) throw corrupt("a chunk is of an unknown kind");
      const size = big16(await reader.read(2)) + 1;
      yield { content: decoder.raw(await reader.read(size)), chunkSize: 3 + size };
      continue;
    }
    const sizes = await reader.read(4);
    const size = ((control & 0x1f) << 16) + big16(sizes) + 1;
    const packed = big16(sizes.subarray(2)) + 1;
    let headerSize = 5;
    if (control >= 0xc0) {
      const [properties = 255] = await reader.read(1);
      if (!decoder.setProperties(properties)) throw corrupt("a chunk's properties are damaged");
      needsProperties = false;
      headerSize = 6;
    } else if (needsProperties) {
      throw corrupt("a chunk's properties are missing");
    }
    if (control >= 0xa0) {
      decoder.resetState();
      needsState = false;
    } else if (needsState) {
      throw corrupt("its first chunk does not reset the state");
    }
    const content = decoder.compressed(await reader.read(packed), size);
    if (content === undefined) throw corrupt("a chunk is damaged");
    yield { content, chunkSize: headerSize + packed };
  }
}

/** Reads the index, whose first byte is read already, and compares it; returns its size. */
async function readIndex(reader: ByteReader, records: Records): Promise<number> {
  let crc = crc32(Uint8Array.of(0));
  let length = 1;
  const next = async (): Promise<number> => {
    const bytes = await reader.read(1);
    crc = crc32(bytes, crc);
    length++;
    return bytes[0] ?? 0;
  };
  const number = async (): Promise<bigint> => {
    let value = 0n;
    for (let shift = 0n; shift < 63n; shift += 7n) {
      const byte = await next();
      value |= BigInt(byte & 127) << shift;
      if (byte < 128) return value;
    }
    throw corrupt("its index is damaged");
  };
  if (await number() !== records.count) throw corrupt("its index does not match");
  const listed = new Records();
  for (let left = records.count; left > 0n; left--) {
    listed.add({ unpaddedSize: await number(), size: await number() });
  }
  if (listed.digest() !== records.digest()) throw corrupt("its index does not match");
  while (length % 4 !== 0) {
    if (await next() !== 0) throw corrupt("its index is damaged");
  }
  if (little32(await reader.read(4), 0) !== crc) throw corrupt("its index's CRC does not match");
  return length + 4;
}

interface Check {
  update(bytes: Uint8Array): void;
  digest(): Uint8Array;
}

const CHECK_SIZES: Readonly<Record<number, true>> = { 0: true, 1: true, 4: true, 10: true };

function startCheck(kind: number): Check {
  if (kind === CHECK_CRC64) return new Crc64();
  if (kind === 10) {
    const hash = createHash("sha256");
    return { update: (bytes) => void hash.update(bytes), digest: () => hash.digest() };
  }
  let crc = 0;
  return kind === 1
    ? {
      update: (bytes) => {
        crc = crc32(bytes, crc);
      },
      digest: () => crcBytes(crc),
    }
    : { update: () => undefined, digest: () => new Uint8Array(0) };
}

/** Takes the fields of a block's header one by one. */
class Fields {
  readonly #bytes: Uint8Array;
  #at: number;

  constructor(bytes: Uint8Array, at: number) {
    this.#bytes = bytes;
    this.#at = at;
  }

  byte(): number {
    const byte = this.#bytes[this.#at++];
    if (byte === undefined) throw corrupt("a block's header is damaged");
    return byte;
  }

  variable(): bigint {
    let value = 0n;
    for (let shift = 0n; shift < 63n; shift += 7n) {
      const byte = this.byte();
      value |= BigInt(byte & 127) << shift;
      if (byte < 128) return value;
    }
    throw corrupt("a block's header is damaged");
  }

  onlyZerosLeft(): boolean {
    return this.#bytes.subarray(this.#at).every((byte) => byte === 0);
  }
}

function variable(value: bigint): number[] {
  const bytes: number[] = [];
  for (; value >= 128n; value >>= 7n) bytes.push(Number(value & 127n) | 128);
  bytes.push(Number(value));
  return bytes;
}

function verifyCrc(bytes: Uint8Array, field: Uint8Array, what: string): void {
  if (crc32(bytes) !== little32(field, 0)) throw corrupt(`${what}'s CRC does not match`);
}

function crcField(bytes: Uint8Array): Uint8Array {
  return crcBytes(crc32(bytes));
}

function crcBytes(crc: number): Uint8Array {
  const bytes = new Uint8Array(4);
  new DataView(bytes.buffer).setUint32(0, crc, true);
  return bytes;
}

/** How many bytes are missing to a multiple of four. */
function padding(size: number): number {
  return (4 - size % 4) % 4;
}

function big16(bytes: Uint8Array): number {
  return ((bytes[0] ?? 0) << 8) | (bytes[1] ?? 0);
}

function little32(bytes: Uint8Array, at: number): number {
  return new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength).getUint32(at, true);
}

function corrupt(reason: string): CorruptDataError {
  return new CorruptDataError("xz", reason);
}
