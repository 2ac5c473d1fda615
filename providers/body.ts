/** The body of a store's answer, as what `ObjectStore.get` gives. */
import { type Cancellable, StoreError } from "./object_store.ts";

/** What is used of `node:stream`'s Readable. */
export interface BodyStream {
  [Symbol.asyncIterator](): AsyncIterator<Uint8Array>;
  destroy(): unknown;
  on(event: "error", listener: () => void): unknown;
}

export interface BodyContext extends Cancellable {
  /** Follows "Cannot": `read a/b`. */
  readonly action: string;
  readonly key?: string | undefined;
}

export interface BodyOptions {
  readonly context: BodyContext;
  /** The store's description. */
  readonly where: string;
  /** Bytes that were promised, if that was told; fewer are an error. */
  readonly expected: number | undefined;
  /** Chunks are used up when the next is asked for. */
  readonly reuse: boolean | undefined;
  /** What an error of the stream means. */
  readonly storeError: (error: unknown) => Error;
}

/** Smaller ones may be part of a runtime's pool. Bytes. */
const LARGE = 64 * 1024;

/** The stream's bytes with our errors; also one that was never iterated can be given up. */
export function readBody(
  stream: BodyStream,
  { context, where, expected, reuse = false, storeError }: BodyOptions,
): AsyncIterable<Uint8Array> {
  const { signal, action, key } = context;
  async function* chunks(): AsyncGenerator<Uint8Array> {
    let received = 0;
    try {
      for await (const chunk of stream) {
        signal?.throwIfAborted();
        received += chunk.length;
        yield chunk;
        if (reuse) giveBack(chunk);
      }
    } catch (error) {
      signal?.throwIfAborted();
      throw storeError(error);
    } finally {
      stream.destroy();
    }
    signal?.throwIfAborted();
    if (expected !== undefined && received < expected) {
      throw new StoreError(
        "unreachable",
        `Cannot ${action} in ${where}: the connection was cut after ${received} of ${expected} bytes`,
        { key },
      );
    }
  }
  // The stream may break before its reader begins; the reader is told then, the process must not end.
  stream.on("error", () => {});
  return {
    [Symbol.asyncIterator]() {
      const generator = chunks();
      return {
        next: () => generator.next(),
        async return() {
          stream.destroy();
          await generator.return(undefined);
          return { done: true, value: undefined };
        },
      };
    },
  };
}

/**
 * Frees the memory of what came from a socket, unless it is small or a part of something: left to the garbage collector, it
 * would be 30 MiB.
 */
function giveBack({ buffer, byteLength }: Uint8Array): void {
  const isWhole = byteLength === buffer.byteLength && byteLength >= LARGE;
  if (isWhole && buffer instanceof ArrayBuffer) buffer.transfer(0);
}
