/**
 * How answers of S3 are understood that a real server can't be made to give at will: the bodies are
 * those that Amazon documents, sent by a small HTTP server.
 */
import assert from "node:assert/strict";
import { Buffer } from "node:buffer";
import { createHash } from "node:crypto";
import { once } from "node:events";
import http from "node:http";
import https from "node:https";
import { writeFile } from "node:fs/promises";
import { crc32 } from "node:zlib";
import {
  isStoreError,
  type ObjectStore,
  type StoreError,
  type StoreErrorKind,
} from "../../../providers/object_store.ts";
import type { StoreOptions } from "../../../providers/open.ts";
import { openS3Store } from "../../../providers/s3/store.ts";
import { AUTHORITY, CERTIFICATE, KEY } from "./test_certificate.ts";

const SECRET = "very-secret-key";

interface Request {
  readonly method: string;
  readonly url: string;
  readonly headers: http.IncomingHttpHeaders;
  readonly body: string;
}

interface Answer {
  readonly status: number;
  readonly headers?: Record<string, string>;
  readonly body?: string;
  /** Without the ETag that a store gives with every success. */
  readonly bare?: boolean;
}

interface Fake {
  readonly endpoint: string;
  readonly requests: Request[];
  open(options?: Partial<StoreOptions>, env?: Record<string, string>): Promise<ObjectStore>;
}

/** A server that answers what it is told, in order; the last answer also to what comes after. */
async function withAnswers(
  answers: readonly Answer[] | ((request: Request) => Answer),
  run: (fake: Fake) => Promise<void>,
  tls = false,
): Promise<void> {
  const requests: Request[] = [];
  const listener: http.RequestListener = async (incoming, outgoing) => {
    const chunks: Uint8Array[] = [];
    for await (const chunk of incoming) chunks.push(chunk);
    const { method = "", url = "", headers } = incoming;
    const request = { method, url, headers, body: Buffer.concat(chunks).toString("latin1") };
    requests.push(request);
    const answer = typeof answers === "function"
      ? answers(request)
      : answers[Math.min(requests.length, answers.length) - 1];
    assert.ok(answer !== undefined);
    const etag = answer.status === 200 && answer.bare !== true ? { etag: '"e"' } : {};
    outgoing.writeHead(answer.status, { ...etag, ...answer.headers });
    outgoing.end(method === "HEAD" ? "" : answer.body ?? "");
  };
  const server = tls
    ? https.createServer({ cert: CERTIFICATE, key: KEY }, listener)
    : http.createServer(listener);
  server.listen(0, "127.0.0.1");
  await once(server, "listening");
  const address = server.address();
  assert.ok(address !== null && typeof address !== "string");
  const endpoint = tls ? `https://localhost:${address.port}` : `http://127.0.0.1:${address.port}`;
  const opened: ObjectStore[] = [];
  try {
    await run({
      endpoint,
      requests,
      async open(options = {}, env = {}) {
        const { store } = await openS3Store("s3://bkt/p", {
          endpointUrl: endpoint,
          ...options,
          env: {
            AWS_ACCESS_KEY_ID: "AKIDEXAMPLE",
            AWS_SECRET_ACCESS_KEY: SECRET,
            AWS_CONFIG_FILE: "/dev/null",
            AWS_SHARED_CREDENTIALS_FILE: "/dev/null",
            AWS_EC2_METADATA_DISABLED: "true",
            AWS_MAX_ATTEMPTS: "1",
            ...env,
          },
        });
        opened.push(store);
        return store;
      },
    });
  } finally {
    for (const store of opened) await store.close();
    server.closeAllConnections();
    server.close();
  }
}

function xml(root: string, content: string): string {
  return `<?xml version="1.0" encoding="UTF-8"?>\n<${root}>${content}</${root}>`;
}

function xmlError(code: string, message: string, more = ""): string {
  return `<?xml version="1.0" encoding="UTF-8"?>\n<Error><Code>${code}</Code>` +
    `<Message>${message}</Message>${more}<RequestId>1</RequestId><HostId>h</HostId></Error>`;
}

async function failure(promise: Promise<unknown>): Promise<StoreError> {
  try {
    await promise;
  } catch (error) {
    assert.ok(isStoreError(error), String(error));
    assert.ok(!error.message.includes(SECRET) && !error.message.includes("\n"), error.message);
    return error;
  }
  return assert.fail("It did not fail");
}

const text = new TextEncoder();
const body = text.encode("content");

Deno.test("S3 answers: each documented error has its kind and says what to do", async () => {
  const cases: Array<[Answer, StoreErrorKind, retryable: boolean, message: RegExp]> = [
    [
      { status: 403, body: xmlError("AccessDenied", "Access Denied") },
      "denied",
      false,
      /AccessDenied.*AWS_ACCESS_KEY_ID/,
    ],
    [
      { status: 403, body: xmlError("InvalidAccessKeyId", "The AWS Access Key Id …") },
      "denied",
      false,
      /does not know the access key \([^:]*\)$/,
    ],
    [
      // Ceph RGW, about an unknown KMS key.
      { status: 403, body: xmlError("InvalidAccessKeyId", "Failed to retrieve the actual key") },
      "denied",
      false,
      /access key .*: Failed to retrieve the actual key$/,
    ],
    [
      { status: 403, body: xmlError("SignatureDoesNotMatch", "The request signature …") },
      "denied",
      false,
      /secret key/,
    ],
    [
      { status: 400, body: xmlError("ExpiredToken", "The provided token has expired.") },
      "denied",
      false,
      /expired; renew/,
    ],
    [{ status: 404, body: xmlError("NoSuchBucket", "…") }, "no-bucket", false, /does not exist/],
    [{ status: 404, body: xmlError("NoSuchKey", "…") }, "not-found", false, /no such object/],
    [
      {
        status: 403,
        body: xmlError(
          "RequestTimeTooSkewed",
          "The difference between the request time and the current time is too large.",
          "<RequestTime>20260101T000000Z</RequestTime><ServerTime>2031-05-06T07:08:09Z</ServerTime>" +
            "<MaxAllowedSkewMilliseconds>900000</MaxAllowedSkewMilliseconds>",
        ),
      },
      "invalid",
      false,
      /here it is 20\d\d-.*at the store 2031-05-06T07:08:09Z.*NTP/,
    ],
    [
      { status: 503, headers: { "retry-after": "7" }, body: xmlError("SlowDown", "…") },
      "unavailable",
      true,
      /slow down/,
    ],
    [{ status: 429, body: "" }, "unavailable", true, /slow down.*429/],
    [{ status: 500, body: xmlError("InternalError", "We …") }, "unavailable", true, /failed/],
    [{ status: 502, body: "<html><body>Bad\nGateway</body></html>" }, "unavailable", true, /502/],
    [{ status: 504, body: "" }, "unavailable", true, /504/],
    [{ status: 400, body: xmlError("RequestTimeout", "…") }, "unreachable", true, /waited/],
    [{ status: 400, body: xmlError("BadDigest", "…") }, "unreachable", true, /damaged/],
    [
      { status: 501, body: xmlError("NotImplemented", "A header you provided …") },
      "invalid",
      false,
      /does not support/,
    ],
    [
      {
        status: 400,
        body: xmlError("InvalidArgument", "Unsupported header 'x-amz-checksum-crc32' received"),
      },
      "invalid",
      false,
      /refuses.*; for a store that takes no checksums set AWS_REQUEST_CHECKSUM_CALCULATION=when_req/,
    ],
    [{ status: 405, body: xmlError("MethodNotAllowed", "…") }, "invalid", false, /refuses/],
    [{ status: 407, body: "" }, "denied", false, /proxy/],
  ];
  for (const [answer, kind, retryable, message] of cases) {
    await withAnswers([answer], async ({ open }) => {
      const error = await failure((await open()).put("a/k", body));
      assert.equal(error.kind, kind, error.message);
      assert.equal(error.retryable, retryable, error.message);
      assert.match(error.message, message);
      assert.match(error.message, /^Cannot write a\/k in bucket "bkt" at http/);
      assert.equal(error.key, "a/k");
      if (answer.headers !== undefined) assert.equal(error.retryAfter, 7000);
    });
  }
});

Deno.test("S3 answers: HEAD has only a status, and still tells key from bucket", async () => {
  const missing = { status: 404 };
  await withAnswers([missing, { status: 200 }], async ({ open, requests }) => {
    assert.equal((await failure((await open()).head("k"))).kind, "not-found");
    assert.deepEqual(requests.map(({ method, url }) => `${method} ${url}`), [
      "HEAD /bkt/k",
      "HEAD /bkt/",
    ]);
  });
  await withAnswers([missing, missing], async ({ open }) => {
    assert.equal((await failure((await open()).head("k"))).kind, "no-bucket");
  });
  await withAnswers([missing, { status: 403 }], async ({ open }) => {
    assert.equal((await failure((await open()).head("k"))).kind, "not-found");
  });
  await withAnswers([{ status: 403 }], async ({ open }) => {
    assert.equal((await failure((await open()).head("k"))).kind, "denied");
  });
});

Deno.test("S3 answers: the bucket's region is followed, once, and remembered", async () => {
  const redirect = (region: string): Answer => ({
    status: 301,
    headers: { "x-amz-bucket-region": region },
    body: xmlError("PermanentRedirect", "The bucket you are attempting to access must be …"),
  });
  const malformed: Answer = {
    status: 400,
    body: xmlError(
      "AuthorizationHeaderMalformed",
      "The authorization header is malformed; the region 'us-east-1' is wrong; expecting 'eu-west-1'",
      "<Region>eu-west-1</Region>",
    ),
  };
  const regions = (requests: Request[]) =>
    requests.map(({ headers }) => /\/([a-z0-9-]+)\/s3\//.exec(headers.authorization ?? "")?.[1]);
  for (const told of [redirect("eu-west-1"), malformed]) {
    await withAnswers([told, { status: 200 }], async ({ open, requests }) => {
      const store = await open();
      await store.put("k", body);
      await store.put("k", body);
      assert.deepEqual(regions(requests), ["us-east-1", "eu-west-1", "eu-west-1"]);
    });
  }
  const both = [redirect("eu-west-1"), redirect("eu-west-2")];
  await withAnswers(both, async ({ open, requests }) => {
    const error = await failure((await open({}, { AWS_REGION: "eu-north-1" })).put("k", body));
    assert.equal(error.kind, "invalid");
    assert.match(error.message, /is in region eu-west-2.*for eu-west-1.*AWS_REGION=eu-west-2/);
    assert.equal(requests.length, 2);
  });
});

Deno.test("S3 answers: a store that refuses conditional writes is looked at first instead", async () => {
  const notices: string[] = [];
  const answers = (request: Request): Answer => {
    if (request.method === "HEAD") return { status: request.url === "/bkt/" ? 200 : 404 };
    if (request.headers["if-none-match"] === undefined) return { status: 200 };
    return { status: 501, body: xmlError("NotImplemented", "A header you provided implies …") };
  };
  await withAnswers(answers, async ({ open, requests }) => {
    const store = await open({ onNotice: (message) => notices.push(message) });
    assert.equal(store.capabilities.createOnlyPut, true);
    await store.put("k", body, { createOnly: true });
    assert.equal(store.capabilities.createOnlyPut, false);
    requests.length = 0;
    await store.put("k2", body, { createOnly: true });
    assert.ok(requests.every(({ headers }) => headers["if-none-match"] === undefined));
    assert.equal(requests.at(0)?.method, "HEAD");
    assert.equal(notices.length, 1);
    assert.match(notices[0] ?? "", /refuses conditional writes/);
  });
});

Deno.test("S3 answers: where bulk deletion wants Content-MD5, keys are deleted one by one", async () => {
  const refusals = [
    xmlError("MissingContentMD5", "…"),
    xmlError("InvalidRequest", "Missing required header for this request: Content-MD5"),
  ];
  for (const refusal of refusals) {
    const answers = ({ method, url }: Request): Answer => {
      if (method === "POST") return { status: 400, body: refusal };
      if (url.startsWith("/bkt/locked")) {
        return { status: 403, body: xmlError("AccessDenied", "…") };
      }
      return { status: 204 };
    };
    await withAnswers(answers, async ({ open, requests }) => {
      const keys = ["a", "locked", "b", "c"];
      const failures = await (await open()).deleteMany(keys, { batchSize: 2 });
      assert.deepEqual(failures.map(({ key, error }) => [key, error.kind]), [["locked", "denied"]]);
      assert.equal(requests.filter(({ method }) => method === "POST").length, 1);
      const deleted = requests.filter(({ method }) => method === "DELETE");
      assert.deepEqual(
        deleted.map(({ url }) => url.split("?")[0]?.slice(5)).sort(),
        [...keys].sort(),
      );
    });
  }
});

Deno.test("S3 answers: keys that a bulk deletion could not delete are returned, every batch is tried", async () => {
  const answers = ({ body }: Request): Answer => {
    if (body.includes("<Key>c</Key>")) return { status: 500, body: xmlError("InternalError", "…") };
    const error = "<Error><Key>b</Key><Code>AccessDenied</Code><Message>locked</Message></Error>";
    const errors = body.includes("<Key>b</Key>") ? error : "";
    return { status: 200, body: `<?xml version="1.0"?><DeleteResult>${errors}</DeleteResult>` };
  };
  await withAnswers(answers, async ({ open, requests }) => {
    const failures = await (await open()).deleteMany(["a", "b", "c", "d", "e"], { batchSize: 2 });
    assert.deepEqual(failures.map(({ key, error }) => [key, error.kind]), [
      ["b", "denied"],
      ["c", "unavailable"],
      ["d", "unavailable"],
    ]);
    assert.equal(requests.length, 3);
  });
});

function page(keys: readonly string[], token?: string, more = ""): Answer {
  const next = token === undefined ? "" : `<NextContinuationToken>${token}</NextContinuationToken>`;
  const contents = keys.map((key) => `<Contents><Key>${key}</Key><Size>1</Size></Contents>`);
  return {
    status: 200,
    body: `<?xml version="1.0"?><ListBucketResult>${contents.join("")}${more}${next}` +
      `<IsTruncated>${token !== undefined}</IsTruncated></ListBucketResult>`,
  };
}

async function listed(store: ObjectStore): Promise<string[]> {
  const names = [];
  for await (const entry of store.list("", { delimiter: "/" })) {
    names.push(entry.kind === "object" ? entry.key : entry.prefix);
  }
  return names;
}

Deno.test("S3 answers: empty pages are passed over, listings that never end are given up", async () => {
  await withAnswers([page(["a"], "1"), page([], "2"), page(["b"])], async ({ open, requests }) => {
    assert.deepEqual(await listed(await open()), ["a", "b"]);
    assert.match(requests[2]?.url ?? "", /continuation-token=2/);
  });
  await withAnswers([page(["a"], "1")], async ({ open }) => {
    const error = await failure(listed(await open()));
    assert.match(error.message, /does not end.*same page again/);
    assert.equal(error.retryable, false);
  });
  const unending = { ...page(["a"]) };
  const body = unending.body?.replace("false", "true") ?? "";
  await withAnswers([{ status: 200, body }], async ({ open }) => {
    assert.match((await failure(listed(await open()))).message, /more follows, but not where/);
  });
});

Deno.test("S3 answers: names in a listing are decoded only where they are encoded", async () => {
  const group = "<CommonPrefixes><Prefix>a%2F</Prefix></CommonPrefixes>";
  const encoded = page(
    ["a+b%2Bc", "%C3%BC"],
    undefined,
    `<EncodingType>url</EncodingType>${group}`,
  );
  await withAnswers([encoded], async ({ open }) => {
    assert.deepEqual(await listed(await open()), ["a b+c", "a/", "ü"]);
  });
  await withAnswers([page(["a+b%2Bc"])], async ({ open }) => {
    assert.deepEqual(await listed(await open()), ["a+b%2Bc"]);
  });
});

Deno.test("S3 answers: a 200 that is no answer of a store is neither a success nor an empty listing", async () => {
  for (const page of ["", "<html><body>Please log in</body></html>", "It works!"]) {
    // The SDK takes an empty body for an aborted request of S3's in some operations.
    const refused = async (call: Promise<unknown>) =>
      assert.ok(["other", "unavailable"].includes((await failure(call)).kind), page);
    const portal: Answer = {
      status: 200,
      headers: { "content-type": "text/html" },
      body: page,
      bare: true,
    };
    const unnamed: Answer = { ...portal, headers: { "content-type": "text/plain" } };
    // As web servers and frameworks give them to every page.
    const tagged: Answer = { ...portal, headers: { ...portal.headers, etag: 'W/"1f-abc"' } };
    if (page !== "") {
      for (const client of ["auto", "sdk"]) {
        await withAnswers([tagged], async ({ open }) => {
          const store = await open({}, { BARMAN_CLOUD_S3_CLIENT: client });
          const isRefused = async (call: Promise<unknown>) =>
            assert.match((await failure(call)).message, /not S3 but a page/);
          await isRefused(store.put("k", body));
          await isRefused(store.bucketExists());
          await isRefused(Array.fromAsync(store.list("p")));
          await isRefused(store.startMultipart("k"));
          const [left] = await store.deleteMany(["k"]);
          assert.match(left?.error.message ?? "", /not S3 but a page/);
        });
      }
    }
    await withAnswers([unnamed], async ({ open }) => {
      const { message, kind } = await failure((await open()).put("k", body));
      assert.equal(kind, "other");
      assert.match(message, /Cannot write k .* no ETag/);
    });
    await withAnswers([portal], async ({ open }) => {
      const store = await open();
      const { message, kind } = await failure(store.put("k", body));
      assert.equal(kind, "other");
      assert.match(message, /Cannot write k .* not S3 but a page/);
      await refused(
        store.deleteMany(["k"]).then(([left]) => {
          if (left !== undefined) throw left.error;
        }),
      );
      await refused(Array.fromAsync(store.list("p")));
      await refused(store.startMultipart("k"));
    });
    const begun = xml("InitiateMultipartUploadResult", "<UploadId>u</UploadId>");
    const answers = ({ method, url }: Request): Answer =>
      method === "POST" && url.includes("uploads") ? { status: 200, body: begun } : portal;
    await withAnswers(answers, async ({ open }) => {
      const upload = await (await open()).startMultipart("k");
      await refused(upload.uploadPart(1, body));
      const parts = [{ number: 1, size: body.length, etag: "e" }];
      await refused(upload.complete(parts));
    });
  }
});

Deno.test("S3 answers: a store may call nothing at all HTML", async () => {
  const cases = [["x-amz-request-id", "auto"], ["x-amzn-requestid", "auto"], [
    "x-amz-request-id",
    "sdk",
  ]] as const;
  for (const [name, client] of cases) {
    const headers = { "content-type": "text/html; charset=UTF-8", [name]: "tx1" };
    const answers = ({ method }: Request): Answer => ({
      status: method === "DELETE" ? 204 : 200,
      headers,
    });
    await withAnswers(answers, async ({ open }) => {
      const store = await open({}, { BARMAN_CLOUD_S3_CLIENT: client });
      await store.put("k", body);
      await store.createBucket();
      assert.ok(await store.bucketExists());
      const listing = Array.fromAsync(store.listUploads("")).then(() => "listed", String);
      assert.match(await listing, /the answer is no listing/);
      await store.removeUpload({ key: "k", id: "u", size: 0 });
    });
  }
});

Deno.test("S3 answers: a part that is sent again counts against the bandwidth", async () => {
  const begun = xml("InitiateMultipartUploadResult", "<UploadId>u</UploadId>");
  const times: number[] = [];
  const answers = ({ method }: Request): Answer => {
    if (method === "POST") return { status: 200, body: begun };
    times.push(performance.now());
    return times.length === 1
      ? { status: 503, body: xmlError("SlowDown", "Wait") }
      : { status: 200 };
  };
  await withAnswers(answers, async ({ open }) => {
    const store = await open({ maxBandwidth: 1000 }, { AWS_MAX_ATTEMPTS: "2" });
    const upload = await store.startMultipart("k");
    await upload.uploadPart(1, new Uint8Array(1500));
  });
  const [first = 0, second = 0] = times;
  // The pause before the second attempt alone is half a second at most.
  assert.ok(second - first > 1400, `${second - first} ms`);
});

Deno.test("S3 answers: an error within 200 is an error, and a gone upload is not-found", async () => {
  const started = {
    status: 200,
    body: "<?xml version='1.0'?><InitiateMultipartUploadResult><UploadId>u</UploadId>" +
      "</InitiateMultipartUploadResult>",
  };
  const inBody = { status: 200, body: xmlError("InternalError", "We encountered …") };
  const part = { number: 1, size: 1, etag: '"x"' };
  const present = { status: 200, body: "<?xml version='1.0'?><ListPartsResult></ListPartsResult>" };
  const gone = { status: 404, body: xmlError("NoSuchUpload", "…") };
  await withAnswers([started, inBody, present, inBody, gone], async ({ open }) => {
    const upload = await (await open()).startMultipart("k");
    assert.equal((await failure(upload.complete([part]))).kind, "unavailable");
    assert.equal((await failure(upload.complete([part]))).kind, "not-found");
  });
});

Deno.test("S3 answers: the ETag of parts is what an object's must be, where the store makes them of MD5s", async () => {
  const begun = xml("InitiateMultipartUploadResult", "<UploadId>u</UploadId>");
  const md5 = createHash("md5").update(body).digest();
  const composite = `"${createHash("md5").update(md5).update(md5).digest("hex")}-2"`;
  const wrong = `"${"0".repeat(32)}-2"`;
  const cases = [
    // Whatever the answer says: it is of parts that the store has.
    { part: `"${md5.toString("hex")}"`, told: wrong, expected: composite },
    { part: `"${md5.toString("hex")}"`, told: composite, expected: composite },
    { part: `"${md5.toString("hex")}"`, told: "", expected: composite },
    // A store with rules of its own.
    { part: `"${md5.toString("hex")}"`, told: '"abc"', expected: '"abc"' },
    { part: `"${"1".repeat(32)}"`, told: wrong, expected: wrong },
  ];
  for (const { part, told, expected } of cases) {
    const answers = ({ method, url }: Request): Answer =>
      method === "PUT"
        ? { status: 200, headers: { etag: part } }
        : url.includes("uploads")
        ? { status: 200, body: begun }
        : { status: 200, body: xml("CompleteMultipartUploadResult", `<ETag>${told}</ETag>`) };
    await withAnswers(answers, async ({ open }) => {
      const upload = await (await open()).startMultipart("k");
      const parts = [await upload.uploadPart(1, body), await upload.uploadPart(2, body)];
      assert.deepEqual(await upload.complete(parts), { etag: expected });
    });
  }
});

Deno.test("S3 answers: a part that arrived with another checksum is sent again", async () => {
  const begun = xml("InitiateMultipartUploadResult", "<UploadId>u</UploadId>");
  const right = Buffer.alloc(4);
  right.writeUInt32BE(crc32(body));
  let puts = 0;
  const answers = ({ method }: Request): Answer => {
    if (method === "POST") return { status: 200, body: begun };
    puts += 1;
    const sum = puts === 1 ? "AAAAAA==" : right.toString("base64");
    return { status: 200, headers: { etag: '"e"', "x-amz-checksum-crc32": sum } };
  };
  await withAnswers(answers, async ({ open }) => {
    const upload = await (await open({}, { AWS_MAX_ATTEMPTS: "1" })).startMultipart("k");
    const error = await failure(upload.uploadPart(1, body));
    assert.equal(error.kind, "unavailable");
    assert.match(error.message, /arrived has another checksum than what was sent/);
    assert.equal((await upload.uploadPart(1, body)).etag, '"e"');
  });
});

Deno.test("S3 answers: parts' checksums are announced, and named again if the store has told them", async () => {
  const begun = xml("InitiateMultipartUploadResult", "<UploadId>u</UploadId>");
  const done = xml("CompleteMultipartUploadResult", "<ETag>&quot;e-2&quot;</ETag>");
  const sum = "/sUwqQ==";
  const answers = ({ url }: Request): Answer => {
    if (url.includes("uploads")) return { status: 200, body: begun };
    if (!url.includes("partNumber")) return { status: 200, body: done };
    const told: Record<string, string> = url.includes("partNumber=1")
      ? { "x-amz-checksum-crc32": sum }
      : {};
    return { status: 200, headers: told };
  };
  for (const client of ["auto", "sdk"]) {
    await withAnswers(answers, async ({ open, requests }) => {
      const store = await open({}, { BARMAN_CLOUD_S3_CLIENT: client });
      const upload = await store.startMultipart("k");
      const parts = [await upload.uploadPart(1, body), await upload.uploadPart(2, body)];
      await upload.complete(parts);
      const [begin, part, , complete] = requests;
      assert.equal(begin?.headers["x-amz-checksum-algorithm"], "CRC32", client);
      assert.equal(part?.headers["x-amz-checksum-crc32"], sum);
      // That header would be about the whole object.
      assert.equal(complete?.headers["x-amz-checksum-crc32"], undefined, client);
      const named = complete?.body.match(/<ChecksumCRC32>[^<]*<\/ChecksumCRC32>/g);
      assert.deepEqual(named, [`<ChecksumCRC32>${sum}</ChecksumCRC32>`], client);
    });
  }
  const lean = { AWS_REQUEST_CHECKSUM_CALCULATION: "when_required" };
  await withAnswers(answers, async ({ open, requests }) => {
    const upload = await (await open({}, lean)).startMultipart("k");
    await upload.complete([await upload.uploadPart(1, body)]);
    for (const { headers, body } of requests) {
      assert.equal(headers["x-amz-checksum-algorithm"], undefined);
      assert.equal(headers["x-amz-checksum-crc32"], undefined);
      assert.ok(!body.includes("Checksum"));
    }
  });
});

Deno.test("S3 answers: headers of encryption, tags and style of the address", async () => {
  await withAnswers([{ status: 200 }], async ({ open, requests }) => {
    const kms = await open({ encryption: "aws:kms", sseKmsKeyId: "key-1" });
    await kms.put("k", body, { tags: [["a b", "c&d=é"], ["e", ""]] });
    const [put] = requests;
    assert.equal(put?.headers["x-amz-server-side-encryption"], "aws:kms");
    assert.equal(put?.headers["x-amz-server-side-encryption-aws-kms-key-id"], "key-1");
    assert.equal(put?.headers["x-amz-tagging"], "a%20b=c%26d%3D%C3%A9&e=");
    assert.equal(put?.url.split("?")[0], "/bkt/k");
    assert.equal(put?.headers["expect"], undefined);
    assert.equal(put?.headers["content-length"], "7");
    assert.match(String(put?.headers["x-amz-content-sha256"]), /^[0-9a-f]{64}$/);
    assert.ok(put?.headers["x-amz-checksum-crc32"] !== undefined);
    await kms.head("k");
    assert.equal(requests[1]?.headers["x-amz-server-side-encryption"], undefined);
    const aes = await open({ encryption: "AES256" });
    await aes.put("k", body);
    assert.equal(requests.at(-1)?.headers["x-amz-server-side-encryption"], "AES256");
    await assert.rejects(aes.startMultipart("k"));
    assert.equal(requests.at(-1)?.headers["x-amz-server-side-encryption"], "AES256");
    requests.length = 2;
    const lean = await open({}, { AWS_REQUEST_CHECKSUM_CALCULATION: "when_required" });
    await lean.put("k", body);
    assert.equal(requests[2]?.headers["x-amz-checksum-crc32"], undefined);
  });
  // A proxy sees the host names of virtual-host style, which need no DNS then.
  await withAnswers([{ status: 200 }], async ({ open, requests, endpoint }) => {
    const virtual = await open({
      endpointUrl: "http://s3.example.test:8000",
      addressingStyle: "virtual",
    }, { HTTP_PROXY: endpoint });
    await virtual.put("dir/k", body);
    assert.equal(requests[0]?.url.split("?")[0], "http://bkt.s3.example.test:8000/dir/k");
    assert.equal(requests[0]?.headers.host, "bkt.s3.example.test:8000");
  });
});

Deno.test("S3 answers: over TLS with an own authority the payload is not signed", async () => {
  const ca = await Deno.makeTempFile();
  await writeFile(ca, AUTHORITY);
  try {
    await withAnswers([{ status: 200 }], async ({ open, requests }) => {
      await (await open({}, { AWS_CA_BUNDLE: ca })).put("k", body);
      assert.equal(requests[0]?.headers["x-amz-content-sha256"], "UNSIGNED-PAYLOAD");
      assert.ok(requests[0]?.headers["x-amz-checksum-crc32"] !== undefined);
      // Without a checksum the signature is the body's only protection against mistakes.
      const required = { AWS_CA_BUNDLE: ca, AWS_REQUEST_CHECKSUM_CALCULATION: "when_required" };
      await (await open({}, required)).put("k", body);
      assert.match(String(requests[1]?.headers["x-amz-content-sha256"]), /^[0-9a-f]{64}$/);
      const error = await failure((await open()).put("k", body));
      assert.equal(error.kind, "unreachable");
      assert.equal(error.retryable, false);
      assert.match(error.message, /certificate.*AWS_CA_BUNDLE/);
    }, true);
  } finally {
    await Deno.remove(ca);
  }
});

Deno.test("S3 answers: without credentials it is denied, and said what to set", async () => {
  await withAnswers([{ status: 200 }], async ({ open, requests }) => {
    const profile = await Deno.makeTempFile();
    await writeFile(profile, "[profile empty]\nregion = x-1\n");
    try {
      const env = { AWS_ACCESS_KEY_ID: "", AWS_CONFIG_FILE: profile, AWS_PROFILE: "empty" };
      const error = await failure((await open({}, env)).put("k", body));
      assert.equal(error.kind, "denied");
      assert.match(error.message, /no AWS credentials from profile "empty".*--aws-profile/);
      assert.equal(requests.length, 0);
    } finally {
      await Deno.remove(profile);
    }
  });
});

Deno.test("S3 answers: throttling is retried as often as AWS_MAX_ATTEMPTS says", async () => {
  const slow = { status: 503, body: xmlError("SlowDown", "Please reduce your request rate.") };
  await withAnswers([slow, slow, { status: 200 }], async ({ open, requests }) => {
    const notices: string[] = [];
    const onNotice = (message: string) => notices.push(message);
    await (await open({ onNotice }, { AWS_MAX_ATTEMPTS: "3" })).put("k", body);
    assert.equal(requests.length, 3);
    assert.equal(notices.length, 2);
  });
  await withAnswers([slow], async ({ open, requests }) => {
    assert.equal((await failure((await open()).put("k", body))).kind, "unavailable");
    assert.equal(requests.length, 1);
  });
});
