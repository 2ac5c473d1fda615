/** Doing the same to many things, a few at a time. */

/**
 * Results in the order of the items. At most `limit` calls are under way at once; after the first failure none
 * is begun, those under way are waited for, and the failure is thrown.
 */
export async function mapInParallel<T, R>(
  items: Iterable<T> | AsyncIterable<T>,
  limit: number,
  call: (item: T) => Promise<R>,
): Promise<R[]> {
  const results: R[] = [];
  const running = new Set<Promise<void>>();
  let failure: { readonly error: unknown } | undefined;
  let count = 0;
  try {
    for await (const item of items) {
      const index = count++;
      const task: Promise<void> = call(item).then(
        (result) => {
          results[index] = result;
        },
        (error) => {
          failure ??= { error };
        },
      ).finally(() => running.delete(task));
      running.add(task);
      if (running.size >= limit) await Promise.race(running);
      if (failure !== undefined) break;
    }
  } finally {
    await Promise.all(running);
  }
  if (failure !== undefined) throw failure.error;
  return results;
}
