/**
 * Reads tar archives as a stream: ustar, pax (POSIX) and GNU headers, from any writer. Nothing is believed that the
 * archive does not prove: checksums, sizes and the end mark are verified, and what can't be restored faithfully
 * (sparse members, parts of multi-volume archives) is refused instead of guessed at.
 */
import { closeIterator } from "../backup/abortable.ts";
import { BLOCK_SIZE, checksumOf, decodeName, FIELD, paddingOf, TYPE } from "./format.ts";
import {
  bytesOf,
  headerName,
  isHeader,
  isZero,
  MAX_ID,
  type NumberField,
  parseNumber,
  signedSumOf,
  untilNul,
} from "./header.ts";
import { parsePax, type PaxValues } from "./pax.ts";

export interface TarEntry {
  readonly type: TarEntryType;
  /** As in the archive, without the trailing slash of directories. See `decodeName` for odd bytes. */
  readonly name: string;
  /** Target of a symlink as it is; of a hard link the name of the member. Empty for others. */
  readonly linkTarget: string;
  /** Bytes of content; 0 unless a file. */
  readonly size: number;
  /** 0..0o7777 */
  readonly mode: number;
  readonly uid: number;
  readonly gid: number;
  /** Empty when the archive has none. */
  readonly userName: string;
  readonly groupName: string;
  /** Seconds since 1970, with a fraction where the archive has one. */
  readonly mtime: number;
}

export type TarEntryType =
  | "file"
  | "directory"
  | "symlink"
  | "hard-link"
  | "character-device"
  | "block-device"
  | "fifo";

/** An archive that is cut off, damaged, or of a kind that is not supported. The message says where. */
export class TarError extends Error {
  override readonly name = "TarError";
  /** Bytes into the (decompressed) archive. */
  readonly position: number;
  constructor(message: string, position: number) {
    super(message);
    this.position = position;
  }
}

export interface TarReaderOptions {
  readonly signal?: AbortSignal | undefined;
  /** Told once when there is something other than zeros behind the end mark. */
  readonly onTrailingData?: ((position: number) => void) | undefined;
}

/** Extended headers hold names and a few numbers; a longer one is an attack or damage. Bytes. */
const MAX_EXTENDED_HEADER = 1024 * 1024;
const EMPTY = new Uint8Array(0);

/**
 * One pass over an archive: `next` for a member, then `read` for its content (what is not read is passed over),
 * and so on until `next` gives null. Then the source was read to its end, so that a decompressor in front has
 * verified its checksums. `close` must be called when leaving earlier.
 *
 * Chunks are views of what the source gave and stay valid as long as those do: the source may overwrite one when it is
 * asked for the next.
 */
export class TarReader {
  readonly #source: AsyncIterator<Uint8Array>;
  readonly #options: TarReaderOptions;
  #chunk: Uint8Array = EMPTY;
  #at = 0;
  #ended = false;
  /** Bytes of the archive before `#chunk`. */
  #before = 0;
  /** Content of the current member not read yet, and the zeros behind it. */
  #content = 0;
  #padding = 0;
  #member: string | undefined;
  #global: PaxValues = {};

  constructor(source: AsyncIterable<Uint8Array>, options: TarReaderOptions = {}) {
    this.#source = source[Symbol.asyncIterator]();
    this.#options = options;
  }

  /** Bytes read of the archive. */
  get position(): number {
    return this.#before + this.#at;
  }

  /**
   * The next member, or null after the last one.
   * @throws {TarError} and what the source throws
   */
  async next(): Promise<TarEntry | null> {
    await this.#skip(this.#content, "content");
    this.#content = 0;
    await this.#skip(this.#padding, "padding");
    this.#padding = 0;
    let pax: PaxValues = {};
    let longName: Uint8Array | undefined;
    let longLink: Uint8Array | undefined;
    let extended = false;
    for (;;) {
      const start = this.position;
      const header = await this.#block();
      if (isZero(header)) {
        if (extended) throw this.#error("it ends with an extended header", start);
        await this.#end(start);
        return null;
      }
      const type = this.#verified(header, start);
      switch (type) {
        case TYPE.pax:
          pax = { ...pax, ...await this.#paxValues(header, start) };
          break;
        case TYPE.paxGlobal:
          this.#global = { ...this.#global, ...await this.#paxValues(header, start) };
          break;
        case TYPE.gnuLongName:
          longName = untilNul(await this.#extension(header, start));
          break;
        case TYPE.gnuLongLink:
          longLink = untilNul(await this.#extension(header, start));
          break;
        case "V":
          // The label of the volume, GNU tar's -V: an empty member that names the archive.
          await this.#extension(header, start);
          break;
        default:
          return this.#entry(header, type, start, { ...this.#global, ...pax }, longName, longLink);
      }
      extended = type !== TYPE.paxGlobal && type !== "V";
    }
  }

  /**
   * The next piece of the current member's content, null at its end.
   * @throws {TarError} when the archive ends before
   */
  async read(): Promise<Uint8Array | null> {
    if (this.#content === 0) return null;
    if (this.#at === this.#chunk.length && !await this.#pull()) throw this.#cutOff("content");
    const chunk = this.#chunk.subarray(this.#at, this.#at + this.#content);
    this.#at += chunk.length;
    this.#content -= chunk.length;
    return chunk;
  }

  /** Tell the source that no more is wanted. */
  async close(): Promise<void> {
    if (this.#ended) return;
    this.#ended = true;
    await closeIterator(this.#source);
  }

  #entry(
    header: Uint8Array,
    flag: string,
    start: number,
    pax: PaxValues,
    longName: Uint8Array | undefined,
    longLink: Uint8Array | undefined,
  ): TarEntry {
    const nameBytes = pax.path ?? longName ?? headerName(header);
    let name = decodeName(nameBytes);
    this.#member = shownName(name);
    if (name === "") throw this.#error("a member has no name", start);
    const type = TYPES.get(flag);
    if (type === undefined) {
      const kind = flag === "S"
        ? "a sparse file in GNU's format"
        : flag === "M" || flag === "D" || flag === "N"
        ? "of a kind that only GNU tar itself can read"
        : "of a kind that is not supported";
      throw this.#error(`member ${this.#member} is ${kind} (type '${flag}')`, start);
    }
    if (pax.sparse) {
      throw this.#error(`member ${this.#member} is a sparse file in GNU's format`, start);
    }
    // Before POSIX directories were files whose name ends in a slash.
    const isOldDirectory = (flag === "\0" || flag === TYPE.file) && name.endsWith("/");
    const actual = isOldDirectory ? "directory" : type;
    if (actual === "directory") name = withoutTrailingSlashes(name);
    // Other kinds may name a size, but no content follows them.
    const size = actual !== "file"
      ? 0
      : pax.size ?? this.#number(header, "size", start, Number.MAX_SAFE_INTEGER);
    this.#content = size;
    this.#padding = paddingOf(size);
    return {
      type: actual,
      name,
      linkTarget: actual === "symlink" || actual === "hard-link"
        ? decodeName(pax.linkpath ?? longLink ?? untilNul(bytesOf(header, "linkName")))
        : "",
      size,
      mode: this.#number(header, "mode", start, Number.MAX_SAFE_INTEGER) & 0o7777,
      uid: pax.uid ?? this.#number(header, "uid", start, MAX_ID),
      gid: pax.gid ?? this.#number(header, "gid", start, MAX_ID),
      userName: decodeName(pax.uname ?? untilNul(bytesOf(header, "userName"))),
      groupName: decodeName(pax.gname ?? untilNul(bytesOf(header, "groupName"))),
      mtime: pax.mtime ?? this.#signedNumber(header, "mtime", start),
    };
  }

  /** @returns the type flag of a header whose checksum is right */
  #verified(header: Uint8Array, start: number): string {
    const stated = parseNumber(bytesOf(header, "checksum"));
    if (stated === null || (stated !== checksumOf(header) && stated !== signedSumOf(header))) {
      throw this.#error("there is no header where one should be (wrong checksum)", start);
    }
    return String.fromCharCode(header[FIELD.type[0]] ?? 0);
  }

  async #paxValues(header: Uint8Array, start: number): Promise<PaxValues> {
    const values = parsePax(await this.#extension(header, start));
    if (typeof values === "string") {
      throw this.#error(`an extended header is damaged: ${values}`, start);
    }
    return values;
  }

  /** Content of an extended header. */
  async #extension(header: Uint8Array, start: number): Promise<Uint8Array> {
    const size = this.#number(header, "size", start, Number.MAX_SAFE_INTEGER);
    if (size > MAX_EXTENDED_HEADER) {
      throw this.#error(
        `an extended header has ${size} bytes, more than the ${MAX_EXTENDED_HEADER} allowed`,
        start,
      );
    }
    const whole = size + paddingOf(size);
    if (!await this.#fill(whole)) throw this.#cutOff("extended header");
    // What it says is needed when its chunk is gone.
    const bytes = copyOf(this.#chunk.subarray(this.#at, this.#at + size));
    this.#at += whole;
    return bytes;
  }

  #number(header: Uint8Array, field: NumberField, start: number, max: number): number {
    const value = this.#signedNumber(header, field, start);
    if (value < 0 || value > max) {
      throw this.#error(`a header has a ${field} out of range (${value})`, start);
    }
    return value;
  }

  #signedNumber(header: Uint8Array, field: NumberField, start: number): number {
    const value = parseNumber(bytesOf(header, field));
    if (value === null) throw this.#error(`a header has a malformed ${field}`, start);
    return value;
  }

  /** After a zero block: a second one must follow; then to the end of the source. */
  async #end(start: number): Promise<void> {
    if (!await this.#fill(BLOCK_SIZE)) throw this.#cutOff("end-of-archive mark");
    if (!isZero(this.#chunk.subarray(this.#at, this.#at + BLOCK_SIZE))) {
      throw this.#error("a block of zeros stands where a header should be", start);
    }
    this.#at += BLOCK_SIZE;
    let told = false;
    while (await this.#fill(BLOCK_SIZE)) {
      const block = this.#chunk.subarray(this.#at, this.#at + BLOCK_SIZE);
      if (!isZero(block)) {
        // A hole of zeros looks like the end, and what follows is lost unless someone says so.
        if (isHeader(block)) {
          throw this.#error("more members follow behind the end-of-archive mark", this.position);
        }
        if (!told) this.#options.onTrailingData?.(this.position);
        told = true;
      }
      this.#at += BLOCK_SIZE;
    }
    const rest = this.#chunk.subarray(this.#at);
    if (!told && !isZero(rest)) this.#options.onTrailingData?.(this.position);
    this.#at = this.#chunk.length;
  }

  async #block(): Promise<Uint8Array> {
    if (this.#chunk.length - this.#at < BLOCK_SIZE && !await this.#fill(BLOCK_SIZE)) {
      throw this.#cutOff(this.#chunk.length === this.#at ? "next header" : "header");
    }
    const block = this.#chunk.subarray(this.#at, this.#at + BLOCK_SIZE);
    this.#at += BLOCK_SIZE;
    return block;
  }

  async #skip(count: number, what: string): Promise<void> {
    for (let left = count; left > 0;) {
      if (this.#at === this.#chunk.length && !await this.#pull()) throw this.#cutOff(what);
      const step = Math.min(left, this.#chunk.length - this.#at);
      this.#at += step;
      left -= step;
      if (this.#content > 0) this.#content -= step;
    }
  }

  /** Makes the next `count` bytes one piece. @returns false when the source ends before */
  async #fill(count: number): Promise<boolean> {
    if (this.#chunk.length - this.#at >= count) return true;
    if (this.#at === this.#chunk.length && !await this.#pull()) return count === 0;
    if (this.#chunk.length - this.#at >= count) return true;
    const pieces: Uint8Array[] = [copyOf(this.#chunk.subarray(this.#at))];
    let length = this.#chunk.length - this.#at;
    this.#before += this.#at;
    while (length < count) {
      const piece = await this.#nextChunk();
      if (piece === undefined) break;
      // Only the last one is not followed by another.
      pieces.push(length + piece.length < count ? copyOf(piece) : piece);
      length += piece.length;
    }
    // The last piece may be long: only what was asked for and that piece's rest are copied, once in each chunk.
    const whole = new Uint8Array(length);
    let at = 0;
    for (const piece of pieces) {
      whole.set(piece, at);
      at += piece.length;
    }
    this.#chunk = whole;
    this.#at = 0;
    return length >= count;
  }

  /** Replaces the used-up chunk by the next one. @returns false at the end of the source */
  async #pull(): Promise<boolean> {
    this.#before += this.#chunk.length;
    this.#chunk = EMPTY;
    this.#at = 0;
    const chunk = await this.#nextChunk();
    if (chunk === undefined) return false;
    this.#chunk = chunk;
    return true;
  }

  async #nextChunk(): Promise<Uint8Array | undefined> {
    while (!this.#ended) {
      this.#options.signal?.throwIfAborted();
      const { done, value } = await this.#source.next();
      if (done === true) this.#ended = true;
      else if (value.length > 0) return value;
    }
    return undefined;
  }

  #cutOff(what: string): TarError {
    const position = this.#before + this.#chunk.length;
    if (position === 0) return new TarError("The archive is empty", 0);
    const missing = what === "content" ? `, ${this.#content} bytes before its end` : "";
    const member = this.#member === undefined
      ? "before its first member"
      : what === "content"
      ? `in member ${this.#member}${missing}`
      : `after member ${this.#member}, in the ${what}`;
    return new TarError(
      `The archive is cut off at byte ${position}, ${member}`,
      position,
    );
  }

  #error(reason: string, position: number): TarError {
    const member = this.#member === undefined || reason.startsWith("member ")
      ? ""
      : `, at or after member ${this.#member}`;
    return new TarError(`The archive is damaged at byte ${position}${member}: ${reason}`, position);
  }
}

const TYPES: ReadonlyMap<string, TarEntryType> = new Map([
  [TYPE.file, "file"],
  ["\0", "file"],
  // "Contiguous", which nobody cares about.
  ["7", "file"],
  [TYPE.hardLink, "hard-link"],
  [TYPE.symlink, "symlink"],
  [TYPE.characterDevice, "character-device"],
  [TYPE.blockDevice, "block-device"],
  [TYPE.directory, "directory"],
  [TYPE.fifo, "fifo"],
]);

/** By hand: a pattern would take quadratic time for slashes with something behind them. */
function withoutTrailingSlashes(name: string): string {
  let end = name.length;
  while (end > 1 && name[end - 1] === "/") end--;
  return name.slice(0, end);
}

/** For messages. */
function shownName(name: string): string {
  return name.length > 300 ? `${name.slice(0, 300)}…` : name;
}

/** Not `slice`, which of a Node buffer makes another view. */
function copyOf(bytes: Uint8Array): Uint8Array {
  return new Uint8Array(bytes);
}
