import { StoreError } from "../object_store.ts";
import { namesUser, withoutSecrets } from "../url_in_messages.ts";

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
  if (bucket !== undefined && namesUser(url)) {
    throw new StoreError(
      "invalid",
      `Cannot use ${
        withoutSecrets(url)
      } as a Google Cloud store: credentials in the URL mean nothing there; set ` +
        "GOOGLE_APPLICATION_CREDENTIALS",
    );
  }
  if (bucket === undefined) {
    throw new StoreError(
      "invalid",
      `Cannot use ${withoutSecrets(url)} as a Google Cloud store: write gs://BUCKET/PATH or ` +
        "https://console.cloud.google.com/storage/browser/BUCKET/PATH",
    );
  }
  return { bucket, prefix: path.replace(/^\/+|\/+$/g, "") };
}
