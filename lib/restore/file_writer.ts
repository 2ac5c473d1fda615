/** Writes the contents of files while what comes next is being read. */
import { write, writeSync } from "node:fs";

/** Bytes handed to the system at once, unless a file ends before: the trip to another thread is nothing beside it. */
const BUFFER = 512 * 1024;
/** Up to this a whole file is written synchronously, which goes to the system's cache and is cheaper than that trip. */
const SYNCHRONOUS = 64 * 1024;

/** Memory for what waits to be written and what is being written, of all files that share it. */
export class WriteBuffers {
  readonly #most: number;
  readonly #free: Uint8Array[] = [];
  readonly #waiting: ((buffer: Uint8Array) => void)[] = [];
  #made = 0;

  constructor(most = 4) {
    this.#most = most;
  }

  /** Waits until one is free. */
  async take(): Promise<Uint8Array> {
    const free = this.#free.pop();
    if (free !== undefined) return free;
    if (this.#made < this.#most) {
      this.#made++;
      return new Uint8Array(BUFFER);
    }
    return await new Promise((resolve) => this.#waiting.push(resolve));
  }

  give(buffer: Uint8Array): void {
    const next = this.#waiting.shift();
    if (next === undefined) this.#free.push(buffer);
    else next(buffer);
  }
}

/** The content of one file, in order. */
export class FileWriter {
  readonly #descriptor: number;
  readonly #buffers: WriteBuffers;
  /** Being filled. */
  #buffer: Uint8Array | undefined;
  #filled = 0;
  /** The beginnings of buffers, to be written. */
  readonly #queue: Uint8Array[] = [];
  /** Ends when the queue is empty; never rejects. */
  #writing: Promise<void> | undefined;
  #failure: { readonly error: unknown } | undefined;

  constructor(descriptor: number, buffers: WriteBuffers) {
    this.#descriptor = descriptor;
    this.#buffers = buffers;
  }

  /** Append to the file, soon; the chunk is used up when this resolves. @throws what an earlier write failed with */
  async write(chunk: Uint8Array): Promise<void> {
    for (let rest = chunk; rest.length > 0;) {
      if (this.#failure !== undefined) throw this.#failure.error;
      this.#buffer ??= await this.#buffers.take();
      const part = rest.subarray(0, this.#buffer.length - this.#filled);
      this.#buffer.set(part, this.#filled);
      this.#filled += part.length;
      rest = rest.subarray(part.length);
      if (this.#filled === this.#buffer.length) this.#send(this.#buffer);
    }
  }

  /** Resolves when the system has all of it. @throws what a write failed with */
  async end(): Promise<void> {
    if (this.#failure !== undefined) await this.discard();
    else if (this.#buffer !== undefined) {
      if (this.#writing === undefined && this.#filled <= SYNCHRONOUS) this.#writeNow(this.#buffer);
      else this.#send(this.#buffer);
    }
    await this.#writing;
    if (this.#failure !== undefined) throw this.#failure.error;
  }

  /** Forget what is not being written yet. The descriptor may be closed when this resolves. */
  async discard(): Promise<void> {
    if (this.#buffer !== undefined) this.#buffers.give(this.#buffer);
    this.#buffer = undefined;
    this.#filled = 0;
    this.#giveBackQueue();
    await this.#writing;
  }

  #send(buffer: Uint8Array): void {
    this.#queue.push(buffer.subarray(0, this.#filled));
    this.#buffer = undefined;
    this.#filled = 0;
    this.#writing ??= this.#writeQueue()
      .catch((error) => {
        this.#failure = { error };
        this.#giveBackQueue();
      })
      .finally(() => this.#writing = undefined);
  }

  async #writeQueue(): Promise<void> {
    for (let next = this.#queue.shift(); next !== undefined; next = this.#queue.shift()) {
      try {
        for (let rest = next; rest.length > 0;) {
          rest = rest.subarray(someOf(await writeSome(this.#descriptor, rest)));
        }
      } finally {
        this.#buffers.give(wholeOf(next));
      }
    }
  }

  #writeNow(buffer: Uint8Array): void {
    const content = buffer.subarray(0, this.#filled);
    this.#buffer = undefined;
    this.#filled = 0;
    try {
      for (let rest = content; rest.length > 0;) {
        rest = rest.subarray(someOf(writeSync(this.#descriptor, rest)));
      }
    } finally {
      this.#buffers.give(buffer);
    }
  }

  #giveBackQueue(): void {
    for (const content of this.#queue.splice(0)) this.#buffers.give(wholeOf(content));
  }
}

function wholeOf(content: Uint8Array): Uint8Array {
  return new Uint8Array(content.buffer);
}

function writeSome(descriptor: number, bytes: Uint8Array): Promise<number> {
  return new Promise((resolve, reject) => {
    write(descriptor, bytes, 0, bytes.length, null, (error, written) => {
      if (error === null || error === undefined) resolve(written);
      else reject(error);
    });
  });
}

/** A write may take less than all of it: near a full disk, or when a signal comes. */
function someOf(written: number): number {
  if (written === 0) throw new Error("the system wrote nothing");
  return written;
}
