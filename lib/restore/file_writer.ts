/** Writes the contents of files: large pieces as they come, small ones gathered. */
import { write, writeSync } from "node:fs";

/** Pieces from here on are written as they come. Bytes. */
const LARGE = 64 * 1024;
/** Room for small pieces. Bytes. */
const GATHERED = 256 * 1024;
/** Up to this a synchronous write, which goes to the system's cache, is cheaper than a trip to another thread. */
const SYNCHRONOUS = 64 * 1024;

/** One for each archive: it works on one file at a time, and `flush` or `discard` ends with that. */
export class FileWriter {
  #buffer: Uint8Array | undefined;
  #filled = 0;

  /** Append to the file. The chunk is used up when the promise resolves. */
  async write(descriptor: number, chunk: Uint8Array): Promise<void> {
    if (chunk.length >= LARGE) {
      await this.flush(descriptor);
      await writeFully(descriptor, chunk);
      return;
    }
    if (this.#filled + chunk.length > GATHERED) await this.flush(descriptor);
    this.#buffer ??= new Uint8Array(GATHERED);
    this.#buffer.set(chunk, this.#filled);
    this.#filled += chunk.length;
  }

  /** Write what was gathered. */
  async flush(descriptor: number): Promise<void> {
    const rest = this.#buffer?.subarray(0, this.#filled);
    this.#filled = 0;
    if (rest !== undefined && rest.length > 0) await writeFully(descriptor, rest);
  }

  /** Forget what was gathered. */
  discard(): void {
    this.#filled = 0;
  }
}

/** A write may take less than all of it: near a full disk, or when a signal comes. */
async function writeFully(descriptor: number, bytes: Uint8Array): Promise<void> {
  for (let rest = bytes; rest.length > 0;) {
    const written = rest.length <= SYNCHRONOUS
      ? writeSync(descriptor, rest)
      : await writeSome(descriptor, rest);
    if (written === 0) throw new Error("the system wrote nothing");
    rest = rest.subarray(written);
  }
}

function writeSome(descriptor: number, bytes: Uint8Array): Promise<number> {
  return new Promise((resolve, reject) => {
    write(descriptor, bytes, 0, bytes.length, null, (error, written) => {
      if (error === null || error === undefined) resolve(written);
      else reject(error);
    });
  });
}
