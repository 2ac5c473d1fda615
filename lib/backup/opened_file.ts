/** A file that is open for reading. */
import { closeSync, fstatSync, openSync, read, type Stats } from "node:fs";
import { fsPath } from "./raw_names.ts";

/**
 * Opened and closed synchronously: that is a tenth of a trip to another thread, and hundreds of thousands of small files
 * may come one after the other. Reading waits for the disk, elsewhere. To be closed by whoever has it.
 */
export class OpenedFile {
  readonly #descriptor: number;

  /** @param flags of `open` */
  constructor(path: string, flags: number) {
    this.#descriptor = openSync(fsPath(path), flags);
  }

  stat(): Stats {
    return fstatSync(this.#descriptor);
  }

  /**
   * Fill the range of the buffer, unless the file ends before.
   * @param position bytes into the file; null: where the reading before ended
   * @returns bytes read
   */
  async read(
    buffer: Uint8Array,
    start: number,
    length: number,
    position: number | null,
  ): Promise<number> {
    let done = 0;
    while (done < length) {
      const from = position === null ? null : position + done;
      const count = await this.#readSome(buffer, start + done, length - done, from);
      if (count === 0) break;
      done += count;
    }
    return done;
  }

  close(): void {
    closeSync(this.#descriptor);
  }

  #readSome(
    buffer: Uint8Array,
    start: number,
    length: number,
    position: number | null,
  ): Promise<number> {
    return new Promise((resolve, reject) => {
      read(this.#descriptor, buffer, start, length, position, (error, count) => {
        if (error === null || error === undefined) resolve(count);
        else reject(error);
      });
    });
  }
}
