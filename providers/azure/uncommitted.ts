/** Blocks that nobody has committed (yet). */
import { type Cancellable, StoreError, type UnfinishedUpload } from "../object_store.ts";
import { type UncommittedBlock, uncommittedBlocks } from "./block_ids.ts";
import { discardBlocks } from "./discard.ts";
import type { AzureSession } from "./session.ts";

/**
 * Blobs of which there are blocks and nothing else. Blocks that lie under a key that has an object are not told: Azure
 * has no listing of those, and drops all blocks after a week. It does not tell either when a block arrived.
 */
export async function* listUncommitted(
  session: AzureSession,
  prefix: string,
  { signal }: Cancellable = {},
): AsyncGenerator<UnfinishedUpload> {
  const action = `list unfinished uploads of ${prefix || "the container"}`;
  let token: string | undefined;
  for (const seen = new Set<string>();;) {
    const settings = token === undefined ? {} : { continuationToken: token };
    const page = await session.call({ action, signal }, async (send) => {
      const options = { prefix, includeUncommitedBlobs: true, ...send };
      return (await session.container.listBlobsFlat(options).byPage(settings).next()).value;
    });
    if (page === undefined) return;
    for (const { name: key, properties } of page.segment.blobItems) {
      // What has content is an object.
      if ((properties.contentLength ?? 0) > 0) continue;
      const blocks = await uncommittedBlocks(session, key, { action, key, signal });
      if (blocks === null || blocks.length === 0) continue;
      const size = blocks.reduce((sum, block) => sum + block.size, 0);
      yield { key, id: idOf(blocks), size };
    }
    token = page.continuationToken || undefined;
    if (token === undefined) return;
    if (seen.has(token)) {
      throw new StoreError(
        "other",
        `Cannot ${action} in ${session.description}: the store's listing does not end: it sends the same page again`,
      );
    }
    seen.add(token);
  }
}

/** Changes with every block that is added. */
function idOf(blocks: readonly UncommittedBlock[]): string {
  return blocks.map(({ name, size }) => `${name}:${size}`).sort().join(" ");
}

/**
 * The contract of `ObjectStore.removeUpload`: the blocks that were listed go, unless others have come since.
 * @returns why they stay
 */
export async function removeUncommitted(
  session: AzureSession,
  { key, id }: UnfinishedUpload,
  { signal }: Cancellable = {},
): Promise<string | undefined> {
  const context = { action: `remove the unfinished upload of ${key}`, key, signal };
  const blocks = await uncommittedBlocks(session, key, context);
  if (blocks === null || blocks.length === 0) return undefined;
  if (idOf(blocks) !== id) return "blocks have arrived meanwhile";
  const names = new Set(blocks.map(({ name }) => name));
  return await discardBlocks(session, key, (name) => names.has(name), context);
}
