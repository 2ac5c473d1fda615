/**
 * What goes over the wire, and how answers are understood that a server can't be made to give at will:
 * the bodies are those that Google documents.
 */
import assert from "node:assert/strict";
import { createHash } from "node:crypto";
import { openGcsStore, openWithoutRetries } from "../../../providers/gcs/store.ts";
import {
  isStoreError,
  type ObjectStore,
  type StoreError,
  type StoreErrorKind,
} from "../../../providers/object_store.ts";
import type { StoreOptions } from "../../../providers/open.ts";
import {
  type Answer,
  type AnsweringServer,
  type Asked,
  jsonError,
  withAnswers,
  xmlError,
} from "./answering_server.ts";

const KMS = "projects/p/locations/l/keyRings/r/cryptoKeys/k";
const body = new TextEncoder().encode("content");
const md5 = createHash("md5").update(body).digest("base64");
const uploadAnswer = {
  headers: { "content-type": "application/xml" },
  body: "<?xml version='1.0'?><InitiateMultipartUploadResult><UploadId>a+b/c=&amp;d</UploadId>" +
    "</InitiateMultipartUploadResult>",
};
const partAnswer = { headers: { etag: '"part<1>"' } };

type Open = (options?: Partial<StoreOptions>, retries?: "once") => Promise<ObjectStore>;

async function withStore(
  answers: readonly Answer[] | ((asked: Asked) => Answer),
  run: (server: AnsweringServer & { readonly open: Open }) => Promise<void>,
): Promise<void> {
  await withAnswers(answers, async (server) => {
    const opened: ObjectStore[] = [];
    const open: Open = async (options = {}, retries) => {
      const env = { STORAGE_EMULATOR_HOST: server.endpoint, ...options.env };
      const openStore = retries === "once" ? openWithoutRetries : openGcsStore;
      const { store } = await openStore("gs://bkt/p", { ...options, env });
      opened.push(store);
      return store;
    };
    try {
      await run({ ...server, open });
    } finally {
      for (const store of opened) await store.close();
    }
  });
}

Deno.test("Google on the wire: one request writes an object with its checksum, key and metadata", async () => {
  await withStore([{ body: { generation: "1" } }], async ({ open, asked }) => {
    const store = await open({ kmsKeyName: KMS });
    const tags = [["Key 1", "v=ü"], ["b", ""]] as const;
    await store.put("dir/a b+ü", body, { tags, createOnly: true });
    const [put] = asked;
    assert.equal(put?.method, "POST");
    assert.equal(put?.path, "/upload/storage/v1/b/bkt/o");
    assert.equal(put?.query.get("uploadType"), "multipart");
    assert.equal(put?.query.get("kmsKeyName"), KMS);
    assert.equal(put?.query.get("ifGenerationMatch"), "0");
    const boundary = /^multipart\/related; boundary=(\S+)$/.exec(
      String(put?.headers["content-type"]),
    )?.[1];
    const [before, resource = "", content = "", after] = put?.body.split(`--${boundary}`) ?? [];
    assert.deepEqual([before, after], ["", "--\r\n"]);
    const [, json = ""] = resource.split("\r\n\r\n");
    assert.deepEqual(JSON.parse(Buffer.from(json, "latin1").toString("utf8")), {
      name: "dir/a b+ü",
      contentType: "application/octet-stream",
      md5Hash: md5,
      metadata: { "Key 1": "v=ü", b: "" },
    });
    assert.ok(content.endsWith("\r\n\r\ncontent\r\n"));

    await (await open()).put("k", body, { tags: [] });
    assert.equal(asked[1]?.query.has("kmsKeyName"), false);
    assert.equal(asked[1]?.query.has("ifGenerationMatch"), false);
    assert.ok(!asked[1]?.body.includes("metadata"));
  });
});

Deno.test("Google on the wire: a multipart upload in the XML API", async () => {
  const answers = ({ method, query }: Asked): Answer => {
    if (query.has("uploads")) return uploadAnswer;
    if (method === "PUT") return partAnswer;
    if (method === "DELETE") return { status: 204 };
    return { body: "<CompleteMultipartUploadResult/>" };
  };
  await withStore(answers, async ({ open, asked }) => {
    const store = await open({ kmsKeyName: KMS });
    const upload = await store.startMultipart("dir/a?b", { tags: [["env", "pro d"]] });
    const second = await upload.uploadPart(2, body);
    const first = await upload.uploadPart(1, body);
    await upload.complete([second, first]);
    await upload.abort();
    assert.deepEqual(
      asked.map(({ method, path, query }) => `${method} ${path}?${query}`),
      [
        "POST /bkt/dir/a%3Fb?uploads=",
        "PUT /bkt/dir/a%3Fb?partNumber=2&uploadId=a%2Bb%2Fc%3D%26d",
        "PUT /bkt/dir/a%3Fb?partNumber=1&uploadId=a%2Bb%2Fc%3D%26d",
        "POST /bkt/dir/a%3Fb?uploadId=a%2Bb%2Fc%3D%26d",
        "DELETE /bkt/dir/a%3Fb?uploadId=a%2Bb%2Fc%3D%26d",
      ],
    );
    assert.equal(asked[0]?.headers["x-goog-encryption-kms-key-name"], KMS);
    assert.equal(asked[0]?.headers["x-goog-meta-env"], "pro d");
    assert.equal(asked[0]?.headers["content-length"], "0");
    assert.equal(asked[1]?.headers["content-md5"], md5);
    assert.equal(asked[1]?.headers["x-goog-encryption-kms-key-name"], undefined);
    assert.equal(
      asked[3]?.body,
      '<CompleteMultipartUpload><Part><PartNumber>1</PartNumber><ETag>"part&lt;1&gt;"</ETag></Part>' +
        '<Part><PartNumber>2</PartNumber><ETag>"part&lt;1&gt;"</ETag></Part></CompleteMultipartUpload>',
    );
  });
});

Deno.test("Google on the wire: tags that no header can hold are set afterwards, even if an answer is lost", async () => {
  let completions = 0;
  const answers = ({ method, query }: Asked): Answer => {
    if (query.has("uploads")) return uploadAnswer;
    if (method === "PUT") return partAnswer;
    if (method === "POST") {
      return ++completions === 1 ? { status: 503 } : xmlError(404, "NoSuchUpload", "…");
    }
    if (method === "GET") {
      return { body: { name: "k", size: String(body.length), generation: "1" } };
    }
    return { body: {} };
  };
  await withStore(answers, async ({ open, asked }) => {
    const tags = [["Env", "x"], ["a b", "y"], ["plain", "é"], ["fits", "z"]] as const;
    const upload = await (await open()).startMultipart("k", { tags });
    await upload.complete([await upload.uploadPart(1, body)]);
    assert.equal(asked[0]?.headers["x-goog-meta-fits"], "z");
    assert.equal(asked[0]?.headers["x-goog-meta-env"], undefined);
    const last = asked.at(-1);
    assert.equal(`${last?.method} ${last?.path}`, "PATCH /storage/v1/b/bkt/o/k");
    assert.deepEqual(
      JSON.parse(Buffer.from(last?.body ?? "", "latin1").toString("utf8")),
      { metadata: Object.fromEntries(tags) },
    );
  });
});

Deno.test("Google on the wire: reading asks for a range of one generation", async () => {
  const headers = {
    "x-goog-generation": "17",
    "content-range": "bytes 3-4/7",
    "last-modified": "Thu, 01 Jan 2026 00:00:00 GMT",
    etag: '"other"',
  };
  await withStore([{ status: 206, headers, body: "te" }], async ({ open, asked }) => {
    const { object } = await (await open()).get("a/b", { start: 3, end: 5, etag: "17" });
    assert.deepEqual(object, {
      key: "a/b",
      size: 7,
      etag: "17",
      lastModified: new Date("2026-01-01T00:00:00Z"),
    });
    assert.equal(asked[0]?.path, "/storage/v1/b/bkt/o/a%2Fb");
    assert.equal(asked[0]?.query.get("alt"), "media");
    assert.equal(asked[0]?.query.get("ifGenerationMatch"), "17");
    assert.equal(asked[0]?.headers.range, "bytes=3-4");
  });
  await withStore([{ body: "whole" }], async ({ open }) => {
    const error = await failure((await open()).get("k", { start: 1 }));
    assert.match(error.message, /ignores ranges/);
  });
});

Deno.test("Google on the wire: listings are paged, merged and deduplicated", async () => {
  const kind = "storage#objects";
  const item = (name: string) => ({ name, size: "1", generation: "2" });
  const pages: Answer[] = [
    { body: { kind, items: [item("p/a"), item("p/c")], prefixes: ["p/b/"], nextPageToken: "1" } },
    { body: { kind, nextPageToken: "2" } },
    { body: { kind, prefixes: ["p/b/", "p/d/"] } },
  ];
  await withStore(pages, async ({ open, asked }) => {
    const options = { delimiter: "/", startAfter: "p/A" } as const;
    assert.deepEqual(await listed(await open(), "p/", options), ["p/a", "p/b/", "p/c", "p/d/"]);
    assert.deepEqual(
      asked.map(({ query }) => [query.get("startOffset"), query.get("pageToken")]),
      [["p/A", null], ["p/A", "1"], ["p/A", "2"]],
    );
    assert.equal(asked[0]?.query.get("prefix"), "p/");
    assert.equal(asked[0]?.query.get("delimiter"), "/");
  });
  await withStore([{ body: { kind, nextPageToken: "1" } }], async ({ open }) => {
    const error = await failure(listed(await open(), ""));
    assert.match(error.message, /does not end.*same page again/);
  });
});

Deno.test("Google on the wire: keys of uploads are decoded only where the answer says that they are encoded", async () => {
  const upload = `<Upload><Key>p/a%2Bb+c</Key><UploadId>u</UploadId></Upload>`;
  for (
    const [encoding, key] of [["<EncodingType>url</EncodingType>", "p/a+b c"], ["", "p/a%2Bb+c"]]
  ) {
    const listing = `<ListMultipartUploadsResult>${encoding}${upload}</ListMultipartUploadsResult>`;
    const answers = ({ query }: Asked): Answer => ({
      headers: { "content-type": "application/xml" },
      body: query.has("uploadId") ? "<ListPartsResult></ListPartsResult>" : listing,
    });
    await withStore(answers, async ({ open }) => {
      const uploads = await Array.fromAsync((await open()).listUploads("p/"));
      assert.deepEqual(uploads.map((found) => found.key), [key]);
    });
  }
});

Deno.test("Google's answers: kinds of errors, in the words of both APIs", async () => {
  const cases: Array<[Answer, StoreErrorKind, RegExp]> = [
    [jsonError(401, "authError", "Invalid Credentials"), "denied", /access denied \(HTTP 401/],
    [
      jsonError(403, "forbidden", "x@y does not have storage.objects.create access"),
      "denied",
      /forbidden: x@y does not have storage\.objects\.create/,
    ],
    [jsonError(404, "notFound", "The specified bucket does not exist."), "no-bucket", /bucket/],
    [
      { status: 404, body: "<html>404</html>", headers: { "content-type": "text/html" } },
      "no-bucket",
      /bucket/,
    ],
    [jsonError(412, "conditionNotMet", "…"), "exists", /there already/],
    [
      jsonError(400, "invalid", 'Provided MD5 hash "x" doesn\'t match calculated MD5 hash'),
      "unreachable",
      /damaged/,
    ],
    [jsonError(400, "invalid", "Bad name"), "invalid", /Bad name/],
    [jsonError(403, "rateLimitExceeded", "slow"), "unavailable", /slow down/],
    [jsonError(429, "rateLimitExceeded", "slow"), "unavailable", /slow down/],
    [
      jsonError(503, "backendError", "Backend Error"),
      "unavailable",
      /failed \(HTTP 503, backendError/,
    ],
    [{ status: 500, body: "oops" }, "unavailable", /HTTP 500, oops/],
    [{ status: 408 }, "unreachable", /waited too long/],
    [{ status: 407 }, "denied", /proxy/],
    [{ status: 302, headers: { location: "http://x" } }, "invalid", /points elsewhere/],
    [{ status: 501 }, "invalid", /does not support/],
    [xmlError(403, "AccessDenied", "Access denied."), "denied", /AccessDenied: Access denied\)/],
    [
      xmlError(403, "AccessDenied", "Access denied.", "x@y lacks storage.objects.create"),
      "denied",
      /Access denied\. x@y lacks storage\.objects\.create\)/,
    ],
    // A change of the same object at the same time: nothing says that there is one.
    [jsonError(409, "conflict", "… edited during the operation."), "unavailable", /same thing/],
    [
      jsonError(412, "conditionNotMet", "Request violates constraint 'constraints/gcp.restrict…'"),
      "denied",
      /a policy of the organization refuses it \(HTTP 412, conditionNotMet: Request violates/,
    ],
    [jsonError(412, "orgPolicyConstraintFailed", "…"), "denied", /policy/],
    [jsonError(400, "userProjectMissing", "Bucket is requester pays"), "denied", /billing/],
    [xmlError(400, "UserProjectMissing", "…"), "denied", /billing/],
  ];
  for (const [answer, kind, message] of cases) {
    await withStore([answer], async ({ open }) => {
      const error = await failure((await open({}, "once")).put("k", body, { createOnly: true }));
      assert.equal(error.kind, kind, error.message);
      assert.match(error.message, message);
      assert.match(error.message, /^Cannot write k in bucket "bkt" at http:\/\/127.*[^.]$/);
      assert.equal(error.key, "k");
    });
  }
});

Deno.test("Google's answers: a failed condition is ours only where one was sent", async () => {
  await withStore([jsonError(412, "conditionNotMet", "…")], async ({ open }) => {
    const store = await open({}, "once");
    assert.equal((await failure(store.put("k", body))).kind, "invalid");
    assert.equal((await failure(store.get("k"))).kind, "invalid");
    assert.equal((await failure(store.get("k", { etag: "7" }))).kind, "changed");
    assert.equal((await failure(store.createBucket())).kind, "invalid");
  });
});

Deno.test("Google's answers: who changes an object at the same moment is not who made it", async () => {
  const busy = jsonError(409, "conflict", "The metadata for object k was edited.");
  await withStore([busy, { body: { generation: "1" } }], async ({ open, asked }) => {
    await (await open()).put("k", body, { createOnly: true });
    assert.equal(asked.length, 2);
  });
  await withStore([busy, jsonError(412, "conditionNotMet", "…")], async ({ open }) => {
    const error = await failure((await open()).put("k", body, { createOnly: true }));
    assert.equal(error.kind, "exists");
  });
});

Deno.test("Google's answers: a 404 tells the object from the bucket, or the bucket is asked for", async () => {
  const noObject = { status: 404, body: "No such object: bkt/k" };
  await withStore([noObject], async ({ open, asked }) => {
    assert.equal((await failure((await open()).get("k"))).kind, "not-found");
    assert.equal(asked.length, 1);
  });
  const vague = (bucketStatus: number) => ({ path }: Asked): Answer =>
    path === "/storage/v1/b/bkt" ? { status: bucketStatus, body: "{}" } : { status: 404 };
  for (const [status, kind] of [[404, "no-bucket"], [200, "not-found"]] as const) {
    await withStore(vague(status), async ({ open }) => {
      assert.equal((await failure((await open()).get("k"))).kind, kind);
      assert.equal((await failure((await open()).head("k"))).kind, kind);
    });
  }
});

Deno.test("Google's answers: roles for objects alone do for finding the bucket", async () => {
  const forbidden = jsonError(403, "forbidden", "no storage.buckets.get");
  const bucketOnly = (list: Answer) => ({ path }: Asked) => path.endsWith("/o") ? list : forbidden;
  await withStore(bucketOnly({ body: {} }), async ({ open }) => {
    assert.equal(await (await open()).bucketExists(), true);
  });
  const gone = jsonError(404, "notFound", "The specified bucket does not exist.");
  await withStore(bucketOnly(gone), async ({ open }) => {
    assert.equal(await (await open()).bucketExists(), false);
  });
  await withStore([forbidden], async ({ open }) => {
    const error = await failure((await open()).bucketExists());
    assert.match(error.message, /no storage\.buckets\.get/);
  });
});

Deno.test("Google's answers: a stranger's bucket is not ours, and a project is needed", async () => {
  const conflict = jsonError(409, "conflict", "The requested bucket name is not available.");
  const forbidden = jsonError(403, "forbidden", "…");
  await withStore(
    ({ method }) => method === "POST" ? conflict : forbidden,
    async ({ open, asked }) => {
      const store = await open({ env: { GOOGLE_CLOUD_PROJECT: "my-project" } });
      assert.equal((await failure(store.createBucket())).kind, "exists");
      assert.equal(asked[0]?.query.get("project"), "my-project");
      assert.deepEqual(JSON.parse(asked[0]?.body ?? ""), { name: "bkt" });
    },
  );
});

Deno.test("Google's answers: throttling is retried after the time that was asked for", async () => {
  const slow = { ...jsonError(429, "rateLimitExceeded", "slow"), headers: { "retry-after": "1" } };
  await withStore([slow, { body: { generation: "1" } }], async ({ open, asked }) => {
    const notices: string[] = [];
    const started = performance.now();
    await (await open({ onNotice: (line) => notices.push(line) })).put("k", body);
    assert.ok(performance.now() - started >= 1000);
    assert.equal(asked.length, 2);
    assert.match(notices.join(), /^Trying again to write k in 1\.0 s \(2 of 5\)/);
  });
});

Deno.test("Google's answers: what is left after a deletion is told for each key", async () => {
  const answers = ({ path }: Asked): Answer => {
    if (path.endsWith("/denied")) return jsonError(403, "retentionPolicyNotMet", "Object is kept");
    if (path.endsWith("/absent")) return jsonError(404, "notFound", "No such object: bkt/absent");
    return { status: 204 };
  };
  await withStore(answers, async ({ open, asked }) => {
    const failures = await (await open()).deleteMany(["a", "denied", "absent", "b"]);
    assert.deepEqual(failures.map(({ key, error }) => [key, error.kind]), [["denied", "denied"]]);
    assert.match(failures[0]?.error.message ?? "", /retentionPolicyNotMet: Object is kept/);
    assert.equal(asked.length, 4);
  });
});

Deno.test("Google's answers: an emulator without multipart uploads is helped by composing", async () => {
  const refuse = ({ query }: Asked): Answer =>
    query.has("uploads") ? { status: 400 } : { body: { name: "x", generation: "1" } };
  await withStore(refuse, async ({ open, asked }) => {
    const upload = await (await open()).startMultipart("k");
    await upload.uploadPart(1, body);
    assert.match(asked[1]?.body ?? "", /\.barman-cloud-parts\//);
  });
});

Deno.test("Google settings: what can't be right is refused, and --endpoint-url is S3's", async () => {
  for (
    const [name, value] of [
      ["STORAGE_EMULATOR_HOST", "ftp://x"],
      ["API_ENDPOINT_OVERRIDE", "localhost:1"],
      ["REQUESTS_CA_BUNDLE", "/absent.pem"],
      ["HTTPS_PROXY", "socks5://x"],
    ] as const
  ) {
    await assert.rejects(
      openGcsStore("gs://b", { env: { [name]: value } }),
      (error) => isStoreError(error, "invalid"),
      name,
    );
  }
  const { store } = await openGcsStore("gs://b", { env: {}, endpointUrl: "http://localhost:9" });
  assert.equal(store.description, 'bucket "b" of Google Cloud Storage');
  await store.close();
});

async function listed(
  store: ObjectStore,
  prefix: string,
  options: Parameters<ObjectStore["list"]>[1] = {},
): Promise<string[]> {
  const names = [];
  for await (const entry of store.list(prefix, options)) {
    names.push(entry.kind === "object" ? entry.key : entry.prefix);
  }
  return names;
}

async function failure(promise: Promise<unknown>): Promise<StoreError> {
  try {
    await promise;
  } catch (error) {
    assert.ok(isStoreError(error), String(error));
    return error;
  }
  return assert.fail("It did not fail");
}

Deno.test("Google's answers: a 200 that is no answer of a store is neither success nor an empty listing", async () => {
  for (const body of ["", "<html>log in</html>", "{}", "null"]) {
    await withStore([{ body }], async ({ open }) => {
      const store = await open({}, "once");
      const unreachable = (error: unknown) => {
        assert.ok(isStoreError(error, "unreachable", "other"), String(error));
        return true;
      };
      await assert.rejects(store.put("k", new Uint8Array(3)), unreachable, body);
      await assert.rejects(Array.fromAsync(store.list("")), unreachable, body);
      await assert.rejects(store.startMultipart("k"), body);
    });
  }
});
