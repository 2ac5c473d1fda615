/** Upload a stream of unknown length with bounded memory: small ones in one request, others in parts. */
import type { LocalFile } from "./local_file.ts";
import {
  type MultipartUpload,
  type ObjectContent,
  type ObjectStore,
  type PutOptions,
  StoreError,
  type UploadedPart,
} from "../../providers/object_store.ts";

/** Parts under way at once. */
const SLOTS = 4;
/** All parts but the last have this size, if the store allows it (some insist on equal parts). */
const PART_SIZE = 8 * 1024 ** 2;
/** Bytes of what is kept that are sent at once. */
const AT_ONCE = 256 * 1024;
/** How long removing the parts of a failed upload may take, milliseconds. */
const ABORT_TIMEOUT = 10_000;

export interface UploadOptions extends PutOptions {
  /** About how many bytes the stream will have at most, to take no more memory than needed. */
  readonly expectedSize?: number | undefined;
  /**
   * Awaited before anything is sent, while the source is read: completes `createOnly` and `conditionKept`. When it
   * rejects, nothing is sent.
   */
  readonly ready?: Promise<Pick<PutOptions, "createOnly" | "conditionKept">> | undefined;
  /** Memory that may be used until the upload has succeeded, instead of getting it anew. */
  readonly memory?: Uint8Array | undefined;
  /** Chunks of the source stay as they are, so that what is sent in one request need not be copied. */
  readonly keepsChunks?: boolean | undefined;
  /** Told about parts that could not be removed after a failure. */
  readonly onWarning?: ((message: string) => void) | undefined;
}

/**
 * Write a stream to a key. Up to 32 MiB it is one `put`; above it a multipart upload of which at most 32 MiB are in
 * memory. Nothing is visible under the key before all of it is there; after a failure the parts are removed.
 * Chunks of the source are copied before the next one is asked for, unless it `keepsChunks`.
 * @returns the bytes written
 * @throws what the source and the store throw, and the signal's reason
 */
export async function uploadStream(
  store: ObjectStore,
  key: string,
  source: AsyncIterable<Uint8Array>,
  options: UploadOptions = {},
): Promise<number> {
  const { signal, tags } = options;
  // Whoever awaits it below gets the error itself.
  options.ready?.catch(() => {});
  const partSize = Math.max(
    store.limits.minPartSize,
    Math.min(store.limits.maxPartSize, PART_SIZE),
  );
  const { putContent } = store;
  const keeps = options.keepsChunks === true && putContent !== undefined;
  const ring = new Ring(partSize, keeps ? "kept" : options.memory ?? options.expectedSize ?? 0);
  const chunks = source[Symbol.asyncIterator]();
  try {
    const ended = await ring.fill(chunks, signal);
    const { createOnly, conditionKept } = await options.ready ?? options;
    if (ended && ring.filled <= store.limits.maxPutSize) {
      const put = { tags, createOnly, conditionKept, signal };
      if (keeps) await putContent.call(store, key, ring.content(), put);
      else await store.put(key, ring.whole(), put);
      return ring.filled;
    }
    return await uploadParts(store, key, ring, ended ? null : chunks, { ...options, createOnly });
  } finally {
    // A source that was left in the middle must give back its file.
    await chunks.return?.();
  }
}

/** Can a file go as it is to the store in one `put`, with little of it in memory? */
export function fitsPut(store: ObjectStore, file: LocalFile): boolean {
  const { maxPutSize } = store.limits;
  return store.putContent !== undefined && file.size <= Math.min(maxPutSize, SLOTS * PART_SIZE);
}

/**
 * The same as `uploadStream` for a file as it is, if it `fitsPut`: twice read instead of once kept.
 * @returns the bytes written
 * @throws as `uploadStream`
 */
export async function uploadFile(
  store: ObjectStore,
  key: string,
  file: LocalFile,
  options: UploadOptions,
): Promise<number> {
  const { signal, tags } = options;
  const { putContent } = store;
  if (putContent === undefined) throw new TypeError("This store takes whole objects only");
  const { createOnly, conditionKept } = await options.ready ?? options;
  let failure: unknown;
  const read = async function* () {
    try {
      // With memory of its own it is one of several that are archived ahead.
      yield* file.read(options.memory === undefined ? "here" : true);
    } catch (error) {
      failure = error;
      throw error;
    }
  };
  const content = { length: file.size, read };
  try {
    await putContent.call(store, key, content, { tags, createOnly, conditionKept, signal });
  } catch (error) {
    // What the store says of it is that it could not be sent.
    throw failure ?? error;
  }
  return file.size;
}

async function uploadParts(
  store: ObjectStore,
  key: string,
  ring: Ring,
  rest: AsyncIterator<Uint8Array> | null,
  options: UploadOptions,
): Promise<number> {
  const { tags, createOnly } = options;
  // One failing part stops the others.
  const failure = new AbortController();
  const signal = options.signal === undefined
    ? failure.signal
    : AbortSignal.any([options.signal, failure.signal]);
  const upload = await store.startMultipart(key, { tags, createOnly, signal: options.signal });
  const running: (Promise<UploadedPart> | undefined)[] = [];
  const done: Promise<UploadedPart>[] = [];
  const send = (number: number, body: Uint8Array) => {
    if (number > store.limits.maxParts) {
      throw new StoreError("invalid", `Cannot write ${key}: it is too large for the store`, {
        key,
      });
    }
    const part = upload.uploadPart(number, body, { signal });
    // Stops the others at once; whoever awaits the part gets the error itself.
    part.catch((error) => failure.abort(error));
    running[(number - 1) % SLOTS] = part;
    done.push(part);
  };
  try {
    let size = ring.filled;
    const first = ring.parts();
    first.forEach((body, index) => send(index + 1, body));
    let number = first.length;
    while (rest !== null) {
      // The slot is free when the part before in it has arrived.
      const slot = number % SLOTS;
      await running[slot];
      const body = await ring.refill(slot, rest, signal);
      if (body.length > 0) send(++number, body);
      size += body.length;
      if (body.length < ring.partSize) break;
    }
    await upload.complete(await Promise.all(done), { signal: options.signal });
    return size;
  } catch (error) {
    failure.abort(error);
    await Promise.allSettled(done);
    await abortQuietly(upload, options);
    // What `failure` was aborted with is the first error; the others are its consequences.
    throw options.signal?.aborted ? options.signal.reason : failure.signal.reason;
  }
}

async function abortQuietly(upload: MultipartUpload, options: UploadOptions): Promise<void> {
  try {
    await upload.abort({ signal: AbortSignal.timeout(ABORT_TIMEOUT) });
  } catch (error) {
    options.onWarning?.(
      `Cannot remove the parts of the failed upload of ${upload.key}: ${
        error instanceof Error ? error.message : error
      }`,
    );
  }
}

/**
 * SLOTS parts of memory in one piece, filled from the front: as a whole the body of a `put`, else slots that are
 * filled again and again. What may be kept is put there only when it is too much for a `put`.
 */
class Ring {
  readonly partSize: number;
  readonly #capacity: number;
  #memory: Uint8Array;
  #filled = 0;
  #kept: Uint8Array[] | null = null;
  /** Part of a chunk that did not fit any more. */
  #left: Uint8Array = new Uint8Array(0);

  /** @param memory what to use, or about how many bytes there will be; `kept`: chunks stay as they are */
  constructor(partSize: number, memory: Uint8Array | number | "kept") {
    this.partSize = partSize;
    this.#capacity = SLOTS * partSize;
    if (memory === "kept") this.#kept = [];
    this.#memory = memory instanceof Uint8Array
      ? memory.subarray(0, this.#capacity)
      // One byte more shows the end of the stream without asking for more memory.
      : new Uint8Array(memory === "kept" ? 0 : Math.min(this.#capacity, memory + 1));
  }

  /** Bytes put in by `fill`. */
  get filled(): number {
    return this.#filled;
  }

  whole(): Uint8Array {
    return this.#memory.subarray(0, this.#filled);
  }

  /** The same of chunks that were kept. */
  content(): ObjectContent {
    const chunks = this.#kept ?? [this.whole()];
    return {
      length: this.#filled,
      async *read() {
        for (const chunk of chunks) {
          for (let at = 0; at < chunk.length; at += AT_ONCE) yield chunk.subarray(at, at + AT_ONCE);
        }
      },
    };
  }

  /** What `fill` took, as parts. */
  parts(): Uint8Array[] {
    this.#copyKept();
    const parts: Uint8Array[] = [];
    for (let start = 0; start < this.#filled; start += this.partSize) {
      parts.push(
        this.#memory.subarray(start, Math.min(start + this.partSize, this.#filled)),
      );
    }
    return parts;
  }

  /** @returns true when the stream ended before, or just when, the memory was full. */
  async fill(
    chunks: AsyncIterator<Uint8Array>,
    signal: AbortSignal | undefined,
  ): Promise<boolean> {
    while (true) {
      const chunk = await next(chunks, signal);
      if (chunk === null) return true;
      const taken = Math.min(chunk.length, this.#capacity - this.#filled);
      this.#add(chunk.subarray(0, taken));
      if (taken < chunk.length) {
        this.#left = chunk.subarray(taken);
        return false;
      }
    }
  }

  /** Fill one slot; less than a part means that the stream has ended. */
  async refill(
    slot: number,
    chunks: AsyncIterator<Uint8Array>,
    signal: AbortSignal,
  ): Promise<Uint8Array> {
    const memory = this.#memory.subarray(slot * this.partSize, (slot + 1) * this.partSize);
    let filled = 0;
    while (filled < memory.length) {
      const chunk = this.#left.length > 0 ? this.#left : await next(chunks, signal);
      if (chunk === null) break;
      const taken = Math.min(chunk.length, memory.length - filled);
      memory.set(chunk.subarray(0, taken), filled);
      this.#left = chunk.subarray(taken);
      filled += taken;
    }
    return memory.subarray(0, filled);
  }

  #add(bytes: Uint8Array): void {
    if (this.#kept !== null) {
      this.#kept.push(bytes);
    } else {
      this.#grow(this.#filled + bytes.length);
      this.#memory.set(bytes, this.#filled);
    }
    this.#filled += bytes.length;
  }

  #copyKept(): void {
    const kept = this.#kept ?? [];
    if (kept.length === 0) return;
    this.#kept = null;
    this.#filled = 0;
    this.#memory = new Uint8Array(this.#capacity);
    for (const chunk of kept) this.#add(chunk);
  }

  #grow(size: number): void {
    if (size <= this.#memory.length) return;
    const larger = new Uint8Array(
      Math.min(this.#capacity, Math.max(size, 2 * this.#memory.length, 64 * 1024)),
    );
    larger.set(this.#memory.subarray(0, this.#filled));
    this.#memory = larger;
  }
}

async function next(
  chunks: AsyncIterator<Uint8Array>,
  signal: AbortSignal | undefined,
): Promise<Uint8Array | null> {
  signal?.throwIfAborted();
  const { done, value } = await chunks.next();
  return done ? null : value;
}
