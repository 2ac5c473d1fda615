import { type DeleteFailure, type DeleteOptions, isStoreError } from "../object_store.ts";
import { isVagueMissing } from "./errors.ts";
import { objectPath } from "./paths.ts";
import { bucketIsMissing, noBucket } from "./read.ts";
import type { GcsSession } from "./session.ts";

/**
 * Deletions under way at once. Single requests over kept connections: Google's batches of a hundred
 * are carried out one by one too, count the same, and hide the answers in a nested body.
 */
const AT_ONCE = 16;

/** Every key is tried; what is still there afterwards is returned with the reason. */
export async function deleteObjects(
  session: GcsSession,
  keys: readonly string[],
  options: DeleteOptions = {},
): Promise<readonly DeleteFailure[]> {
  const { signal } = options;
  signal?.throwIfAborted();
  const failures: DeleteFailure[] = [];
  let bucketMissing: Promise<boolean> | undefined;
  const queue = keys.values();
  const worker = async () => {
    for (const key of queue) {
      const context = { action: `delete ${key}`, key, signal };
      const path = objectPath(session.bucket, key);
      try {
        // An empty answer; a page is not Google's word that the object is gone.
        await session.json(context, { method: "DELETE", path });
      } catch (error) {
        if (!isStoreError(error)) throw error;
        if (error.kind !== "not-found") {
          failures.push({ key, error });
          continue;
        }
        if (!isVagueMissing(error)) continue;
        // Asked once for all keys.
        bucketMissing ??= bucketIsMissing(session, { signal });
        if (await bucketMissing) failures.push({ key, error: noBucket(session, context, error) });
      }
    }
  };
  const workers = Math.max(1, Math.min(options.batchSize ?? AT_ONCE, AT_ONCE, keys.length));
  await Promise.all(Array.from({ length: workers }, worker));
  return failures;
}
