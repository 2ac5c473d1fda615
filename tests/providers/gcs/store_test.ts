/** Google Cloud Storage against servers: what the conformance suite, the same for all stores, does not ask. */
import assert from "node:assert/strict";
import { openGcsStore, openWithoutRetries } from "../../../providers/gcs/store.ts";
import {
  isStoreError,
  type ObjectStore,
  type StoreError,
} from "../../../providers/object_store.ts";
import type { StoreOptions } from "../../../providers/open.ts";
import { type FaultProxy, startFaultProxy } from "../../../scripts/servers/fault_proxy.ts";
import {
  type GcsForTests,
  startFakeGcsServerForTests,
  startGcsFakeForTests,
} from "../../../scripts/servers/fake_gcs_server.ts";

const MiB = 1024 ** 2;
const KMS = "projects/p/locations/l/keyRings/r/cryptoKeys/k";

interface Subject {
  readonly server: GcsForTests;
  readonly bucket: string;
  readonly proxy: FaultProxy;
  open(options?: Partial<StoreOptions>, once?: boolean): Promise<ObjectStore>;
  /** Through the fault proxy. */
  openFaulty(options?: Partial<StoreOptions>, once?: boolean): Promise<ObjectStore>;
  /** What the JSON API tells of an object, with other eyes than the store's. */
  resource(key: string): Promise<Record<string, unknown>>;
}

const STEPS: ReadonlyArray<readonly [string, (subject: Subject) => Promise<void>]> = [
  ["tags become custom metadata, also awkward ones, of put and of multipart", async (subject) => {
    const store = await subject.open();
    const tags = [["Env", "prod"], ["a b", "c+d=e:/é"], ["plain", "x y"], ["empty", ""]] as const;
    await store.put("tagged/put", new Uint8Array(1), { tags });
    const upload = await store.startMultipart("tagged/multipart", { tags });
    await upload.complete([await upload.uploadPart(1, new Uint8Array(1))]);
    await store.put("tagged/none", new Uint8Array(1), { tags: [] });
    for (const key of ["tagged/put", "tagged/multipart"]) {
      assert.deepEqual((await subject.resource(key))["metadata"], Object.fromEntries(tags), key);
    }
    assert.equal((await subject.resource("tagged/none"))["metadata"], undefined);
  }],
  ["the KMS key is asked for by put and by multipart", async (subject) => {
    // The other server knows no keys; wire_test.ts looks at what is sent.
    if (subject.server.kind !== "fake") return;
    const store = await subject.open({ kmsKeyName: KMS });
    await store.put("kms/put", new Uint8Array(1));
    const upload = await store.startMultipart("kms/multipart");
    await upload.complete([await upload.uploadPart(1, new Uint8Array(1))]);
    for (const key of ["kms/put", "kms/multipart"]) {
      assert.equal((await subject.resource(key))["kmsKeyName"], `${KMS}/cryptoKeyVersions/1`);
    }
  }],
  ["an aborted multipart upload leaves nothing", async ({ open, server, bucket }) => {
    const store = await open();
    const upload = await store.startMultipart("aborted");
    await upload.uploadPart(1, new Uint8Array(5 * MiB));
    const left = async () => {
      const names = await namesIn(store, ".barman-cloud-parts/");
      if (server.kind !== "fake") return names.length;
      const answer = await fetch(`${server.endpoint}/${bucket}?uploads`);
      return names.length + ((await answer.text()).match(/<Upload>/g)?.length ?? 0);
    };
    assert.equal(await left(), 1);
    await upload.abort();
    assert.equal(await left(), 0);
  }],
  ["of 16 stores that create one key, one wins", async ({ open }) => {
    const stores = await Promise.all(Array.from({ length: 16 }, () => open()));
    const results = await Promise.allSettled(
      stores.map((store, i) => store.put("race", new Uint8Array([i]), { createOnly: true })),
    );
    const winners = results.flatMap(({ status }, i) => status === "fulfilled" ? [i] : []);
    assert.equal(winners.length, 1);
    for (const result of results) {
      if (result.status === "rejected") assert.ok(isStoreError(result.reason, "exists"));
    }
    const [first] = stores;
    assert.ok(first !== undefined);
    assert.deepEqual([...await contentOf(first, "race")], winners);
  }],
  ["a broken upload is repeated, a broken body resumed where it broke", async (subject) => {
    const { proxy, openFaulty } = subject;
    const content = randomBytes(8 * MiB);
    const before = proxy.connections;
    proxy.plan((connection) => {
      if (connection === before + 1) return { cutAfterUp: 3 * MiB, reset: true };
      if (connection === before + 2) return { cutAfterDown: 3 * MiB };
      return {};
    });
    const store = await openFaulty();
    await store.put("large", content);
    assert.ok(Buffer.from(await contentOf(store, "large")).equals(content));
    assert.equal(proxy.connections - before, 3);
  }],
  ["interrupted parts are sent again, and only they", async ({ proxy, openFaulty, open }) => {
    const content = randomBytes(4 * 5 * MiB + 1000);
    const before = proxy.connections;
    // The first two connections break in the middle of what they carry.
    proxy.plan((connection) =>
      connection <= before + 2 ? { cutAfterUp: 2 * MiB, reset: connection % 2 === 0 } : {}
    );
    const notices: string[] = [];
    const store = await openFaulty({ onNotice: (line) => notices.push(line) });
    const upload = await store.startMultipart("parts");
    const parts = [];
    for (let at = 0; at < content.length; at += 5 * MiB) {
      parts.push(
        upload.uploadPart(at / (5 * MiB) + 1, content.subarray(at, at + 5 * MiB)),
      );
    }
    await upload.complete(await Promise.all(parts));
    assert.ok(Buffer.from(await contentOf(await open(), "parts")).equals(content));
    assert.ok(notices.length >= 1 && notices.length <= 4, notices.join("\n"));
    for (const line of notices) assert.match(line, /^Trying again to write part \d of parts/);
  }],
  ["a lost answer to complete is found out about", async ({ proxy, openFaulty, open }) => {
    const store = await openFaulty();
    proxy.plan({});
    const upload = await store.startMultipart("lost");
    const part = await upload.uploadPart(1, randomBytes(1000));
    // Completing has connections of its own, which wait longer.
    const before = proxy.connections;
    proxy.plan((connection) => connection === before + 1 ? { cutAfterDown: 1 } : {});
    await upload.complete([part]);
    assert.equal((await (await open()).head("lost")).size, 1000);
  }],
  ["a silent, a vanishing and a refusing server are unreachable", async (subject) => {
    const { proxy, openFaulty } = subject;
    proxy.plan({ blackhole: true });
    const silent = await failure((await openFaulty({ readTimeout: 1 }, true)).head("k"));
    assert.equal(silent.kind, "unreachable");
    assert.match(silent.message, /no answer in time \(nothing moved for 1 s\)/);
    proxy.plan({ drop: true, reset: true });
    assert.match((await failure((await openFaulty({}, true)).head("k"))).message, /cut before/);
    proxy.plan({ cutAfterDown: 100 });
    const cut = await failure(namesIn(await openFaulty({}, true), ""));
    assert.equal(cut.kind, "unreachable", cut.message);
    const env = { STORAGE_EMULATOR_HOST: "http://no-such-host.invalid:1" };
    const { store } = await openWithoutRetries("gs://b", { env });
    assert.match((await failure(store.head("k"))).message, /host name/);
    await store.close();
    await proxy.refuse();
    const refused = await failure((await openFaulty({}, true)).bucketExists());
    assert.equal(refused.kind, "unreachable");
    assert.match(refused.message, /refused/);
  }],
];

const servers = [await startGcsFakeForTests(), await startFakeGcsServerForTests()];

for (const server of servers) {
  if (server === null) continue;
  Deno.test(`Google Cloud Storage on ${server.name}`, async (test) => {
    const bucket = await server.newBucket();
    const proxy = await startFaultProxy(server.endpoint);
    const opened: ObjectStore[] = [];
    const opener = (endpoint: string): Subject["open"] => async (options = {}, once = false) => {
      const env = { ...server.env, STORAGE_EMULATOR_HOST: endpoint };
      const { store } = await (once ? openWithoutRetries : openGcsStore)(`gs://${bucket}`, {
        ...options,
        env,
      });
      opened.push(store);
      return store;
    };
    const subject: Subject = {
      server,
      bucket,
      proxy,
      open: opener(server.endpoint),
      openFaulty: opener(proxy.endpoint),
      async resource(key) {
        const name = encodeURIComponent(key);
        const answer = await fetch(`${server.endpoint}/storage/v1/b/${bucket}/o/${name}`);
        return await answer.json();
      },
    };
    try {
      for (const [name, run] of STEPS) await test.step(name, () => run(subject));
    } finally {
      for (const store of opened) await store.close();
      await proxy.stop();
      await server.stop();
    }
  });
}

Deno.test("Google Cloud Storage: a store that wants a token gets it with every request", async () => {
  const token = "good";
  const server = await startGcsFakeForTests(token);
  const metadata = Deno.serve(
    { port: 0, hostname: "127.0.0.1", onListen() {} },
    () =>
      Response.json({ access_token: token, expires_in: 3599 }, {
        headers: { "metadata-flavor": "Google" },
      }),
  );
  const bucket = await server.newBucket();
  const { store } = await openGcsStore(`gs://${bucket}`, {
    env: { ...server.env, GCE_METADATA_HOST: `127.0.0.1:${metadata.addr.port}` },
  });
  try {
    const upload = await store.startMultipart("k", { tags: [["A", "b"]] });
    await upload.complete([await upload.uploadPart(1, new Uint8Array(3))]);
    assert.deepEqual(await namesIn(store, ""), ["k"]);
    assert.equal((await contentOf(store, "k")).length, 3);
    assert.deepEqual(await store.deleteMany(["k"]), []);
  } finally {
    await store.close();
    await metadata.shutdown();
    await server.stop();
  }
});

function randomBytes(size: number): Uint8Array {
  const bytes = new Uint8Array(size);
  for (let at = 0; at < size; at += 65_536) {
    crypto.getRandomValues(bytes.subarray(at, Math.min(size, at + 65_536)));
  }
  return bytes;
}

async function contentOf(store: ObjectStore, key: string): Promise<Uint8Array> {
  const chunks: Uint8Array[] = [];
  for await (const chunk of (await store.get(key)).body) chunks.push(chunk);
  return new Uint8Array(Buffer.concat(chunks));
}

async function namesIn(store: ObjectStore, prefix: string): Promise<string[]> {
  const names = [];
  for await (const entry of store.list(prefix)) {
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
