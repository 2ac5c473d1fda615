import assert from "node:assert/strict";
import { isStoreError } from "../../providers/object_store.ts";
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
    // Azure takes only these characters; what else S3 takes is for its own tests.
    const tagged = store.provider === "azure-blob-storage"
      ? [["a", "b c"], ["k+2", "v=/:.-_"]] as const
      : store.capabilities.tags
      ? [["a", "b c"], ["k+2", "v&=ü"]] as const
      : [["a", "b"]] as const;
    await store.put(`${prefix}tagged`, bytes("x"), { tags: tagged });
    await store.put(`${prefix}empty`, bytes("x"), { tags: [] });
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
