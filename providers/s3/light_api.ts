/**
 * S3 by plain signed requests, for the buckets and endpoints that nearly everybody has. Requests are those that the AWS
 * SDK sends (checksums included), errors have the shape of the SDK's.
 */
import { createHash } from "node:crypto";
import { crc32 } from "node:zlib";
import type { Listing, S3Api } from "./api.ts";
import type { S3Config } from "./config.ts";
import type { Credentials } from "./credentials.ts";
import type { HttpHandler } from "./http_handler.ts";
import { type Answer, type AnswerBody, crc32Base64, openRequests } from "./light_requests.ts";
import { elementsOf, encodeXml, textOf } from "./xml.ts";

/** Whether plain requests will do; the SDK knows all the others. */
export function suitsLightApi(bucket: string, config: S3Config, region: string): boolean {
  // No ARN, no access point, no directory bucket, nothing that is no name of a host.
  if (!/^[a-z0-9][a-z0-9-]{1,61}[a-z0-9]$/.test(bucket) || /--|-s3alias$/.test(bucket)) {
    return false;
  }
  if (config.wantsSdk) return false;
  if (config.endpoint !== undefined) return !isAmazons(config.endpoint);
  return /^(us|us-gov|eu|ap|ca|sa|af|me|il|mx|cn)-[a-z]+-\d$/.test(region);
}

/** An endpoint of Amazon's may be of any kind. */
function isAmazons(endpoint: string): boolean {
  return /(^|\.)amazonaws\.com(\.cn)?$/.test(new URL(endpoint).hostname);
}

export function openLightApi(
  config: S3Config,
  region: () => Promise<string>,
  credentials: () => Promise<Credentials>,
  handler: HttpHandler,
): S3Api {
  const { send, ask } = openRequests(config, region, credentials, handler);
  const verifies = config.responseChecksums === "WHEN_SUPPORTED";

  return {
    createBucket: async ({ Bucket, CreateBucketConfiguration }, options) => {
      const constraint = CreateBucketConfiguration?.LocationConstraint;
      await ask({
        method: "PUT",
        bucket: Bucket,
        ...(constraint === undefined ? {} : {
          body: `<CreateBucketConfiguration xmlns="${NAMESPACE}"><LocationConstraint>` +
            `${encodeXml(constraint)}</LocationConstraint></CreateBucketConfiguration>`,
          headers: { "content-type": "application/xml" },
        }),
      }, options);
    },

    headBucket: ({ Bucket }, options) => ask({ method: "HEAD", bucket: Bucket }, options),

    listObjectsV2: async (input, options) => {
      const { xml } = await ask({
        method: "GET",
        bucket: input.Bucket,
        query: {
          "list-type": "2",
          prefix: input.Prefix,
          delimiter: input.Delimiter,
          "encoding-type": input.EncodingType,
          "start-after": input.StartAfter,
          "continuation-token": input.ContinuationToken,
        },
      }, options);
      requireWhole(xml, "ListBucketResult");
      return listingOf(xml);
    },

    headObject: async ({ Bucket, Key, ...input }, options) => {
      const { headers, body } = await send({
        method: "HEAD",
        bucket: Bucket,
        key: Key,
        headers: customerKeyOf(input),
      }, options);
      body.destroy();
      return headOf(headers);
    },

    getObject: async ({ Bucket, Key, Range, IfMatch, ...input }, options) => {
      const answer = await send({
        method: "GET",
        bucket: Bucket,
        key: Key,
        query: { "x-id": "GetObject" },
        headers: {
          range: Range,
          "if-match": IfMatch,
          ...customerKeyOf(input),
          ...(verifies ? { "x-amz-checksum-mode": "ENABLED" } : {}),
        },
      }, options);
      return {
        ...headOf(answer.headers),
        ContentRange: answer.headers["content-range"],
        Body: verifies ? verified(answer) : answer.body,
      };
    },

    putObject: async ({ Bucket, Key, Body, Tagging, IfNoneMatch, ...input }, options) => {
      const { headers } = await ask({
        method: "PUT",
        bucket: Bucket,
        key: Key,
        query: { "x-id": "PutObject" },
        headers: {
          "content-type": "application/octet-stream",
          "if-none-match": IfNoneMatch,
          "x-amz-tagging": Tagging,
          ...encryptionOf(input),
          ...customerKeyOf(input),
        },
        body: Body,
        checksum: "supported",
      }, options);
      return { ETag: headers["etag"], ChecksumCRC32: headers["x-amz-checksum-crc32"] };
    },

    createMultipartUpload: async (
      { Bucket, Key, Tagging, ChecksumAlgorithm, ...input },
      options,
    ) => {
      const { xml } = await ask({
        method: "POST",
        bucket: Bucket,
        key: Key,
        query: { uploads: "" },
        headers: {
          "x-amz-tagging": Tagging,
          "x-amz-checksum-algorithm": ChecksumAlgorithm,
          ...encryptionOf(input),
          ...customerKeyOf(input),
        },
      }, options);
      return { UploadId: textOf(xml, "UploadId") };
    },

    uploadPart: async ({ Bucket, Key, Body, UploadId, PartNumber, ...input }, options) => {
      const { headers } = await ask({
        method: "PUT",
        bucket: Bucket,
        key: Key,
        query: { partNumber: PartNumber, uploadId: UploadId, "x-id": "UploadPart" },
        headers: { "content-type": "application/octet-stream", ...customerKeyOf(input) },
        body: Body,
        checksum: "supported",
      }, options);
      return { ETag: headers["etag"], ChecksumCRC32: headers["x-amz-checksum-crc32"] };
    },

    completeMultipartUpload: async (input, options) => {
      const parts = (input.MultipartUpload?.Parts ?? []).map((part) => {
        const sum = part.ChecksumCRC32 === undefined
          ? ""
          : `<ChecksumCRC32>${encodeXml(part.ChecksumCRC32)}</ChecksumCRC32>`;
        return `<Part><ETag>${encodeXml(part.ETag ?? "")}</ETag>${sum}` +
          `<PartNumber>${part.PartNumber}</PartNumber></Part>`;
      });
      const { xml } = await ask({
        method: "POST",
        bucket: input.Bucket,
        key: input.Key,
        query: { uploadId: input.UploadId },
        headers: { "content-type": "application/xml", "if-none-match": input.IfNoneMatch },
        body: `<CompleteMultipartUpload xmlns="${NAMESPACE}">${parts.join("")}` +
          "</CompleteMultipartUpload>",
      }, options);
      return { ETag: textOf(xml, "ETag") };
    },

    abortMultipartUpload: ({ Bucket, Key, UploadId }, options) =>
      ask({
        method: "DELETE",
        bucket: Bucket,
        key: Key,
        query: { uploadId: UploadId, "x-id": "AbortMultipartUpload" },
      }, options),

    listParts: async ({ Bucket, Key, UploadId, MaxParts, PartNumberMarker }, options) => {
      const { xml } = await ask({
        method: "GET",
        bucket: Bucket,
        key: Key,
        query: {
          uploadId: UploadId,
          "max-parts": MaxParts,
          "part-number-marker": PartNumberMarker,
          "x-id": "ListParts",
        },
      }, options);
      requireWhole(xml, "ListPartsResult");
      const Parts = [...elementsOf(xml, "Part")].map((part) => ({
        Size: Number(textOf(part, "Size") ?? 0),
        LastModified: dateOf(textOf(part, "LastModified")),
      }));
      return {
        Parts,
        IsTruncated: textOf(xml, "IsTruncated") === "true",
        NextPartNumberMarker: textOf(xml, "NextPartNumberMarker"),
      };
    },

    listMultipartUploads: async (input, options) => {
      const { xml } = await ask({
        method: "GET",
        bucket: input.Bucket,
        query: {
          uploads: "",
          prefix: input.Prefix,
          "key-marker": input.KeyMarker,
          "upload-id-marker": input.UploadIdMarker,
        },
      }, options);
      requireWhole(xml, "ListMultipartUploadsResult");
      if (!xml.includes("<ListMultipartUploadsResult")) return {};
      const Uploads = [...elementsOf(xml, "Upload")].map((upload) => ({
        Key: textOf(upload, "Key"),
        UploadId: textOf(upload, "UploadId"),
        Initiated: dateOf(textOf(upload, "Initiated")),
      }));
      return {
        Bucket: textOf(xml, "Bucket") ?? "",
        Uploads,
        IsTruncated: textOf(xml, "IsTruncated") === "true",
        NextKeyMarker: textOf(xml, "NextKeyMarker"),
        NextUploadIdMarker: textOf(xml, "NextUploadIdMarker"),
      };
    },

    deleteObject: ({ Bucket, Key }, options) =>
      ask(
        { method: "DELETE", bucket: Bucket, key: Key, query: { "x-id": "DeleteObject" } },
        options,
      ),

    deleteObjects: async ({ Bucket, Delete }, options) => {
      const objects = (Delete?.Objects ?? []).map(({ Key = "" }) =>
        `<Object><Key>${encodeXml(Key)}</Key></Object>`
      );
      const { xml } = await ask({
        method: "POST",
        bucket: Bucket,
        query: { delete: "" },
        headers: { "content-type": "application/xml" },
        body: `<Delete xmlns="${NAMESPACE}">${objects.join("")}<Quiet>true</Quiet></Delete>`,
        checksum: "required",
      }, options);
      requireWhole(xml, "DeleteResult");
      const Errors = [...elementsOf(xml, "Error")].map((error) => ({
        Key: textOf(error, "Key"),
        Code: textOf(error, "Code"),
        Message: textOf(error, "Message"),
      }));
      return { Errors };
    },

    close() {},
  };
}

const NAMESPACE = "http://s3.amazonaws.com/doc/2006-03-01/";

interface Encryption {
  readonly ServerSideEncryption?: string | undefined;
  readonly SSEKMSKeyId?: string | undefined;
}

function encryptionOf({ ServerSideEncryption, SSEKMSKeyId }: Encryption) {
  return {
    "x-amz-server-side-encryption": ServerSideEncryption,
    "x-amz-server-side-encryption-aws-kms-key-id": SSEKMSKeyId,
  };
}

interface CustomerKeyed {
  readonly SSECustomerAlgorithm?: string | undefined;
  readonly SSECustomerKey?: string | undefined;
}

function customerKeyOf({ SSECustomerAlgorithm, SSECustomerKey }: CustomerKeyed) {
  if (SSECustomerKey === undefined) return {};
  const key = Buffer.from(SSECustomerKey, "base64");
  const header = "x-amz-server-side-encryption-customer";
  return {
    [`${header}-algorithm`]: SSECustomerAlgorithm,
    [`${header}-key`]: SSECustomerKey,
    [`${header}-key-md5`]: createHash("md5").update(key).digest("base64"),
  };
}

function headOf(headers: Readonly<Record<string, string>>) {
  const length = headers["content-length"];
  return {
    ETag: headers["etag"],
    ContentLength: length === undefined ? undefined : Number(length),
    LastModified: dateOf(headers["last-modified"]),
    ObjectLockMode: headers["x-amz-object-lock-mode"],
    ObjectLockRetainUntilDate: dateOf(headers["x-amz-object-lock-retain-until-date"]),
    ObjectLockLegalHoldStatus: headers["x-amz-object-lock-legal-hold"],
  };
}

/** Text that is no date gives a date that is none. */
function dateOf(text: string | undefined): Date | undefined {
  return text === undefined ? undefined : new Date(text);
}

function listingOf(xml: string): Listing {
  if (!xml.includes("<ListBucketResult")) return {};
  const first = xml.search(/<(Contents|CommonPrefixes)>/);
  // Elements of objects and groups have the same names as those of the listing.
  const rest = xml.replace(/<(Contents|CommonPrefixes)>[^]*<\/\1>/g, "");
  const number = (name: string) => {
    const text = textOf(rest, name);
    return text === undefined ? undefined : Number(text);
  };
  const truncated = textOf(rest, "IsTruncated");
  const Contents = [];
  for (const object of elementsOf(xml, "Contents")) {
    Contents.push({
      Key: textOf(object, "Key"),
      Size: Number(textOf(object, "Size") ?? 0),
      ETag: textOf(object, "ETag"),
      LastModified: dateOf(textOf(object, "LastModified")),
    });
  }
  const CommonPrefixes = [];
  for (const group of elementsOf(xml, "CommonPrefixes")) {
    CommonPrefixes.push({ Prefix: textOf(group, "Prefix") });
  }
  return {
    Name: textOf(rest, "Name"),
    Prefix: textOf(rest, "Prefix") ?? (/<Prefix\s*\/>/.test(rest) ? "" : undefined),
    KeyCount: number("KeyCount"),
    MaxKeys: number("MaxKeys"),
    IsTruncated: truncated === undefined ? undefined : truncated === "true",
    EncodingType: textOf(rest, "EncodingType"),
    NextContinuationToken: textOf(rest, "NextContinuationToken"),
    ...(first < 0 ? {} : { Contents, CommonPrefixes }),
  };
}

/** The body, which fails at its end when it is not what the store's checksum says. */
function verified({ status, headers, body }: Answer): AnswerBody {
  const expected = headers["x-amz-checksum-crc32"];
  // A sum of parts' sums (`…-3`) is of no use here, nor is one of the whole for a range.
  if (expected === undefined || status !== 200 || expected.includes("-")) return body;
  return {
    async *[Symbol.asyncIterator]() {
      let sum = 0;
      for await (const chunk of body) {
        sum = crc32(chunk, sum);
        yield chunk;
      }
      const found = crc32Base64(sum);
      if (found !== expected) {
        throw new Error(`Checksum mismatch: expected CRC32 ${expected}, found ${found}`);
      }
    },
    destroy: () => body.destroy(),
    on: (event, listener) => body.on(event, listener),
  };
}

/** @throws when an answer of this kind has no end */
function requireWhole(xml: string, name: string): void {
  if (!xml.includes(`<${name}`) || new RegExp(`(</${name}>|<${name}[^<>]*/>)\\s*$`).test(xml)) {
    return;
  }
  throw Object.assign(new Error("the answer has no end"), { code: "ECONNRESET" });
}
