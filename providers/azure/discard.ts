/**
 * Getting rid of blocks that will not become an object.
 *
 * Azure has no request for that. What drops them is to make an (empty) object under the key and to
 * delete it, as Barman does; done blindly that would destroy an object that is there already, and where
 * deleting is not allowed it would leave an empty one. So it is done only when nothing can go wrong:
 *
 * - no blocks but ours lie under the key, so no other upload is harmed;
 * - no object is there; the empty one is made on that condition (`If-None-Match: *`);
 * - we may delete: tried beforehand on a key that nobody has;
 * - the container has no retention policy that would keep the empty object;
 * - only the very object that was made is deleted (`If-Match`).
 *
 * Otherwise the blocks stay, invisible, until another write of the key or for a week.
 */
import { isStoreError } from "../object_store.ts";
import { uncommittedIds } from "./block_ids.ts";
import { headBlob } from "./read.ts";
import type { AzureSession, RequestContext } from "./session.ts";

/**
 * @param isOurs is the block with that base64 id one of those to be discarded?
 * @returns undefined when the blocks are gone, else why they stay.
 * @throws {StoreError} when the service can't be asked, or the empty object could not be deleted.
 */
export async function discardBlocks(
  session: AzureSession,
  key: string,
  isOurs: (id: string) => boolean,
  context: RequestContext,
): Promise<string | undefined> {
  try {
    const uncommitted = await uncommittedIds(session, key, context);
    if (uncommitted.length === 0) return undefined;
    if (!uncommitted.every(isOurs)) return "another upload writes the same key";
    return await reasonToKeep(session, key, context) ??
      await replaceAndDelete(session, key, context);
  } catch (error) {
    if (isStoreError(error, "denied")) {
      return "the credentials do not allow what removing them takes";
    }
    throw error;
  }
}

async function reasonToKeep(
  session: AzureSession,
  key: string,
  context: RequestContext,
): Promise<string | undefined> {
  if (await isThere(session, key, context)) return "an object with this key is there";
  // What is allowed shows on an object that can't be there.
  const nobody = session.blob(`${key}.${crypto.randomUUID()}`);
  try {
    await session.call(context, (send) => nobody.delete(send));
  } catch (error) {
    if (!isStoreError(error, "not-found")) throw error;
  }
  const properties = await session.call(context, (send) => session.container.getProperties(send));
  const keeps = properties.hasImmutabilityPolicy === true || properties.hasLegalHold === true ||
    properties.isImmutableStorageWithVersioningEnabled === true;
  return keeps ? "the container has a retention policy" : undefined;
}

async function isThere(
  session: AzureSession,
  key: string,
  context: RequestContext,
): Promise<boolean> {
  try {
    await headBlob(session, key, context);
    return true;
  } catch (error) {
    if (isStoreError(error, "not-found")) return false;
    throw error;
  }
}

async function replaceAndDelete(
  session: AzureSession,
  key: string,
  context: RequestContext,
): Promise<string | undefined> {
  const blob = session.blob(key);
  let etag: string | undefined;
  try {
    const made = await session.call(
      { ...context, precondition: "exists" },
      (send) => blob.commitBlockList([], { conditions: { ifNoneMatch: "*" }, ...send }),
    );
    etag = made.etag;
  } catch (error) {
    if (isStoreError(error, "exists")) return "an object with this key is there";
    throw error;
  }
  const conditions = etag === undefined ? {} : { ifMatch: etag };
  // Not given up half-way: an empty object would stay.
  const { signal: _, ...unstoppable } = context;
  try {
    await session.call(unstoppable, (send) => blob.delete({ conditions, ...send }));
  } catch (error) {
    // Somebody has written or deleted it since.
    if (!isStoreError(error, "not-found", "changed")) throw error;
  }
  return undefined;
}
