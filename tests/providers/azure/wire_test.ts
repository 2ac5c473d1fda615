import type { ContainerClient } from "@azure/storage-blob";
import assert from "node:assert/strict";
import { createHash } from "node:crypto";
import type { ObjectStore } from "../../../providers/object_store.ts";
import type { StoreOptions } from "../../../providers/open.ts";
import { openAzureStore } from "../../../providers/azure/store.ts";
import {
  type AzureForTests,
  connectionStringOf,
  startAzuriteForTests,
} from "../../../scripts/servers/azurite.ts";
import { rejectsWith } from "../../conformance/checks.ts";
import { contentOf, namesIn, pattern } from "../../conformance/suite.ts";
import { azureError, type HttpProxy, type SeenRequest, startHttpProxy } from "./http_proxy.ts";

const server = await startAzuriteForTests();
const MiB = 1024 ** 2;

interface Subject {
  readonly store: ObjectStore;
  readonly proxy: HttpProxy;
  readonly notices: string[];
  /** Another way to the same container, which nobody watches. */
  open(options?: Partial<StoreOptions>): Promise<ObjectStore>;
}

function onTheWire(
  name: string,
  options: Partial<StoreOptions>,
  run: (subject: Subject) => Promise<void>,
): void {
  Deno.test({
    name: `Azure on the wire: ${name}`,
    ignore: server?.azurite === undefined,
    async fn() {
      if (server?.azurite === undefined) return;
      await withProxy(server, options, run);
    },
  });
}

async function withProxy(
  { azurite, newContainer }: AzureForTests,
  options: Partial<StoreOptions>,
  run: (subject: Subject) => Promise<void>,
): Promise<void> {
  if (azurite === undefined) throw new Error("There is no Azurite to record");
  const container = await newContainer();
  const proxy = await startHttpProxy(azurite.origin);
  const notices: string[] = [];
  const stores: ObjectStore[] = [];
  const open = async (more: Partial<StoreOptions> = {}) => {
    const { store } = await openAzureStore(
      // The address of Azure's own, so that key and options apply; HTTP_PROXY leads to the emulator.
      `http://${azurite.account}.blob.core.windows.net/${container}/p`,
      {
        env: { AZURE_STORAGE_KEY: azurite.key, HTTP_PROXY: proxy.origin },
        onNotice: (notice) => notices.push(notice),
        ...options,
        ...more,
      },
    );
    stores.push(store);
    return store;
  };
  try {
    await run({ store: await open(), proxy, notices, open });
  } finally {
    for (const store of stores) await store.close();
    await proxy.stop();
  }
}

Deno.test.afterAll(() => server?.stop());

const TAGS = [["a", "b c"], ["k", "x=/y"]] as const;

onTheWire("a small object is one Put Blob with scope, tags and checksum", {
  encryptionScope: "myscope",
}, async ({ store, proxy }) => {
  const body = pattern(100_000);
  await store.put("dir//x y", body, { tags: TAGS, createOnly: true });
  const [request, ...more] = proxy.seen;
  assert.equal(more.length, 0);
  assert.ok(request !== undefined);
  assert.equal(request.method, "PUT");
  assert.match(request.url, /\/dir\/\/x%20y$/);
  const { headers } = request;
  assert.equal(headers["x-ms-blob-type"], "BlockBlob");
  assert.equal(headers["x-ms-encryption-scope"], "myscope");
  assert.equal(headers["x-ms-tags"], "a=b%20c&k=x%3D%2Fy");
  assert.equal(headers["if-none-match"], "*");
  assert.equal(headers["content-md5"], md5(body));
  assert.equal(headers["x-ms-blob-content-type"], "application/octet-stream");
});

onTheWire("parts are blocks with Barman's ids, committed in order", {
  encryptionScope: "myscope",
}, async ({ store, proxy }) => {
  const upload = await store.startMultipart("x", { tags: TAGS });
  const bodies = [pattern(70_000, 1), pattern(70_000, 2), pattern(10, 3)];
  const parts = [];
  for (const number of [3, 1, 2]) {
    parts.push(await upload.uploadPart(number, bodies[number - 1] ?? new Uint8Array()));
  }
  await upload.complete(parts);
  const blocks = requests(proxy, "PUT", "block").filter(({ body }) => body.length > 1);
  assert.deepEqual(blocks.map(({ query }) => query.get("blockid")), [
    "MDAwMDM=",
    "MDAwMDE=",
    "MDAwMDI=",
  ]);
  for (const block of blocks) {
    assert.equal(block.headers["x-ms-encryption-scope"], "myscope");
    assert.equal(block.headers["x-ms-tags"], undefined);
    assert.equal(block.headers["content-md5"], md5(block.body));
  }
  const [commit, ...more] = requests(proxy, "PUT", "blocklist");
  assert.equal(more.length, 0);
  assert.ok(commit !== undefined);
  assert.equal(commit.headers["x-ms-encryption-scope"], "myscope");
  assert.equal(commit.headers["x-ms-tags"], "a=b%20c&k=x%3D%2Fy");
  assert.equal(commit.headers["x-ms-blob-content-type"], "application/octet-stream");
  const list = new TextDecoder().decode(commit.body);
  assert.deepEqual(list.match(/<\w+>[^<]+<\/\w+>/g), [
    "<Uncommitted>MDAwMDE=</Uncommitted>",
    "<Uncommitted>MDAwMDI=</Uncommitted>",
    "<Uncommitted>MDAwMDM=</Uncommitted>",
  ]);
  assert.equal((await contentOf(store, "x")).length, 140_010);
});

onTheWire("a second upload of a key takes other ids", {}, async ({ store, proxy, open }) => {
  const first = await store.startMultipart("x");
  const part = await first.uploadPart(1, pattern(1000, 1));
  const other = await open();
  const second = await other.startMultipart("x");
  await second.uploadPart(1, pattern(1000, 2));
  const ids = requests(proxy, "PUT", "block").filter(({ body }) => body.length > 1)
    .map(({ query }) => query.get("blockid"));
  assert.equal(ids[0], "MDAwMDE=");
  assert.notEqual(ids[1], ids[0]);
  await first.complete([part]);
  assert.deepEqual(await contentOf(store, "x"), pattern(1000, 1));
});

onTheWire("who may not look for others' blocks takes own ids", {}, async ({ store, proxy }) => {
  proxy.intercept(({ method, query }) =>
    method === "GET" && query.get("comp") === "blocklist"
      ? azureError(403, "AuthorizationPermissionMismatch")
      : undefined
  );
  const upload = await store.startMultipart("x");
  await upload.complete([await upload.uploadPart(1, pattern(1000))]);
  const [block] = requests(proxy, "PUT", "block").filter(({ body }) => body.length > 1);
  assert.notEqual(block?.query.get("blockid"), "MDAwMDE=");
  assert.deepEqual(await contentOf(store, "x"), pattern(1000));
});

onTheWire("blocks that another program left do not stop an upload", {}, async (subject) => {
  const { store, proxy } = subject;
  // Azure refuses ids of another length than those that lie there; its emulator does not.
  const left = Buffer.from("BlockId00000000000000000000000001");
  proxy.intercept(({ method, query, url }) => {
    const id = Buffer.from(query.get("blockid") ?? "", "base64");
    if (method === "PUT" && query.get("comp") === "block" && id.length !== left.length) {
      return azureError(400, "InvalidBlobOrBlock");
    }
    if (method !== "GET" || query.get("comp") !== "blocklist" || !url.includes("/x")) {
      return undefined;
    }
    return {
      status: 200,
      headers: { "content-type": "application/xml", "x-ms-version": "2026-02-06" },
      body: '<?xml version="1.0"?><BlockList><UncommittedBlocks><Block><Name>' +
        `${left.toString("base64")}</Name><Size>5</Size></Block></UncommittedBlocks></BlockList>`,
    };
  });
  const upload = await store.startMultipart("x");
  const parts = [
    await upload.uploadPart(1, pattern(1000, 1)),
    await upload.uploadPart(2, pattern(10, 2)),
  ];
  await upload.complete(parts);
  assert.equal((await store.head("x")).size, 1010);
});

onTheWire("a large put goes in blocks, so many at once as told", {
  maxSinglePutSize: 3 * MiB,
  maxBlockSize: MiB,
  maxConcurrency: 2,
}, async ({ store, proxy }) => {
  await store.put("small", pattern(3 * MiB));
  assert.equal(proxy.seen.length, 1);
  const body = pattern(3 * MiB + 1);
  await store.put("large", body, { tags: TAGS, createOnly: true });
  const blocks = requests(proxy, "PUT", "block").filter(({ url, body }) => {
    return url.includes("/large") && body.length !== 1 || body[0] === pattern(3 * MiB + 1)[3 * MiB];
  });
  assert.deepEqual(blocks.map(({ body }) => body.length).sort((a, b) => b - a), [MiB, MiB, MiB, 1]);
  const [commit] = requests(proxy, "PUT", "blocklist");
  assert.equal(commit?.headers["if-none-match"], "*");
  assert.deepEqual(await contentOf(store, "large"), body);
  await rejectsWith(store.put("large", body, { createOnly: true }), "exists");
});

onTheWire("with a connection string up to 64 MiB go at once", {
  maxSinglePutSize: MiB,
  maxBlockSize: MiB,
}, async ({ proxy, open }) => {
  if (server?.azurite === undefined) return;
  const store = await open({
    env: {
      AZURE_STORAGE_CONNECTION_STRING: connectionStringOf(server.azurite),
      HTTP_PROXY: proxy.origin,
    },
  });
  await store.put("large", pattern(8 * MiB));
  assert.equal(proxy.seen.length, 1);
});

onTheWire("a failing block of a large put leaves nothing behind", {
  maxSinglePutSize: 1,
  maxBlockSize: 1000,
  maxConcurrency: 3,
}, async ({ store, proxy }) => {
  proxy.intercept(({ query, method }) =>
    method === "PUT" && query.get("blockid") === "MDAwMDM="
      ? azureError(403, "AuthorizationPermissionMismatch")
      : undefined
  );
  await rejectsWith(store.put("x", pattern(10_000)), "denied");
  assert.deepEqual(await namesIn(store, ""), []);
  assert.equal(await uncommitted(proxy, "x"), 0);
});

onTheWire("abort removes the blocks", {}, async ({ store, proxy, notices }) => {
  const upload = await store.startMultipart("x");
  await upload.uploadPart(1, pattern(1000));
  assert.equal(await uncommitted(proxy, "x"), 2);
  await upload.abort();
  assert.equal(await uncommitted(proxy, "x"), 0);
  assert.deepEqual(await namesIn(store, ""), []);
  assert.deepEqual(notices, []);
});

onTheWire("abort never touches an object that is there", {}, async ({ store, proxy, notices }) => {
  await store.put("x", pattern(500));
  const upload = await store.startMultipart("x");
  await upload.uploadPart(1, pattern(1000));
  await upload.abort();
  assert.deepEqual(await contentOf(store, "x"), pattern(500));
  assert.deepEqual(requests(proxy, "PUT", "blocklist"), []);
  assert.match(notices.join(), /an object with this key is there/);
});

onTheWire("abort spares an object that appears at the last moment", {}, async (subject) => {
  const { store, proxy, open, notices } = subject;
  const other = await open();
  const upload = await store.startMultipart("x");
  await upload.uploadPart(1, pattern(1000));
  proxy.intercept(async ({ method, query }) => {
    // The last that is asked before the empty object is made.
    if (method === "GET" && query.get("restype") === "container") {
      proxy.intercept(() => undefined);
      await other.put("x", pattern(500));
    }
    return undefined;
  });
  await upload.abort();
  assert.deepEqual(await contentOf(store, "x"), pattern(500));
  assert.match(notices.join(), /an object with this key is there/);
});

onTheWire("abort does nothing where it could leave an empty object", {}, async (subject) => {
  const { store, proxy, notices } = subject;
  const refusals: Record<
    string,
    (request: SeenRequest) => ReturnType<typeof azureError> | undefined
  > = {
    "may not delete": ({ method }) =>
      method === "DELETE" ? azureError(403, "AuthorizationPermissionMismatch") : undefined,
    "may not ask for the container": ({ method, query }) =>
      method === "GET" && query.get("restype") === "container"
        ? azureError(403, "AuthorizationPermissionMismatch")
        : undefined,
    "the container keeps everything": ({ method, query }) =>
      method === "GET" && query.get("restype") === "container"
        ? {
          status: 200,
          headers: {
            "x-ms-has-immutability-policy": "true",
            "x-ms-version": "2026-02-06",
            etag: '"1"',
          },
        }
        : undefined,
  };
  for (const [why, refuse] of Object.entries(refusals)) {
    proxy.intercept(() => undefined);
    const upload = await store.startMultipart(why);
    await upload.uploadPart(1, pattern(1000));
    proxy.intercept(refuse);
    notices.length = 0;
    await upload.abort();
    assert.deepEqual(requests(proxy, "PUT", "blocklist"), [], why);
    assert.match(notices.join(), /stay until Azure removes them after a week/, why);
  }
});

onTheWire("abort does not harm another upload of the key", {}, async ({ store, open, notices }) => {
  const other = await open();
  const theirs = await other.startMultipart("x");
  const part = await theirs.uploadPart(1, pattern(2000));
  const ours = await store.startMultipart("x");
  await ours.uploadPart(1, pattern(1000));
  await ours.abort();
  assert.match(notices.join(), /another upload writes the same key/);
  await theirs.complete([part]);
  assert.deepEqual(await contentOf(store, "x"), pattern(2000));
});

onTheWire("objects are deleted by batches", {}, async ({ store, proxy }) => {
  const keys = ["a", "b/c", "d e"];
  for (const key of keys) await store.put(key, pattern(10));
  proxy.seen.length = 0;
  assert.deepEqual(await store.deleteMany([...keys, "not there"]), []);
  assert.equal(proxy.seen.length, 1);
  assert.equal(proxy.seen[0]?.query.get("comp"), "batch");
  assert.deepEqual(await namesIn(store, ""), []);
});

onTheWire("where batches are refused objects are deleted one by one", {}, async (subject) => {
  const { store, proxy } = subject;
  for (const [status, code] of [[403, "AuthorizationFailure"], [400, "InvalidInput"]] as const) {
    const keys = Array.from({ length: 12 }, (_, i) => `${code}/${i}`);
    for (const key of keys) await store.put(key, pattern(10));
    proxy.intercept(({ query }) =>
      query.get("comp") === "batch" ? azureError(status, code) : undefined
    );
    proxy.seen.length = 0;
    assert.deepEqual(await store.deleteMany([...keys, "not there"], { batchSize: 5 }), []);
    assert.equal(requests(proxy, "POST", "batch").length, 1, "it does not ask again");
    proxy.intercept(() => undefined);
  }
  assert.deepEqual(await namesIn(store, ""), []);
});

onTheWire("who may not delete is told for each key, quickly", {}, async ({ store, proxy }) => {
  await store.put("k0", pattern(10));
  proxy.intercept(({ method }) =>
    method === "POST" || method === "DELETE"
      ? azureError(403, "AuthorizationPermissionMismatch")
      : undefined
  );
  proxy.seen.length = 0;
  const keys = Array.from({ length: 40 }, (_, i) => `k${i}`);
  const failures = await store.deleteMany(keys);
  assert.deepEqual(failures.map(({ key }) => key), keys);
  assert.ok(failures.every(({ error }) => error.kind === "denied"));
  assert.equal(proxy.seen.length, 2);
});

onTheWire("a throttled batch is sent again", {}, async ({ store, proxy, notices }) => {
  await store.put("a", pattern(10));
  await store.put("b", pattern(10));
  let times = 0;
  proxy.intercept(({ query }) =>
    query.get("comp") === "batch" && ++times === 1
      ? azureError(503, "ServerBusy", { "retry-after": "0" })
      : undefined
  );
  assert.deepEqual(await store.deleteMany(["a", "b"]), []);
  assert.equal(times, 2);
  assert.match(notices.join(), /slow down \(ServerBusy\)/);
});

onTheWire("Retry-After is heeded, and what fails for good is not repeated", {}, async (subject) => {
  const { store, proxy } = subject;
  let times = 0;
  proxy.intercept(() =>
    ++times === 1 ? azureError(503, "ServerBusy", { "retry-after": "1" }) : undefined
  );
  const begin = performance.now();
  await store.put("x", pattern(10));
  assert.ok(performance.now() - begin >= 990);
  for (
    const [status, code, kind] of [
      [403, "AuthorizationFailure", "denied"],
      [409, "BlobImmutableDueToPolicy", "denied"],
      [400, "InvalidResourceName", "invalid"],
      [400, "EncryptionScopeNotFound", "invalid"],
      [404, "ContainerNotFound", "no-bucket"],
      [301, "", "invalid"],
    ] as const
  ) {
    times = 0;
    proxy.intercept(() => {
      times++;
      return azureError(status, code, { location: "http://127.0.0.1:1/" });
    });
    await rejectsWith(store.put("x", pattern(10)), kind);
    assert.equal(times, 1, code);
  }
});

onTheWire("a lost answer to the commit is found out", {}, async ({ store, proxy }) => {
  for (const createOnly of [false, true]) {
    const key = `x${createOnly}`;
    const upload = await store.startMultipart(key, { createOnly });
    const part = await upload.uploadPart(1, pattern(1000));
    let times = 0;
    proxy.intercept(({ query }) =>
      query.get("comp") === "blocklist" && ++times === 1
        ? { ...azureError(500, "InternalError"), afterServer: true }
        : undefined
    );
    if (createOnly) await rejectsWith(upload.complete([part]), "exists");
    else await upload.complete([part]);
    assert.equal(times, 2);
    assert.deepEqual(await contentOf(store, key), pattern(1000));
  }
});

onTheWire("blocks that are gone are noticed", {}, async ({ store, open }) => {
  const upload = await store.startMultipart("x");
  const part = await upload.uploadPart(1, pattern(1000));
  const other = await (await open()).startMultipart("x");
  await other.complete([await other.uploadPart(1, pattern(500))]);
  const error = await rejectsWith(upload.complete([part]), "not-found");
  assert.match(error.message, /another write of this key/);
  assert.deepEqual(await contentOf(store, "x"), pattern(500));
});

onTheWire("keys that Azure would change are refused", {}, async ({ store, proxy }) => {
  for (const key of ["a\\b", "a/../b", "..", "./a", "a/."]) {
    await rejectsWith(store.put(key, pattern(1)), "invalid");
    await rejectsWith(store.get(key), "invalid");
    await rejectsWith(store.head(key), "invalid");
    await rejectsWith(store.startMultipart(key), "invalid");
    const [failure] = await store.deleteMany([key]);
    assert.equal(failure?.error.kind, "invalid");
  }
  assert.equal(proxy.seen.length, 0);
});

onTheWire(
  "directories of a hierarchical namespace are no objects",
  {},
  async ({ store, proxy }) => {
    await store.put("h/dir/file", pattern(1));
    // As such accounts list them: blobs without content, marked.
    const container = await containerOf(proxy);
    const add = (name: string, metadata: Record<string, string>) =>
      container.getBlockBlobClient(name).upload(new Uint8Array(0), 0, { metadata });
    await add("h/dir", { hdi_isfolder: "true" });
    await add("h/empty", { hdi_isfolder: "true" });
    await add("h/none", { other: "true" });
    assert.deepEqual(await namesIn(store, "h/"), ["h/dir/file", "h/none"]);
    const grouped = await namesIn(store, "h/", { delimiter: "/" });
    assert.deepEqual(grouped, ["h/dir/", "h/none"]);
  },
);

function requests(proxy: HttpProxy, method: string, comp: string): SeenRequest[] {
  return proxy.seen.filter((one) => one.method === method && one.query.get("comp") === comp);
}

/** How many blocks lie under a key that are not part of an object, by looking at the last such answer. */
async function uncommitted(proxy: HttpProxy, key: string): Promise<number> {
  const container = await containerOf(proxy);
  try {
    const list = await container.getBlockBlobClient(key).getBlockList("uncommitted");
    return list.uncommittedBlocks?.length ?? 0;
  } catch (error) {
    assert.match(String(error), /not exist/);
    return 0;
  }
}

/** The container that was asked for something, past the provider. */
async function containerOf(proxy: HttpProxy): Promise<ContainerClient> {
  const { ContainerClient, StorageSharedKeyCredential } = await import("@azure/storage-blob");
  if (server?.azurite === undefined) throw new Error("There is no server");
  const path = proxy.seen[0]?.url.split(/[/?]/)[1] ?? "";
  const { origin, account, key } = server.azurite;
  return new ContainerClient(
    `${origin}/${account}/${path}`,
    new StorageSharedKeyCredential(account, key),
  );
}

function md5(bytes: Uint8Array): string {
  return createHash("md5").update(bytes).digest("base64");
}
