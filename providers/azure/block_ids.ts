/**
 * The ids of an upload's blocks.
 *
 * Barman's are the part number as five digits, `00001`. Azure knows no uploads, only blocks that lie
 * under a key until some are committed (which drops the rest), so two programs that write one key at
 * once with these ids would get each other's blocks into their object. So every upload first puts down a
 * mark of its own, then looks what else lies there: whoever finds nothing but the own mark takes
 * Barman's ids, everyone else takes ids that no other upload has. Of two uploads at least one sees the
 * other's mark, whatever the order.
 */
import { Buffer } from "node:buffer";
import { randomBytes } from "node:crypto";
import { isStoreError, StoreError } from "../object_store.ts";
import type { AzureSession, RequestContext } from "./session.ts";

export interface BlockIds {
  /** The block id of a part, in base64. */
  of(part: number): string;
  /** Is this the base64 id of a block of this upload, its mark included? */
  isOurs(id: string): boolean;
}

/** Length of Barman's ids. All blocks under one key must have ids of one length. */
const LENGTH = 5;
/** Random bytes that tell our ids from others'; the part number takes the other two. */
const TAG_LENGTH = LENGTH - 2;
/** Content of the mark; an empty block is not allowed. */
const MARK = new Uint8Array(1);

/** @throws {StoreError} as answered, kind `no-bucket` for one. */
export async function claimBlockIds(
  session: AzureSession,
  key: string,
  context: RequestContext,
  encryptionScope: string | undefined,
): Promise<BlockIds> {
  const blob = session.blob(key);
  const scope = encryptionScope === undefined ? {} : { encryptionScope };
  // The highest bit is set: no id of digits begins so.
  const tag = randomBytes(TAG_LENGTH);
  tag[0] = (tag[0] ?? 0) | 0x80;
  const mark = (length: number) =>
    session.call(
      context,
      (send) => blob.stageBlock(taggedId(tag, 0, length), MARK, MARK.length, { ...scope, ...send }),
    );

  let length = LENGTH;
  try {
    await mark(length);
  } catch (error) {
    if (!isStoreError(error) || error.code !== "InvalidBlobOrBlock") throw error;
    // Another program left blocks with ids of another length, for a week at most.
    length = await foreignLength(session, key, context, error);
    await mark(length);
  }
  const isAlone = length === LENGTH &&
    await onlyOurs(session, key, context, (id) => hasTag(id, tag));
  return {
    of: (part) =>
      isAlone
        ? Buffer.from(String(part).padStart(LENGTH, "0")).toString("base64")
        : taggedId(tag, part, length),
    isOurs: (id) => hasTag(id, tag) || (isAlone && /^\d{5}$/.test(text(id))),
  };
}

export interface UncommittedBlock {
  /** The id in base64. */
  readonly name: string;
  /** Bytes. */
  readonly size: number;
}

/**
 * The blocks under a key that are not part of an object (yet).
 * @returns null when there is nothing under the key
 */
export async function uncommittedBlocks(
  session: AzureSession,
  key: string,
  context: RequestContext,
): Promise<readonly UncommittedBlock[] | null> {
  try {
    const { uncommittedBlocks = [] } = await session.call(
      context,
      (send) => session.blob(key).getBlockList("uncommitted", send),
    );
    return uncommittedBlocks.map(({ name, size }) => ({ name, size }));
  } catch (error) {
    if (isStoreError(error, "not-found")) return null;
    throw error;
  }
}

/** Ids of those. */
export async function uncommittedIds(
  session: AzureSession,
  key: string,
  context: RequestContext,
): Promise<readonly string[]> {
  return (await uncommittedBlocks(session, key, context) ?? []).map(({ name }) => name);
}

/** Who may not look has to assume others. */
async function onlyOurs(
  session: AzureSession,
  key: string,
  context: RequestContext,
  isOurs: (id: string) => boolean,
): Promise<boolean> {
  try {
    return (await uncommittedIds(session, key, context)).every(isOurs);
  } catch (error) {
    if (isStoreError(error, "denied")) return false;
    throw error;
  }
}

async function foreignLength(
  session: AzureSession,
  key: string,
  context: RequestContext,
  refusal: StoreError,
): Promise<number> {
  const [first] = await uncommittedIds(session, key, context).catch((error) => {
    throw isStoreError(error, "denied") ? refusal : error;
  });
  const length = first === undefined ? 0 : Buffer.from(first, "base64").length;
  if (length >= LENGTH) return length;
  throw new StoreError(
    "invalid",
    `Cannot ${context.action} in ${session.description}: another program has left unfinished blocks ` +
      "under this key that do not go with ours; Azure removes them after a week",
    { key, code: refusal.code, cause: refusal },
  );
}

function taggedId(tag: Uint8Array, part: number, length: number): string {
  const id = Buffer.alloc(length);
  id.set(tag);
  id.writeUInt16BE(part, TAG_LENGTH);
  return id.toString("base64");
}

function hasTag(id: string, tag: Uint8Array): boolean {
  return Buffer.from(id, "base64").subarray(0, TAG_LENGTH).equals(tag);
}

function text(id: string): string {
  return Buffer.from(id, "base64").toString("latin1");
}
