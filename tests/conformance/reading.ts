import assert from "node:assert/strict";
import process from "node:process";
import { setTimeout as sleep } from "node:timers/promises";
import { rejectsWhenAborted, rejectsWith } from "./checks.ts";
import { bytes, type ConformanceTest, pattern, readAll } from "./suite.ts";

const MiB = 1024 * 1024;

export const readingTests: readonly ConformanceTest[] = [
  ["a missing object is not-found and names the key", async ({ store, prefix }) => {
    const key = `${prefix}nothing/here`;
    for (const call of [store.get, store.head]) {
      const error = await rejectsWith(call(key), "not-found");
      assert.equal(error.key, key);
      assert.equal(error.retryable, false);
      assert.ok(error.message.includes(key), error.message);
    }
  }],

  ["a key that others go on from is not there itself", async ({ store, prefix }) => {
    await store.put(`${prefix}dir/key`, bytes("x"));
    await rejectsWith(store.get(`${prefix}dir`), "not-found");
    await rejectsWith(store.head(`${prefix}dir`), "not-found");
    await rejectsWith(store.get(`${prefix}dir/key/below`), "not-found");
    await rejectsWith(store.head(`${prefix}di`), "not-found");
  }],

  ["ranges give just those bytes", async ({ store, prefix }) => {
    const key = `${prefix}ranged`;
    const body = pattern(1_000_003);
    await store.put(key, body);
    const ranges: Array<[start: number | undefined, end: number | undefined]> = [
      [undefined, undefined],
      [0, undefined],
      [0, 1],
      [0, 1_000_003],
      [1, 2],
      [524_287, 524_289],
      [65_536, undefined],
      [1_000_002, undefined],
      [1_000_002, 1_000_003],
      [undefined, 10],
      [999_000, 2_000_000],
    ];
    for (const [start, end] of ranges) {
      const reader = await store.get(key, { start, end });
      assert.equal(reader.object.size, body.length, `${start}..${end}`);
      assert.equal(reader.object.key, key);
      assert.deepEqual(await readAll(reader.body), body.slice(start, end), `${start}..${end}`);
    }
  }],

  ["a body in memory that is used again is the same, chunk by chunk", async ({ store, prefix }) => {
    const key = `${prefix}reused`;
    const body = pattern(9 * MiB + 17);
    await store.put(key, body);
    for (const [start, end] of [[undefined, undefined], [MiB + 1, 8 * MiB]] as const) {
      const reader = await store.get(key, { start, end, reuse: true });
      const copies: Uint8Array[] = [];
      for await (const chunk of reader.body) {
        copies.push(new Uint8Array(chunk));
        // Whoever else has a use for the chunk's memory has it meanwhile.
        await sleep(0);
      }
      assert.ok(Buffer.concat(copies).equals(body.subarray(start, end)), `${start}..${end}`);
    }
  }],

  ["a range outside the object is refused", async ({ store, prefix }) => {
    await store.put(`${prefix}small`, bytes("12345"));
    for (const start of [5, 6]) {
      const error = await rejectsWith(store.get(`${prefix}small`, { start }), "invalid");
      // By which a reader that goes on knows that the object became shorter.
      assert.equal(error.code, "InvalidRange");
    }
    await rejectsWith(store.get(`${prefix}small`, { start: 3, end: 3 }), "invalid");
    await rejectsWith(store.get(`${prefix}small`, { start: 3, end: 1 }), "invalid");
  }],

  ["an empty object has an empty body", async ({ store, prefix }) => {
    await store.put(`${prefix}empty`, new Uint8Array(0));
    const reader = await store.get(`${prefix}empty`);
    assert.equal(reader.object.size, 0);
    assert.equal((await readAll(reader.body)).length, 0);
  }],

  ["get and head agree on the etag, and get holds on to it", async ({ store, prefix }) => {
    const key = `${prefix}versioned`;
    await store.put(key, bytes("one"));
    const { etag } = await store.head(key);
    const reader = await store.get(key, { etag });
    assert.equal(reader.object.etag, etag);
    assert.deepEqual(await readAll(reader.body), bytes("one"));
    const range = await store.get(key, { etag, start: 1 });
    assert.equal(range.object.etag, etag);
    assert.deepEqual(await readAll(range.body), bytes("ne"));
    await store.put(key, bytes("two"));
    await rejectsWith(store.get(key, { etag }), "changed");
    await rejectsWith(store.get(key, { etag, start: 1, end: 2 }), "changed");
  }],

  ["leaving a body early, or never beginning it, is fine", async ({ store, prefix }) => {
    const key = `${prefix}long`;
    const body = pattern(16 * MiB);
    await store.put(key, body);
    for (let i = 0; i < 20; i++) {
      let seen = 0;
      for await (const chunk of (await store.get(key)).body) {
        seen += chunk.length;
        break;
      }
      assert.ok(seen > 0 && seen < body.length);
    }
    for (let i = 0; i < 20; i++) {
      await (await store.get(key)).body[Symbol.asyncIterator]().return?.();
    }
    assert.deepEqual(
      await readAll((await store.get(key, { start: 16 * MiB - 5 })).body),
      body.slice(-5),
    );
  }],

  ["several bodies can be read at once", async ({ store, prefix }) => {
    const bodies = Array.from({ length: 8 }, (_, i) => pattern(1_000_000 + i, i + 1));
    await Promise.all(bodies.map((body, i) => store.put(`${prefix}${i}`, body)));
    const read = await Promise.all(
      bodies.map(async (_, i) => await readAll((await store.get(`${prefix}${i}`)).body)),
    );
    assert.deepEqual(read, bodies);
  }],

  ["a slow reader is not overrun", async ({ store, prefix }) => {
    const key = `${prefix}big`;
    const part = pattern(16 * MiB);
    const upload = await store.startMultipart(key);
    const parts = [];
    for (let number = 1; number <= 10; number++) parts.push(await upload.uploadPart(number, part));
    await upload.complete(parts);
    // Other tests may run in the same process, so one quiet attempt of a few is enough.
    const growths: number[] = [];
    while (growths.length < 4 && !growths.some((growth) => growth < 80 * MiB)) {
      const before = process.memoryUsage().rss;
      let most = 0;
      let position = 0;
      for await (const chunk of (await store.get(key)).body) {
        assert.ok(chunk.length <= 16 * MiB, `a chunk has ${chunk.length} bytes`);
        assert.equal(chunk[0], part[position % part.length]);
        if (position === 0) await sleep(500);
        position += chunk.length;
        most = Math.max(most, process.memoryUsage().rss - before);
      }
      assert.equal(position, 160 * MiB);
      growths.push(most);
    }
    const least = Math.min(...growths);
    assert.ok(least < 80 * MiB, `memory grew by ${Math.round(least / MiB)} MiB or more`);
  }],

  ["get and head can be aborted", async ({ store, prefix }) => {
    const key = `${prefix}abort`;
    await store.put(key, pattern(4 * MiB));
    await rejectsWhenAborted("head", (signal) => store.head(key, { signal }));
    await rejectsWhenAborted("get", async (signal) => {
      const reader = await store.get(key, { signal });
      await readAll(reader.body);
    });
  }],

  ["a body can be aborted in the middle", async ({ store, prefix }) => {
    const key = `${prefix}abort-body`;
    await store.put(key, pattern(16 * MiB));
    const controller = new AbortController();
    const reason = new Error("stop");
    const { body } = await store.get(key, { signal: controller.signal });
    let seen = 0;
    await assert.rejects(
      async () => {
        for await (const chunk of body) {
          seen += chunk.length;
          controller.abort(reason);
        }
      },
      (error) => error === reason,
    );
    assert.ok(seen > 0 && seen < 16 * MiB);
  }],
];
