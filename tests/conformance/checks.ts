import assert from "node:assert/strict";
import { isStoreError, StoreError, type StoreErrorKind } from "../../providers/object_store.ts";

/** A promise has to reject with a `StoreError` of one of these kinds that says something. */
export async function rejectsWith(
  promise: Promise<unknown>,
  ...kinds: StoreErrorKind[]
): Promise<StoreError> {
  try {
    await promise;
  } catch (error) {
    assert.ok(error instanceof StoreError, `expected a StoreError, got ${error}`);
    assert.ok(isStoreError(error, ...kinds), `expected ${kinds}, got ${error.kind}: ${error}`);
    assert.match(error.message, /^[A-Z].{10,}[^.]$/s, "message has the house style");
    assert.ok(!error.message.includes("\n"), `message is one line: ${error.message}`);
    return error;
  }
  return assert.fail(`expected a rejection with ${kinds}`);
}

/** Calls must reject with the very reason of their signal, before and during the work. */
export async function rejectsWhenAborted(
  name: string,
  call: (signal: AbortSignal) => Promise<unknown>,
): Promise<void> {
  const reason = new Error(`stop ${name}`);
  await assert.rejects(
    () => call(AbortSignal.abort(reason)),
    (error) => error === reason,
    `${name} with an aborted signal rejects with its reason`,
  );
  const controller = new AbortController();
  const running = call(controller.signal);
  controller.abort(reason);
  await assert.rejects(
    running,
    (error) => error === reason,
    `${name} aborted on the way rejects with the reason`,
  );
}
