/**
 * Memory for arrays that are needed for a while. As garbage they would stay long in a worker thread, whose heap grows far
 * before it is collected.
 */
export class Arena {
  readonly #buffer: ArrayBuffer;
  #used = 0;

  /** @param size bytes; what is wanted beyond comes from the heap */
  constructor(size: number) {
    this.#buffer = new ArrayBuffer(size);
  }

  /** Holds anything. */
  int32(length: number): Int32Array {
    const at = this.#take(4 * length);
    return at === null ? new Int32Array(length) : new Int32Array(this.#buffer, at, length);
  }

  /** Holds anything. */
  uint16(length: number): Uint16Array {
    const at = this.#take(2 * length);
    return at === null ? new Uint16Array(length) : new Uint16Array(this.#buffer, at, length);
  }

  /** Holds anything. */
  uint8(length: number): Uint8Array {
    const at = this.#take(length);
    return at === null ? new Uint8Array(length) : new Uint8Array(this.#buffer, at, length);
  }

  /** For `release`. */
  mark(): number {
    return this.#used;
  }

  /** All arrays given since the mark may be given again. */
  release(mark: number): void {
    this.#used = mark;
  }

  #take(bytes: number): number | null {
    const at = this.#used;
    const end = at + 8 * Math.ceil(bytes / 8);
    if (end > this.#buffer.byteLength) return null;
    this.#used = end;
    return at;
  }
}
