/** What a store, or something that poses as one, may answer: listings above all. */
import assert from "node:assert/strict";
import { once } from "node:events";
import http from "node:http";
import fc from "fast-check";
import { type ObjectStore, StoreError } from "../../providers/object_store.ts";
import type { StoreOptions } from "../../providers/open.ts";
import {
  ABSURD_NUMBERS,
  encoded,
  fuzz,
  NASTY_NAMES,
  outcomeOf,
  requireDocumented,
  SECRET_ENVIRONMENT,
  SECRETS,
  textNear,
} from "./hostile_inputs.ts";

interface Answer {
  readonly status: number;
  readonly body: string;
  readonly headers: Readonly<Record<string, string>>;
}

/** What the server says, to the first request and to those after it; the last one again and again. */
const script: { answers: readonly Answer[]; asked: number } = { answers: [], asked: 0 };
const server = http.createServer((incoming, outgoing) => {
  incoming.resume();
  incoming.on("end", () => {
    const { answers } = script;
    const answer = answers[Math.min(script.asked++, answers.length - 1)];
    if (answer === undefined) return void outgoing.destroy();
    outgoing.writeHead(answer.status, answer.headers);
    outgoing.end(incoming.method === "HEAD" ? "" : answer.body);
  });
});
server.listen(0, "127.0.0.1");
await once(server, "listening");
const address = server.address();
assert.ok(address !== null && typeof address === "object");
const endpoint = `http://127.0.0.1:${address.port}`;
const stores: ObjectStore[] = [];
Deno.test.afterAll(async () => {
  for (const store of stores) await store.close();
  server.closeAllConnections();
  server.close();
});

const escaped = (name: string) => name.replace(/[&<>"']/g, (sign) => `&#${sign.charCodeAt(0)};`);
const base = "p/srv/base/";

const S3_PAGE = (name: string, size: string, more: string) =>
  `<?xml version="1.0" encoding="UTF-8"?><ListBucketResult xmlns="http://s3.amazonaws.com/doc/2006-03-01/">` +
  `<Name>bkt</Name><Prefix>${base}</Prefix><KeyCount>2</KeyCount><MaxKeys>1000</MaxKeys>` +
  `<EncodingType>url</EncodingType><IsTruncated>${more === "" ? "false" : "true"}</IsTruncated>` +
  (more === "" ? "" : `<NextContinuationToken>${more}</NextContinuationToken>`) +
  `<Contents><Key>${base}20260115T103000/backup.info</Key><LastModified>2026-01-15T10:31:00.000Z</LastModified>` +
  `<ETag>&quot;e&quot;</ETag><Size>1234</Size><StorageClass>STANDARD</StorageClass></Contents>` +
  `<Contents><Key>${escaped(name)}</Key><Size>${size}</Size></Contents>` +
  `<CommonPrefixes><Prefix>${base}20260116T103000/</Prefix></CommonPrefixes></ListBucketResult>`;

const AZURE_PAGE = (name: string, size: string, more: string) =>
  `\ufeff<?xml version="1.0" encoding="utf-8"?><EnumerationResults ServiceEndpoint="${endpoint}/" ` +
  `ContainerName="bkt"><Prefix>${base}</Prefix><Blobs><Blob><Name>${base}20260115T103000/backup.info</Name>` +
  `<Properties><Last-Modified>Thu, 15 Jan 2026 10:31:00 GMT</Last-Modified><Etag>0x8D</Etag>` +
  `<Content-Length>1234</Content-Length><BlobType>BlockBlob</BlobType></Properties></Blob>` +
  `<Blob><Name>${base}${
    escaped(name)
  }</Name><Properties><Etag>e</Etag><Content-Length>${size}</Content-Length>` +
  `<Last-Modified>Thu, 15 Jan 2026 10:31:00 GMT</Last-Modified></Properties></Blob>` +
  `<BlobPrefix><Name>${base}20260116T103000/</Name></BlobPrefix></Blobs><NextMarker>${more}</NextMarker>` +
  `</EnumerationResults>`;

const GCS_PAGE = (name: string, size: string, more: string) =>
  JSON.stringify({
    kind: "storage#objects",
    ...(more === "" ? {} : { nextPageToken: more }),
    prefixes: [`${base}20260116T103000/`],
    items: [
      {
        name: `${base}20260115T103000/backup.info`,
        size: "1234",
        generation: "17",
        updated: "2026-01-15T10:31:00.000Z",
      },
      { name, size, generation: "1" },
    ],
  });

const WORDS = [
  "<Contents>",
  "</Contents>",
  "<Key>",
  "<Key/>",
  "<Size>-1</Size>",
  "<Blob>",
  "<Name>",
  "<Name Encoded='true'>%</Name>",
  "<Properties/>",
  "<IsTruncated>true</IsTruncated>",
  "<NextMarker>x</NextMarker>",
  '<!DOCTYPE x [<!ENTITY a "aaaaaaaaaa"><!ENTITY b "&a;&a;&a;&a;&a;&a;&a;&a;">]>',
  "&b;",
  "&#0;",
  "&#x110000;",
  "<![CDATA[",
  "<!--",
  "<a>".repeat(2000),
  "[".repeat(5000),
  "null",
  "{}",
  '"items":{},',
  '"prefixes":[1,null,{}],',
  '"__proto__":{"kind":"storage#objects"},',
  "<html>",
  "<Error><Code>NoSuchBucket</Code></Error>",
  base,
];

interface Subject {
  readonly name: string;
  /** With one object of this key and size, and the token of the next page. */
  readonly page: (key: string, size: string, more: string) => string;
  readonly headers: Readonly<Record<string, string>>;
  readonly open: () => Promise<ObjectStore>;
}

const options = (env: Record<string, string>): StoreOptions => ({
  env: { ...SECRET_ENVIRONMENT, HOME: "/nonexistent", ...env },
  attempts: 1,
  readTimeout: 20,
});

const SUBJECTS: readonly Subject[] = [
  {
    name: "S3",
    page: S3_PAGE,
    headers: { "content-type": "application/xml", etag: '"e"' },
    open: async () => {
      const { openS3Store } = await import("../../providers/s3/store.ts");
      return (await openS3Store("s3://bkt/p", { ...options({}), endpointUrl: endpoint })).store;
    },
  },
  {
    name: "Azure",
    page: AZURE_PAGE,
    headers: { "content-type": "application/xml", "x-ms-version": "2025-01-05", etag: '"e"' },
    open: async () => {
      const { openAzureStore } = await import("../../providers/azure/store.ts");
      const url = `${endpoint}/fuzzaccount/bkt/p`;
      const connection =
        `BlobEndpoint=${endpoint}/fuzzaccount;SharedAccessSignature=sv=2024&sig=${SECRETS.sas}`;
      const env = { AZURE_STORAGE_CONNECTION_STRING: connection };
      return (await openAzureStore(url, options(env))).store;
    },
  },
  {
    name: "Google",
    page: GCS_PAGE,
    headers: { "content-type": "application/json", "x-goog-generation": "1" },
    open: async () => {
      const { openGcsStore } = await import("../../providers/gcs/store.ts");
      return (await openGcsStore("gs://bkt/p", options({ STORAGE_EMULATOR_HOST: endpoint }))).store;
    },
  },
];

const REFUSALS = [
  `<?xml version="1.0"?><Error><Code>AccessDenied</Code><Message>no ${SECRETS.sas}</Message></Error>`,
  `{"error":{"code":403,"message":"no","errors":[{"reason":"forbidden"}]}}`,
  "<html>login</html>",
  "",
];

for (const { name, page, headers, open } of SUBJECTS) {
  const store = await open();
  stores.push(store);
  const key = fc.oneof(
    { weight: 5, arbitrary: fc.constantFrom(...NASTY_NAMES, "x").map((nasty) => base + nasty) },
    { weight: 1, arbitrary: fc.constantFrom(...NASTY_NAMES, "q/elsewhere", base) },
  );
  const size = fc.oneof(
    { weight: 5, arbitrary: fc.constant("1") },
    { weight: 1, arbitrary: fc.constantFrom(...ABSURD_NUMBERS) },
  );
  const more = fc.constantFrom("", "", "next", "t&amp;1");
  const body = fc.tuple(key, size, more).chain((parts) =>
    fc.oneof(fc.constant(page(...parts)), textNear([page(...parts)], WORDS))
  );

  fuzz(`${name}: listings`, {
    runs: 900,
    input: fc.record({
      bodies: fc.array(body, { minLength: 1, maxLength: 3 }),
      delimited: fc.boolean(),
    }),
  }, async ({ bodies, delimited }) => {
    script.answers = bodies.map((each) => ({ status: 200, body: each, headers }));
    script.asked = 0;
    let entries = 0;
    await outcomeOf(async () => {
      for await (const entry of store.list(base, delimited ? { delimiter: "/" } : {})) {
        entries++;
        const key = entry.kind === "object" ? entry.key : entry.prefix;
        assert.ok(key.startsWith(base), `a key that was not asked for: ${JSON.stringify(key)}`);
        if (entry.kind === "object") {
          assert.ok(entry.size >= 0 && Number.isSafeInteger(entry.size), `size ${entry.size}`);
        }
      }
    }, StoreError);
    // The same page for ever ends with an error, and soon.
    assert.ok(script.asked <= bodies.length + 3, `${script.asked} requests`);
    assert.ok(entries < 100);
  });

  fuzz(`${name}: answers to all other questions`, {
    runs: 500,
    input: fc.record({
      status: fc.constantFrom(
        200,
        204,
        206,
        301,
        307,
        400,
        401,
        403,
        404,
        409,
        412,
        416,
        429,
        500,
        503,
      ),
      body: fc.oneof(textNear(REFUSALS, WORDS), body),
      extra: fc.dictionary(
        fc.constantFrom(
          "content-range",
          "x-amz-bucket-region",
          "x-ms-error-code",
          "retry-after",
          "location",
          "last-modified",
          "x-goog-generation",
          "date",
          "content-encoding",
        ),
        fc.constantFrom(
          ...ABSURD_NUMBERS.filter((text) => text !== "\u0663"),
          "bytes 0-1/2",
          "evil.example.org/#",
          "us-east-1",
          "http://evil.example.org/",
          "Thu, 01 Jan 1970 00:00:00 GMT",
          "gzip",
          "BlobNotFound",
        ),
        { maxKeys: 3 },
      ),
      call: fc.constantFrom("head", "get", "range", "bucket", "put", "delete", "multipart"),
    }),
  }, async ({ status, body, extra, call }) => {
    script.answers = [{ status, body, headers: { ...headers, ...extra } }];
    script.asked = 0;
    const key = `${base}x`;
    const bytes = encoded("abc");
    await outcomeOf(async () => {
      switch (call) {
        case "head":
          return void await store.head(key);
        case "get":
        case "range": {
          const { body } = await store.get(key, call === "get" ? {} : { start: 1, end: 3 });
          for await (const _ of body);
          return;
        }
        case "bucket":
          return void await store.bucketExists();
        case "put":
          return void await store.put(key, bytes, { createOnly: true });
        case "delete": {
          const failures = await store.deleteMany([key, `${key}2`]);
          for (const { error } of failures) requireDocumented(error, [StoreError]);
          return;
        }
        default: {
          const upload = await store.startMultipart(key);
          try {
            const part = await upload.uploadPart(1, bytes);
            await upload.complete([part]);
          } catch (error) {
            await upload.abort().catch(() => undefined);
            throw error;
          }
        }
      }
    }, StoreError);
    assert.ok(script.asked < 30, `${script.asked} requests`);
  });
}
