import {
  type DeleteFailure,
  type DeleteOptions,
  isStoreError,
  StoreError,
} from "../object_store.ts";
import type { AzureSession } from "./session.ts";

/** Single deletions under way at once, where batches are not allowed. */
const SINGLE_AT_ONCE = 8;

/** Every batch is tried; what is still there afterwards is returned with the reason. */
export async function deleteBlobs(
  session: AzureSession,
  keys: readonly string[],
  maxBatch: number,
  options: DeleteOptions = {},
): Promise<readonly DeleteFailure[]> {
  const batchSize = Math.max(1, Math.min(options.batchSize ?? maxBatch, maxBatch));
  const failures: DeleteFailure[] = [];
  let oneByOne = false;
  for (let at = 0; at < keys.length; at += batchSize) {
    const batch = keys.slice(at, at + batchSize);
    try {
      if (!oneByOne && batch.length > 1) {
        failures.push(...await deleteBatch(session, batch, options));
        continue;
      }
      failures.push(...await deleteSingly(session, batch, options));
    } catch (error) {
      options.signal?.throwIfAborted();
      if (!isStoreError(error)) throw error;
      if (oneByOne || !refusesBatches(error)) {
        failures.push(...batch.map((key) => ({ key, error })));
        continue;
      }
      // Deleting may be allowed where batches are not: a SAS token, a firewall, an old emulator.
      const [first, ...rest] = batch;
      if (first === undefined) continue;
      const [failure] = await deleteSingly(session, [first], options);
      if (failure !== undefined && isStoreError(failure.error, "denied", "no-bucket")) {
        failures.push(...batch.map((key) => ({ key, error: failure.error })));
        continue;
      }
      oneByOne = true;
      if (failure !== undefined) failures.push(failure);
      failures.push(...await deleteSingly(session, rest, options));
    }
  }
  return failures;
}

/** An unreadable answer to a batch comes as `other`; emulators may fail over one, without a code. */
function refusesBatches({ kind, code }: StoreError): boolean {
  return ["denied", "invalid", "not-found", "other"].includes(kind) ||
    (kind === "unavailable" && code === undefined);
}

/** @throws {StoreError} when the batch as a whole was refused, or its answer can't be read. */
async function deleteBatch(
  session: AzureSession,
  keys: readonly string[],
  { signal }: DeleteOptions,
): Promise<DeleteFailure[]> {
  const context = { action: `delete ${named(keys)}`, signal };
  const { subResponses } = await session.call(context, async (send) => {
    const client = session.container.getBlobBatchClient();
    const batch = client.createBatch();
    for (const key of keys) await batch.deleteBlob(session.blob(key));
    return await client.submitBatch(batch, send);
  });
  const failures: DeleteFailure[] = [];
  for (const [index, key] of keys.entries()) {
    const answer = subResponses[index];
    if (answer !== undefined && answer.status < 300) continue;
    const code = answer?.errorCode?.trim();
    const told = answer === undefined
      ? new Error("the answer to the batch says nothing of it")
      : Object.assign(new Error(messageOf(answer.bodyAsText) || answer.statusMessage), {
        code,
        statusCode: answer.status,
      });
    const error = session.storeError(told, { action: `delete ${key}`, key });
    if (isStoreError(error, "not-found")) continue;
    if (error instanceof StoreError) failures.push({ key, error });
  }
  return failures;
}

function messageOf(body: string | undefined): string {
  return /<Message>([^<\n]*)/.exec(body ?? "")?.[1] ?? "";
}

async function deleteSingly(
  session: AzureSession,
  keys: readonly string[],
  { signal }: DeleteOptions,
): Promise<DeleteFailure[]> {
  const failures: DeleteFailure[] = [];
  const queue = keys.values();
  const worker = async () => {
    for (const key of queue) {
      const context = { action: `delete ${key}`, key, signal };
      try {
        await session.call(context, (send) => session.blob(key).delete(send));
      } catch (error) {
        if (isStoreError(error, "not-found")) continue;
        if (!isStoreError(error)) throw error;
        failures.push({ key, error });
      }
    }
  };
  await Promise.all(Array.from({ length: SINGLE_AT_ONCE }, worker));
  return failures;
}

function named(keys: readonly string[]): string {
  const [first = "nothing"] = keys;
  return keys.length <= 1 ? first : `${first} and ${keys.length - 1} more`;
}
