import assert from "node:assert/strict";
import { mkdtemp, readdir, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { setTimeout as sleep } from "node:timers/promises";
import fc from "fast-check";
import {
  createPartUploader,
  type PartUploader,
  StoredDifferently,
} from "../../../lib/backup/upload.ts";
import {
  type MultipartUpload,
  type ObjectStore,
  type StoredObject,
  StoreError,
  type UploadedPart,
} from "../../../providers/object_store.ts";
import { openStore } from "../../../providers/open.ts";

interface Bench {
  readonly store: ObjectStore;
  readonly root: string;
  /** Part sizes by key, in order of their numbers. */
  readonly parts: Map<string, number[]>;
  /** Multipart uploads begun and neither completed nor aborted. */
  readonly open: Set<MultipartUpload>;
  /** Most parts that were under way at the same time. */
  mostAtOnce: number;
}

/** A local store whose parts can be slow or fail, and that counts. */
async function withBench(
  use: (bench: Bench) => Promise<void>,
  beforePart: (key: string, number: number, signal?: AbortSignal) => Promise<void> = async () => {},
): Promise<void> {
  const root = await mkdtemp(join(tmpdir(), "upload-"));
  const { store } = await openStore(`file://${root}/store`, { env: {} });
  await store.createBucket();
  let atOnce = 0;
  const bench: Bench = { store, root, parts: new Map(), open: new Set(), mostAtOnce: 0 };
  const watched: ObjectStore = {
    ...store,
    async startMultipart(key, options) {
      const upload = await store.startMultipart(key, options);
      const own: MultipartUpload = {
        key,
        async uploadPart(number, body, more): Promise<UploadedPart> {
          atOnce += 1;
          bench.mostAtOnce = Math.max(bench.mostAtOnce, atOnce);
          try {
            await beforePart(key, number, more?.signal);
            const sizes = bench.parts.get(key) ?? [];
            sizes[number - 1] = body.length;
            bench.parts.set(key, sizes);
            return await upload.uploadPart(number, body, more);
          } finally {
            atOnce -= 1;
          }
        },
        async complete(parts, more) {
          const completed = await upload.complete(parts, more);
          bench.open.delete(own);
          return completed;
        },
        async abort(more) {
          await upload.abort(more);
          bench.open.delete(own);
        },
      };
      bench.open.add(own);
      return own;
    },
  };
  try {
    await use({
      ...bench,
      store: watched,
      get mostAtOnce() {
        return bench.mostAtOnce;
      },
    });
  } finally {
    await store.close();
    await rm(root, { recursive: true, force: true });
  }
}

function uploaderFor(
  bench: Bench,
  options: {
    slots?: number;
    partSize?: number;
    signal?: AbortSignal;
    looksAgainMs?: readonly number[];
  } = {},
): PartUploader {
  return createPartUploader({
    store: bench.store,
    slots: options.slots ?? 2,
    partSize: options.partSize ?? 1000,
    signal: options.signal ?? new AbortController().signal,
    onNotice: (message) => assert.fail(message),
    looksAgainMs: options.looksAgainMs,
  });
}

async function* chunks(...sizes: number[]): AsyncGenerator<Uint8Array> {
  let value = 0;
  // One buffer for all, as the tar stream does: the uploader must have copied it.
  const buffer = new Uint8Array(Math.max(0, ...sizes));
  for (const size of sizes) {
    for (let i = 0; i < size; i++) buffer[i] = value++ % 251;
    yield buffer.subarray(0, size);
    buffer.fill(255);
  }
}

async function contentOf(store: ObjectStore, key: string): Promise<number[]> {
  const bytes: number[] = [];
  for await (const chunk of (await store.get(key)).body) bytes.push(...chunk);
  return bytes;
}

Deno.test("parts have the same size but the last, whatever the chunks, and the object is whole", async () => {
  await fc.assert(
    fc.asyncProperty(
      fc.array(fc.integer({ min: 1, max: 5000 }), { maxLength: 8 }),
      fc.integer({ min: 1, max: 3 }),
      async (sizes, slots) => {
        await withBench(async (bench) => {
          const uploader = uploaderFor(bench, { slots });
          await uploader.upload("data", "k", chunks(...sizes));
          await uploader.finish();
          const total = sizes.reduce((sum, size) => sum + size, 0);
          const parts = bench.parts.get("k") ?? [];
          assert.equal(parts.reduce((sum, size) => sum + size, 0), total);
          assert(parts.slice(0, -1).every((size) => size === 1000));
          assert.equal(parts.length, Math.max(1, Math.ceil(total / 1000)));
          assert.deepEqual(
            await contentOf(bench.store, "k"),
            Array.from({ length: total }, (_, i) => i % 251),
          );
          assert.equal(bench.open.size, 0);
        });
      },
    ),
    { numRuns: 25 },
  );
});

Deno.test("a slow store holds the source back: slots parts under way, one being filled", async () => {
  let uploaded = 0;
  await withBench(async (bench) => {
    const uploader = uploaderFor(bench, { slots: 3 });
    let given = 0;
    const source = async function* () {
      for (; given < 20; given++) {
        // Handed over and not yet uploaded, the one that is being filled included.
        assert(given - uploaded <= 4, `${given - uploaded} parts in memory`);
        yield new Uint8Array(1000);
      }
    };
    await uploader.upload("data", "k", source());
    await uploader.finish();
    assert.equal(bench.mostAtOnce, 3);
    assert.equal(uploaded, 20);
  }, async () => {
    await sleep(10);
    uploaded += 1;
  });
});

Deno.test("size and number of parts can be changed until the first upload", async () => {
  await withBench(async (bench) => {
    const uploader = uploaderFor(bench, { slots: 2 });
    uploader.setParts({ slots: 5, partSize: 700 });
    assert.deepEqual([uploader.slots, uploader.capacity()], [5, 700 * bench.store.limits.maxParts]);
    await uploader.upload("data", "k", chunks(7000, 1));
    await uploader.finish();
    assert.deepEqual(bench.parts.get("k"), [...Array(10).fill(700), 1]);
    assert.equal(bench.mostAtOnce, 5);
    assert.throws(() => uploader.setParts({ slots: 1, partSize: 1000 }), /some were uploaded/);
  }, () => sleep(20));
});

Deno.test("the next object begins while the parts of the one before are on their way", async () => {
  await withBench(async (bench) => {
    const uploader = uploaderFor(bench, { slots: 2 });
    await uploader.upload("16384", "a", chunks(10));
    await uploader.upload("data", "b", chunks(10));
    await uploader.finish();
    assert.equal(bench.mostAtOnce, 2);
    const times = uploader.times();
    assert.deepEqual([...times.keys()], ["16384", "data"]);
    for (const { elapsed, serialized } of times.values()) assert(elapsed > 0 && serialized > 0);
  }, () => sleep(50));
});

Deno.test("a part that fails ends everything, and nothing stays on the store", async () => {
  const failure = new Error("Part 3 is refused");
  await withBench(async (bench) => {
    const uploader = uploaderFor(bench);
    await assert.rejects(uploader.upload("data", "k", chunks(...Array(40).fill(500))), failure);
    assert.equal(uploader.signal.reason, failure);
    await assert.rejects(uploader.finish(), failure);
    await assert.rejects(uploader.upload("data", "l", chunks(1)), failure);
    await uploader.abort();
    assert.equal(bench.open.size, 0);
    assert.deepEqual(await filesBelow(bench.root), []);
  }, (_, number) => number === 3 ? Promise.reject(failure) : Promise.resolve());
});

Deno.test("a failure after the last byte is told by finish", async () => {
  const failure = new Error("The last part is refused");
  await withBench(async (bench) => {
    const uploader = uploaderFor(bench);
    await uploader.upload("data", "k", chunks(10));
    await assert.rejects(uploader.finish(), failure);
    await uploader.abort();
    assert.equal(bench.open.size, 0);
  }, async () => {
    await sleep(5);
    throw failure;
  });
});

Deno.test("a source that fails ends everything", async () => {
  await withBench(async (bench) => {
    const uploader = uploaderFor(bench);
    const failure = new Error("Cannot read x");
    const source = async function* () {
      yield new Uint8Array(1500);
      throw failure;
    };
    await assert.rejects(uploader.upload("data", "k", source()), failure);
    await uploader.abort();
    assert.equal(bench.open.size, 0);
  });
});

Deno.test("the signal ends an upload whose source and whose store are both stuck", async () => {
  const controller = new AbortController();
  const stuck = (signal?: AbortSignal) =>
    new Promise<never>((_, reject) => {
      signal?.addEventListener("abort", () => reject(signal.reason));
    });
  await withBench(async (bench) => {
    const uploader = uploaderFor(bench, { signal: controller.signal });
    let closed = false;
    const source = async function* () {
      try {
        yield new Uint8Array(1000);
        setTimeout(() => controller.abort(reason), 20);
        yield await stuck(controller.signal);
      } finally {
        closed = true;
      }
    };
    const reason = new Error("Stopped by SIGTERM");
    await assert.rejects(uploader.upload("data", "k", source()), reason);
    await uploader.abort();
    assert(closed);
    assert.equal(bench.open.size, 0);
    assert.deepEqual(await filesBelow(bench.root), []);
  }, (_key, _number, signal) => stuck(signal));
});

Deno.test("objects that are complete survive a later failure", async () => {
  await withBench(async (bench) => {
    const uploader = uploaderFor(bench);
    await uploader.upload("16384", "a", chunks(10));
    while (bench.open.size > 0) await sleep(1);
    await uploader.upload("data", "b", chunks(10));
    await assert.rejects(uploader.finish(), /refused/);
    await uploader.abort();
    assert.equal(bench.open.size, 0);
    assert.equal((await contentOf(bench.store, "a")).length, 10);
    await assert.rejects(bench.store.head("b"));
  }, (key) => key === "b" ? Promise.reject(new Error("refused")) : Promise.resolve());
});

async function filesBelow(root: string): Promise<string[]> {
  const entries = await readdir(root, { recursive: true, withFileTypes: true });
  return entries.filter((entry) => entry.isFile()).map((entry) => entry.name);
}

Deno.test("what is stored is compared with what was sent, one request an object", async () => {
  await withBench(async (bench) => {
    const heads: string[] = [];
    const store: ObjectStore = {
      ...bench.store,
      head: (key, options) => {
        heads.push(key);
        return bench.store.head(key, options);
      },
    };
    const uploader = uploaderFor({ ...bench, store });
    await uploader.upload("data", "a", chunks(2500));
    await uploader.upload("data", "b", chunks(10));
    await uploader.finish();
    assert.deepEqual(heads.sort(), ["a", "b"]);
    assert.deepEqual(uploader.stored().map(({ key, size }) => [key, size]).sort(), [
      ["a", 2500],
      ["b", 10],
    ]);
  });
});

Deno.test("a store that has something else than what was sent fails the upload and is named", async () => {
  const lies: readonly (readonly [RegExp, (found: StoredObject) => StoredObject])[] = [
    [
      /^k has 2499 bytes in directory .*, but 2500 were sent$/,
      (found) => ({ ...found, size: 2499 }),
    ],
    [/^k has 0 bytes/, (found) => ({ ...found, size: 0 })],
    [/^k in .* is not what was sent: its checksum \(etag\) is e2, not e1$/, (found) => ({
      ...found,
      etag: "e2",
    })],
    [/^k is not in directory .* though the store said that it was stored$/, (found) => {
      throw new StoreError("not-found", `no ${found.key}`);
    }],
  ];
  for (const [message, lie] of lies) {
    await withBench(async (bench) => {
      const store: ObjectStore = {
        ...bench.store,
        head: async (key, options) => lie(await bench.store.head(key, options)),
        async startMultipart(key, options) {
          const upload = await bench.store.startMultipart(key, options);
          return {
            ...upload,
            async complete(parts, more) {
              await upload.complete(parts, more);
              return { etag: "e1" };
            },
          };
        },
      };
      const uploader = uploaderFor({ ...bench, store }, { looksAgainMs: [] });
      await uploader.upload("data", "k", chunks(2500));
      await assert.rejects(uploader.finish(), (error) => {
        assert.ok(error instanceof StoredDifferently);
        assert.match(error.message, message);
        return true;
      });
      await uploader.abort();
    });
  }
});

Deno.test("who may write but not look is warned once, and believes the store", async () => {
  await withBench(async (bench) => {
    const notices: string[] = [];
    const denied = () => Promise.reject(new StoreError("denied", "Access denied"));
    const uploader = createPartUploader({
      store: { ...bench.store, head: denied },
      slots: 2,
      partSize: 1000,
      signal: new AbortController().signal,
      onNotice: (message) => notices.push(message),
    });
    await uploader.upload("data", "a", chunks(10));
    await uploader.upload("data", "b", chunks(10));
    await uploader.finish();
    assert.equal(notices.length, 1);
    assert.match(notices[0] ?? "", /Cannot check .*Access denied/);
  });
});

Deno.test("a store that needs a moment to tell what it has is given one", async () => {
  await withBench(async (bench) => {
    let looks = 0;
    const store: ObjectStore = {
      ...bench.store,
      async head(key, options) {
        looks += 1;
        if (looks === 1) throw new StoreError("not-found", `no ${key}`);
        const found = await bench.store.head(key, options);
        return looks === 2 ? { ...found, size: 7 } : found;
      },
    };
    const uploader = uploaderFor({ ...bench, store }, { looksAgainMs: [1, 1] });
    await uploader.upload("data", "k", chunks(2500));
    await uploader.finish();
    assert.equal(looks, 3);
  });
});
