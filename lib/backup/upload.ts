/** Uploading archives in parts: several parts at once over all archives, in bounded memory. */
import { Buffer } from "node:buffer";
import { setTimeout as sleep } from "node:timers/promises";
import { crc32 } from "node:zlib";
import {
  type CompletedObject,
  isStoreError,
  type MultipartUpload,
  type ObjectStore,
  type StoredObject,
  type Tags,
  type UploadedPart,
} from "../../providers/object_store.ts";
import { abortable, untilAborted } from "./abortable.ts";

export interface PartUploader {
  /** Aborted with the first failure of anything that is uploaded, or with the reason of the signal given. */
  readonly signal: AbortSignal;
  /**
   * Cut the bytes into parts and upload them as one object. Resolves when all parts are handed over; the last of
   * them and the completion then go on beside what comes next. One at a time. The source is read no faster than
   * parts leave; each chunk is done with when the next is asked for.
   * @param item what the times are counted under: `data`, `16384`
   */
  upload(item: string, key: string, bytes: AsyncIterable<Uint8Array>): Promise<void>;
  /**
   * Resolves when all objects are complete and the store tells of each the size (and checksum, where it tells one) of
   * what was sent; rejects with the first failure.
   * @throws {StoredDifferently}
   */
  finish(): Promise<void>;
  /**
   * After a failure: end what is under way and remove the parts of every object that is not complete. Never
   * rejects; tells what could not be removed.
   */
  abort(): Promise<void>;
  /** Make parts of another size, so many at once; before the first upload only. */
  setParts(parts: Parts): void;
  /** Uploaded at the same time at the most. */
  readonly slots: number;
  /** Bytes that one object can have: all the parts that the store allows. */
  capacity(): number;
  /** Seconds by item, in the order of their beginning. */
  times(): ReadonlyMap<string, UploadTimes>;
  /** What is complete, in the order of completion. */
  stored(): readonly UploadedObject[];
}

export interface UploadedObject {
  readonly key: string;
  /** Bytes. */
  readonly size: number;
  /** CRC-32 of all bytes, as zlib has it. */
  readonly crc32: number;
}

/** The store has something else than what was sent. */
export class StoredDifferently extends Error {
  override readonly name = "StoredDifferently";
}

export interface UploadTimes {
  /** From the first part handed over to the last completion. */
  readonly elapsed: number;
  /** Sum over all parts of the time from hand-over to uploaded. */
  readonly serialized: number;
  /** Beginning and end, of the same clock as the others'. */
  readonly start: number;
  readonly end: number;
}

export interface Parts {
  /** Uploaded at the same time: `--jobs`. */
  readonly slots: number;
  /** Bytes of every part but the last of an object. Memory is at most (slots + 1) times this. */
  readonly partSize: number;
}

export interface PartUploaderOptions extends Parts {
  readonly store: ObjectStore;
  readonly tags?: Tags | undefined;
  readonly signal: AbortSignal;
  readonly onNotice: (message: string) => void;
  /** Told the bytes of each part when it is handed over. */
  readonly onPart?: ((bytes: number) => void) | undefined;
  /** Pauses, in milliseconds, before an object that is not as it was sent is looked at again. */
  readonly looksAgainMs?: readonly number[] | undefined;
}

/** Some stores tell for a moment what was there before. */
const LOOKS_AGAIN_MS = [250, 1000, 3000];

/** How long each step of the clean-up may take, in milliseconds: less than what containers are given to stop. */
const CLEAN_UP_MS = 10_000;

export function createPartUploader(options: PartUploaderOptions): PartUploader {
  const { store } = options;
  let { slots, partSize } = options;
  const failure = new AbortController();
  const signal = AbortSignal.any([options.signal, failure.signal]);
  // Requests that make something on the store are let finish, so that it is known and can be removed.
  const grace = new AbortController();
  // Filled once the size of parts is settled.
  const buffers = createPool(() => ({ count: slots + 1, size: partSize }));
  const open = new Set<MultipartUpload>();
  const underWay = new Set<Promise<void>>();
  const stored: UploadedObject[] = [];
  let saidUnchecked = false;
  const times = new Map<string, { start: number; end: number; serialized: number }>();
  let busySlots = 0;
  const waiting: (() => void)[] = [];

  /** Let something go on beside; its failure ends everything. */
  const beside = (action: Promise<void>): void => {
    const settled = action
      .catch((error) => failure.abort(error))
      .finally(() => underWay.delete(settled));
    underWay.add(settled);
  };
  const takeSlot = async (): Promise<void> => {
    if (busySlots >= slots) await abortable(new Promise<void>((go) => waiting.push(go)), signal);
    else busySlots += 1;
  };
  const giveSlot = (): void => {
    const next = waiting.shift();
    if (next === undefined) busySlots -= 1;
    else next();
  };

  const upload = async (
    item: string,
    key: string,
    bytes: AsyncIterable<Uint8Array>,
  ): Promise<void> => {
    signal.throwIfAborted();
    const starting = store.startMultipart(key, { tags: options.tags, signal: grace.signal });
    const multipart = await startedOrRemembered(starting);
    const time = times.get(item) ?? { start: performance.now() / 1000, end: 0, serialized: 0 };
    times.set(item, time);
    const parts: Promise<UploadedPart>[] = [];

    let sum = 0;
    const send = async (buffer: Uint8Array, size: number): Promise<void> => {
      // Costs nothing: some 15 GiB/s.
      sum = crc32(buffer.subarray(0, size), sum);
      options.onPart?.(size);
      await takeSlot();
      const handedOver = performance.now();
      const number = parts.length + 1;
      if (number > store.limits.maxParts) {
        throw new Error(
          `Cannot upload ${key}: it needs more than ${store.limits.maxParts} parts of ${partSize} ` +
            `bytes; use a larger --min-chunk-size or a smaller --max-archive-size`,
        );
      }
      const part = multipart
        .uploadPart(number, buffer.subarray(0, size), { signal })
        .finally(() => {
          time.serialized += (performance.now() - handedOver) / 1000;
          buffers.give(buffer);
          giveSlot();
        });
      parts.push(part);
      beside(part.then(() => undefined));
    };

    let buffer: Uint8Array | undefined;
    let used = 0;
    try {
      for await (const chunk of untilAborted(bytes, signal)) {
        for (let done = 0; done < chunk.length;) {
          buffer ??= await abortable(buffers.take(), signal);
          const count = Math.min(chunk.length - done, partSize - used);
          buffer.set(chunk.subarray(done, done + count), used);
          used += count;
          done += count;
          if (used === partSize) {
            const full = buffer;
            buffer = undefined;
            used = 0;
            await send(full, partSize);
          }
        }
      }
      signal.throwIfAborted();
      // At least one part, should there be no bytes at all.
      if (used > 0 || parts.length === 0) {
        const last = buffer ?? await abortable(buffers.take(), signal);
        buffer = undefined;
        await send(last, used);
      }
    } catch (error) {
      failure.abort(error);
      throw error;
    } finally {
      if (buffer !== undefined) buffers.give(buffer);
    }
    beside((async () => {
      const sent = await Promise.all(parts);
      const completed = await multipart.complete(sent, { signal });
      open.delete(multipart);
      time.end = performance.now() / 1000;
      const { size } = await checked(key, sent, completed);
      stored.push({ key, size, crc32: sum });
    })());
  };

  /**
   * One request: is the object that is there the one that was sent? The store compared each part when it arrived.
   * @throws {StoredDifferently}
   */
  const checked = async (
    key: string,
    parts: readonly UploadedPart[],
    completed: CompletedObject,
  ): Promise<StoredObject> => {
    const size = parts.reduce((sum, part) => sum + part.size, 0);
    const { etag } = completed;
    const sent = { key, size, ...(etag === undefined ? {} : { etag }) };
    const pauses = [...(options.looksAgainMs ?? LOOKS_AGAIN_MS)];
    for (;;) {
      const found = await lookFor(sent);
      const problem = difference(found, sent, store.description);
      if (found !== null && problem === null) return found;
      const pause = pauses.shift();
      if (pause === undefined) throw new StoredDifferently(problem ?? `${key} is not there`);
      await sleep(pause, undefined, { signal });
    }
  };

  /** Null when it is not there; what was sent when we may not know. */
  const lookFor = async (sent: StoredObject): Promise<StoredObject | null> => {
    try {
      return await store.head(sent.key, { signal });
    } catch (error) {
      if (isStoreError(error, "not-found")) return null;
      // Who may write but not look: the store's word has to do, as it always did.
      if (!isStoreError(error, "denied")) throw error;
      if (!saidUnchecked) {
        options.onNotice(
          `Cannot check that objects are stored as they were sent: ${error.message}`,
        );
      }
      saidUnchecked = true;
      return sent;
    }
  };

  /** The upload once it has begun. When we must stop before, `abort` still finds it. */
  const startedOrRemembered = async (
    starting: Promise<MultipartUpload>,
  ): Promise<MultipartUpload> => {
    const remembered = starting.then((multipart) => {
      open.add(multipart);
    });
    beside(remembered);
    return await abortable(remembered.then(() => starting), signal);
  };

  return {
    signal,
    upload,
    async finish() {
      while (underWay.size > 0) await abortable(Promise.all(underWay), signal);
      signal.throwIfAborted();
    },
    async abort() {
      if (!signal.aborted) failure.abort(new Error("The upload was given up"));
      const limit = setTimeout(
        () => grace.abort(new Error(`No answer within ${CLEAN_UP_MS / 1000} s`)),
        CLEAN_UP_MS,
      );
      try {
        // Parts still on their way could arrive after the removal and stay.
        await abortable(Promise.all(underWay), grace.signal).catch(() => undefined);
        await Promise.all([...open].map(async (multipart) => {
          try {
            await multipart.abort({ signal: AbortSignal.timeout(CLEAN_UP_MS) });
            open.delete(multipart);
          } catch (error) {
            const reason = error instanceof Error ? error.message : String(error);
            options.onNotice(
              `Cannot remove the uploaded parts of ${multipart.key}, which take up space until the ` +
                `store removes them: ${reason}`,
            );
          }
        }));
      } finally {
        clearTimeout(limit);
      }
    },
    setParts(parts) {
      if (times.size > 0) throw new Error("Cannot change the size of parts: some were uploaded");
      ({ slots, partSize } = parts);
    },
    get slots() {
      return slots;
    },
    stored: () => stored,
    capacity: () => partSize * store.limits.maxParts,
    times: () =>
      new Map(
        [...times].map(([item, { start, end, serialized }]) => [
          item,
          { start, end, serialized, elapsed: Math.max(0, end - start) },
        ]),
      ),
  };
}

/** In words; null when there is none. */
function difference(
  found: StoredObject | null,
  sent: StoredObject,
  where: string,
): string | null {
  const { key, size, etag } = sent;
  if (found === null) {
    return `${key} is not in ${where} though the store said that it was stored`;
  }
  if (found.size !== size) {
    return `${key} has ${found.size} bytes in ${where}, but ${size} were sent`;
  }
  if (etag === undefined || found.etag === undefined || found.etag === etag) return null;
  return `${key} in ${where} is not what was sent: its checksum (etag) is ${found.etag}, not ${etag}`;
}

interface BufferPool {
  take(): Promise<Uint8Array>;
  give(buffer: Uint8Array): void;
}

/** At most `count` buffers of `size` bytes, made when first needed and used again and again. */
function createPool(limits: () => { readonly count: number; readonly size: number }): BufferPool {
  const free: Uint8Array[] = [];
  const waiting: ((buffer: Uint8Array) => void)[] = [];
  let made = 0;
  return {
    take() {
      const buffer = free.pop();
      if (buffer !== undefined) return Promise.resolve(buffer);
      const { count, size } = limits();
      if (made < count) {
        made += 1;
        return Promise.resolve(Buffer.allocUnsafeSlow(size));
      }
      return new Promise((resolve) => waiting.push(resolve));
    },
    give(buffer) {
      const next = waiting.shift();
      if (next === undefined) free.push(buffer);
      else next(buffer);
    },
  };
}
