/**
 * The compressions of WALs and base backups: names, suffixes, levels and the two ways in.
 *
 * The codecs themselves are loaded when the first byte is wanted; nothing here costs start-up time.
 */
export type CompressionName = "gzip" | "bzip2" | "xz" | "snappy" | "zstd" | "lz4";

export interface Compression {
  readonly name: CompressionName;
  /** What a compressed WAL has behind its name, dot included. */
  readonly walSuffix: string;
  /** What a base backup's archive has behind `data.` or the tablespace's oid. */
  readonly tarExtension: string;
  /** Levels as a user may give them; null where the format has none. */
  readonly levels: CompressionLevels | null;
}

export interface CompressionLevels {
  readonly min: number;
  readonly max: number;
  readonly low: number;
  readonly medium: number;
  readonly high: number;
  /** Without a word about it; medium when absent. Where Barman's medium takes much time and saves little. */
  readonly usual?: number;
  /** The same for WAL, which a server waits for; `usual` when absent. */
  readonly usualForWal?: number;
}

export interface CompressOptions {
  /** As `compressionLevel` gives it; default: the usual level. Numbers out of range are clamped. */
  level?: number | undefined;
  /** Bytes that the source will give, if known. A source that gives another number is an error. */
  contentSize?: number | undefined;
  /**
   * Blocks compressed at the same time: gzip and zstd in the runtime's threads (default: one for each core), bzip2,
   * snappy and lz4 in worker threads of ours, which cost some MiB each (default: 1, in this thread).
   */
  concurrency?: number | undefined;
  /**
   * Sum up the content in zstd's and LZ4's frames, so that a reader notices what was damaged in the store (the other
   * formats always do). Barman does not, and reads it.
   */
  contentChecksum?: boolean | undefined;
  /** Chunks of the result may be overwritten or taken away once the next is asked for, which saves memory. */
  reuse?: boolean | undefined;
  /** The time written into gzip's header; default: now. */
  modifiedAt?: Date | undefined;
  signal?: AbortSignal | undefined;
}

export interface DecompressOptions {
  /** Chunks of the result may be overwritten or taken away once the next is asked for, which saves memory. */
  reuse?: boolean | undefined;
  /**
   * Threads to decompress with. gzip uses so many of the runtime's for what we have written, else one. The formats that are
   * decompressed here have workers, each of which costs some 20 MiB: bzip2 uses all of them, xz, snappy and LZ4 one, and
   * overwrite their chunks then. Default: 0, all in this thread, or for gzip and zstd in one of the runtime's.
   */
  threads?: number | undefined;
  signal?: AbortSignal | undefined;
}

export const COMPRESSIONS: Readonly<Record<CompressionName, Compression>> = {
  gzip: {
    name: "gzip",
    walSuffix: ".gz",
    tarExtension: "tar.gz",
    levels: { min: 1, max: 9, low: 1, medium: 6, high: 9, usual: 5 },
  },
  bzip2: {
    name: "bzip2",
    walSuffix: ".bz2",
    tarExtension: "tar.bz2",
    levels: { min: 1, max: 9, low: 1, medium: 5, high: 9 },
  },
  xz: {
    name: "xz",
    walSuffix: ".xz",
    tarExtension: "tar.xz",
    levels: { min: 1, max: 9, low: 1, medium: 3, high: 5 },
  },
  snappy: { name: "snappy", walSuffix: ".snappy", tarExtension: "tar.snappy", levels: null },
  zstd: {
    name: "zstd",
    walSuffix: ".zst",
    tarExtension: "tar.zst",
    levels: { min: -22, max: 22, low: 1, medium: 4, high: 9, usual: 3, usualForWal: 1 },
  },
  lz4: {
    name: "lz4",
    walSuffix: ".lz4",
    tarExtension: "tar.lz4",
    levels: { min: 0, max: 16, low: 0, medium: 6, high: 10, usual: 0 },
  },
};

export const COMPRESSION_NAMES = Object.keys(COMPRESSIONS) as readonly CompressionName[];

/**
 * The level to compress with: a word becomes its number, a number out of range the nearest end,
 * nothing the usual level of what is compressed. Undefined for a format without levels.
 */
export function compressionLevel(
  name: CompressionName,
  wanted?: number | "low" | "medium" | "high" | undefined,
  what: "wal" | "backup" = "backup",
): number | undefined {
  const levels = COMPRESSIONS[name].levels;
  if (levels === null) return undefined;
  if (wanted === undefined) {
    const { usual = levels.medium, usualForWal = usual } = levels;
    return what === "wal" ? usualForWal : usual;
  }
  if (typeof wanted === "string") return levels[wanted];
  return Math.min(levels.max, Math.max(levels.min, Math.trunc(wanted)));
}

/** Takes one known compression suffix off the name of a WAL object: `….gz` → `…` and gzip. */
export function stripSuffix(
  name: string,
): { name: string; compression: CompressionName | null } {
  for (const compression of Object.values(COMPRESSIONS)) {
    if (name.endsWith(compression.walSuffix)) {
      return {
        name: name.slice(0, -compression.walSuffix.length),
        compression: compression.name,
      };
    }
  }
  return { name, compression: null };
}

/**
 * Takes the extension off the name of a base backup's archive: `data.tar.gz` → `data` and gzip,
 * `data.tar` → `data` and null. Undefined if the name ends in none of the known extensions.
 */
export function stripTarExtension(
  name: string,
): { name: string; compression: CompressionName | null } | undefined {
  if (name.endsWith(".tar")) return { name: name.slice(0, -4), compression: null };
  for (const compression of Object.values(COMPRESSIONS)) {
    const extension = "." + compression.tarExtension;
    if (name.endsWith(extension)) {
      return { name: name.slice(0, -extension.length), compression: compression.name };
    }
  }
  return undefined;
}

/**
 * Compresses a stream: one gzip member, bzip2 stream, xz stream, zstd frame, LZ4 frame or snappy
 * framing stream, so that Barman can read it. Memory is bounded, the source is read as the result
 * is consumed, and neither chunk is changed afterwards (unless `reuse` says that the result's may be).
 *
 * @throws what the source throws, `options.signal`'s reason, or RangeError if the source does not
 * give `contentSize` bytes.
 */
export async function* compressStream(
  name: CompressionName,
  source: AsyncIterable<Uint8Array>,
  options: CompressOptions = {},
): AsyncGenerator<Uint8Array, void, void> {
  options.signal?.throwIfAborted();
  const settings = { ...options, level: compressionLevel(name, options.level) ?? 0 };
  const sized = settings.contentSize === undefined
    ? source
    : ofExactSize(source, settings.contentSize);
  switch (name) {
    case "gzip":
      return yield* (await import("./gzip.ts")).compressGzip(sized, settings);
    case "bzip2":
      return yield* (await import("./bzip2.ts")).compressBzip2(sized, settings);
    case "xz":
      return yield* (await import("./xz.ts")).compressXz(sized, settings);
    case "snappy":
      return yield* (await import("./snappy.ts")).compressSnappy(sized, settings);
    case "zstd":
      return yield* (await import("./zstd.ts")).compressZstd(sized, settings);
    case "lz4":
      return yield* (await import("./lz4.ts")).compressLz4(sized, settings);
  }
}

/**
 * Decompresses any conforming stream of the format, also several members, streams or frames one
 * behind the other. Every check the format has is verified; memory is bounded.
 *
 * @throws CorruptDataError if the data is damaged, cut off or followed by something else; what the
 * source throws; `options.signal`'s reason.
 */
export async function* decompressStream(
  name: CompressionName,
  source: AsyncIterable<Uint8Array>,
  options: DecompressOptions = {},
): AsyncGenerator<Uint8Array, void, void> {
  options.signal?.throwIfAborted();
  if ((options.threads ?? 0) > 0 && (name === "xz" || name === "snappy" || name === "lz4")) {
    return yield* (await import("./in_worker.ts")).decompressInWorker(name, source, options);
  }
  switch (name) {
    case "gzip":
      return yield* (await import("./gzip.ts")).decompressGzip(source, options);
    case "bzip2":
      return yield* (await import("./bzip2.ts")).decompressBzip2(source, options);
    case "xz":
      return yield* (await import("./xz.ts")).decompressXz(source, options);
    case "snappy":
      return yield* (await import("./snappy.ts")).decompressSnappy(source, options);
    case "zstd":
      return yield* (await import("./zstd.ts")).decompressZstd(source, options);
    case "lz4":
      return yield* (await import("./lz4.ts")).decompressLz4(source, options);
  }
}

/** Options as the codecs get them: the level is always there and in range. */
export type CodecOptions = CompressOptions & { level: number };

async function* ofExactSize(
  source: AsyncIterable<Uint8Array>,
  size: number,
): AsyncGenerator<Uint8Array, void, void> {
  let seen = 0;
  for await (const chunk of source) {
    seen += chunk.length;
    if (seen > size) break;
    yield chunk;
  }
  if (seen !== size) {
    throw new RangeError(
      `Cannot compress: the source was to give ${size} bytes but gave ${
        seen > size ? "more" : `only ${seen}`
      }`,
    );
  }
}
