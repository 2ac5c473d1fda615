import { CorruptDataError } from "./corrupt_data_error.ts";
import type { CompressionName } from "./table.ts";

const EMPTY = new Uint8Array(0);

/**
 * Reads a stream of chunks as if it were one run of bytes. Views that it returns are never
 * overwritten later; data is copied only where a read spans chunks.
 */
export class ByteReader {
  readonly #codec: CompressionName;
  readonly #source: AsyncIterator<Uint8Array>;
  readonly #signal: AbortSignal | undefined;
  #buffer: Uint8Array = EMPTY;
  #ended = false;

  constructor(
    codec: CompressionName,
    source: AsyncIterable<Uint8Array>,
    signal?: AbortSignal | undefined,
  ) {
    this.#codec = codec;
    this.#source = source[Symbol.asyncIterator]();
    this.#signal = signal;
  }

  /** The next `count` bytes without consuming them; fewer only if the stream ends before. */
  async peek(count: number): Promise<Uint8Array> {
    if (this.#buffer.length < count) await this.#fill(count);
    return this.#buffer.subarray(0, count);
  }

  /** Drops `count` bytes that were peeked at. */
  consume(count: number): void {
    this.#buffer = this.#buffer.subarray(count);
  }

  /** Exactly the next `count` bytes. @throws CorruptDataError if the stream ends before. */
  async read(count: number): Promise<Uint8Array> {
    if (this.#buffer.length < count) await this.#fill(count);
    if (this.#buffer.length < count) throw new CorruptDataError(this.#codec, CUT_OFF);
    const bytes = this.#buffer.subarray(0, count);
    this.#buffer = this.#buffer.subarray(count);
    return bytes;
  }

  /** Between 1 and `most` bytes as they come, or undefined at the end of the stream. */
  async take(most = Infinity): Promise<Uint8Array | undefined> {
    if (this.#buffer.length === 0) await this.#fill(1);
    if (this.#buffer.length === 0) return undefined;
    const bytes = this.#buffer.subarray(0, most);
    this.#buffer = this.#buffer.subarray(bytes.length);
    return bytes;
  }

  /** Puts bytes before what comes next: what was taken and not used. */
  putBack(bytes: Uint8Array): void {
    if (bytes.length === 0) return;
    this.#buffer = this.#buffer.length === 0 ? bytes : concat([bytes, this.#buffer]);
  }

  /** Passes over exactly `count` bytes. @throws CorruptDataError if the stream ends before. */
  async skip(count: number): Promise<void> {
    for (let left = count; left > 0;) {
      const bytes = await this.take(left);
      if (bytes === undefined) throw new CorruptDataError(this.#codec, CUT_OFF);
      left -= bytes.length;
    }
  }

  /** Whether nothing is left. */
  async atEnd(): Promise<boolean> {
    return (await this.peek(1)).length === 0;
  }

  /** Tells the source that no more is wanted. */
  async close(): Promise<void> {
    if (this.#ended) return;
    this.#ended = true;
    // A source that is hanging in a read cannot be waited for once the signal is aborted.
    const closing = this.#source.return?.();
    if (this.#signal?.aborted) closing?.catch(() => undefined);
    else await closing;
  }

  async #fill(count: number): Promise<void> {
    if (this.#ended) return;
    const pieces = this.#buffer.length === 0 ? [] : [this.#buffer];
    let length = this.#buffer.length;
    while (length < count) {
      const next = await abortable(this.#source.next(), this.#signal);
      if (next.done) {
        this.#ended = true;
        break;
      }
      if (next.value.length === 0) continue;
      pieces.push(next.value);
      length += next.value.length;
    }
    this.#buffer = pieces.length === 1 ? pieces[0] ?? EMPTY : concat(pieces);
  }
}

/** What is said of data that ends too early, in every format. */
export const CUT_OFF = "it is cut off";

/** The promise's outcome, or the signal's reason as soon as that is aborted. */
export function abortable<T>(promise: Promise<T>, signal: AbortSignal | undefined): Promise<T> {
  if (signal === undefined) return promise;
  return new Promise((resolve, reject) => {
    const onAbort = () => reject(signal.reason);
    const forget = () => signal.removeEventListener("abort", onAbort);
    promise.then((value) => {
      forget();
      resolve(value);
    }, (error) => {
      forget();
      reject(error);
    });
    if (signal.aborted) onAbort();
    else signal.addEventListener("abort", onAbort);
  });
}

/** Lets timers, sockets and signals have their turn between two long computations. */
export function breathe(signal: AbortSignal | undefined): Promise<void> {
  return new Promise((resolve, reject) => {
    setTimeout(() => signal?.aborted ? reject(signal.reason) : resolve(), 0);
  });
}

/** Breathes after so much work, which many small pieces add up to as well. */
export interface Pace {
  /** @param bytes of work that were done */
  done(bytes: number): Promise<void>;
}

/** Bytes of output: some ten milliseconds of the slowest decoders. */
const BREATH = 256 * 1024;

export function createPace(signal: AbortSignal | undefined): Pace {
  let work = 0;
  return {
    async done(bytes) {
      work += bytes;
      if (work < BREATH) return;
      work = 0;
      await breathe(signal);
    },
  };
}

export function concat(pieces: readonly Uint8Array[]): Uint8Array<ArrayBuffer> {
  const whole = new Uint8Array(pieces.reduce((sum, piece) => sum + piece.length, 0));
  let at = 0;
  for (const piece of pieces) {
    whole.set(piece, at);
    at += piece.length;
  }
  return whole;
}

/**
 * Cuts a stream into blocks of exactly `size` bytes; only the last one may be shorter.
 * @param take memory for a block, of at least that size; new memory when absent
 */
export async function* inBlocks(
  source: AsyncIterable<Uint8Array>,
  size: number,
  signal?: AbortSignal | undefined,
  take: (size: number) => Uint8Array = (bytes) => new Uint8Array(bytes),
): AsyncGenerator<Uint8Array, void, void> {
  const iterator = source[Symbol.asyncIterator]();
  let block: Uint8Array | undefined;
  let filled = 0;
  let finished = false;
  try {
    for (;;) {
      const next = await abortable(iterator.next(), signal);
      if (next.done) break;
      for (let chunk: Uint8Array = next.value; chunk.length > 0;) {
        block ??= take(size);
        const part = chunk.subarray(0, size - filled);
        block.set(part, filled);
        filled += part.length;
        chunk = chunk.subarray(part.length);
        if (filled === size) {
          const full = block.subarray(0, size);
          block = undefined;
          filled = 0;
          yield full;
        }
      }
    }
    finished = true;
    if (block !== undefined && filled > 0) yield block.subarray(0, filled);
  } finally {
    if (!finished) {
      const closing = iterator.return?.();
      if (signal?.aborted) closing?.catch(() => undefined);
      else await closing;
    }
  }
}
