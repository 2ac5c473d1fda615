/**
 * Memory that nobody needs any more is given back early. Left to itself a runtime lets it grow in proportion to the
 * machine's memory, which is the database's. Measured with gzip, 520 MiB, machine of 24 GiB: 142 MiB at most without,
 * 123 with, at no more CPU time than runs differ by.
 */

/** Bytes sent between two collections, each of which takes about 10 ms. */
const EVERY = 10 * 1024 ** 2;

/** A function to be told how many bytes were sent. It does nothing where the runtime has no `gc` (`--expose-gc`). */
export function createCollector(): (sent: number) => void {
  const gc: unknown = Reflect.get(globalThis, "gc");
  let since = 0;
  return (sent) => {
    since += sent;
    if (since < EVERY || typeof gc !== "function") return;
    since = 0;
    gc();
  };
}
