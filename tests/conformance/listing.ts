import assert from "node:assert/strict";
import { compareKeys } from "../../providers/key_order.ts";
import { rejectsWhenAborted } from "./checks.ts";
import { awkwardKeysFor, bytes, type ConformanceTest, namesIn, putKeys } from "./suite.ts";

export const listingTests: readonly ConformanceTest[] = [
  ["nothing is listed where nothing is", async ({ store, prefix }) => {
    assert.deepEqual(await namesIn(store, prefix), []);
    assert.deepEqual(await namesIn(store, `${prefix}x/y`, { delimiter: "/" }), []);
  }],

  ["nothing is listed under an empty component either", async ({ store, prefix }) => {
    await putKeys(store, [`${prefix}a`]);
    assert.deepEqual(await namesIn(store, `${prefix}/`), []);
  }],

  ["nothing is listed above a prefix", async ({ store, prefix }) => {
    assert.deepEqual(await namesIn(store, `${prefix}../`), []);
  }],

  ["a listing tells what head tells", async ({ store, prefix }) => {
    await putKeys(store, [`${prefix}a`, `${prefix}b/c`]);
    for await (const entry of store.list(prefix)) {
      assert.ok(entry.kind === "object");
      const { kind: _, ...object } = entry;
      const head = await store.head(entry.key);
      assert.equal(object.size, head.size);
      assert.equal(object.etag, head.etag);
      assert.ok(object.lastModified instanceof Date);
    }
  }],

  ["more keys than a page come once each, in order", async ({ store, prefix }) => {
    const keys = Array.from({ length: 1105 }, (_, i) => {
      return `${prefix}${String(i % 7)}${i % 2 === 0 ? "/" : "-"}${String(i).padStart(5, "0")}`;
    });
    await putKeys(store, keys);
    const expected = [...keys].sort(compareKeys);
    assert.deepEqual(await namesIn(store, prefix), expected);
    const middle = expected[600] ?? "";
    assert.deepEqual(await namesIn(store, prefix, { startAfter: middle }), expected.slice(601));
    assert.deepEqual(
      await namesIn(store, `${prefix}3/`),
      expected.filter((key) => key.startsWith(`${prefix}3/`)),
    );
    // 7 groups among 552 keys, over more than one page of what is below them
    const grouped = await namesIn(store, prefix, { delimiter: "/" });
    const plain = expected.filter((key) => !key.slice(prefix.length).includes("/"));
    const groups = Array.from({ length: 7 }, (_, i) => `${prefix}${i}/`);
    assert.deepEqual(grouped, [...plain, ...groups].sort(compareKeys));
  }],

  ["order is that of UTF-8 bytes", async ({ store, prefix }) => {
    const names = [
      ...["a", "a-", "a-b", "a.b", "a0", "aa", "A", "Z", "_", "~", "é", "z"],
      ...["b!", "b/x", "b/x-y", "b/x.z/1", "b0", "b-/q", "\u{10000}", "\uffee", "\ue000", "ÿ"],
    ];
    await putKeys(store, names.map((name) => prefix + name));
    const expected = names.map((name) => prefix + name).sort(byBytes);
    assert.deepEqual(await namesIn(store, prefix), expected);
    for (const startAfter of [...expected, `${prefix}b/`, `${prefix}b/x.`, prefix, `${prefix}~~`]) {
      assert.deepEqual(
        await namesIn(store, prefix, { startAfter }),
        expected.filter((key) => byBytes(key, startAfter) > 0),
        `after ${startAfter}`,
      );
    }
  }],

  ["awkward keys are listed as they were written", async ({ store, prefix }) => {
    const keys = awkwardKeysFor(store).map((name) => prefix + name);
    await putKeys(store, keys);
    assert.deepEqual(await namesIn(store, prefix), keys);
    for (const key of keys) assert.ok((await namesIn(store, key)).includes(key), key);
  }],

  ["a prefix may end within a name", async ({ store, prefix }) => {
    const keys = ["ab", "abc/d", "abc/e/f", "abd", "b"].map((name) => prefix + name);
    await putKeys(store, keys);
    assert.deepEqual(await namesIn(store, `${prefix}ab`), keys.slice(0, 4));
    assert.deepEqual(await namesIn(store, `${prefix}abc`), keys.slice(1, 3));
    assert.deepEqual(await namesIn(store, `${prefix}abc/e`), [`${prefix}abc/e/f`]);
    assert.deepEqual(await namesIn(store, `${prefix}ab/`), []);
    assert.deepEqual(await namesIn(store, prefix.slice(0, -1)), keys);
  }],

  ["a delimiter groups what is below", async ({ store, prefix }) => {
    const names = ["a/1", "a/2/3", "a-b", "b", "c d/é/x", "c d/f", "e"];
    await putKeys(store, names.map((name) => prefix + name));
    const list = async (below: string) =>
      (await namesIn(store, prefix + below, { delimiter: "/" })).map((name) => {
        return name.slice(prefix.length);
      });
    assert.deepEqual(await list(""), ["a-b", "a/", "b", "c d/", "e"]);
    assert.deepEqual(await list("a"), ["a-b", "a/"]);
    assert.deepEqual(await list("a/"), ["a/1", "a/2/"]);
    assert.deepEqual(await list("a/2"), ["a/2/"]);
    assert.deepEqual(await list("a/2/"), ["a/2/3"]);
    assert.deepEqual(await list("c"), ["c d/"]);
    assert.deepEqual(await list("c d/"), ["c d/f", "c d/é/"]);
    const kinds = [];
    for await (const entry of store.list(prefix, { delimiter: "/" })) kinds.push(entry.kind);
    assert.deepEqual(kinds, ["object", "prefix", "object", "prefix", "object"]);
    assert.deepEqual(
      await namesIn(store, prefix, { delimiter: "/", startAfter: `${prefix}b` }),
      [`${prefix}c d/`, `${prefix}e`],
    );
  }],

  ["a listing can be left early", async ({ store, prefix }) => {
    await putKeys(store, [`${prefix}a`, `${prefix}b`, `${prefix}c`]);
    for await (const entry of store.list(prefix)) {
      assert.ok(entry.kind === "object" && entry.key === `${prefix}a`);
      break;
    }
  }],

  ["what is written and deleted meanwhile does not break a listing", async ({ store, prefix }) => {
    const stable = Array.from({ length: 60 }, (_, i) => `${prefix}${i % 6}/stable-${i}`);
    await putKeys(store, stable);
    let going = true;
    const churn = (async () => {
      for (let i = 0; going; i++) {
        const key = `${prefix}${i % 6}/sub-${i}/moving`;
        await store.put(key, bytes("x"));
        await store.deleteMany([key]);
      }
    })();
    try {
      for (let i = 0; i < 5; i++) {
        const seen = (await namesIn(store, prefix)).filter((key) => key.includes("/stable-"));
        assert.deepEqual(seen, [...stable].sort(compareKeys));
      }
    } finally {
      going = false;
      await churn;
    }
  }],

  ["a listing can be aborted", async ({ store, prefix }) => {
    await putKeys(store, [`${prefix}a`, `${prefix}b`]);
    await rejectsWhenAborted("list", (signal) => namesIn(store, prefix, { signal }));
  }],
];

function byBytes(a: string, b: string): number {
  const left = bytes(a);
  const right = bytes(b);
  for (let i = 0; i < Math.min(left.length, right.length); i++) {
    const difference = (left[i] ?? 0) - (right[i] ?? 0);
    if (difference !== 0) return difference;
  }
  return left.length - right.length;
}
