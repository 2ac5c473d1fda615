import type { Buffer } from "node:buffer";
import type { Transform } from "node:stream";

/**
 * Bytes for one run of a decompressor at most. Each run is a trip to another thread, which costs as much as decompressing
 * some 20 KiB: restoring with 64 and 128 KiB took an eighth longer.
 */
export const INPUT_AT_ONCE = 256 * 1024;
export const OUTPUT_AT_ONCE = 256 * 1024;

/** A stream of `node:zlib`: it counts the bytes of input that its engine has used up. */
export type ZlibStream = Transform & { readonly bytesWritten: number };

/** Memory of less may be a runtime's pool, of which others have parts: Node's has 64 KiB. */
const LARGE = 128 * 1024;

/**
 * Feeds a zlib stream with what `next` gives and yields what comes out, with back-pressure. Stops
 * feeding as soon as the engine has found the end of its data; `rest` then gets what it left over.
 * @param reuse chunks are used up when the next is asked for
 */
export async function* throughZlib(
  stream: ZlibStream,
  next: () => Promise<Uint8Array | undefined>,
  rest: (unused: Uint8Array) => void = () => undefined,
  reuse = false,
): AsyncGenerator<Uint8Array, void, void> {
  let failure: { error: unknown } | undefined;
  const feeding = feed(stream, next, rest).catch((error: unknown) => {
    failure = { error };
    stream.destroy();
  });
  try {
    for await (const part of stream) {
      const chunk = plain(part);
      yield chunk;
      // What is left of a buffer is filled next. (Bun copies what is short, and leaves its buffer to the collector.)
      if (reuse && chunk.byteOffset + chunk.byteLength === chunk.buffer.byteLength) giveBack(chunk);
    }
    await feeding;
  } catch (error) {
    // Destroying the stream surfaces as a "premature close", which says less than its cause.
    throw failure === undefined ? error : failure.error;
  } finally {
    stream.destroy();
  }
  if (failure !== undefined) throw failure.error;
}

/** The same bytes: a Buffer's `slice` does not copy. */
export function plain({ buffer, byteOffset, byteLength }: Buffer): Uint8Array<ArrayBuffer> {
  return new Uint8Array(buffer as ArrayBuffer, byteOffset, byteLength);
}

/**
 * Frees the memory of what zlib gave, all of which is used up, if it is large. Left to the garbage collector, which takes
 * little notice of it, there would be some 40 MiB of these.
 */
export function giveBack({ buffer }: Uint8Array<ArrayBuffer>): void {
  if (buffer.byteLength >= LARGE) buffer.transfer(0);
}

async function feed(
  stream: ZlibStream,
  next: () => Promise<Uint8Array | undefined>,
  rest: (unused: Uint8Array) => void,
): Promise<void> {
  let fed = 0;
  for (;;) {
    const chunk = await next();
    if (chunk === undefined) {
      stream.end();
      return;
    }
    if (stream.destroyed) return;
    // An error of the write also ends the reading side, which reports it.
    await new Promise<void>((resolve) => {
      const done = () => {
        stream.off("close", done);
        resolve();
      };
      stream.once("close", done);
      stream.write(chunk, done);
    });
    fed += chunk.length;
    const unused = fed - stream.bytesWritten;
    if (unused > 0) {
      if (!stream.errored) rest(chunk.subarray(chunk.length - unused));
      return;
    }
  }
}
