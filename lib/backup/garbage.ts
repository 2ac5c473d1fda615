/**
 * Memory that nobody needs any more is given back early. Left to itself a runtime lets it grow in proportion to the
 * machine's memory, which is the database's. (What zlib gives is freed where it is used up, in
 * `lib/compression/through_zlib.ts`.) Measured with zstd: 30,000 files 124 MiB at most, 150 with a tenth of `OF_A_FILE`; 32
 * tablespaces 120 MiB, 130 without `OF_A_PART`.
 */
const MIB = 1024 ** 2;

/** Bytes sent between two collections, each of which takes about 6 ms. */
const EVERY = 40 * MIB;
/** A part counts as so many bytes sent at least: it may be all there is of an archive, whose codec is garbage now. */
const OF_A_PART = 5 * MIB;
/** A file counts as so many bytes sent, for what is said of it and done with it, … */
const OF_A_FILE = 40 * 1024;
/** … and so many bytes of its content as one: of zeros nothing much is sent. */
const OF_CONTENT = 16;

export interface Collector {
  /** A part of so many bytes was sent. */
  readonly sent: (bytes: number) => void;
  /** A file with so many bytes was read. */
  readonly file: (bytes: number) => void;
}

/** Collects garbage now and then, unless the runtime has no `gc` (`--expose-gc`). */
export function createCollector(): Collector {
  let since = 0;
  const count = (bytes: number) => {
    since += bytes;
    if (since < EVERY) return;
    since = 0;
    collectGarbage();
  };
  return {
    sent: (bytes) => count(Math.max(bytes, OF_A_PART)),
    file: (bytes) => count(OF_A_FILE + bytes / OF_CONTENT),
  };
}

/** Does nothing where the runtime has no `gc`. */
export function collectGarbage(): void {
  const gc: unknown = Reflect.get(globalThis, "gc");
  if (typeof gc === "function") gc();
}
