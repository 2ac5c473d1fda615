import assert from "node:assert/strict";
import { parseGcsUrl } from "../../../providers/gcs/url.ts";
import { isStoreError } from "../../../providers/object_store.ts";
import { providerOfUrl } from "../../../providers/open.ts";

const CONSOLE = "https://console.cloud.google.com/storage/browser";

Deno.test("Google Cloud Storage URLs: both forms, slashes at both ends of the path removed", () => {
  const cases: Array<[string, string, string]> = [
    ["gs://b", "b", ""],
    ["gs://b/", "b", ""],
    ["gs://b/p", "b", "p"],
    ["gs://b//p/q///", "b", "p/q"],
    ["gs://my.bucket_1/a b/ü%20", "my.bucket_1", "a b/ü%20"],
    ["GS://b/p?x=1#y", "b", "p"],
    [`${CONSOLE}/b`, "b", ""],
    [`${CONSOLE}/b/p/q/`, "b", "p/q"],
    [`${CONSOLE}/b/p?project=x`, "b", "p"],
  ];
  for (const [url, bucket, prefix] of cases) {
    assert.deepEqual(parseGcsUrl(url), { bucket, prefix }, url);
    assert.equal(providerOfUrl(url), "google-cloud-storage", url);
  }
});

Deno.test("Google Cloud Storage URLs: anything else is refused, without its secrets", () => {
  const urls = [
    ...["gs://", "gs:///p", "gs:b", "s3://b/p", "b/p", "", `${CONSOLE}/`, CONSOLE],
    "https://console.cloud.google.com/storage/b",
    "https://storage.googleapis.com/b/p",
    "https://user:secret@storage.example/b?X-Goog-Signature=secret",
  ];
  for (const url of urls) {
    assert.throws(
      () => parseGcsUrl(url),
      (error) =>
        isStoreError(error, "invalid") && /write gs:\/\/BUCKET/.test(error.message) &&
        !error.message.includes("secret"),
      url,
    );
  }
});
