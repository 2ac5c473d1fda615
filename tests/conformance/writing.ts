import assert from "node:assert/strict";
import { isStoreError, type ObjectStore } from "../../providers/object_store.ts";
import { rejectsWhenAborted, rejectsWith } from "./checks.ts";
import {
  awkwardKeysFor,
  bytes,
  type ConformanceTest,
  contentOf,
  forEach,
  namesIn,
  pattern,
} from "./suite.ts";

/** Azure's and Google's take an object as a whole. */
function canReadContent({ provider, putContent }: ObjectStore): boolean {
  const can = putContent !== undefined;
  assert.equal(can, provider === "aws-s3" || provider === "local");
  return can;
}

export const writingTests: readonly ConformanceTest[] = [
  ["the limits make sense", ({ store }) => {
    const { limits } = store;
    for (const [name, value] of Object.entries(limits)) {
      assert.ok(Number.isSafeInteger(value) && value > 0, `${name} is ${value}`);
    }
    assert.ok(limits.minPartSize <= limits.maxPartSize);
    assert.ok(limits.maxPutSize <= limits.maxObjectSize);
    assert.ok(store.description.length > 5);
    return Promise.resolve();
  }],

  ["an existing bucket is found, and creating it again is fine", async ({ store }) => {
    assert.equal(await store.bucketExists(), true);
    await store.createBucket();
    assert.equal(await store.bucketExists(), true);
  }],

  ["a missing bucket is told from a missing object", async ({ missingBucket }) => {
    const store = await missingBucket();
    try {
      assert.equal(await store.bucketExists(), false);
      await rejectsWith(namesIn(store, ""), "no-bucket");
      await rejectsWith(namesIn(store, "a/b", { delimiter: "/" }), "no-bucket");
      await rejectsWith(store.get("key"), "no-bucket");
      await rejectsWith(store.put("key", bytes("x")), "no-bucket");
      await rejectsWith(store.put("dir/key", bytes("x"), { createOnly: true }), "no-bucket");
      await rejectsWith(store.startMultipart("dir/key"), "no-bucket");
      // A HEAD request is answered without a body, so a store may be unable to tell.
      await rejectsWith(store.head("key"), "no-bucket", "not-found");
      assert.equal(await store.bucketExists(), false, "nothing made it by the way");
    } finally {
      await store.close();
    }
  }],

  ["deleting from a missing bucket is not silent", async ({ missingBucket }) => {
    const store = await missingBucket();
    try {
      const failures = await store.deleteMany(["a", "b"]).catch((error) => {
        assert.ok(isStoreError(error, "no-bucket"), `got ${error}`);
        return undefined;
      });
      if (failures !== undefined) {
        assert.deepEqual(failures.map(({ error }) => error.kind), ["no-bucket", "no-bucket"]);
      }
    } finally {
      await store.close();
    }
  }],

  ["a missing bucket can be made and used", async ({ missingBucket }) => {
    const store = await missingBucket();
    try {
      await store.createBucket();
      assert.equal(await store.bucketExists(), true);
      await rejectsWith(store.get("key"), "not-found");
      await store.put("key", bytes("x"));
      assert.deepEqual(await store.deleteMany(["key"]), []);
    } finally {
      await store.close();
    }
  }],

  ["what was written is read", async ({ store, prefix }) => {
    for (const size of [0, 1, 65_536, 1_000_003]) {
      const body = pattern(size);
      await store.put(`${prefix}${size}`, body);
      assert.deepEqual(await contentOf(store, `${prefix}${size}`), body);
      const { key, size: stored, etag, lastModified } = await store.head(`${prefix}${size}`);
      assert.equal(key, `${prefix}${size}`);
      assert.equal(stored, size);
      assert.ok(etag !== undefined && etag !== "");
      assert.ok(lastModified !== undefined);
      const age = Date.now() - lastModified.getTime();
      assert.ok(Math.abs(age) < 60_000, `last modified ${age} ms ago`);
    }
  }],

  [
    "content is written while it is read, in memory that is used again",
    async ({ store, prefix }) => {
      if (!canReadContent(store) || store.putContent === undefined) return;
      for (const [size, chunk] of [[0, 1], [1, 1], [1_000_003, 100_000], [3_000_000, 1_000_000]]) {
        const body = pattern(size ?? 0);
        const memory = new Uint8Array(chunk ?? 0);
        const content = {
          length: body.length,
          async *read() {
            for (let at = 0; at < body.length; at += memory.length) {
              const part = body.subarray(at, at + memory.length);
              memory.set(part);
              yield memory.subarray(0, part.length);
              memory.fill(255);
              await Promise.resolve();
            }
          },
        };
        const key = `${prefix}content${size}`;
        await store.putContent(key, content, { createOnly: true });
        assert.deepEqual(await contentOf(store, key), body);
        await rejectsWith(store.putContent(key, content, { createOnly: true }), "exists");
        assert.equal((await store.head(key)).size, size);
      }
    },
  ],

  ["content that can't be read, or is another at the second reading, leaves nothing", async (
    { store, prefix },
  ) => {
    if (!canReadContent(store) || store.putContent === undefined) return;
    const body = pattern(2_000_000);
    for (const readings of [1, 2]) {
      let reading = 0;
      const content = {
        length: body.length,
        async *read() {
          reading++;
          yield body.subarray(0, 1_000_000);
          if (reading === readings) throw new Error("the disk is broken");
          yield body.subarray(1_000_000);
        },
      };
      const key = `${prefix}broken${readings}`;
      await store.putContent(key, content).then(
        // Who reads once does not come to the second time.
        () => assert.ok(reading < readings),
        async () => await rejectsWith(store.head(key), "not-found"),
      );
    }
    let times = 0;
    const changing = {
      length: body.length,
      async *read() {
        times++;
        yield times === 1 ? body : pattern(body.length, 7);
      },
    };
    const key = `${prefix}changing`;
    await store.putContent(key, changing).then(
      async () => {
        // Either it was read once, or anew after a refusal.
        assert.ok(times === 1 || times >= 4, `taken at reading ${times}`);
        const expected = times === 1 ? body : pattern(body.length, 7);
        assert.deepEqual(await contentOf(store, key), expected);
      },
      async () => await rejectsWith(store.head(key), "not-found"),
    );
  }],

  ["writing content is cancelled", async ({ store, prefix }) => {
    const { putContent } = store;
    if (!canReadContent(store) || putContent === undefined) return;
    const body = pattern(1_000_000);
    const content = {
      length: body.length,
      async *read() {
        for (let at = 0; at < body.length; at += 100_000) {
          await new Promise((resolve) => setTimeout(resolve, 5));
          yield body.subarray(at, at + 100_000);
        }
      },
    };
    const key = `${prefix}cancelled`;
    await rejectsWhenAborted(
      "putContent",
      (signal) => putContent.call(store, key, content, { signal }),
    );
    await rejectsWith(store.head(key), "not-found");
  }],

  ["only the given bytes of a larger buffer are written", async ({ store, prefix }) => {
    const body = pattern(1000).subarray(100, 200);
    await store.put(`${prefix}view`, body);
    assert.deepEqual(await contentOf(store, `${prefix}view`), body);
  }],

  ["keys are taken as they are", async ({ store, prefix }) => {
    await forEach(awkwardKeysFor(store), 8, async (name) => {
      const key = prefix + name;
      await store.put(key, bytes(name));
      assert.deepEqual(await contentOf(store, key), bytes(name), key);
      assert.equal((await store.head(key)).size, bytes(name).length, key);
    });
  }],

  ["overwriting replaces the whole object", async ({ store, prefix }) => {
    const key = `${prefix}again`;
    await store.put(key, pattern(1000));
    const before = await store.head(key);
    await store.put(key, bytes("short"));
    assert.deepEqual(await contentOf(store, key), bytes("short"));
    assert.notEqual((await store.head(key)).etag, before.etag);
  }],

  ["readers see one version or the other while it is overwritten", async ({ store, prefix }) => {
    const key = `${prefix}flicker`;
    const versions = [pattern(200_000, 1), pattern(150_000, 2)];
    await store.put(key, versions[0] ?? bytes(""));
    const writer = (async () => {
      for (let i = 0; i < 10; i++) await store.put(key, versions[i % 2] ?? bytes(""));
    })();
    for (let i = 0; i < 10; i++) {
      const seen = await contentOf(store, key);
      const whole = versions.some((version) => {
        return version.length === seen.length && version.every((byte, at) => byte === seen[at]);
      });
      assert.ok(whole, `read ${i} saw ${seen.length} bytes of neither version`);
    }
    await writer;
  }],

  ["createOnly refuses an existing key", async ({ store, prefix }) => {
    const key = `${prefix}once`;
    await store.put(key, bytes("first"), { createOnly: true });
    await rejectsWith(store.put(key, bytes("second"), { createOnly: true }), "exists");
    assert.deepEqual(await contentOf(store, key), bytes("first"));
    await store.put(key, bytes("third"));
    assert.deepEqual(await contentOf(store, key), bytes("third"));
  }],

  ["of 16 createOnly writers one wins, where the store says so", async ({ store, prefix }) => {
    if (!store.capabilities.createOnlyPut) return;
    for (let round = 0; round < 3; round++) {
      const key = `${prefix}race/${round}`;
      const bodies = Array.from({ length: 16 }, (_, writer) => pattern(10_000, writer + 1));
      const won = await Promise.all(bodies.map(async (body) => {
        try {
          await store.put(key, body, { createOnly: true });
          return true;
        } catch (error) {
          assert.ok(isStoreError(error, "exists"), `loser got ${error}`);
          return false;
        }
      }));
      assert.equal(won.filter(Boolean).length, 1);
      assert.deepEqual(await contentOf(store, key), bodies[won.indexOf(true)]);
    }
  }],

  ["tags are accepted, also none and an empty list", async ({ store, prefix }) => {
    const tagged = store.capabilities.tags
      ? [["a", "b c"], ["k+2", "v=/:.-_"]] as const
      : [["a", "b"]] as const;
    await store.put(`${prefix}tagged`, bytes("x"), { tags: tagged });
    await store.put(`${prefix}empty`, bytes("x"), { tags: [] });
    assert.equal((await store.head(`${prefix}tagged`)).size, 1);
  }],

  ["tags of any letters are accepted", async ({ store, prefix }) => {
    // Azure's documentation has no others than those above.
    if (!store.capabilities.tags || store.provider === "azure-blob-storage") return;
    await store.put(`${prefix}tagged`, bytes("x"), { tags: [["größe", "v=ü"]] });
    assert.equal((await store.head(`${prefix}tagged`)).size, 1);
  }],

  ["an aborted put rejects with the reason and writes nothing", async ({ store, prefix }) => {
    await rejectsWhenAborted(
      "put",
      (signal) => store.put(`${prefix}x`, pattern(30_000_000), { signal }),
    );
    await rejectsWith(store.head(`${prefix}x`), "not-found");
  }],

  ["calls on the bucket can be aborted", async ({ store }) => {
    await rejectsWhenAborted("bucketExists", (signal) => store.bucketExists({ signal }));
    await assert.rejects(
      store.createBucket({ signal: AbortSignal.abort(new Error("stop")) }),
      /^Error: stop$/,
    );
  }],
];
