import assert from "node:assert/strict";
import { rejectsWhenAborted, rejectsWith } from "./checks.ts";
import { awkwardKeysFor, bytes, type ConformanceTest, namesIn, putKeys } from "./suite.ts";

export const deletionTests: readonly ConformanceTest[] = [
  ["deleting nothing is fine", async ({ store }) => {
    assert.deepEqual(await store.deleteMany([]), []);
  }],

  ["only the named keys are deleted", async ({ store, prefix }) => {
    const names = ["a/b", "ab", "c/d/e", "c/d/f", "c/g"];
    await putKeys(store, names.map((name) => prefix + name));
    assert.deepEqual(
      await store.deleteMany([`${prefix}a/b`, `${prefix}c/d/e`, `${prefix}c/d/f`]),
      [],
    );
    assert.deepEqual(await namesIn(store, prefix), [`${prefix}ab`, `${prefix}c/g`]);
    await rejectsWith(store.head(`${prefix}a/b`), "not-found");
  }],

  ["keys that are not there are fine", async ({ store, prefix }) => {
    await putKeys(store, [`${prefix}x`, `${prefix}d/y`]);
    const keys = ["none", "d", "d/none", "x/none", "n/o/n/e", "x"].map((name) => prefix + name);
    assert.deepEqual(await store.deleteMany(keys), []);
    assert.deepEqual(await store.deleteMany(keys), []);
    assert.deepEqual(await namesIn(store, prefix), [`${prefix}d/y`]);
  }],

  ["more keys than a batch are all deleted", async ({ store, prefix }) => {
    const keys = Array.from({ length: 1015 }, (_, i) => `${prefix}${i % 9}/${i}`);
    await putKeys(store, keys);
    assert.deepEqual(await store.deleteMany(keys), []);
    assert.deepEqual(await namesIn(store, prefix), []);
  }],

  ["small batches are allowed", async ({ store, prefix }) => {
    const keys = Array.from({ length: 10 }, (_, i) => `${prefix}${i}`);
    await putKeys(store, keys);
    assert.deepEqual(await store.deleteMany(keys, { batchSize: 3 }), []);
    assert.deepEqual(await namesIn(store, prefix), []);
  }],

  ["awkward keys are deleted", async ({ store, prefix }) => {
    const keys = awkwardKeysFor(store).map((name) => prefix + name);
    await putKeys(store, keys);
    assert.deepEqual(await store.deleteMany(keys), []);
    assert.deepEqual(await namesIn(store, prefix), []);
  }],

  ["a deleted key can be written again", async ({ store, prefix }) => {
    for (let i = 0; i < 3; i++) {
      await store.put(`${prefix}a/b/c`, bytes(`${i}`), { createOnly: true });
      assert.deepEqual(await store.deleteMany([`${prefix}a/b/c`]), []);
    }
    assert.deepEqual(await namesIn(store, prefix), []);
  }],

  ["a deletion can be aborted", async ({ store, prefix }) => {
    const keys = Array.from({ length: 100 }, (_, i) => `${prefix}${i}`);
    await putKeys(store, keys);
    await rejectsWhenAborted("deleteMany", (signal) => store.deleteMany(keys, { signal }));
  }],
];
