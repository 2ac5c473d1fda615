import assert from "node:assert/strict";
import { withCounting } from "../../providers/counting.ts";
import { bytes, contentOf, namesIn } from "../conformance/suite.ts";
import { scriptedStore } from "./scripted_store.ts";

Deno.test("calls and bytes are counted by kind", async () => {
  const { store, counts } = withCounting(scriptedStore().store);
  assert.deepEqual(counts(), { calls: {}, bytesSent: 0, bytesReceived: 0 });
  await store.bucketExists();
  await store.createBucket();
  await store.put("a", bytes("12345"));
  const upload = await store.startMultipart("b");
  const parts = [
    await upload.uploadPart(1, bytes("123")),
    await upload.uploadPart(2, bytes("45678901234")),
  ];
  await upload.complete(parts);
  await (await store.startMultipart("c")).abort();
  assert.equal((await contentOf(store, "b")).length, 14);
  for await (const _ of (await store.get("b")).body) break;
  await store.head("a");
  await namesIn(store, "");
  await store.startMultipart("d");
  for await (const unfinished of store.listUploads("d")) await store.removeUpload(unfinished);
  await store.deleteMany(["a", "b"]);
  assert.deepEqual(counts(), {
    calls: {
      bucketExists: 1,
      createBucket: 1,
      put: 1,
      startMultipart: 3,
      uploadPart: 2,
      complete: 1,
      abort: 1,
      get: 2,
      head: 1,
      list: 1,
      listUploads: 1,
      removeUpload: 1,
      deleteMany: 1,
    },
    bytesSent: 19,
    bytesReceived: 24,
  });
});
