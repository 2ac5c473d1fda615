/**
 * The operations of S3 that this project uses, by the names of Amazon's reference. Two things carry them out: `light_api.ts`
 * wherever plain requests will do, and `sdk_api.ts`, the AWS SDK, for the rest: loading that takes longer, and more
 * memory, than all that archiving a WAL file takes otherwise.
 */
import type {
  AbortMultipartUploadCommandInput,
  CompleteMultipartUploadCommandInput,
  CreateBucketCommandInput,
  CreateMultipartUploadCommandInput,
  DeleteObjectCommandInput,
  DeleteObjectsCommandInput,
  GetObjectCommandInput,
  HeadBucketCommandInput,
  HeadObjectCommandInput,
  ListMultipartUploadsCommandInput,
  ListObjectsV2CommandInput,
  ListPartsCommandInput,
  PutObjectCommandInput,
  UploadPartCommandInput,
} from "@aws-sdk/client-s3";
import type { ObjectContent } from "../object_store.ts";

export interface SendOptions {
  readonly abortSignal?: AbortSignal;
}

type Operation<Input, Output> = (input: Input, options: SendOptions) => Promise<Output>;

export interface S3Api {
  createBucket: Operation<CreateBucketCommandInput, unknown>;
  headBucket: Operation<HeadBucketCommandInput, unknown>;
  listObjectsV2: Operation<ListObjectsV2CommandInput, Listing>;
  headObject: Operation<HeadObjectCommandInput, ObjectHead>;
  getObject: Operation<GetObjectCommandInput, ObjectAnswer>;
  putObject: Operation<
    Omit<PutObjectCommandInput, "Body"> & { Body: Uint8Array | ObjectContent },
    Written
  >;
  createMultipartUpload: Operation<CreateMultipartUploadCommandInput, { UploadId?: Text }>;
  uploadPart: Operation<Omit<UploadPartCommandInput, "Body"> & { Body: Uint8Array }, Written>;
  completeMultipartUpload: Operation<CompleteMultipartUploadCommandInput, Written>;
  abortMultipartUpload: Operation<AbortMultipartUploadCommandInput, unknown>;
  listParts: Operation<ListPartsCommandInput, PartListing>;
  listMultipartUploads: Operation<ListMultipartUploadsCommandInput, UploadListing>;
  deleteObject: Operation<DeleteObjectCommandInput, unknown>;
  deleteObjects: Operation<DeleteObjectsCommandInput, { Errors?: DeletionError[] | undefined }>;
  close(): void;
}

type Text = string | undefined;

export interface Written {
  readonly ETag?: Text;
  /** In base64. */
  readonly ChecksumCRC32?: Text;
}

export interface ObjectHead {
  readonly ETag?: Text;
  readonly ContentLength?: number | undefined;
  readonly LastModified?: Date | undefined;
  readonly ObjectLockMode?: Text;
  readonly ObjectLockRetainUntilDate?: Date | undefined;
  readonly ObjectLockLegalHoldStatus?: Text;
}

export interface ObjectAnswer extends ObjectHead {
  readonly ContentRange?: Text;
  /** A Node stream, in a server's runtime. */
  readonly Body?: object | undefined;
}

export interface Listing {
  readonly Name?: Text;
  readonly Prefix?: Text;
  readonly KeyCount?: number | undefined;
  readonly MaxKeys?: number | undefined;
  readonly IsTruncated?: boolean | undefined;
  readonly EncodingType?: Text;
  readonly NextContinuationToken?: Text;
  readonly Contents?:
    | readonly {
      readonly Key?: Text;
      readonly Size?: number | undefined;
      readonly ETag?: Text;
      readonly LastModified?: Date | undefined;
    }[]
    | undefined;
  readonly CommonPrefixes?: readonly { readonly Prefix?: Text }[] | undefined;
}

export interface PartListing {
  readonly IsTruncated?: boolean | undefined;
  readonly NextPartNumberMarker?: Text;
  readonly Parts?:
    | readonly { readonly Size?: number | undefined; readonly LastModified?: Date | undefined }[]
    | undefined;
}

export interface UploadListing {
  readonly Bucket?: Text;
  readonly MaxUploads?: number | undefined;
  readonly IsTruncated?: boolean | undefined;
  readonly NextKeyMarker?: Text;
  readonly NextUploadIdMarker?: Text;
  readonly Uploads?:
    | readonly {
      readonly Key?: Text;
      readonly UploadId?: Text;
      readonly Initiated?: Date | undefined;
    }[]
    | undefined;
}

export interface DeletionError {
  readonly Key?: Text;
  readonly Code?: Text;
  readonly Message?: Text;
}

/** A page for people came where S3 sends XML or nothing. */
export class PageError extends Error {
  override readonly name = "PageError";
}

/**
 * Is a successful answer the page of a login, or of another server? By its type, unless it has the number that stores
 * give to requests: Swift and moto call their answers without content HTML. An ETag tells nothing, pages have them, too.
 * @param headers with names in lower case
 */
export function isPage(headers: Readonly<Record<string, string | undefined>>): boolean {
  return /^text\/html\b/i.test(headers["content-type"] ?? "") &&
    headers["x-amz-request-id"] === undefined && headers["x-amzn-requestid"] === undefined;
}
