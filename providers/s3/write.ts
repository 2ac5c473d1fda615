import { Buffer } from "node:buffer";
import { createHash } from "node:crypto";
import { crc32 } from "node:zlib";
import {
  type Cancellable,
  isStoreError,
  type MultipartUpload,
  type ObjectContent,
  type PutOptions,
  StoreError,
  type Tags,
  type UploadedPart,
} from "../object_store.ts";
import type { StoreOptions } from "../open.ts";
import { refusesConditions } from "./errors.ts";
import { headObject } from "./read.ts";
import { noProof, type RequestContext, type S3Session } from "./session.ts";
import { removeUpload } from "./uploads.ts";

/** S3's limit; a part with a higher number is lost. */
export const MAX_PARTS = 10_000;

/** What is learnt about a store while it is used. */
export interface Learnt {
  createOnlyPut: boolean;
  createOnlyMultipart: boolean;
  tags: boolean;
  readonly looksFirst: boolean;
  /** The ETag of a part is its MD5, so that of an object is made of those; undefined until a part was looked at. */
  md5Etags?: boolean;
}

export interface Writer {
  put(key: string, body: Uint8Array | ObjectContent, options?: PutOptions): Promise<void>;
  startMultipart(key: string, options?: PutOptions): Promise<MultipartUpload>;
}

export function createWriter(
  session: S3Session,
  learnt: Learnt,
  options: Pick<StoreOptions, "encryption" | "sseKmsKeyId" | "onNotice">,
): Writer {
  const Bucket = session.bucket;
  const encryption = {
    ServerSideEncryption: options.encryption,
    SSEKMSKeyId: options.sseKmsKeyId,
    ...session.customerKey,
  };

  /**
   * Write on condition that the key is free. A store other than Amazon's may ignore the condition, so
   * there we look first; where it is refused, looking is all that can be done.
   */
  const createOnly = async (
    what: "createOnlyPut" | "createOnlyMultipart",
    context: RequestContext & { readonly key: string },
    conditionKept: boolean,
    write: (condition: { IfNoneMatch?: "*" }) => Promise<void>,
  ) => {
    if ((learnt.looksFirst && !conditionKept) || !learnt[what]) {
      await requireFree(session, context, learnt[what]);
    }
    if (!learnt[what] && what === "createOnlyPut") return await write({});
    try {
      await write({ IfNoneMatch: "*" });
    } catch (error) {
      if (!isStoreError(error, "invalid", "other") || !refusesConditions(error)) throw error;
      learnt[what] = false;
      await requireFree(session, context);
      await write({});
      options.onNotice?.(
        `${session.description} refuses conditional writes (If-None-Match): whether an object is ` +
          "there is looked up before it is written, which two writers at once can slip through",
      );
    }
  };

  return {
    async put(key, body, putOptions = {}) {
      const { signal } = putOptions;
      const context = { action: `write ${key}`, key, signal, precondition: "exists" } as const;
      const write = async (condition: { IfNoneMatch?: "*" }) => {
        const { ETag } = await session.call(context, (api, send) =>
          api.putObject({
            Bucket,
            Key: key,
            Body: body,
            ...encryption,
            ...tagging(putOptions.tags),
            ...condition,
          }, send));
        if (ETag === undefined) throw noProof(session, context);
      };
      if (putOptions.createOnly === true) {
        await createOnly("createOnlyPut", context, putOptions.conditionKept === true, write);
      } else await write({});
    },

    async startMultipart(key, putOptions = {}) {
      const context = { action: `begin writing ${key}`, key, signal: putOptions.signal };
      if (putOptions.createOnly === true) {
        await requireFree(session, context, learnt.createOnlyMultipart);
      }
      const { UploadId } = await session.call(context, (api, send) =>
        api.createMultipartUpload({
          Bucket,
          Key: key,
          // Amazon takes parts' checksums only where they were announced, and completes only where they are named again.
          ...(session.sendsChecksums ? { ChecksumAlgorithm: "CRC32" } : {}),
          ...encryption,
          ...tagging(putOptions.tags),
        }, send));
      if (UploadId === undefined) {
        throw new StoreError(
          "other",
          `Cannot begin writing ${key} in ${session.description}: the store gave no upload id`,
          { key },
        );
      }
      const target = { Bucket, Key: key, UploadId };
      return {
        key,
        uploadPart: (number, body, cancellable) =>
          uploadPart(session, target, learnt, number, body, cancellable),
        async complete(parts, cancellable) {
          const completion = {
            action: `finish writing ${key}`,
            key,
            signal: cancellable?.signal,
            precondition: "exists",
          } as const;
          let told: string | undefined;
          const write = async (condition: { IfNoneMatch?: "*" }) => {
            told = await complete(session, target, parts, completion, condition);
          };
          if (putOptions.createOnly === true) {
            // What is known of puts says nothing of completing: Ceph honours the one and ignores the other.
            await createOnly("createOnlyMultipart", completion, false, write);
          } else await write({});
          // Ceph's answer has an empty one.
          const answered = told?.trim() || undefined;
          return { etag: learnt.md5Etags ? etagOfParts(parts, answered) : answered };
        },
        abort: (cancellable) => removeUpload(session, { key, id: UploadId }, cancellable),
      };
    },
  };
}

interface UploadTarget {
  readonly Bucket: string;
  readonly Key: string;
  readonly UploadId: string;
}

async function uploadPart(
  session: S3Session,
  target: UploadTarget,
  learnt: Learnt,
  number: number,
  body: Uint8Array,
  options: Cancellable = {},
): Promise<UploadedPart> {
  const key = target.Key;
  const context = { action: `write part ${number} of ${key}`, key, signal: options.signal };
  if (!Number.isInteger(number) || number < 1 || number > MAX_PARTS) {
    throw new StoreError(
      "invalid",
      `Cannot ${context.action} in ${session.description}: part numbers are 1 to ${MAX_PARTS}`,
      { key },
    );
  }
  const { ETag, ChecksumCRC32 } = await session.call(
    context,
    (api, send) =>
      api.uploadPart({
        ...target,
        PartNumber: number,
        Body: body,
        ...session.customerKey,
      }, send),
  );
  if (ETag === undefined) throw noProof(session, context);
  if (ChecksumCRC32 !== undefined && ChecksumCRC32 !== crc32Base64(body)) {
    throw new StoreError(
      "unavailable",
      `Cannot ${context.action} in ${session.description}: what arrived has another checksum than what was sent`,
      { key },
    );
  }
  learnt.md5Etags ??= isMd5(ETag, body);
  // Without having announced any, none may be named at the end.
  const checksum = session.sendsChecksums ? ChecksumCRC32 : undefined;
  return { number, size: body.length, etag: ETag, checksum };
}

/** As S3 writes it: four bytes, the highest first. */
function crc32Base64(body: Uint8Array): string {
  const bytes = Buffer.alloc(4);
  bytes.writeUInt32BE(crc32(body));
  return bytes.toString("base64");
}

/** With encryption by a key of KMS or the customer, and in some stores always, an ETag is something else. */
function isMd5(etag: string, body: Uint8Array): boolean {
  try {
    return unquoted(etag) === createHash("md5").update(body).digest("hex");
  } catch {
    // Machines in FIPS mode have no MD5.
    return false;
  }
}

/**
 * The ETag of an object made of parts whose ETags are MD5s: the MD5 of those together, and how many they are.
 * @returns what was told when that is of another form, so that this store has a rule of its own
 */
function etagOfParts(
  parts: readonly UploadedPart[],
  told: string | undefined,
): string | undefined {
  if (told !== undefined && !/^"?[0-9a-f]{32}-\d+"?$/.test(told)) return told;
  const hash = createHash("md5");
  for (const { etag } of [...parts].sort((a, b) => a.number - b.number)) {
    const hex = unquoted(etag);
    if (!/^[0-9a-f]{32}$/.test(hex)) return told;
    hash.update(hex, "hex");
  }
  return `"${hash.digest("hex")}-${parts.length}"`;
}

function unquoted(etag: string): string {
  return etag.replace(/^"(.*)"$/, "$1");
}

async function complete(
  session: S3Session,
  target: UploadTarget,
  parts: readonly UploadedPart[],
  context: RequestContext,
  condition: { IfNoneMatch?: "*" },
): Promise<string> {
  if (parts.length === 0) {
    throw new StoreError(
      "invalid",
      `Cannot ${context.action} in ${session.description}: a multipart upload needs a part`,
      { key: context.key },
    );
  }
  const Parts = [...parts].sort((a, b) => a.number - b.number)
    .map(({ number, etag, checksum }) => ({
      PartNumber: number,
      ETag: etag,
      ...(checksum === undefined ? {} : { ChecksumCRC32: checksum }),
    }));
  try {
    const { ETag } = await session.call(
      context,
      (api, send) =>
        api.completeMultipartUpload({ ...target, MultipartUpload: { Parts }, ...condition }, send),
    );
    if (ETag === undefined) throw noProof(session, context);
    return ETag;
  } catch (error) {
    if (!isStoreError(error, "unavailable")) throw error;
    // Ceph says InternalError when the upload is gone, which a repeated `complete` has to know.
    await requireUpload(session, target, context);
    throw error;
  }
}

/** @throws {StoreError} kind `not-found` when the upload was completed or aborted. */
async function requireUpload(
  session: S3Session,
  target: UploadTarget,
  context: RequestContext,
): Promise<void> {
  await session.call(
    context,
    (api, send) => api.listParts({ ...target, MaxParts: 1 }, send),
  );
}

/** @param conditional a write on condition follows: who may write but not read is left to that */
async function requireFree(
  session: S3Session,
  context: RequestContext & { readonly key: string },
  conditional = false,
): Promise<void> {
  try {
    await headObject(session, context.key, { signal: context.signal });
  } catch (error) {
    if (isStoreError(error, "not-found")) return;
    if (conditional && isStoreError(error, "denied")) return;
    throw error;
  }
  throw new StoreError(
    "exists",
    `Cannot ${context.action} in ${session.description}: an object with this key is there already`,
    { key: context.key },
  );
}

function tagging(tags: Tags | undefined): { Tagging?: string } {
  if (tags === undefined) return {};
  const pair = ([key, value]: readonly [string, string]) =>
    `${encodeURIComponent(key)}=${encodeURIComponent(value)}`;
  return { Tagging: tags.map(pair).join("&") };
}
