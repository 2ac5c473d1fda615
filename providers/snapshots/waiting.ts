/** Waiting for what a cloud does in the background. */
import { setTimeout as timer } from "node:timers/promises";
import { SnapshotError, type TakeOptions } from "./provider.ts";

/** Pauses between two looks, in milliseconds: short at first, since small disks are quick. */
export interface Pauses {
  readonly first: number;
  readonly longest: number;
}

/** The longest is Barman's for EBS. */
export const PAUSES: Pauses = { first: 1000, longest: 15_000 };

/** Keeps how far each snapshot is, and tells of all when one moves. */
export function progressOf(
  snapshots: readonly string[],
  onProgress: TakeOptions["onProgress"],
): (name: string, percent: number) => void {
  const known = new Map<string, number | null>(snapshots.map((name) => [name, null]));
  return (name, percent) => {
    known.set(name, percent);
    onProgress([...known].map(([name, percent]) => ({ name, percent })));
  };
}

/** What to say of snapshots that are not complete after the limit. */
export function tooLate(
  { ms, option }: { readonly ms: number; readonly option: string },
  snapshots: readonly string[],
): string {
  return `The snapshots were not complete within ${ms / 1000} s (${option}): ${
    snapshots.join(", ")
  }`;
}

/**
 * Look again and again until there is a result.
 * @param look undefined means not yet; a number means not yet, and how many milliseconds to wait now
 * @param limit milliseconds after which it is given up, and what to say then
 * @throws {SnapshotError} kind `failed` after the limit; what `look` throws; the signal's reason
 */
export async function lookUntil<T extends object | boolean>(
  look: () => Promise<T | undefined | number>,
  options: {
    readonly pauses: Pauses;
    readonly signal: AbortSignal | undefined;
    readonly limit: { readonly ms: number; readonly message: string };
  },
): Promise<T> {
  const { pauses, signal, limit } = options;
  const began = performance.now();
  for (let pause = pauses.first;; pause = Math.min(pause * 2, pauses.longest)) {
    const found = await look();
    if (found !== undefined && typeof found !== "number") return found;
    const left = limit.ms - (performance.now() - began);
    if (left <= 0) throw new SnapshotError("failed", limit.message);
    await sleep(Math.min(typeof found === "number" ? found : pause, left), signal);
  }
}

export async function sleep(ms: number, signal: AbortSignal | undefined): Promise<void> {
  try {
    await timer(ms, undefined, signal === undefined ? {} : { signal });
  } catch (error) {
    signal?.throwIfAborted();
    throw error;
  }
}

/**
 * Start all at once and wait for all, also when one fails: what was begun must be known before anyone clears up.
 * @throws the first failure
 */
export async function allSettled<T, R>(
  items: readonly T[],
  start: (item: T) => Promise<R>,
): Promise<R[]> {
  const results = await Promise.allSettled(items.map(start));
  const failed = results.find((result) => result.status === "rejected");
  if (failed !== undefined) throw failed.reason;
  return results.flatMap((result) => result.status === "fulfilled" ? [result.value] : []);
}
