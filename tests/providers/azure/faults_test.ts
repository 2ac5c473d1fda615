import assert from "node:assert/strict";
import http from "node:http";
import { openAzureStore } from "../../../providers/azure/store.ts";
import type { ObjectStore } from "../../../providers/object_store.ts";
import { type FaultProxy, startFaultProxy } from "../../../scripts/servers/fault_proxy.ts";
import { startAzuriteForTests } from "../../../scripts/servers/azurite.ts";
import { rejectsWhenAborted, rejectsWith } from "../../conformance/checks.ts";
import { contentOf, namesIn, pattern, readAll } from "../../conformance/suite.ts";

const server = await startAzuriteForTests();
const MiB = 1024 ** 2;

Deno.test.afterAll(() => server?.stop());

interface Subject {
  readonly store: ObjectStore;
  readonly proxy: FaultProxy;
  readonly notices: string[];
  /** The same with no connection yet. */
  fresh(): Promise<ObjectStore>;
}

function withFaults(name: string, run: (subject: Subject) => Promise<void>): void {
  Deno.test({
    name: `Azure over a bad network: ${name}`,
    ignore: server?.azurite === undefined,
    async fn() {
      if (server?.azurite === undefined) return;
      const { origin } = server.azurite;
      const proxy = await startFaultProxy(origin);
      const notices: string[] = [];
      const connectionString = server.connectionString.replace(origin, proxy.endpoint);
      const url = `${server.url.replace(origin, proxy.endpoint)}/${await server.newContainer()}`;
      const stores: ObjectStore[] = [];
      const fresh = async () => {
        const { store } = await openAzureStore(url, {
          env: { AZURE_STORAGE_CONNECTION_STRING: connectionString },
          readTimeout: 1,
          onNotice: (notice) => notices.push(notice),
        });
        stores.push(store);
        return store;
      };
      try {
        await run({ store: await fresh(), proxy, notices, fresh });
      } finally {
        for (const store of stores) await store.close();
        await proxy.stop();
      }
    },
  });
}

withFaults("connections that end at once are made anew", async ({ store, proxy, notices }) => {
  proxy.plan((connection) => connection <= 2 ? { drop: true, reset: connection === 2 } : {});
  await store.put("x", pattern(1000));
  assert.equal(notices.length, 2);
  assert.match(notices[0] ?? "", /write x .*connection was cut/);
});

withFaults("an upload that is cut is sent again", async ({ store, proxy, notices }) => {
  proxy.plan((connection) => connection === 1 ? { cutAfterUp: 300_000 } : {});
  await store.put("x", pattern(3 * MiB));
  assert.equal(notices.length, 1);
  assert.deepEqual(await contentOf(store, "x"), pattern(3 * MiB));
});

withFaults("a block that is cut is sent again", async ({ store, proxy, notices }) => {
  const upload = await store.startMultipart("x");
  proxy.plan((connection) => connection === 2 ? { cutAfterUp: 300_000, reset: true } : {});
  const parts = [
    await upload.uploadPart(1, pattern(MiB, 1)),
    ...await Promise.all([2, 3].map((number) => upload.uploadPart(number, pattern(MiB, number)))),
  ];
  await upload.complete(parts);
  assert.equal(notices.length, 1);
  assert.match(notices[0] ?? "", /write part \d of x/);
  for (const number of [1, 2, 3]) {
    const { body } = await store.get("x", { start: (number - 1) * MiB, end: number * MiB });
    assert.deepEqual(await readAll(body), pattern(MiB, number));
  }
});

withFaults("a body that is cut goes on where it broke", async (subject) => {
  const { store, proxy, notices, fresh } = subject;
  await store.put("x", pattern(2 * MiB));
  for (const start of [0, 100_000]) {
    notices.length = 0;
    const first = proxy.connections + 1;
    proxy.plan((connection) => ({ cutAfterDown: connection < first + 2 ? 500_000 : undefined }));
    const reader = await (await fresh()).get("x", { start });
    assert.deepEqual(await readAll(reader.body), pattern(2 * MiB).slice(start));
    assert.equal(notices.length, 2);
    assert.match(notices[0] ?? "", /read x .*connection was cut/);
  }
});

withFaults("a body that stops coming is a time-out", async ({ store, proxy, notices, fresh }) => {
  await store.put("x", pattern(2 * MiB));
  const first = proxy.connections + 1;
  proxy.plan((connection) => connection === first ? { stallAfterDown: 500_000 } : {});
  assert.deepEqual(await contentOf(await fresh(), "x"), pattern(2 * MiB));
  assert.equal(notices.length, 1);
  assert.match(notices[0] ?? "", /read x .*nothing moved for 1 s/);
});

withFaults("a listing that is cut is asked for again", async ({ store, proxy, notices, fresh }) => {
  for (const key of ["a", "b", "c"]) await store.put(key, pattern(1));
  const first = proxy.connections + 1;
  proxy.plan((connection) => connection === first ? { cutAfterDown: 900 } : {});
  assert.deepEqual(await namesIn(await fresh(), ""), ["a", "b", "c"]);
  assert.equal(notices.length, 1);
});

withFaults("silence is given up in time, or when told", async ({ store, proxy }) => {
  proxy.plan({ blackhole: true });
  await rejectsWhenAborted("head", (signal) => store.head("x", { signal }));
  const begin = performance.now();
  const error = await rejectsWith(store.head("x"), "unreachable");
  assert.match(error.message, /no answer in time \(nothing moved for 1 s\) \(tried 5 times\)/);
  assert.ok(performance.now() - begin < 20_000);
});

withFaults("a refused connection is told", async ({ store, proxy }) => {
  await proxy.refuse();
  const error = await rejectsWith(store.bucketExists(), "unreachable");
  assert.match(error.message, /connection refused/);
});

Deno.test("Azure over a bad network: an unknown host and no TLS are told", async () => {
  const open = async (endpoint: string) => {
    const env = {
      AZURE_STORAGE_CONNECTION_STRING:
        `BlobEndpoint=${endpoint};SharedAccessSignature=sv=1&sig=c2VjcmV0`,
    };
    return (await openAzureStore("http://127.0.0.1:1/account/container", { env })).store;
  };
  const plain = http.createServer((_, response) => response.end("hello"));
  await new Promise<void>((resolve) => plain.listen(0, "127.0.0.1", resolve));
  const address = plain.address();
  const port = typeof address === "object" ? address?.port : undefined;
  const wrongProtocol = await open(`https://127.0.0.1:${port}`);
  const error = await rejectsWith(wrongProtocol.head("x"), "unreachable");
  assert.equal(error.retryable, false);
  assert.match(error.message, /no TLS or HTTP was spoken there/);
  assert.doesNotMatch(error.message, /c2VjcmV0/);
  await wrongProtocol.close();

  const noXml = await open(`http://127.0.0.1:${port}`);
  await rejectsWith(namesIn(noXml, ""), "unreachable", "other");
  await noXml.close();
  plain.closeAllConnections();
  plain.close();
});
