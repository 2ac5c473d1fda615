import assert from "node:assert/strict";
import { listBase, readKeep, readKeeps, releaseKeep, writeKeep } from "../../../lib/backup/keep.ts";
import { serverLayout } from "../../../lib/layout.ts";
import { type ObjectStore, StoreError } from "../../../providers/object_store.ts";
import { temporaryStore } from "./temporary_store.ts";

const ID = "20260115T103000";

Deno.test("write, switch, read, release", async () => {
  await using temporary = await temporaryStore("pre");
  const { store, layout } = temporary;
  assert.equal(await readKeep(store, layout, ID), null);
  await writeKeep(store, layout, ID, "full");
  assert.equal(await temporary.read(`pre/srv/base/${ID}/annotations/keep`), "full");
  await writeKeep(store, layout, ID, "standalone");
  assert.equal(await readKeep(store, layout, ID), "standalone");
  await releaseKeep(store, layout, ID);
  await releaseKeep(store, layout, ID);
  assert.deepEqual(await temporary.keys(), []);
});

Deno.test("values lose blanks, and an empty annotation still protects", async () => {
  await using temporary = await temporaryStore();
  const { store, layout } = temporary;
  const values = { "standalone\n": "standalone", "full\nmore": "full", "": "full", " x ": "x" };
  for (const [text, value] of Object.entries(values)) {
    await temporary.put(layout.annotation(ID, "keep"), text);
    assert.equal(await readKeep(store, layout, ID), value, JSON.stringify(text));
  }
});

Deno.test("both spellings of the key protect, change together and are released", async () => {
  await using temporary = await temporaryStore("pre");
  const { store } = temporary;
  const plain = serverLayout("pre", "srv");
  const slash = serverLayout("pre/", "srv");
  const doubled = `pre//srv/base/${ID}/annotations/keep`;
  const single = `pre/srv/base/${ID}/annotations/keep`;
  // Written where Barman looks for the same URL, seen with either.
  await writeKeep(store, slash, ID, "standalone");
  assert.deepEqual(await temporary.keys(), [doubled]);
  assert.equal(await readKeep(store, plain, ID), "standalone");
  assert.deepEqual([...await readKeeps(store, await listBase(store, plain))], [[ID, "standalone"]]);
  await writeKeep(store, plain, ID, "full");
  assert.deepEqual(await temporary.keys(), [doubled, single].sort());
  for (const layout of [plain, slash]) assert.equal(await readKeep(store, layout, ID), "full");
  await releaseKeep(store, plain, ID);
  assert.deepEqual(await temporary.keys(), []);
});

Deno.test("a store that takes no keys with an empty component has none under Barman's other spelling", async () => {
  await using temporary = await temporaryStore("pre");
  const { layout, addBackup } = temporary;
  // As MinIO answers.
  const requireKey = (key: string) => {
    if (key.includes("//")) {
      throw new StoreError("invalid", `Cannot use ${key}: XMinioInvalidObjectName`);
    }
  };
  const { store } = temporary;
  const strict: ObjectStore = {
    ...store,
    async *list(prefix, options) {
      requireKey(prefix);
      yield* store.list(prefix, options);
    },
    head: async (key, options) => (requireKey(key), await store.head(key, options)),
    get: async (key, options) => (requireKey(key), await store.get(key, options)),
    put: async (key, body, options) => (requireKey(key), await store.put(key, body, options)),
    // It would wait for itself, since it takes both spellings for one object.
    deleteMany: async (keys, options) => {
      keys.forEach(requireKey);
      return await store.deleteMany(keys, options);
    },
  };
  await addBackup(ID);
  assert.equal(await readKeep(strict, layout, ID), null);
  await writeKeep(strict, layout, ID, "full");
  assert.equal(await readKeep(strict, layout, ID), "full");
  const listing = await listBase(strict, layout);
  assert.deepEqual([...listing.ids], [ID]);
  assert.deepEqual([...await readKeeps(strict, listing)], [[ID, "full"]]);
  await releaseKeep(strict, layout, ID);
  assert.equal(await readKeep(strict, layout, ID), null);
  // What is refused for another reason is an error.
  const broken: ObjectStore = {
    ...store,
    list: () => {
      throw new StoreError("invalid", "no");
    },
  };
  await assert.rejects(listBase(broken, layout), /^StoreError: no$/);
  // So are backups where the URL itself has an empty component: a refusal is not an empty catalogue.
  await assert.rejects(listBase(strict, serverLayout("a//b", "srv")), /XMinioInvalidObjectName/);
});

Deno.test("one listing finds backups and annotations", async () => {
  await using temporary = await temporaryStore();
  const { store, layout } = temporary;
  for (const id of ["a", "b", "c"]) await temporary.addBackup(id);
  await writeKeep(store, layout, "b", "standalone");
  await temporary.put(layout.annotation("c", "other"), "x");
  await temporary.put(layout.annotation("gone", "keep"), "full");
  await temporary.put(`${layout.base}stray`, "x");
  const listing = await listBase(store, layout);
  assert.deepEqual([...listing.ids].sort(), ["a", "b", "c", "gone"]);
  const keeps = await readKeeps(store, listing);
  assert.deepEqual([...keeps].sort(), [["b", "standalone"], ["gone", "full"]]);
});

Deno.test("an annotation that nobody can read protects, and does not stop the others", async () => {
  await using temporary = await temporaryStore();
  const { store, layout } = temporary;
  const key = (id: string) => layout.annotation(id, "keep");
  await store.put(key("large"), new Uint8Array(100_000).fill(0x20));
  await store.put(key("bytes"), Uint8Array.of(0xff, 0xfe));
  await writeKeep(store, layout, "fine", "standalone");
  assert.equal(await readKeep(store, layout, "large"), "full");
  const keeps = await readKeeps(store, await listBase(store, layout));
  assert.deepEqual([...keeps].sort(), [["bytes", "full"], ["fine", "standalone"], [
    "large",
    "full",
  ]]);
});
