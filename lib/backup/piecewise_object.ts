/** An object whose size is not known while it is written: at once when it is small, else in parts. */
import type {
  MultipartUpload,
  ObjectStore,
  Tags,
  UploadedPart,
} from "../../providers/object_store.ts";

export interface PiecewiseOptions {
  readonly tags?: Tags | undefined;
  readonly signal: AbortSignal;
}

/** Bytes that are held, unless the store wants larger parts. */
const PART_SIZE = 5 * 1024 ** 2;

/** One writer, one call at a time. Nothing is visible before `finish`. */
export class PiecewiseObject {
  readonly #store: ObjectStore;
  readonly #key: string;
  readonly #options: PiecewiseOptions;
  readonly #buffer: Uint8Array;
  #used = 0;
  #upload: MultipartUpload | undefined;
  readonly #parts: UploadedPart[] = [];

  constructor(store: ObjectStore, key: string, options: PiecewiseOptions) {
    this.#store = store;
    this.#key = key;
    this.#options = options;
    this.#buffer = new Uint8Array(Math.max(PART_SIZE, store.limits.minPartSize));
  }

  async write(text: string): Promise<void> {
    const bytes = new TextEncoder().encode(text);
    for (let done = 0; done < bytes.length;) {
      const count = Math.min(bytes.length - done, this.#buffer.length - this.#used);
      this.#buffer.set(bytes.subarray(done, done + count), this.#used);
      this.#used += count;
      done += count;
      if (this.#used === this.#buffer.length) await this.#sendPart();
    }
  }

  /** @returns bytes of the object */
  async finish(): Promise<number> {
    const { tags, signal } = this.#options;
    if (this.#upload === undefined) {
      await this.#store.put(this.#key, this.#buffer.subarray(0, this.#used), { tags, signal });
      return this.#used;
    }
    if (this.#used > 0) await this.#sendPart();
    await this.#upload.complete(this.#parts, { signal });
    this.#upload = undefined;
    return this.#parts.reduce((sum, { size }) => sum + size, 0);
  }

  /** Remove what was sent and is not complete; nothing else is called afterwards. */
  async abort(signal: AbortSignal): Promise<void> {
    await this.#upload?.abort({ signal });
  }

  async #sendPart(): Promise<void> {
    const { tags, signal } = this.#options;
    this.#upload ??= await this.#store.startMultipart(this.#key, { tags, signal });
    const number = this.#parts.length + 1;
    const body = this.#buffer.subarray(0, this.#used);
    this.#parts.push(await this.#upload.uploadPart(number, body, { signal }));
    this.#used = 0;
  }
}
