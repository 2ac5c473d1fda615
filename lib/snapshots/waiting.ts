/** Waiting for the kernel. */
import { setTimeout as timer } from "node:timers/promises";

/** @param deadline by `performance.now()` @returns whether it came in time */
export async function waitForDisk(
  look: () => Promise<boolean>,
  deadline: number,
  pauseMs: number,
  signal: AbortSignal,
): Promise<boolean> {
  for (;;) {
    if (await look()) return true;
    if (performance.now() >= deadline) return false;
    try {
      await timer(pauseMs, undefined, { signal });
    } catch (error) {
      signal.throwIfAborted();
      throw error;
    }
  }
}
