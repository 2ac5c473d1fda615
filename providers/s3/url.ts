import { StoreError } from "../object_store.ts";
import { namesUser, withoutSecrets } from "../url_in_messages.ts";

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
  const refused = (what: string) =>
    new StoreError("invalid", `Cannot use ${withoutSecrets(url)} as an S3 store: ${what}`);
  if (namesUser(url)) {
    throw refused("credentials in the URL mean nothing there; set AWS_ACCESS_KEY_ID or a profile");
  }
  const parts = /^s3:\/\/([^/?#]+)([^?#]*)/i.exec(url);
  const [, bucket, path = ""] = parts ?? [];
  if (bucket === undefined) {
    throw refused("write s3://BUCKET/PATH");
  }
  return { bucket, prefix: path.replace(/^\/+/, "") };
}
