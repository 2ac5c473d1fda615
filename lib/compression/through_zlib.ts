import type { Transform } from "node:stream";

/**
 * Bytes for one run of a decompressor at most. Each run is a trip to another thread, which costs as much as decompressing
 * some 20 KiB: restoring with 64 and 128 KiB took an eighth longer.
 */
export const INPUT_AT_ONCE = 256 * 1024;
export const OUTPUT_AT_ONCE = 256 * 1024;

/** A stream of `node:zlib`: it counts the bytes of input that its engine has used up. */
export type ZlibStream = Transform & { readonly bytesWritten: number };

/**
 * Feeds a zlib stream with what `next` gives and yields what comes out, with back-pressure. Stops
 * feeding as soon as the engine has found the end of its data; `rest` then gets what it left over.
 */
export async function* throughZlib(
  stream: ZlibStream,
  next: () => Promise<Uint8Array | undefined>,
  rest: (unused: Uint8Array) => void = () => undefined,
): AsyncGenerator<Uint8Array, void, void> {
  let failure: { error: unknown } | undefined;
  const feeding = feed(stream, next, rest).catch((error: unknown) => {
    failure = { error };
    stream.destroy();
  });
  try {
    for await (const chunk of stream) yield chunk;
    await feeding;
  } catch (error) {
    // Destroying the stream surfaces as a "premature close", which says less than its cause.
    throw failure === undefined ? error : failure.error;
  } finally {
    stream.destroy();
  }
  if (failure !== undefined) throw failure.error;
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
