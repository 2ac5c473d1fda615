/**
 * Multipart uploads into one temporary file. Parts of equal size (all but the last) are written where
 * they belong, so that completing is a rename; only a caller whose parts have other sizes, or who
 * leaves numbers out, pays a copy.
 */
import {
  type Cancellable,
  type CompletedObject,
  type MultipartUpload,
  type PutOptions,
  StoreError,
  type StoreLimits,
  type UploadedPart,
} from "../object_store.ts";
import { commit, openTemporary, publish, type TemporaryFile, unlinkIfThere } from "./durable.ts";
import { pathOfKey } from "./keys.ts";
import { writeAll, writeError } from "./write.ts";

/** Bytes copied at once where parts have to be moved. */
const COPY_SIZE = 1024 * 1024;

/** Where a part's bytes are. */
interface Placed {
  readonly file: TemporaryFile;
  readonly position: number;
  readonly size: number;
  readonly etag: string;
  /** Of two bodies for one number the one sent last counts. */
  readonly turn: number;
}

/** The contract of `ObjectStore.startMultipart`. */
export async function startMultipartFile(
  root: string,
  key: string,
  limits: StoreLimits,
  options: PutOptions = {},
): Promise<MultipartUpload> {
  options.signal?.throwIfAborted();
  const target = pathOfKey(root, key);
  try {
    const slots = await openTemporary(root, target);
    const upload = new FileUpload(root, key, target, limits, slots, options.createOnly ?? false);
    if (options.signal?.aborted) {
      await upload.abort();
      options.signal.throwIfAborted();
    }
    return upload;
  } catch (error) {
    options.signal?.throwIfAborted();
    throw writeError(root, key, error);
  }
}

class FileUpload implements MultipartUpload {
  readonly key: string;
  readonly #root: string;
  readonly #target: string;
  readonly #limits: StoreLimits;
  readonly #createOnly: boolean;
  /** Part n is at (n - 1) × slot size. */
  readonly #slots: TemporaryFile;
  /** Size of the first part that was sent; callers send equal ones. */
  #slotSize: number | undefined;
  /** Numbers whose slot is being written to. */
  readonly #busySlots = new Set<number>();
  /** Parts that are larger than a slot, one after another as they came. */
  #overflow: Promise<TemporaryFile> | undefined;
  #overflowSize = 0;
  readonly #parts = new Map<number, Placed>();
  readonly #writing = new Set<Promise<unknown>>();
  #turns = 0;
  #completing: Promise<void> | undefined;
  #state: "open" | "completed" | "aborted" = "open";

  constructor(
    root: string,
    key: string,
    target: string,
    limits: StoreLimits,
    slots: TemporaryFile,
    createOnly: boolean,
  ) {
    this.key = key;
    this.#root = root;
    this.#target = target;
    this.#limits = limits;
    this.#slots = slots;
    this.#createOnly = createOnly;
  }

  async uploadPart(
    number: number,
    body: Uint8Array,
    options: Cancellable = {},
  ): Promise<UploadedPart> {
    options.signal?.throwIfAborted();
    this.#requireOpen();
    this.#requireValid(number, body);
    const writing = this.#place(number, body, options.signal);
    this.#writing.add(writing);
    try {
      const { size, etag } = await writing;
      return { number, size, etag };
    } catch (error) {
      options.signal?.throwIfAborted();
      throw this.#error(error);
    } finally {
      this.#writing.delete(writing);
    }
  }

  async complete(
    parts: readonly UploadedPart[],
    options: Cancellable = {},
  ): Promise<CompletedObject> {
    options.signal?.throwIfAborted();
    this.#requireOpen();
    const completing = this.#assemble(parts, options.signal);
    this.#completing = completing;
    try {
      await completing;
      this.#state = "completed";
      await this.#removeTemporaries();
      return {};
    } catch (error) {
      options.signal?.throwIfAborted();
      throw this.#error(error);
    } finally {
      this.#completing = undefined;
    }
  }

  async abort(): Promise<void> {
    await Promise.allSettled([this.#completing]);
    if (this.#state !== "open") return;
    this.#state = "aborted";
    await Promise.allSettled(this.#writing);
    try {
      await this.#removeTemporaries();
    } catch (error) {
      throw this.#error(error);
    }
  }

  async #place(
    number: number,
    body: Uint8Array,
    signal: AbortSignal | undefined,
  ): Promise<Placed> {
    const turn = ++this.#turns;
    const etag = `${number}-${turn}`;
    const size = body.length;
    this.#slotSize ??= size;
    // Places are taken before the first await. A part that is there stays until its successor is whole.
    if (size > this.#slotSize || this.#busySlots.has(number) || this.#parts.has(number)) {
      const position = this.#overflowSize;
      this.#overflowSize += size;
      const file = await this.#overflowFile();
      await writeAll(file.handle, body, position, signal);
      return this.#record(number, { file, position, size, etag, turn });
    }
    const position = (number - 1) * this.#slotSize;
    this.#busySlots.add(number);
    try {
      await writeAll(this.#slots.handle, body, position, signal);
      return this.#record(number, { file: this.#slots, position, size, etag, turn });
    } finally {
      this.#busySlots.delete(number);
    }
  }

  #record(number: number, placed: Placed): Placed {
    const earlier = this.#parts.get(number);
    if (earlier === undefined || earlier.turn < placed.turn) this.#parts.set(number, placed);
    return placed;
  }

  async #overflowFile(): Promise<TemporaryFile> {
    const opening = this.#overflow ??= openTemporary(this.#root, this.#target);
    try {
      return await opening;
    } catch (error) {
      if (this.#overflow === opening) this.#overflow = undefined;
      throw error;
    }
  }

  async #assemble(parts: readonly UploadedPart[], signal: AbortSignal | undefined): Promise<void> {
    await Promise.allSettled(this.#writing);
    const placed = this.#chosen(parts);
    if (this.#isInPlace(placed)) await this.#completeInPlace(placed, signal);
    else await this.#completeByCopy(placed, signal);
  }

  /** The places of the parts to be put together, in order of their numbers. */
  #chosen(parts: readonly UploadedPart[]): Placed[] {
    if (parts.length === 0) throw this.#invalid("at least one part is needed");
    const numbers = new Set<number>();
    return [...parts].sort((a, b) => a.number - b.number).map((part) => {
      const placed = this.#parts.get(part.number);
      if (placed === undefined || placed.etag !== part.etag) {
        throw this.#invalid(`part ${part.number} was not sent, or was replaced`, "InvalidPart");
      }
      if (numbers.has(part.number)) throw this.#invalid(`part ${part.number} is named twice`);
      numbers.add(part.number);
      return placed;
    });
  }

  #isInPlace(placed: readonly Placed[]): boolean {
    let position = 0;
    return placed.every((part) => {
      const fits = part.file === this.#slots && part.position === position;
      position += part.size;
      return fits;
    });
  }

  /** The handle stays open, so that a refused `complete` can be tried again. */
  async #completeInPlace(
    placed: readonly Placed[],
    signal: AbortSignal | undefined,
  ): Promise<void> {
    const size = placed.reduce((sum, part) => sum + part.size, 0);
    await this.#slots.handle.truncate(size);
    await this.#slots.handle.sync();
    signal?.throwIfAborted();
    await publish(this.#root, this.#slots.path, this.#target, this.#createOnly);
  }

  async #completeByCopy(placed: readonly Placed[], signal: AbortSignal | undefined): Promise<void> {
    const file = await openTemporary(this.#root, this.#target);
    try {
      try {
        const buffer = new Uint8Array(COPY_SIZE);
        let position = 0;
        for (const part of placed) {
          await copyPart(part, file, position, buffer, signal);
          position += part.size;
        }
      } catch (error) {
        await file.handle.close();
        throw error;
      }
      await commit(this.#root, file, this.#target, this.#createOnly);
    } catch (error) {
      await unlinkIfThere(file.path);
      throw error;
    }
  }

  async #removeTemporaries(): Promise<void> {
    const files = [this.#slots];
    const overflow = await this.#overflow?.catch(() => undefined);
    if (overflow !== undefined) files.push(overflow);
    for (const file of files) {
      await file.handle.close();
      await unlinkIfThere(file.path);
    }
  }

  #requireOpen(): void {
    if (this.#state === "open" && this.#completing === undefined) return;
    throw new StoreError(
      "not-found",
      `Cannot write ${this.key} in directory ${this.#root}: its multipart upload was ${
        this.#state === "aborted" ? "aborted" : "completed"
      } already`,
      { key: this.key, code: "NoSuchUpload" },
    );
  }

  #requireValid(number: number, body: Uint8Array): void {
    const { maxParts, maxPartSize } = this.#limits;
    if (!Number.isInteger(number) || number < 1 || number > maxParts) {
      throw this.#invalid(`part number ${number} is not between 1 and ${maxParts}`);
    }
    if (body.length > maxPartSize) {
      throw this.#invalid(`part ${number} has ${body.length} bytes, more than ${maxPartSize}`);
    }
  }

  #invalid(why: string, code?: string): StoreError {
    return new StoreError(
      "invalid",
      `Cannot write ${this.key} in directory ${this.#root}: ${why}`,
      { key: this.key, code },
    );
  }

  #error(error: unknown): StoreError {
    return writeError(this.#root, this.key, error);
  }
}

async function copyPart(
  part: Placed,
  to: TemporaryFile,
  position: number,
  buffer: Uint8Array,
  signal: AbortSignal | undefined,
): Promise<void> {
  for (let copied = 0; copied < part.size;) {
    const length = Math.min(buffer.length, part.size - copied);
    const { bytesRead } = await part.file.handle.read(buffer, 0, length, part.position + copied);
    if (bytesRead === 0) throw new Error("a temporary file was shortened while in use");
    await writeAll(to.handle, buffer.subarray(0, bytesRead), position + copied, signal);
    copied += bytesRead;
  }
}
