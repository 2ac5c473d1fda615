/**
 * What every store behind a network makes of a bad one, and of a server that can't or won't: the same tests for all.
 * A store's calls either do what they promise or reject with a `StoreError` of the same kind.
 */
import assert from "node:assert/strict";
import { type ObjectStore, StoreError } from "../../providers/object_store.ts";
import {
  type Answer,
  type AnsweringProxy,
  startAnsweringProxy,
} from "../../scripts/servers/answering_proxy.ts";
import { type FaultProxy, startFaultProxy } from "../../scripts/servers/fault_proxy.ts";
import { rejectsWhenAborted, rejectsWith } from "./checks.ts";
import { contentOf, namesIn, pattern, readAll } from "./suite.ts";

const MiB = 1024 ** 2;

/** Seconds without movement until a store gives up. Servers on a busy machine need some; a test waits for it. */
const PATIENCE = 30;
const IMPATIENCE = 2;
const NOTHING_MOVED = new RegExp(`nothing moved for ${IMPATIENCE} s`);

export interface FaultyServer {
  /** `http://127.0.0.1:PORT`, where proxies pass on to. */
  readonly endpoint: string;
  /** A store with retries that reaches the same empty bucket over another endpoint. */
  open(
    endpoint: string,
    readTimeout: number,
    onNotice: (notice: string) => void,
  ): Promise<ObjectStore>;
  stop(): Promise<void>;
}

/**
 * Define one Deno test with a step for each fault.
 * @param start undefined when the server can't be had; it has then said why, and the test is ignored
 */
export function faults(name: string, start: (() => Promise<FaultyServer>) | undefined): void {
  Deno.test({
    name: `${name} over a bad network`,
    ignore: start === undefined,
    async fn(test) {
      if (start === undefined) return;
      const server = await start();
      try {
        for (const [fault, run] of NETWORK) {
          await test.step(fault, async () => {
            const proxy = await startFaultProxy(server.endpoint);
            await withStores(server, proxy.endpoint, (subject) => run({ ...subject, proxy }))
              .finally(() => proxy.stop());
          });
        }
        for (const [fault, run] of ANSWERS) {
          await test.step(fault, async () => {
            await using proxy = await startAnsweringProxy(server.endpoint);
            await withStores(server, proxy.endpoint, (subject) => run({ ...subject, proxy }));
          });
        }
      } finally {
        await server.stop();
      }
    },
  });
}

interface Stores {
  readonly store: ObjectStore;
  /** What was tried again. */
  readonly notices: string[];
  /** The same with no connection yet. */
  fresh(): Promise<ObjectStore>;
  /** One that gives up when nothing moves for IMPATIENCE seconds. */
  impatient(): Promise<ObjectStore>;
}

type Step<Proxy> = readonly [
  fault: string,
  run: (subject: Stores & { readonly proxy: Proxy }) => Promise<void>,
];

async function withStores(
  server: FaultyServer,
  endpoint: string,
  run: (stores: Stores) => Promise<void>,
): Promise<void> {
  const notices: string[] = [];
  const stores: ObjectStore[] = [];
  const open = async (readTimeout: number) => {
    const store = await server.open(endpoint, readTimeout, (notice) => notices.push(notice));
    stores.push(store);
    return store;
  };
  const fresh = () => open(PATIENCE);
  const impatient = () => open(IMPATIENCE);
  try {
    await run({ store: await fresh(), notices, fresh, impatient });
  } finally {
    for (const store of stores) await store.close();
  }
}

const NETWORK: readonly Step<FaultProxy>[] = [
  ["connections that end at once are made anew", async ({ store, proxy, notices }) => {
    proxy.plan((connection) => connection <= 2 ? { drop: true, reset: connection === 2 } : {});
    await store.put("x", pattern(1000));
    assert.equal(notices.length, 2, notices.join("\n"));
    assert.match(notices[0] ?? "", /write .*x.*connection was cut/);
  }],
  ["an upload that is cut is sent again", async ({ store, proxy, notices }) => {
    proxy.plan((connection) => connection === 1 ? { cutAfterUp: 300_000 } : {});
    await store.put("x", pattern(3 * MiB));
    assert.equal(notices.length, 1, notices.join("\n"));
    assert.deepEqual(await contentOf(store, "x"), pattern(3 * MiB));
  }],
  ["a part that is cut is sent again", async ({ store, proxy, notices }) => {
    const size = Math.max(store.limits.minPartSize, MiB);
    const upload = await store.startMultipart("x");
    const first = proxy.connections + 1;
    proxy.plan((connection) => connection === first ? { cutAfterUp: 300_000, reset: true } : {});
    // What is open passes what it has; new connections have the plan.
    proxy.cut();
    const parts = await Promise.all(
      [1, 2, 3].map((number) => upload.uploadPart(number, pattern(size, number))),
    );
    await upload.complete(parts);
    assert.ok(notices.length >= 1, "something was tried again");
    const { object, body } = await store.get("x");
    assert.equal(object.size, 3 * size);
    const content = await readAll(body);
    for (const number of [1, 2, 3]) {
      assert.deepEqual(content.slice((number - 1) * size, number * size), pattern(size, number));
    }
  }],
  ["a body that is cut goes on where it broke", async ({ store, proxy, notices, fresh }) => {
    await store.put("x", pattern(2 * MiB));
    for (const start of [0, 100_000]) {
      notices.length = 0;
      const first = proxy.connections + 1;
      proxy.plan((connection) => ({ cutAfterDown: connection < first + 2 ? 500_000 : undefined }));
      const { body } = await (await fresh()).get("x", { start });
      assert.deepEqual(await readAll(body), pattern(2 * MiB).slice(start));
      assert.equal(notices.length, 2, notices.join("\n"));
      assert.match(notices[0] ?? "", /read .*x.*connection was cut/);
    }
  }],
  ["a body that never comes whole is an error", async ({ store, proxy, fresh }) => {
    await store.put("x", pattern(2 * MiB));
    // Always before its first byte: there is no progress.
    proxy.plan({ cutAfterDown: 10 });
    await rejectsWith(contentOf(await fresh(), "x"), "unreachable");
  }],
  ["a body that stops coming is a time-out", async ({ store, proxy, notices, impatient }) => {
    await store.put("x", pattern(2 * MiB));
    const first = proxy.connections + 1;
    proxy.plan((connection) => connection === first ? { stallAfterDown: 500_000 } : {});
    assert.deepEqual(await contentOf(await impatient(), "x"), pattern(2 * MiB));
    assert.match(notices.join("\n"), /read .*x.*nothing moved/);
    assert.match(notices.join("\n"), NOTHING_MOVED);
  }],
  ["an upload that stops moving is sent again", async ({ store, proxy, notices, impatient }) => {
    proxy.plan((connection) => connection === 1 ? { stallAfterUp: 300_000 } : {});
    await (await impatient()).put("x", pattern(16 * MiB));
    assert.match(notices.join("\n"), /write .*x.*nothing moved/);
    assert.equal((await store.head("x")).size, 16 * MiB);
  }],
  ["a listing that is cut is asked for again", async ({ store, proxy, notices, fresh }) => {
    for (const key of ["a", "b", "c"]) await store.put(`list/${key}`, pattern(1));
    const first = proxy.connections + 1;
    proxy.plan((connection) => connection === first ? { cutAfterDown: 500 } : {});
    assert.deepEqual(await namesIn(await fresh(), "list/"), ["list/a", "list/b", "list/c"]);
    assert.equal(notices.length, 1, notices.join("\n"));
  }],
  ["slow answers are waited for", async ({ store, proxy, notices }) => {
    proxy.plan({ delayMs: 300 });
    await store.put("x", pattern(1000));
    assert.deepEqual(await contentOf(store, "x"), pattern(1000));
    assert.deepEqual(notices, []);
  }],
  ["silence is given up in time, or when told", async ({ store, proxy, impatient }) => {
    proxy.plan({ blackhole: true });
    await rejectsWhenAborted("head", (signal) => store.head("x", { signal }));
    await rejectsWhenAborted("put", (signal) => store.put("x", pattern(10), { signal }));
    const error = await rejectsWith((await impatient()).head("x"), "unreachable");
    assert.match(error.message, NOTHING_MOVED);
    assert.match(error.message, /no answer in time .* \(tried 5 times\)/);
  }],
  ["a refused connection is told", async ({ store, proxy }) => {
    await proxy.refuse();
    const error = await rejectsWith(store.bucketExists(), "unreachable");
    assert.match(error.message, /connection refused/);
  }],
];

/** Every call of a store, as something that has to reject. */
function calls(store: ObjectStore): [string, () => Promise<unknown>][] {
  return [
    ["bucketExists", () => store.bucketExists()],
    ["head", () => store.head("x")],
    ["get", () => contentOf(store, "x")],
    ["range", async () => readAll((await store.get("x", { start: 5, end: 9 })).body)],
    ["list", () => namesIn(store, "")],
    ["put", () => store.put("x", pattern(10))],
    ["put, create-only", () => store.put("new", pattern(10), { createOnly: true })],
    ["multipart", async () => {
      const upload = await store.startMultipart("y");
      const size = store.limits.minPartSize;
      await upload.complete([await upload.uploadPart(1, pattern(size))]);
    }],
    ["listUploads", () => Array.fromAsync(store.listUploads(""))],
    ["removeUpload", () => store.removeUpload({ key: "z", id: "none", size: 0 })],
    ["deleteMany", async () => {
      const [failure] = await store.deleteMany(["x", "y"]);
      if (failure !== undefined) throw failure.error;
    }],
  ];
}

const LOGIN: Answer = {
  status: 200,
  headers: { "content-type": "text/html; charset=utf-8" },
  body: "<!DOCTYPE html><html><body><form>Please log in</form></body></html>",
};

const BUSY: readonly Answer[] = [
  { status: 503, headers: { "retry-after": "0" } },
  { status: 429, headers: { "retry-after": "0" } },
  { status: 500 },
  { status: 502, headers: { "content-type": "text/html" }, body: "<html>Bad gateway</html>" },
  { status: 504 },
];

const ANSWERS: readonly Step<AnsweringProxy>[] = [
  ["who can't now is asked again", async ({ store, proxy, notices }) => {
    for (const answer of BUSY) {
      notices.length = 0;
      proxy.plan(({ number }) => number <= 2 ? answer : null);
      await store.put("x", pattern(1000));
      assert.equal(notices.length, 2, `${answer.status}: ${notices.join("\n")}`);
      proxy.plan(({ number }) => number === 1 ? answer : null);
      assert.deepEqual(await contentOf(store, "x"), pattern(1000));
      proxy.plan(({ number }) => number === 1 ? answer : null);
      assert.ok((await namesIn(store, "")).includes("x"));
      proxy.plan(({ number }) => number === 1 ? answer : null);
      assert.deepEqual(await store.deleteMany(["x"]), []);
    }
  }],
  ["who can't for long is given up, whatever was asked", async ({ store, proxy }) => {
    proxy.plan(() => ({ status: 503, headers: { "retry-after": "0" } }));
    await Promise.all(
      calls(store).map(async ([call, run]) => {
        const error = await rejectsWith(run(), "unavailable").catch((error) => {
          throw new Error(`${call}: ${error.message}`);
        });
        // Failures of single keys are collected, not thrown.
        if (call !== "deleteMany") assert.match(error.message, /tried \d+ times/, call);
      }),
    );
  }],
  ["a page of some other server is no success", async ({ store, proxy }) => {
    await store.put("x", pattern(10));
    proxy.plan(() => LOGIN);
    for (const [call, run] of calls(store)) await rejectsPlainly(call, run);
    proxy.plan(() => null);
    assert.deepEqual(await contentOf(store, "x"), pattern(10));
  }],
  ["a redirection elsewhere is not followed and no success", async ({ store, proxy }) => {
    await store.put("x", pattern(10));
    for (const status of [301, 302, 303, 307, 308]) {
      proxy.plan(() => ({ ...LOGIN, status, headers: { location: "http://127.0.0.1:1/login" } }));
      for (const [call, run] of calls(store)) {
        const { message } = await rejectsPlainly(`${status}, ${call}`, run);
        assert.doesNotMatch(message, /refused/, "it went there");
      }
    }
  }],
  ["who is not let in is told so, once", async ({ store, proxy }) => {
    for (const status of [401, 403]) {
      for (const [call, run] of calls(store)) {
        proxy.plan(() => ({ ...LOGIN, status }));
        await rejectsWith(run(), "denied").catch((error) => {
          throw new Error(`${status}, ${call}: ${error.message}`);
        });
        assert.ok(proxy.requests <= 2, `${status}, ${call}: ${proxy.requests} requests`);
      }
    }
  }],
];

/** An error of a store that says something, nothing of our own insides, and that no absence is concluded from. */
async function rejectsPlainly(call: string, run: () => Promise<unknown>): Promise<StoreError> {
  try {
    await run();
  } catch (error) {
    assert.ok(error instanceof StoreError, `${call}: ${error}`);
    assert.ok(!["not-found", "no-bucket", "exists"].includes(error.kind), `${call}: ${error}`);
    assert.doesNotMatch(error.message, /undefined|evaluating|Cannot read prop|is not a/, call);
    return error;
  }
  return assert.fail(`${call} was taken for a success`);
}
