import assert from "node:assert/strict";
import { isStoreError } from "../../../providers/object_store.ts";
import { parseS3Url } from "../../../providers/s3/url.ts";

Deno.test("S3 URL: leading slashes of the path go, trailing ones stay", () => {
  const cases: Array<[url: string, bucket: string, prefix: string]> = [
    ["s3://b", "b", ""],
    ["s3://b/", "b", ""],
    ["s3://b/p", "b", "p"],
    ["s3://b/p/", "b", "p/"],
    ["s3://b///p//q//", "b", "p//q//"],
    ["s3://b/p?x=1#y", "b", "p"],
    ["s3://b?x", "b", ""],
    ["S3://My.Bucket-1/a%20b/ü", "My.Bucket-1", "a%20b/ü"],
  ];
  for (const [url, bucket, prefix] of cases) {
    assert.deepEqual(parseS3Url(url), { bucket, prefix }, url);
  }
});

Deno.test("S3 URL: anything else is refused", () => {
  for (const url of ["", "b/p", "s3:/b", "s3://", "s3:///p", "s4://b", "https://b/p", " s3://b"]) {
    assert.throws(() => parseS3Url(url), (error) => isStoreError(error, "invalid"), url);
  }
});
