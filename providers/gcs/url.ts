import { StoreError } from "../object_store.ts";

export interface GcsUrl {
  readonly bucket: string;
  /** Without leading and trailing slashes, as Barman has it for this store. */
  readonly prefix: string;
}

/**
 * The bucket and path of `gs://BUCKET[/PATH]` or of the console's
 * `https://console.cloud.google.com/storage/browser/BUCKET[/PATH]`. Query and fragment are dropped;
 * nothing is decoded.
 * @throws {StoreError} kind `invalid` for anything else.
 */
export function parseGcsUrl(url: string): GcsUrl {
  const parts =
    /^(?:gs:\/\/|https:\/\/console\.cloud\.google\.com\/storage\/browser\/)([^/?#]+)([^?#]*)/i
      .exec(url);
  const [, bucket, path = ""] = parts ?? [];
  if (bucket === undefined) {
    throw new StoreError(
      "invalid",
      `Cannot use ${withoutUser(url)} as a Google Cloud store: write gs://BUCKET/PATH or ` +
        "https://console.cloud.google.com/storage/browser/BUCKET/PATH",
    );
  }
  return { bucket, prefix: path.replace(/^\/+|\/+$/g, "") };
}

/** User and password of a URL stay out of messages, and so does the query, which may be a signature. */
export function withoutUser(url: string): string {
  return url.replace(/\/\/[^/@]*@/, "//").replace(/[?#].*$/s, "");
}
