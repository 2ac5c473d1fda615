/**
 * What goes out without the AWS SDK is what the SDK would send: each operation is given to both, and the requests
 * that come to the network are compared. Servers that tests can have overlook what Amazon refuses.
 */
import assert from "node:assert/strict";
import { Readable } from "node:stream";
import type { S3Api } from "../../../providers/s3/api.ts";
import { readS3Config } from "../../../providers/s3/config.ts";
import type { HttpHandler, HttpRequest, HttpResponse } from "../../../providers/s3/http_handler.ts";
import { openLightApi } from "../../../providers/s3/light_api.ts";
import { openSdkApi } from "../../../providers/s3/sdk_api.ts";
import { HttpResponse as SdkResponse } from "@smithy/core/protocols";
import type { ObjectContent } from "../../../providers/object_store.ts";
import { readAll } from "../../conformance/suite.ts";

const KEY = "a dir/ü+&=?#%*'()!~.backup";
const body = new TextEncoder().encode("content");
const target = { Bucket: "bkt", Key: KEY };
const upload = { ...target, UploadId: "id/+= &~" };
const customerKey = {
  SSECustomerAlgorithm: "AES256",
  SSECustomerKey: "MDEyMzQ1Njc4OTAxMjM0NTY3ODkwMTIzNDU2Nzg5MDE=",
};
const kms = { ServerSideEncryption: "aws:kms", SSEKMSKeyId: "arn:aws:kms:x:1:key/1" } as const;
const parts = [
  { PartNumber: 1, ETag: '"e<1>"', ChecksumCRC32: "RJgghA==" },
  { PartNumber: 3, ETag: '"e3"' },
];

type Call = (api: S3Api) => Promise<unknown>;

const CALLS: Readonly<Record<string, Call>> = {
  "createBucket in us-east-1": (api) => api.createBucket({ Bucket: "bkt" }, {}),
  createBucket: (api) =>
    api.createBucket({
      Bucket: "bkt",
      CreateBucketConfiguration: { LocationConstraint: "eu-central-1" },
    }, {}),
  headBucket: (api) => api.headBucket({ Bucket: "bkt" }, {}),
  listObjectsV2: (api) =>
    api.listObjectsV2({
      Bucket: "bkt",
      Prefix: KEY,
      Delimiter: "/",
      EncodingType: "url",
      StartAfter: "b c",
      ContinuationToken: "1/+==",
    }, {}),
  "listObjectsV2 of all": (api) => api.listObjectsV2({ Bucket: "bkt", Prefix: "" }, {}),
  headObject: (api) => api.headObject(target, {}),
  "headObject with a customer's key": (api) => api.headObject({ ...target, ...customerKey }, {}),
  getObject: (api) => api.getObject(target, {}),
  "getObject, a range": (api) =>
    api.getObject({ ...target, Range: "bytes=1-2", IfMatch: '"e"', ...customerKey }, {}),
  putObject: (api) => api.putObject({ ...target, Body: body }, {}),
  "putObject of what is read when it is sent": (api) =>
    api.putObject({ ...target, Body: { length: body.length, read: () => chunksOf(body) } }, {}),
  "putObject of nothing": (api) => api.putObject({ ...target, Body: new Uint8Array(0) }, {}),
  "putObject with all options": (api) =>
    api.putObject({ ...target, Body: body, Tagging: "a=b%20c", IfNoneMatch: "*", ...kms }, {}),
  "putObject with a customer's key": (api) =>
    api.putObject({ ...target, Body: body, ...customerKey }, {}),
  createMultipartUpload: (api) => api.createMultipartUpload(target, {}),
  "createMultipartUpload with all options": (api) =>
    api.createMultipartUpload(
      { ...target, ChecksumAlgorithm: "CRC32", Tagging: "a=b", ...kms },
      {},
    ),
  uploadPart: (api) => api.uploadPart({ ...upload, PartNumber: 7, Body: body }, {}),
  "uploadPart with a customer's key": (api) =>
    api.uploadPart({ ...upload, PartNumber: 7, Body: body, ...customerKey }, {}),
  completeMultipartUpload: (api) =>
    api.completeMultipartUpload({ ...upload, MultipartUpload: { Parts: parts } }, {}),
  "completeMultipartUpload on condition": (api) =>
    api.completeMultipartUpload({
      ...upload,
      MultipartUpload: { Parts: parts },
      IfNoneMatch: "*",
    }, {}),
  abortMultipartUpload: (api) => api.abortMultipartUpload(upload, {}),
  listParts: (api) => api.listParts({ ...upload, MaxParts: 1, PartNumberMarker: "5" }, {}),
  listMultipartUploads: (api) =>
    api.listMultipartUploads({
      Bucket: "bkt",
      Prefix: KEY,
      KeyMarker: "k /",
      UploadIdMarker: "u+",
    }, {}),
  deleteObject: (api) => api.deleteObject(target, {}),
  deleteObjects: (api) =>
    api.deleteObjects({
      Bucket: "bkt",
      Delete: { Objects: [{ Key: KEY }, { Key: "b\r\n\u2028<>" }], Quiet: true },
    }, {}),
};

async function* chunksOf(bytes: Uint8Array) {
  yield await Promise.resolve(bytes.subarray(0, 3));
  yield bytes.subarray(3);
}

interface Sent {
  readonly line: string;
  readonly headers: Readonly<Record<string, string>>;
  readonly body: string;
}

const PLACES = [
  ["http://127.0.0.1:9000", "us-east-1"],
  ["https://s3.example.com/base", "eu-central-1"],
  [undefined, "us-east-1"],
  [undefined, "cn-north-1"],
] as const;

for (const [endpointUrl, place] of PLACES) {
  for (const checksums of ["WHEN_SUPPORTED", "WHEN_REQUIRED"]) {
    const where = `${endpointUrl ?? "Amazon"}, ${place}, checksums ${checksums.toLowerCase()}`;
    Deno.test(`S3 requests are the SDK's: ${where}`, async (test) => {
      const env = {
        AWS_ACCESS_KEY_ID: "AKIDEXAMPLE",
        AWS_SECRET_ACCESS_KEY: "secret",
        AWS_SESSION_TOKEN: "token",
        AWS_REGION: place,
        AWS_CONFIG_FILE: "/dev/null",
        AWS_SHARED_CREDENTIALS_FILE: "/dev/null",
        AWS_REQUEST_CHECKSUM_CALCULATION: checksums,
        AWS_RESPONSE_CHECKSUM_VALIDATION: checksums,
      };
      const config = await readS3Config({ env, endpointUrl });
      const region = () => Promise.resolve(place);
      const keys = config.environmentKeys;
      assert.ok(keys !== undefined);
      for (const [name, call] of Object.entries(CALLS)) {
        // Elsewhere the SDK names the region by itself, which the provider does before it calls.
        if (/ in us-/.test(name) && place !== "us-east-1") continue;
        await test.step(name, async () => {
          const light = await sentBy(
            (handler) => openLightApi(config, region, () => Promise.resolve(keys), handler),
            call,
          );
          const sdk = await sentBy((handler) => openSdkApi(config, region, handler), call);
          assert.deepEqual(light, sdk);
        });
      }
    });
  }
}

/** The one request that comes of a call. What its answer says is another test's. */
async function sentBy(open: (handler: HttpHandler) => S3Api, call: Call): Promise<Sent> {
  const requests: HttpRequest[] = [];
  const handler: HttpHandler = {
    metadata: { handlerProtocol: "http/1.1" },
    handle(request) {
      requests.push(request);
      const answer = { statusCode: 200, headers: { etag: '"e"' }, body: Readable.from([]) };
      return Promise.resolve({ response: new SdkResponse(answer) as unknown as HttpResponse });
    },
    destroy() {},
    updateHttpClientConfig() {},
    httpHandlerConfigs: () => ({}),
  };
  const api = open(handler);
  await call(api).catch((error) => {
    if (requests.length === 0) throw error;
  });
  api.close();
  assert.equal(requests.length, 1);
  const [request] = requests;
  assert.ok(request !== undefined);
  const { method, protocol, hostname, port, path, query = {} } = request;
  const pairs = Object.entries(query).map(([name, value]) => `${name}=${value ?? ""}`).sort();
  const sent = await textOf(request.body);
  const headers = Object.entries(request.headers)
    .map(([name, value]) => [name.toLowerCase(), value] as const)
    // The SDK gives a type to some bodies that are not there.
    .filter(([name]) => !OWN_HEADERS.test(name) && !(sent === "" && name === "content-type"))
    .map(([name, value]) => [name, sent.startsWith("<") && OF_BODY.test(name) ? "is sent" : value]);
  return {
    line: `${method} ${protocol}//${hostname}:${port ?? ""}${path}?${pairs.join("&")}`,
    headers: Object.fromEntries(headers.sort()),
    body: sameXml(sent),
  };
}

/** Of the program, and of the moment. */
const OWN_HEADERS = /^(authorization|x-amz-date|(x-amz-)?user-agent|amz-sdk-.*)$/;
const OF_BODY = /^(content-length|x-amz-content-sha256|x-amz-checksum-.*)$/;

async function textOf(sent: unknown): Promise<string> {
  if (sent === undefined || sent === null) return "";
  if (typeof sent === "string") return sent;
  const bytes = sent instanceof Uint8Array ? sent : await readAll((sent as ObjectContent).read());
  return new TextDecoder().decode(bytes);
}

/** XML says the same in several ways. */
function sameXml(text: string): string {
  return text.replace(/^<\?xml[^>]*>\s*/, "")
    .replace(/&(quot|apos|lt|gt|amp);/g, (_, name: string) => NAMED[name] ?? "")
    .replace(/&#x0*([0-9a-f]+);/gi, (_, hex: string) => `&#x${hex.toLowerCase()};`);
}

const NAMED: Readonly<Record<string, string>> = {
  quot: "&#x22;",
  apos: "&#x27;",
  lt: "&#x3c;",
  gt: "&#x3e;",
  amp: "&#x26;",
};
