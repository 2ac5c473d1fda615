/** What makes the requests that go without the SDK: signatures, XML, and when they will do. */
import assert from "node:assert/strict";
import { readS3Config } from "../../../providers/s3/config.ts";
import { suitsLightApi } from "../../../providers/s3/light_api.ts";
import { sha256Hex, signed, UNSIGNED } from "../../../providers/s3/sign.ts";
import { elementsOf, encodeXml, textOf } from "../../../providers/s3/xml.ts";

Deno.test("signatures are those of Amazon's published examples", () => {
  // "Authenticating Requests: Using the Authorization Header (AWS Signature Version 4)", S3's API reference.
  const credentials = {
    accessKeyId: "AKIAIOSFODNN7EXAMPLE",
    secretAccessKey: "wJalrXUtnFEMI/K7MDENG/bPxRfiCYEXAMPLEKEY",
  };
  const now = new Date("2013-05-24T00:00:00Z");
  const host = "examplebucket.s3.amazonaws.com";
  const empty = sha256Hex("");
  const signature = (
    path: string,
    query: string,
    headers: Record<string, string>,
    method = "GET",
    payload = empty,
  ) => {
    const request = { method, path, query, headers: { host, ...headers } };
    const { authorization } = signed(request, payload, "us-east-1", credentials, now);
    return /Signature=([0-9a-f]+)$/.exec(authorization ?? "")?.[1];
  };
  assert.equal(
    signature("/test.txt", "", { range: "bytes=0-9" }),
    "f0e8bdb87c964420e857bd35b5d6ed310bd44f0170aba48dd91039c6036bdb41",
  );
  assert.equal(
    signature(
      "/test%24file.text",
      "",
      { date: "Fri, 24 May 2013 00:00:00 GMT", "x-amz-storage-class": "REDUCED_REDUNDANCY" },
      "PUT",
      sha256Hex("Welcome to Amazon S3."),
    ),
    "98ad721746da40c64f1a55b78f14c238d841ea1380cd77a1b5971af0ece108bd",
  );
  assert.equal(
    signature("/", "lifecycle=", {}),
    "fea454ca298b7da1c68078a5d1bdbfbbe0d65c699e0f91ac7a200a0136783543",
  );
  assert.equal(
    signature("/", "max-keys=2&prefix=J", {}),
    "34b48302e7b5fa45bde8084f4b7868a86f0a534bc59db6670ed5711ef69dc6f7",
  );
});

Deno.test("a session token is sent and signed; a body may be left out of the signature", () => {
  const credentials = { accessKeyId: "A", secretAccessKey: "S", sessionToken: "T" };
  const request = { method: "PUT", path: "/k", query: "", headers: { host: "h" } };
  const headers = signed(request, UNSIGNED, "eu-west-1", credentials, new Date(0));
  assert.equal(headers["x-amz-security-token"], "T");
  assert.equal(headers["x-amz-content-sha256"], "UNSIGNED-PAYLOAD");
  assert.match(
    headers["authorization"] ?? "",
    /^AWS4-HMAC-SHA256 Credential=A\/19700101\/eu-west-1\/s3\/aws4_request, SignedHeaders=host;x-amz-content-sha256;x-amz-date;x-amz-security-token, /,
  );
});

Deno.test("XML goes there and comes back", () => {
  const odd = `a&b<c>"d"'e'\r\n\u0085\u2028 日 &amp;`;
  assert.equal(textOf(`<x><Key>${encodeXml(odd)}</Key></x>`, "Key"), odd);
  assert.equal(
    textOf("<Key>&#65;&#x42;&quot;&nothing;&#x110000;</Key>", "Key"),
    `AB"&nothing;&#x110000;`,
  );
  assert.equal(textOf("<Key>cut", "Key"), undefined);
  assert.equal(textOf("<Keys>1</Keys>", "Key"), undefined);
  assert.deepEqual([...elementsOf("<a>1</a><b/><a></a><a>2", "a")], ["1", ""]);
});

Deno.test("plain requests are for plain names and endpoints", async () => {
  const suits = async (
    bucket: string,
    region: string,
    endpointUrl?: string,
    env: Record<string, string> = {},
  ) => {
    const options = { env: { HOME: "/nonexistent", ...env }, endpointUrl };
    return suitsLightApi(bucket, await readS3Config(options), region);
  };
  assert.ok(await suits("my-bucket", "eu-central-1"));
  assert.ok(await suits("my-bucket", "us-gov-west-1"));
  assert.ok(await suits("my-bucket", "cn-north-1"));
  assert.ok(await suits("my-bucket", "anywhere", "http://127.0.0.1:9000"));
  for (
    const bucket of [
      "with.dot",
      "UPPER",
      "arn:aws:s3:us-east-1:123456789012:accesspoint/x",
      "mrap--usw2-az1--x-s3",
      "point-hash-s3alias",
    ]
  ) assert.ok(!await suits(bucket, "us-east-1"), bucket);
  assert.ok(!await suits("my-bucket", "us-iso-east-1"));
  assert.ok(!await suits("my-bucket", "eu-west-1", "https://s3.dualstack.eu-west-1.amazonaws.com"));
  assert.ok(!await suits("my-bucket", "us-east-1", undefined, { AWS_USE_FIPS_ENDPOINT: "true" }));
  const dual = { AWS_USE_DUALSTACK_ENDPOINT: "true" };
  assert.ok(!await suits("my-bucket", "us-east-1", undefined, dual));
  const sdk = { BARMAN_CLOUD_S3_CLIENT: "sdk" };
  assert.ok(!await suits("my-bucket", "us-east-1", "http://127.0.0.1:9000", sdk));
});
