import assert from "node:assert/strict";
import { Buffer } from "node:buffer";
import { AT_ONCE, RANGE, readAhead } from "../../../lib/restore/read_ahead.ts";
import { type GetOptions, type ObjectStore, StoreError } from "../../../providers/object_store.ts";
import { pattern } from "../../conformance/suite.ts";
import { altered, withLocalStore } from "../wal/stores.ts";

interface Watched {
  readonly store: ObjectStore;
  readonly gets: GetOptions[];
  most: number;
}

/** As if it were far away; notes what is asked for, and lets answers overtake each other. */
function far(local: ObjectStore, refuse?: (options: GetOptions) => void): Watched {
  let open = 0;
  const seen: Watched = {
    gets: [],
    most: 0,
    store: altered(local, {
      provider: "aws-s3",
      async get(key, options = {}) {
        seen.gets.push(options);
        refuse?.(options);
        seen.most = Math.max(seen.most, ++open);
        const { start = 0 } = options;
        await new Promise((resolve) => setTimeout(resolve, (start / RANGE * 7) % 5));
        const { object, body } = await local.get(key, options);
        return {
          object,
          body: (async function* () {
            try {
              yield* body;
            } finally {
              open--;
            }
          })(),
        };
      },
    }),
  };
  return seen;
}

const never = new AbortController().signal;

async function all(chunks: AsyncIterable<Uint8Array>): Promise<Buffer> {
  return Buffer.concat(await Array.fromAsync(chunks));
}

Deno.test("read ahead: all bytes in order, in ranges of which a few are under way", () =>
  withLocalStore(async ({ store }) => {
    for (const size of [0, 1, RANGE, RANGE + 1, 2 * RANGE, 5 * RANGE - 1, 9 * RANGE]) {
      const content = pattern(size);
      await store.put("k", content);
      const seen = far(store);
      assert(
        (await all(readAhead(seen.store, { key: "k", size }, { signal: never }))).equals(content),
      );
      assert.equal(seen.gets.length, Math.max(1, Math.ceil(size / RANGE)), String(size));
      assert(seen.most <= AT_ONCE);
      if (size > 3 * RANGE) assert.equal(seen.most, AT_ONCE);
      const etags = seen.gets.slice(1).map(({ etag }) => etag);
      assert(etags.every((etag) => etag !== undefined), "others must be of the same object");
    }
  }));

Deno.test("read ahead: local objects and stores without ranges are read as one", () =>
  withLocalStore(async ({ store }) => {
    const content = pattern(3 * RANGE);
    await store.put("k", content);
    const object = { key: "k", size: content.length };
    assert((await all(readAhead(store, object, { signal: never }))).equals(content));
    const seen = far(store, ({ end }) => {
      if (end !== undefined) throw new StoreError("invalid", "the store ignores ranges");
    });
    assert((await all(readAhead(seen.store, object, { signal: never }))).equals(content));
    assert.deepEqual(seen.gets.map(({ end }) => end), [RANGE, undefined]);
  }));

Deno.test("read ahead: a failure, a replaced object, the signal and a reader who leaves end all of it", () =>
  withLocalStore(async ({ store }) => {
    const content = pattern(6 * RANGE);
    await store.put("k", content);
    const object = { key: "k", size: content.length };
    const failing = far(store, ({ start }) => {
      if (start === 3 * RANGE) throw new StoreError("unavailable", "no more");
    });
    await assert.rejects(all(readAhead(failing.store, object, { signal: never })), /no more/);

    const replaced = readAhead(far(store).store, object, { signal: never });
    await replaced.next();
    await store.put("k", pattern(6 * RANGE, 2));
    await assert.rejects(all(replaced), (error: StoreError) => error.kind === "changed");

    const controller = new AbortController();
    const stopped = readAhead(far(store).store, object, { signal: controller.signal });
    await stopped.next();
    controller.abort(new Error("stop"));
    await assert.rejects(all(stopped), /stop/);

    const left = far(store);
    for await (const _ of readAhead(left.store, object, { signal: never })) break;
    assert(left.gets.length <= AT_ONCE);
    assert(left.gets.slice(1).every(({ signal }) => signal?.aborted));
  }));
