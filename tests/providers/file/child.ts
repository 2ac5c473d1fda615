/**
 * A process that uses a local store, for tests about processes:
 * `child.ts put|multipart|churn|denied ROOT [NAME]`. Prints a line when there is something to know.
 */
import assert from "node:assert/strict";
import { chmod } from "node:fs/promises";
import process from "node:process";
import { openFileStore } from "../../../providers/file/store.ts";
import { isStoreError, type ObjectStore } from "../../../providers/object_store.ts";
import { rejectsWith } from "../../conformance/checks.ts";
import { bytes, contentOf, namesIn, pattern } from "../../conformance/suite.ts";

const [what, root = "", name = ""] = process.argv.slice(2);
const { store } = await openFileStore(`file://${root}`, { env: {} });
switch (what) {
  case "put":
    await putForEver(store);
    break;
  case "multipart":
    await multipartForEver(store);
    break;
  case "churn":
    await churn(store, name);
    break;
  case "denied":
    await beDenied(store);
    break;
  default:
    throw new Error(`What is ${what}?`);
}
console.log("done");

/** To be killed: overwrites one object with bodies that are each of one repeated byte. */
async function putForEver(store: ObjectStore): Promise<void> {
  for (let round = 1;; round++) {
    await store.put("d/overwritten", new Uint8Array(8_000_000).fill(round));
    console.log("wrote");
  }
}

/** To be killed: sends parts and never completes. */
async function multipartForEver(store: ObjectStore): Promise<void> {
  const upload = await store.startMultipart("d/unfinished");
  for (let number = 1;; number = number % 100 + 1) {
    await upload.uploadPart(number, pattern(1_000_000, number));
    console.log("wrote");
  }
}

/** Writes and deletes in directories that others write to and delete from too. */
async function churn(store: ObjectStore, name: string): Promise<void> {
  for (let round = 0; round < 50; round++) {
    const key = `a/${round % 3}/b/${name}-${round}`;
    const shared = `a/${round % 3}/shared`;
    await store.put(key, bytes(key));
    await store.put(shared, new Uint8Array(10_000).fill(round));
    assert.deepEqual(await contentOf(store, key), bytes(key));
    try {
      const content = await contentOf(store, shared);
      assert.ok(content.length === 10_000 && content.every((byte) => byte === content[0]));
    } catch (error) {
      if (!isStoreError(error, "not-found")) throw error;
    }
    // Nothing else keeps these directories: others take them away at every moment.
    await store.put("fleeting/x/y", bytes("y"));
    assert.deepEqual(await store.deleteMany([key, shared, "fleeting/x/y"]), []);
  }
  await store.put(`kept/${name}`, bytes(name));
}

/** As a user who may not do everything (the test starts it as root where it can). */
async function beDenied(store: ObjectStore): Promise<void> {
  if (process.getuid?.() === 0) {
    process.setgid?.(65534);
    process.setuid?.(65534);
  }
  await store.put("d/x", bytes("x"));
  await chmod(`${root}/d`, 0o500);
  try {
    const error = await rejectsWith(store.put("d/y", bytes("x")), "denied");
    assert.match(error.message, /^Cannot write d\/y in directory .*: permission denied/);
    const [failure] = await store.deleteMany(["d/x"]);
    assert.equal(failure?.error.kind, "denied");
    await chmod(`${root}/d`, 0o000);
    await rejectsWith(store.get("d/x"), "denied");
    await rejectsWith(store.head("d/x"), "denied");
    await rejectsWith(namesIn(store, ""), "denied");
    await rejectsWith(store.put("d/x", bytes("x")), "denied");
  } finally {
    await chmod(`${root}/d`, 0o700);
  }
}
