import assert from "node:assert/strict";
import fc from "fast-check";
import { withBandwidthLimit } from "../../providers/bandwidth.ts";
import { scriptedStore } from "./scripted_store.ts";

/** A clock on which sleepers wake in order, and the times at which parts went through. */
function subject(bytesPerSecond: number) {
  const beneath = scriptedStore();
  const sent: Array<readonly [time: number, bytes: number]> = [];
  let time = 0;
  const sleepers: Array<{ readonly until: number; readonly wake: () => void }> = [];
  const store = withBandwidthLimit(
    {
      ...beneath.store,
      put(_, body) {
        sent.push([time, body.length]);
        return Promise.resolve();
      },
      putContent(_, content) {
        sent.push([time, content.length]);
        return Promise.resolve();
      },
      startMultipart: (key) =>
        Promise.resolve({
          key,
          uploadPart(number, body) {
            sent.push([time, body.length]);
            return Promise.resolve({ number, size: body.length, etag: "e" });
          },
          complete: () => Promise.resolve({}),
          abort: () => Promise.resolve(),
        }),
    },
    bytesPerSecond,
    {
      now: () => time,
      sleep: (ms) => new Promise((wake) => sleepers.push({ until: time + ms, wake })),
    },
  );
  const run = async (work: Promise<unknown>) => {
    let ended = false;
    const ending = work.finally(() => ended = true);
    while (!ended) {
      for (let i = 0; i < 10; i++) await Promise.resolve();
      sleepers.sort((a, b) => a.until - b.until);
      const next = sleepers.shift();
      if (next === undefined) continue;
      time = Math.max(time, next.until);
      next.wake();
    }
    await ending;
  };
  return { store, sent, run };
}

Deno.test("a part waits for the time of those before it, in all uploads together", async () => {
  const { store, sent, run } = subject(100);
  const a = await store.startMultipart("a");
  const b = await store.startMultipart("b");
  await run(Promise.all([
    a.uploadPart(1, new Uint8Array(50)),
    b.uploadPart(1, new Uint8Array(200)),
    a.uploadPart(2, new Uint8Array(10)),
  ]));
  assert.deepEqual(sent, [[0, 50], [500, 200], [2500, 10]]);
});

Deno.test("a whole object does not wait, and those after it do", async () => {
  const { store, sent, run } = subject(100);
  const upload = await store.startMultipart("a");
  await run(Promise.all([
    upload.uploadPart(1, new Uint8Array(500)),
    store.put("b", new Uint8Array(100)),
    store.putContent?.("c", { length: 200, read: () => assert.fail("nobody reads it") }),
    upload.uploadPart(2, new Uint8Array(10)),
  ]));
  assert.deepEqual(sent.sort(), [[0, 100], [0, 200], [0, 500], [8000, 10]]);
});

Deno.test("the rate is never above the limit, and the limit is used", async () => {
  await fc.assert(fc.asyncProperty(
    fc.integer({ min: 1, max: 1000 }),
    fc.array(fc.integer({ min: 0, max: 5000 }), { minLength: 2, maxLength: 20 }),
    async (limit, sizes) => {
      const { store, sent, run } = subject(limit);
      const upload = await store.startMultipart("k");
      await run(
        Promise.all(sizes.map((size, i) => upload.uploadPart(i + 1, new Uint8Array(size)))),
      );
      assert.equal(sent.length, sizes.length);
      let before = 0;
      for (const [time, bytes] of sent) {
        assert.ok(
          Math.abs(time - before / limit * 1000) < 1e-3,
          `${before} bytes after ${time} ms`,
        );
        before += bytes;
      }
    },
  ));
});

Deno.test("parts wait too, and an abort ends the wait and gives its time back", async () => {
  const { store } = scriptedStore();
  const limited = withBandwidthLimit(store, 1000);
  const upload = await limited.startMultipart("k");
  const start = performance.now();
  await upload.uploadPart(1, new Uint8Array(100));
  const controller = new AbortController();
  const reason = new Error("stop");
  const huge = upload.uploadPart(2, new Uint8Array(1_000_000), { signal: controller.signal });
  controller.abort(reason);
  await assert.rejects(huge, (error) => error === reason);
  await upload.uploadPart(3, new Uint8Array(1));
  const elapsed = performance.now() - start;
  assert.ok(elapsed >= 99 && elapsed < 5_000, `${elapsed} ms`);
  await assert.rejects(
    limited.put("k", new Uint8Array(1), { signal: AbortSignal.abort(reason) }),
    (error) => error === reason,
  );
});

Deno.test("a limit of nothing is refused", () => {
  const { store } = scriptedStore();
  for (const limit of [0, -1, NaN]) {
    assert.throws(() => withBandwidthLimit(store, limit), /above 0/);
  }
});
