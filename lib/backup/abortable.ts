/** Waiting that a signal ends, also when what is waited for knows nothing of the signal. */

/** How long something that is given up may take to close its files, in milliseconds. */
const CLOSING_MS = 2000;

/** The promise, unless the signal comes first; then the signal's reason. */
export function abortable<T>(promise: Promise<T>, signal: AbortSignal): Promise<T> {
  return new Promise((resolve, reject) => {
    const onAbort = () => reject(signal.reason);
    if (signal.aborted) onAbort();
    else signal.addEventListener("abort", onAbort, { once: true });
    promise.then(resolve, reject).finally(() => signal.removeEventListener("abort", onAbort));
  });
}

/**
 * What the source gives until the signal comes, also when the source is stuck at that moment: in a server or a
 * file system that does not answer.
 */
export async function* untilAborted<T>(
  source: AsyncIterable<T>,
  signal: AbortSignal,
): AsyncGenerator<T> {
  const iterator = source[Symbol.asyncIterator]();
  let ended = false;
  try {
    for (;;) {
      const result = await abortable(iterator.next(), signal);
      if (result.done) {
        ended = true;
        return;
      }
      yield result.value;
    }
  } finally {
    if (!ended) await closeIterator(iterator);
  }
}

/** Tell an iterator that nothing more is wanted. Waits a moment for it, and not longer. */
export async function closeIterator(iterator: AsyncIterator<unknown>): Promise<void> {
  if (iterator.return === undefined) return;
  let timer: ReturnType<typeof setTimeout> | undefined;
  const limit = new Promise<void>((resolve) => {
    timer = setTimeout(resolve, CLOSING_MS);
  });
  // Its own failure comes after the one that made us stop, and tells nothing more.
  const closing = Promise.resolve(iterator.return()).then(() => undefined, () => undefined);
  await Promise.race([closing, limit]);
  clearTimeout(timer);
}
