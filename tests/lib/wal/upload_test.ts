import assert from "node:assert/strict";
import { Buffer } from "node:buffer";
import { writeFile } from "node:fs/promises";
import { join } from "node:path";
import fc from "fast-check";
import { isStoreError, type ObjectStore, StoreError } from "../../../providers/object_store.ts";
import { openLocalFile } from "../../../lib/wal/local_file.ts";
import { fitsPut, uploadFile, uploadStream } from "../../../lib/wal/upload.ts";
import { altered, keysOf, pieces, readObject, walBytes, withLocalStore } from "./stores.ts";

const MIB = 1024 ** 2;

interface Watched {
  readonly store: ObjectStore;
  readonly puts: number[];
  readonly parts: { number: number; size: number }[];
  readonly memory: Set<ArrayBufferLike>;
  /** Puts of what was not copied. */
  contents: number;
  aborted: number;
  most: number;
}

/** Notes what is sent, and lets a part fail. */
function watched(
  store: ObjectStore,
  limits: Partial<ObjectStore["limits"]> = {},
  failAt = Infinity,
): Watched {
  let running = 0;
  const seen: Watched = {
    puts: [],
    parts: [],
    memory: new Set(),
    contents: 0,
    aborted: 0,
    most: 0,
    store: altered(store, {
      limits: { ...store.limits, ...limits },
      put(key, body, options) {
        seen.puts.push(body.length);
        return store.put(key, body, options);
      },
      async putContent(key, content, options) {
        seen.puts.push(content.length);
        seen.contents++;
        await store.putContent?.(key, content, options);
      },
      async startMultipart(key, options) {
        const upload = await store.startMultipart(key, options);
        return {
          key,
          async uploadPart(number, body, options) {
            seen.most = Math.max(seen.most, ++running);
            seen.memory.add(body.buffer);
            try {
              // Parts overtake each other.
              await new Promise((done) => setTimeout(done, (number * 7) % 5));
              if (number === failAt) throw new StoreError("other", `part ${number} failed`);
              seen.parts.push({ number, size: body.length });
              return await upload.uploadPart(number, body, options);
            } finally {
              running--;
            }
          },
          complete: (parts, options) => upload.complete(parts, options),
          abort(options) {
            seen.aborted++;
            return upload.abort(options);
          },
        };
      },
    }),
  };
  return seen;
}

Deno.test("upload: what is small is one put, also at exactly 32 MiB", () =>
  withLocalStore(async ({ store }) => {
    for (const size of [0, 1, 16 * MIB, 32 * MIB]) {
      for (const keepsChunks of [false, true]) {
        const seen = watched(store);
        const bytes = walBytes(size, size + (keepsChunks ? 1 : 2));
        const source = pieces(bytes, 700_000);
        assert.equal(await uploadStream(seen.store, "k", source, { keepsChunks }), size);
        assert.deepEqual(seen.puts, [size]);
        assert.equal(seen.contents, keepsChunks ? 1 : 0);
        assert.deepEqual(seen.parts, []);
        assert.ok(Buffer.compare(await readObject(store, "k"), bytes) === 0);
      }
    }
  }));

Deno.test("upload: chunks that may be kept are copied for a store that takes whole objects only", () =>
  withLocalStore(async ({ store }) => {
    const bytes = walBytes(3 * MIB);
    const plain = altered(store, { put: store.put });
    await uploadStream(plain, "k", pieces(bytes, 700_000), { keepsChunks: true });
    assert.ok(Buffer.compare(await readObject(store, "k"), bytes) === 0);
  }));

Deno.test("upload: above 32 MiB equal parts, four at once, always the same 32 MiB of memory", () =>
  withLocalStore(async ({ store }) => {
    for (const [index, size] of [32 * MIB + 1, 64 * MIB, 67 * MIB + 12345].entries()) {
      const seen = watched(store);
      const bytes = walBytes(size);
      const source = pieces(bytes, 300_000);
      const how = { expectedSize: size, keepsChunks: index % 2 === 0 };
      assert.equal(await uploadStream(seen.store, "k", source, how), size);
      assert.deepEqual(seen.puts, []);
      const sizes = seen.parts.sort((a, b) => a.number - b.number).map((part) => part.size);
      assert.deepEqual(new Set(sizes.slice(0, -1)), new Set([8 * MIB]));
      assert.equal(sizes.reduce((sum, part) => sum + part), size);
      assert.ok(seen.most > 1 && seen.most <= 4, `${seen.most} at once`);
      assert.deepEqual([...seen.memory].map((memory) => memory.byteLength), [32 * MIB]);
      assert.ok(Buffer.compare(await readObject(store, "k"), bytes) === 0);
    }
  }));

Deno.test("upload: any sizes of stream, pieces and parts arrive unchanged", () =>
  withLocalStore(async ({ store }) => {
    await fc.assert(
      fc.asyncProperty(
        fc.nat(2000),
        fc.integer({ min: 1, max: 700 }),
        fc.integer({ min: 1, max: 300 }),
        fc.nat(600),
        fc.option(fc.nat(3000), { nil: undefined }),
        fc.boolean(),
        async (size, piece, maxPartSize, maxPutSize, expectedSize, keepsChunks) => {
          const bytes = walBytes(size, size + 1);
          const seen = watched(store, { maxPartSize, maxPutSize, minPartSize: 1 });
          const how = { expectedSize, keepsChunks };
          await uploadStream(seen.store, "k", pieces(bytes, piece), how);
          assert.ok(Buffer.compare(await readObject(store, "k"), bytes) === 0);
          assert.ok(seen.puts.every((put) => put <= maxPutSize));
          const full = seen.parts.filter((part) => part.size === maxPartSize).length;
          assert.ok(full >= seen.parts.length - 1);
        },
      ),
      { numRuns: 60 },
    );
  }));

Deno.test("upload: a failing part ends it, removes the parts and shows nothing", () =>
  withLocalStore(async ({ store }) => {
    for (const failAt of [1, 4, 6]) {
      const seen = watched(store, {}, failAt);
      await assert.rejects(
        uploadStream(seen.store, "k", pieces(walBytes(70 * MIB), MIB)),
        new RegExp(`part ${failAt} failed`),
      );
      assert.equal(seen.aborted, 1);
      assert.deepEqual(await keysOf(store), []);
    }
  }));

Deno.test("upload: a failing source and an abort leave nothing either", () =>
  withLocalStore(async ({ store }) => {
    let closed = 0;
    async function* broken(after: number, act: () => void): AsyncGenerator<Uint8Array> {
      try {
        for (let i = 0; i < 100; i++) {
          if (i === after) act();
          yield await Promise.resolve(new Uint8Array(MIB));
        }
      } finally {
        closed++;
      }
    }
    for (const [after, keepsChunks] of [[3, false], [3, true], [50, false]] as const) {
      const fail = () => {
        throw new Error("source broke");
      };
      const failing = uploadStream(store, "k", broken(after, fail), { keepsChunks });
      await assert.rejects(failing, /source broke/);
      const controller = new AbortController();
      const stop = () => controller.abort(new Error("stopped"));
      await assert.rejects(
        uploadStream(store, "k", broken(after, stop), { keepsChunks, signal: controller.signal }),
        /stopped/,
      );
    }
    assert.equal(closed, 6);
    assert.deepEqual(await keysOf(store), []);
  }));

Deno.test("upload: a file as it is goes to the store while it is read, if it fits", () =>
  withLocalStore(async ({ store, directory }) => {
    const path = join(directory, "file");
    for (const size of [0, 1, 16 * MIB, 32 * MIB, 32 * MIB + 1]) {
      const content = walBytes(size);
      await writeFile(path, content);
      const file = await openLocalFile(path);
      assert.equal(fitsPut(store, file), size <= 32 * MIB);
      if (fitsPut(store, file)) {
        const ready = Promise.resolve({ createOnly: true });
        assert.equal(await uploadFile(store, `k${size}`, file, { ready }), size);
        assert.deepEqual(await readObject(store, `k${size}`), content);
        const again = uploadFile(store, `k${size}`, file, { ready });
        await assert.rejects(again, (error) => isStoreError(error, "exists"));
      }
      await file.close();
    }
    assert.equal(
      fitsPut(altered(store, { put: store.put }), await openLocalFile(path)),
      false,
      "not every store can",
    );
  }));

Deno.test("upload: a file that changes on the way names itself, and nothing is stored", () =>
  withLocalStore(async ({ store, directory }) => {
    const path = join(directory, "file");
    for (const size of [MIB, 3 * MIB]) {
      await writeFile(path, walBytes(2 * MIB));
      const file = await openLocalFile(path);
      await writeFile(path, walBytes(size));
      await assert.rejects(uploadFile(store, "k", file, {}), (error: Error) => {
        assert(error.message.startsWith(`Cannot read ${path}: `), error.message);
        return true;
      });
      await file.close();
      assert.deepEqual(await keysOf(store), []);
    }
    const broken = Promise.reject(new Error("not yours"));
    broken.catch(() => {});
    const file = await openLocalFile(path);
    await assert.rejects(uploadFile(store, "k", file, { ready: broken }), /not yours/);
    await file.close();
  }));
