import assert from "node:assert/strict";
import { COMPRESSION_NAMES } from "../../lib/compression/table.ts";
import { storedContent } from "../../lib/stored_content.ts";
import { isStoreError } from "../../providers/object_store.ts";
import { temporaryStore } from "./backup/temporary_store.ts";
import { compress, join, randomBytes, same } from "./compression/samples.ts";

const MIB = 1024 * 1024;

for (const compression of [null, ...COMPRESSION_NAMES]) {
  Deno.test(`${compression ?? "plain"}: the content of an object comes back, what is stored is seen on the way`, async () => {
    await using temporary = await temporaryStore();
    const { store } = temporary;
    const data = randomBytes(3 * MIB);
    const stored = compression === null ? data : await compress(compression, data, { level: 1 });
    await store.put("a", stored);
    for (const threads of [0, 2]) {
      let [seen, size] = [0, 0];
      const content = storedContent(store, "a", compression, {
        threads,
        through: async function* (body, object) {
          size = object.size;
          for await (const chunk of body) {
            seen += chunk.length;
            yield chunk;
          }
        },
      });
      const copies: Uint8Array[] = [];
      for await (const chunk of content) copies.push(new Uint8Array(chunk));
      assert.ok(same(join(...copies), data), `${threads} threads`);
      assert.deepEqual([seen, size], [stored.length, stored.length]);
    }
  });
}

Deno.test("an object is asked for when its first byte is wanted", async () => {
  await using temporary = await temporaryStore();
  const content = storedContent(temporary.store, "a", "zstd", {});
  await temporary.store.put("a", await compress("zstd", randomBytes(10)));
  const first = await content.next();
  assert.ok(first.done === false && same(first.value, randomBytes(10)));
  await content.return();
  const missing = storedContent(temporary.store, "b", null, {});
  await assert.rejects(missing.next(), (error) => isStoreError(error, "not-found"));
});
