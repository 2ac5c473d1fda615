import { StoreError } from "../object_store.ts";

export interface S3Url {
  readonly bucket: string;
  /** Without leading slashes; trailing ones are kept, as Barman keeps them. */
  readonly prefix: string;
}

/**
 * The bucket and path of `s3://BUCKET[/PATH]`. Query and fragment are dropped; nothing is decoded.
 * @throws {StoreError} kind `invalid` for anything else.
 */
export function parseS3Url(url: string): S3Url {
  const parts = /^s3:\/\/([^/?#]+)([^?#]*)/i.exec(url);
  const [, bucket, path = ""] = parts ?? [];
  if (bucket === undefined) {
    throw new StoreError("invalid", `Cannot use ${url} as an S3 store: write s3://BUCKET/PATH`);
  }
  return { bucket, prefix: path.replace(/^\/+/, "") };
}
