/**
 * Reads one decompression bomb, or another stream that wants memory, in a process of its own. Prints the bytes that came
 * out, why it ended, and the most memory that the process ever had.
 */
import { readFileSync } from "node:fs";
import {
  COMPRESSION_NAMES,
  type CompressionName,
  decompressStream,
} from "../../lib/compression/table.ts";
import { parseBackupInfo } from "../../lib/backup/backup_info.ts";
import { TarReader } from "../../lib/tar/reader.ts";
import { compress, fromHex } from "../lib/compression/samples.ts";
import { pax } from "../lib/restore/raw_tar.ts";
import { encoded, joined } from "./hostile_inputs.ts";

const MIB = 1024 ** 2;
const isCodec = (text: string): text is CompressionName =>
  COMPRESSION_NAMES.some((name) => name === text);

/** So often, in chunks of about 64 KiB. */
async function* repeat(piece: Uint8Array, times: number): AsyncGenerator<Uint8Array> {
  const atOnce = Math.max(1, Math.floor(65_536 / piece.length));
  const chunk = joined(...Array.from({ length: atOnce }, () => piece));
  for (let left = times; left > 0; left -= atOnce) {
    yield await Promise.resolve(left < atOnce ? chunk.subarray(0, left * piece.length) : chunk);
  }
}

/** A stream of one byte that wants as much memory as its format lets it ask for. */
const GREEDY: Readonly<Record<string, string>> = {
  // A window of 128 MiB, one block of one byte.
  zstd: "28b52ffd00880900006100".slice(0, 12) + "090000" + "61",
  // A frame of independent blocks of 4 MiB, one of them, of one byte.
  lz4: "04224d18607073" + "01000080" + "61" + "00000000",
};

async function source(kind: string, codec: CompressionName): Promise<AsyncIterable<Uint8Array>> {
  switch (kind) {
    case "zeros": {
      // 512 MiB.
      return repeat(await compress(codec, new Uint8Array(8 * MIB)), 64);
    }
    case "tiny":
      return repeat(await compress(codec, encoded("a")), 20_000);
    case "greedy": {
      const greedy = GREEDY[codec];
      const piece = codec === "xz"
        ? await greedyXz()
        : greedy === undefined
        ? await compress(codec, encoded("a"), { level: 9 })
        : fromHex(greedy);
      return repeat(piece, 5000);
    }
  }
  throw new Error(`There is no bomb ${kind}`);
}

/** One byte, for which it wants a dictionary of 128 MiB. */
async function greedyXz(): Promise<Uint8Array> {
  const { crc32 } = await import("node:zlib");
  const bytes = await compress("xz", encoded("a"));
  // The header of the block, behind the 12 bytes of the stream's: 8 bytes and their CRC.
  const header = bytes.subarray(12, 24);
  header[4] = 30;
  new DataView(header.buffer, header.byteOffset).setUint32(8, crc32(header.subarray(0, 8)), true);
  return bytes;
}

const [kind = "", codec = ""] = Deno.args;
let size = 0;
let end = "the end";
try {
  if (isCodec(codec)) {
    for await (const chunk of decompressStream(codec, await source(kind, codec))) {
      size += chunk.length;
    }
  } else if (kind === "pax") {
    // Extended headers without an end, each as long as it may be.
    const header = pax({ comment: "x".repeat(1_000_000) });
    const reader = new TarReader(repeat(header, 500));
    while (await reader.next() !== null) size++;
  } else if (kind === "info") {
    const text = codec === "literal"
      ? `copy_stats={${"1:[],".repeat(3_000_000)}}`
      : codec === "lines"
      ? "\n".repeat(16 * MIB)
      : Array.from({ length: 1_500_000 }, (_, i) => `f${i}=\n`).join("");
    parseBackupInfo(text.slice(0, 16 * MIB));
  } else throw new Error(`There is no bomb ${kind} ${codec}`);
} catch (error) {
  end = error instanceof Error ? `${error.name}: ${error.message.slice(0, 200)}` : String(error);
}
const peak = /VmHWM:\s+(\d+) kB/.exec(readFileSync("/proc/self/status", "utf8"))?.[1];
console.log(JSON.stringify({ size, end, peak: Math.round(Number(peak) / 1024) }));
