import assert from "node:assert/strict";
import fc from "fast-check";
import { compareKeys } from "../../providers/key_order.ts";
import { isStoreError, StoreError } from "../../providers/object_store.ts";
import { withRetry } from "../../providers/retry.ts";
import type { RetryPolicy } from "../../providers/retry_attempts.ts";
import { bytes, contentOf, namesIn, pattern, readAll } from "../conformance/suite.ts";
import { type Script, type ScriptedCall, scriptedStore } from "./scripted_store.ts";

const busy = (retryAfter?: number) =>
  new StoreError("unavailable", "The store is busy", { code: "SlowDown", retryAfter });
const reset = () => new StoreError("unreachable", "The connection was reset");
const denied = () => new StoreError("denied", "Access denied");

/** A store that fails as scripted behind a retrying one, on a clock of its own. */
function subject(policy: Partial<RetryPolicy> = {}) {
  const beneath = scriptedStore();
  const notices: string[] = [];
  const sleeps: number[] = [];
  let time = 0;
  const store = withRetry(beneath.store, {
    random: () => 1,
    now: () => time,
    sleep(ms, signal) {
      signal?.throwIfAborted();
      sleeps.push(ms);
      time += ms;
      return Promise.resolve();
    },
    ...policy,
  }, (message) => notices.push(message));
  return { ...beneath, store, beneath: beneath.store, notices, sleeps };
}

/** A hook that throws the given errors, one a call, and then nothing more. */
function failing(call: ScriptedCall, ...errors: StoreError[]): NonNullable<Script["before"]> {
  return (made) => {
    const error = made === call ? errors.shift() : undefined;
    if (error !== undefined) throw error;
  };
}

Deno.test("content is read anew for each attempt to write it", async () => {
  const { store: plain, beneath, script } = subject();
  assert.equal(plain.putContent, undefined, "only where the store beneath has it");
  script.before = failing("put", reset(), busy());
  let readings = 0;
  const store = withRetry({
    ...beneath,
    putContent: async (key, content, options) => {
      const body = await readAll(content.read());
      await beneath.put(key, body, options);
    },
  }, { sleep: () => Promise.resolve() });
  const content = {
    length: 7,
    async *read() {
      readings++;
      yield bytes("content");
    },
  };
  await store.putContent?.("k", content);
  assert.equal(readings, 3);
  assert.deepEqual(await contentOf(store, "k"), bytes("content"));
});

Deno.test("every kind of call is repeated", async () => {
  const { store, script, calls } = subject();
  const once = new Set<ScriptedCall>();
  script.before = (call) => {
    if (once.has(call)) return;
    once.add(call);
    throw reset();
  };
  assert.equal(await store.bucketExists(), true);
  await store.createBucket();
  await store.put("k", bytes("content"));
  assert.equal((await store.head("k")).size, 7);
  assert.deepEqual(await contentOf(store, "k"), bytes("content"));
  assert.deepEqual(await namesIn(store, ""), ["k"]);
  const upload = await store.startMultipart("m");
  await upload.complete([await upload.uploadPart(1, bytes("x"))]);
  assert.deepEqual(await store.deleteMany(["k"]), []);
  await upload.abort();
  const left = await store.startMultipart("left");
  const [unfinished] = await Array.fromAsync(store.listUploads("l"));
  assert.equal(unfinished?.key, left.key);
  await store.removeUpload(unfinished);
  assert.deepEqual(await Array.fromAsync(store.listUploads("")), []);
  assert.equal(once.size, 13);
  for (const call of once) {
    const again = ["startMultipart", "listUploads"].includes(call) ? 3 : 2;
    assert.equal(calls.filter((made) => made.split(" ")[0] === call).length, again, call);
  }
});

Deno.test("unfinished uploads are listed afresh after a failure, each once", async () => {
  const { store, script } = subject();
  for (const key of ["a", "b", "c"]) await store.startMultipart(key);
  const broken = new Set(["b", "c"]);
  script.entry = (key) => {
    if (broken.delete(key)) throw reset();
  };
  const found = await Array.fromAsync(store.listUploads(""));
  assert.deepEqual(found.map(({ key }) => key), ["a", "b", "c"]);
});

Deno.test("pauses double up to the longest, and each is told", async () => {
  const { store, script, sleeps, notices } = subject({
    attempts: 6,
    baseDelayMs: 100,
    maxDelayMs: 500,
  });
  script.before = failing("put", busy(), busy(), reset(), busy(), busy());
  await store.put("k", bytes("x"));
  assert.deepEqual(sleeps, [100, 200, 400, 500, 500]);
  assert.equal(notices.length, 5);
  assert.equal(notices[0], "Trying again to write k in 0.1 s (2 of 6): The store is busy");
  assert.equal(notices[2], "Trying again to write k in 0.4 s (4 of 6): The connection was reset");
});

Deno.test("jitter takes any part of the pause", async () => {
  let random = 0;
  const { store, script, sleeps } = subject({ baseDelayMs: 100, random: () => random += 0.25 });
  script.before = failing("put", busy(), busy(), busy());
  await store.put("k", bytes("x"));
  assert.deepEqual(sleeps, [25, 100, 300]);
});

Deno.test("the last reason is given when all attempts failed", async () => {
  const { store, script, calls } = subject({ attempts: 3 });
  script.before = failing("put", reset(), reset(), busy(), busy());
  await assert.rejects(store.put("k", bytes("x")), (error) => {
    assert.ok(error instanceof StoreError);
    assert.equal(error.message, "The store is busy (tried 3 times)");
    assert.equal(error.kind, "unavailable");
    assert.equal(error.code, "SlowDown");
    assert.equal(error.retryable, true);
    return true;
  });
  assert.equal(calls.length, 3);
});

Deno.test("final errors are not repeated, nor are other classes", async () => {
  for (const final of [denied(), new StoreError("unavailable", "No", { retryable: false })]) {
    const { store, script, calls } = subject();
    script.before = failing("put", final);
    await assert.rejects(store.put("k", bytes("x")), (error) => error === final);
    assert.equal(calls.length, 1);
  }
  const { store, script, calls } = subject();
  const bug = new TypeError("a bug");
  script.before = () => {
    throw bug;
  };
  await assert.rejects(store.head("k"), (error) => error === bug);
  assert.equal(calls.length, 1);
});

Deno.test("a store that asks for a pause gets it, but not beyond the bound on time", async () => {
  const { store, script, sleeps, calls } = subject({ baseDelayMs: 100, maxTotalMs: 60_000 });
  script.before = failing("put", busy(30_000), busy(29_000), busy(2_000));
  await assert.rejects(store.put("k", bytes("x")), /busy \(tried 3 times\)$/);
  assert.deepEqual(sleeps, [30_000, 29_000]);
  assert.equal(calls.length, 3);
});

Deno.test("abort ends a pause with the reason", async () => {
  const beneath = scriptedStore();
  beneath.script.before = () => {
    throw busy(60_000);
  };
  const store = withRetry(beneath.store);
  const controller = new AbortController();
  const reason = new Error("stop");
  const start = performance.now();
  setTimeout(() => controller.abort(reason), 20);
  await assert.rejects(
    store.put("k", bytes("x"), { signal: controller.signal }),
    (error) => error === reason,
  );
  assert.ok(performance.now() - start < 5_000);
  assert.equal(beneath.calls.length, 1);
});

Deno.test("createOnly tells `exists` when it may be our own object", async () => {
  const { store, script, objects } = subject();
  script.after = failing("put", reset());
  await assert.rejects(
    store.put("k", bytes("x"), { createOnly: true }),
    (error) => error instanceof StoreError && error.kind === "exists",
  );
  assert.deepEqual(objects.get("k"), bytes("x"));
});

Deno.test("only keys that failed for a passing reason are deleted again", async () => {
  const { store, script, calls, sleeps } = subject({ baseDelayMs: 100 });
  for (const key of ["a", "b", "c"]) await store.put(key, bytes(key));
  calls.length = 0;
  let round = 0;
  script.deletion = (key) => {
    if (key === "a") round++;
    if (key === "a" && round === 1) return busy(700);
    if (key === "b") return denied();
    return undefined;
  };
  const failures = await store.deleteMany(["a", "b", "c"]);
  assert.deepEqual(failures.map(({ key, error }) => [key, error.kind]), [["b", "denied"]]);
  assert.deepEqual(calls, ["deleteMany a,b,c", "deleteMany a"]);
  assert.deepEqual(sleeps, [700]);
});

Deno.test("keys that stay are told with the last reason", async () => {
  const { store, script, calls } = subject({ attempts: 3 });
  script.deletion = (key) => key === "a" ? busy() : undefined;
  const failures = await store.deleteMany(["a", "b"]);
  assert.deepEqual(failures.map(({ key, error }) => [key, error.kind]), [["a", "unavailable"]]);
  assert.deepEqual(calls, ["deleteMany a,b", "deleteMany a", "deleteMany a"]);
});

Deno.test("a complete whose answer was lost is looked for", async () => {
  const { store, script, calls, objects } = subject();
  script.after = failing("complete", reset());
  const upload = await store.startMultipart("k");
  await upload.complete([await upload.uploadPart(1, bytes("content"))]);
  assert.deepEqual(objects.get("k"), bytes("content"));
  assert.deepEqual(calls.slice(2), ["complete k", "complete k", "head k"]);
});

Deno.test("a lost answer to complete is no success if the object is another", async () => {
  for (const there of [undefined, bytes("of another size")]) {
    const { store, script, beneath, objects } = subject();
    const upload = await store.startMultipart("k");
    const part = await upload.uploadPart(1, bytes("content"));
    script.after = failing("complete", reset());
    script.before = (call) => {
      if (call !== "complete" || !objects.has("k")) return;
      if (there === undefined) objects.delete("k");
      else objects.set("k", there);
    };
    await assert.rejects(
      upload.complete([part]),
      (error) => error instanceof StoreError && error.kind === "not-found",
    );
    await beneath.close();
  }
});

Deno.test("a lost answer to complete with createOnly tells `exists`", async () => {
  const { store, script } = subject();
  script.after = failing("complete", reset());
  const upload = await store.startMultipart("k", { createOnly: true });
  const part = await upload.uploadPart(1, bytes("content"));
  await assert.rejects(
    upload.complete([part]),
    (error) => error instanceof StoreError && error.kind === "exists",
  );
});

Deno.test("an unknown upload is not-found at once when no answer was lost", async () => {
  const { store, calls } = subject();
  const upload = await store.startMultipart("k");
  const part = await upload.uploadPart(1, bytes("content"));
  await upload.abort();
  await upload.abort();
  calls.length = 0;
  await assert.rejects(upload.complete([part]), /upload 1 is gone$/);
  assert.deepEqual(calls, ["complete k"]);
});

Deno.test("a body goes on where it broke", async () => {
  const { store, script, objects, calls, notices } = subject();
  const body = pattern(100);
  objects.set("k", body);
  const broken = new Set<number>();
  script.chunk = (_, position) => {
    if (position % 30 !== 20 || broken.has(position)) return;
    broken.add(position);
    throw reset();
  };
  assert.deepEqual(await contentOf(store, "k"), body);
  assert.deepEqual(calls, ["get k 0", "get k 20", "get k 50", "get k 80"]);
  assert.equal(notices.length, 3);
  assert.match(notices[0] ?? "", /^Trying again to read k in .* \(2 of 5\): The connection was/);

  broken.clear();
  const reader = await store.get("k", { start: 15, end: 55 });
  script.chunk = (_, position) => {
    if (position !== 35 || broken.has(position)) return;
    broken.add(position);
    return "end";
  };
  assert.deepEqual(await readAll(reader.body), body.slice(15, 55), "ended without an error");
});

Deno.test("a body whose connection breaks after the last byte is whole", async () => {
  const { store, script, objects, calls } = subject();
  objects.set("k", pattern(100));
  script.chunk = (_, position) => {
    if (position === 100) throw reset();
  };
  assert.deepEqual(await contentOf(store, "k"), pattern(100));
  assert.equal(calls.length, 1);
});

Deno.test("a body gives up without progress, but not while there is some", async () => {
  const { store, script, objects, calls } = subject({ attempts: 3 });
  objects.set("k", pattern(100));
  let chunks = 0;
  script.chunk = () => {
    if (chunks++ % 2 === 1) throw reset();
  };
  assert.deepEqual(await contentOf(store, "k"), pattern(100), "one chunk a connection is progress");
  calls.length = 0;
  script.chunk = (_, position) => {
    if (position === 50) throw reset();
  };
  await assert.rejects(contentOf(store, "k"), /reset \(tried 3 times\)$/);
  assert.deepEqual(calls, ["get k 0", "get k 50", "get k 50"]);
});

Deno.test("a body never goes on with another object", async () => {
  const { store, script, objects } = subject();
  await store.put("k", pattern(100, 1));
  const reader = await store.get("k");
  script.chunk = (_, position) => {
    if (position !== 50) return;
    delete script.chunk;
    throw reset();
  };
  let size = 0;
  await assert.rejects(
    async () => {
      for await (const chunk of reader.body) {
        size += chunk.length;
        if (size === 50) await store.put("k", pattern(100, 2));
      }
    },
    (error) => error instanceof StoreError && error.kind === "changed",
  );
  assert.equal(size, 50);
  assert.equal(objects.get("k")?.length, 100);

  // A shorter one may be refused for the range before its etag is looked at.
  let gets = 0;
  script.before = (call, key) => {
    if (call !== "get" || gets++ === 0) return;
    throw new StoreError("invalid", `Cannot read ${key}`, { code: "InvalidRange" });
  };
  script.chunk = (_, position) => {
    if (position === 50) throw reset();
  };
  await assert.rejects(
    contentOf(store, "k"),
    (error) => isStoreError(error, "changed") && /was replaced/.test(error.message),
  );
  assert.equal(gets, 2);
});

Deno.test("leaving a body early leaves the one beneath", async () => {
  const beneath = scriptedStore();
  let returned = 0;
  const store = withRetry({
    ...beneath.store,
    get: () =>
      Promise.resolve({
        object: { key: "k", size: 100 },
        body: {
          [Symbol.asyncIterator]: () => ({
            next: () => Promise.resolve({ done: false, value: new Uint8Array(10) }),
            return: () => {
              returned++;
              return Promise.resolve({ done: true, value: undefined });
            },
          }),
        },
      }),
  });
  for await (const _ of (await store.get("k")).body) break;
  assert.equal(returned, 1);
});

Deno.test("a listing goes on after the last entry", async () => {
  const { store, script, objects, calls } = subject();
  for (const key of ["a", "b/1", "b/2", "c", "d"]) objects.set(key, bytes(key));
  let failed = 0;
  script.entry = (name) => {
    if (name !== "c" || failed++ > 1) return;
    throw busy();
  };
  assert.deepEqual(await namesIn(store, "", { delimiter: "/" }), ["a", "b/", "c", "d"]);
  assert.deepEqual(calls, ["list", "list b/", "list b/"]);
  failed = 0;
  assert.deepEqual(await namesIn(store, "", { startAfter: "a" }), ["b/1", "b/2", "c", "d"]);
});

Deno.test("leaving a listing early leaves the one beneath", async () => {
  const beneath = scriptedStore();
  let left = 0;
  const store = withRetry({
    ...beneath.store,
    async *list() {
      try {
        for (let i = 0; i < 9; i++) {
          yield await Promise.resolve({ kind: "prefix", prefix: `${i}/` } as const);
        }
      } finally {
        left++;
      }
    },
  });
  for await (const _ of store.list("")) break;
  assert.equal(left, 1);
});

Deno.test("whatever fails for passing reasons, the outcome is that of a store that never fails", async () => {
  const name = fc.stringMatching(/^[ab/.-]{1,5}$/);
  await fc.assert(fc.asyncProperty(
    fc.uniqueArray(name, { maxLength: 12 }),
    fc.infiniteStream(fc.boolean()),
    fc.boolean(),
    async (keys, fates, grouped) => {
      const { store, script, beneath, objects } = subject({ attempts: 5 });
      let running = 0;
      const mayFail = () => {
        if (fates.next().value !== true || running >= 4) return;
        running++;
        throw running % 2 === 0 ? busy() : reset();
      };
      const mayFailOrProgress = () => {
        mayFail();
        running = 0;
      };
      script.before = (call) => {
        // To have opened a body or a listing is no progress yet.
        if (call === "get" || call === "list") mayFail();
        else mayFailOrProgress();
      };
      for (const [i, key] of keys.entries()) await store.put(key, pattern(i * 7, i + 1));
      script.chunk = mayFailOrProgress;
      const seen = new Set<string>();
      script.entry = (name) => {
        mayFail();
        // A group that comes again after a repetition is none either.
        if (!seen.has(name)) running = 0;
        seen.add(name);
      };
      const options = grouped ? { delimiter: "/" } as const : {};
      const names = await namesIn(store, "a", options);
      const contents = [];
      for (const key of keys) contents.push(await contentOf(store, key));
      const left = keys.slice(3);
      assert.deepEqual(await store.deleteMany(keys.slice(0, 3)), []);
      assert.deepEqual([...objects.keys()].sort(), [...left].sort());
      for (const hook of ["before", "chunk", "entry"] as const) delete script[hook];
      for (const [i, key] of keys.entries()) await beneath.put(key, pattern(i * 7, i + 1));
      assert.deepEqual(names, await namesIn(beneath, "a", options));
      assert.deepEqual(names, [...names].sort(compareKeys));
      assert.deepEqual(contents, keys.map((_, i) => pattern(i * 7, i + 1)));
    },
  ));
});
