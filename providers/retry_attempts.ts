/** How often and after which pauses something is tried again, whatever it is. */
import { setTimeout as timer } from "node:timers/promises";
import { type Cancellable, isStoreError, StoreError } from "./object_store.ts";

export interface RetryPolicy {
  /** How often a request is sent at most, the first time included. At least 1. */
  readonly attempts: number;
  /** Longest pause before the second attempt, in milliseconds; doubled before each further one. */
  readonly baseDelayMs: number;
  /** Longest pause. A store that asks for a longer one (Retry-After) gets it. */
  readonly maxDelayMs: number;
  /**
   * No new attempt begins later than this after the first failure, in milliseconds. Reading a body
   * and listing count afresh after each progress.
   */
  readonly maxTotalMs: number;
  /** A number in [0, 1): the pause is this part of the longest one ("full jitter"). */
  readonly random: () => number;
  /** Milliseconds of a clock that does not jump. */
  readonly now: () => number;
  /** Rejects with the signal's reason when aborted. */
  readonly sleep: (ms: number, signal: AbortSignal | undefined) => Promise<void>;
}

export const DEFAULT_POLICY: RetryPolicy = {
  attempts: 5,
  baseDelayMs: 500,
  maxDelayMs: 20_000,
  maxTotalMs: 10 * 60_000,
  random: Math.random,
  now: () => performance.now(),
  sleep: abortableSleep,
};

/** How to repeat, and whom to tell. */
export interface Retry {
  readonly policy: RetryPolicy;
  readonly onNotice: ((message: string) => void) | undefined;
}

/** Counts attempts of one thing, and pauses between them. */
export class Attempts {
  readonly #retry: Retry;
  readonly #what: string;
  readonly #signal: AbortSignal | undefined;
  #failed = 0;
  #firstFailure = 0;

  constructor(retry: Retry, what: string, signal: AbortSignal | undefined) {
    this.#retry = retry;
    this.#what = what;
    this.#signal = signal;
  }

  /** Something was got: count afresh. */
  progress(): void {
    this.#failed = 0;
  }

  /** Pause after a failure, or throw it when it is final. */
  async pauseAfter(error: unknown): Promise<void> {
    this.#signal?.throwIfAborted();
    const { policy, onNotice } = this.#retry;
    if (!isStoreError(error) || !error.retryable) throw error;
    if (this.#failed === 0) this.#firstFailure = policy.now();
    this.#failed++;
    const pause = this.#pause(error);
    const late = policy.now() - this.#firstFailure + pause > policy.maxTotalMs;
    if (this.#failed >= policy.attempts || late) throw givenUp(error, this.#failed);
    const seconds = (pause / 1000).toFixed(1);
    onNotice?.(
      `Trying again to ${this.#what} in ${seconds} s ` +
        `(${this.#failed + 1} of ${policy.attempts}): ${error.message}`,
    );
    await policy.sleep(pause, this.#signal);
  }

  #pause(error: StoreError): number {
    const { baseDelayMs, maxDelayMs, random } = this.#retry.policy;
    const longest = Math.min(maxDelayMs, baseDelayMs * 2 ** (this.#failed - 1));
    return Math.max(random() * longest, error.retryAfter ?? 0);
  }
}

/** The last failure, as it was; how often it was tried is added once there was more than one attempt. */
function givenUp(error: StoreError, attempts: number): StoreError {
  if (attempts === 1) return error;
  return new StoreError(error.kind, `${error.message} (tried ${attempts} times)`, {
    key: error.key,
    code: error.code,
    retryable: error.retryable,
    retryAfter: error.retryAfter,
    cause: error,
  });
}

/** What a call resolves with at last. @throws its last failure, with how often it was tried */
export async function repeat<T>(
  retry: Retry,
  what: string,
  options: Cancellable | undefined,
  call: () => Promise<T>,
): Promise<T> {
  const attempts = new Attempts(retry, what, options?.signal);
  for (;;) {
    try {
      return await call();
    } catch (error) {
      await attempts.pauseAfter(error);
    }
  }
}

async function abortableSleep(ms: number, signal: AbortSignal | undefined): Promise<void> {
  try {
    await timer(ms, undefined, signal === undefined ? {} : { signal });
  } catch (error) {
    signal?.throwIfAborted();
    throw error;
  }
}
