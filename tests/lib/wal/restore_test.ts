import assert from "node:assert/strict";
import { Buffer } from "node:buffer";
import { readdir, readFile } from "node:fs/promises";
import { join } from "node:path";
import fc from "fast-check";
import { COMPRESSION_NAMES, COMPRESSIONS, compressStream } from "../../../lib/compression/table.ts";
import { CorruptDataError } from "../../../lib/compression/corrupt_data_error.ts";
import { noLargerThanWal, OversizedWal } from "../../../lib/wal/largest_file.ts";
import { chooseCandidates, restoreWal } from "../../../lib/wal/restore.ts";
import { parseWalName, type WalName } from "../../../lib/wal/segment.ts";
import { StoreError } from "../../../providers/object_store.ts";
import {
  altered,
  type LocalStore,
  pieces,
  recordingLogger,
  walBytes,
  withLocalStore,
} from "./stores.ts";

const NAME = "00000001000000000000000A";
const FOLDER = "main/wals/0000000100000000/";
const SUFFIXES = ["", ...Object.values(COMPRESSIONS).map((compression) => compression.walSuffix)];

function wal(name: string): WalName {
  const parsed = parseWalName(name);
  assert.ok(parsed);
  return parsed;
}

/** Restore into the local store's directory, with a log that is kept. */
async function restore(
  local: Pick<LocalStore, "store" | "layout" | "directory">,
  { name = NAME, partial = true, signal }: {
    name?: string;
    partial?: boolean;
    signal?: AbortSignal;
  } = {},
) {
  const log = recordingLogger();
  const destination = join(local.directory, "RECOVERYXLOG");
  const request = { wal: wal(name), destination, partial };
  const result = await restoreWal(local.store, local.layout, request, { signal, log });
  return { result, log, content: result.kind === "restored" ? await readFile(destination) : null };
}

async function put(
  { store }: LocalStore,
  name: string,
  content: Uint8Array,
  folder = FOLDER,
): Promise<void> {
  const compression = COMPRESSION_NAMES.find((codec) =>
    name.endsWith(COMPRESSIONS[codec].walSuffix)
  );
  const stored: Uint8Array[] = [];
  const source = pieces(content, 65536);
  for await (const chunk of compression ? compressStream(compression, source) : source) {
    stored.push(chunk);
  }
  await store.put(`${folder}${name}`, Buffer.concat(stored));
}

Deno.test("wal-restore: a complete segment of any suffix comes before a partial of any suffix", () => {
  fc.assert(fc.property(
    fc.uniqueArray(fc.constantFrom(...SUFFIXES)),
    fc.uniqueArray(fc.constantFrom(...SUFFIXES)),
    fc.boolean(),
    (complete, partials, partial) => {
      const keys = [
        ...complete.map((suffix) => `${FOLDER}${NAME}${suffix}`),
        ...partials.map((suffix) => `${FOLDER}${NAME}.partial${suffix}`),
        `${FOLDER}${NAME}.00000028.backup.gz`,
        `${FOLDER}${NAME}.unknown`,
      ];
      for (const order of [keys, [...keys].sort(), [...keys].reverse()]) {
        const chosen = chooseCandidates(order, FOLDER, wal(NAME), partial);
        assert.equal(chosen.length, complete.length + (partial ? partials.length : 0));
        assert.deepEqual(
          chosen.map((candidate) => candidate.partial),
          chosen.map((_, index) => index >= complete.length),
        );
        assert.deepEqual(
          chosen,
          chooseCandidates([...keys].sort(), FOLDER, wal(NAME), partial),
          "the choice does not depend on the order of the listing",
        );
        for (const { key, compression } of chosen) {
          assert.ok(compression === null || key.endsWith(COMPRESSIONS[compression].walSuffix));
        }
      }
    },
  ));
});

Deno.test("wal-restore: from an archive with the complete segment and its partial (Barman takes the partial)", async () => {
  for (const suffix of ["", ".snappy", ".zst", ".gz", ".lz4"]) {
    await withLocalStore(async (local) => {
      await put(local, `${NAME}.partial`, walBytes(1000, 2));
      await put(local, `${NAME}.partial.gz`, walBytes(1000, 3));
      await put(local, `${NAME}${suffix}`, walBytes(1000, 1));
      assert.deepEqual((await restore(local)).content, Buffer.from(walBytes(1000, 1)));
    });
  }
});

Deno.test("wal-restore: the compression is that of the chosen object (Barman keeps that of a skipped one)", () =>
  withLocalStore(async (local) => {
    await put(local, `${NAME}.00000028.backup.gz`, walBytes(300, 5));
    await put(local, `${NAME}.partial.gz`, walBytes(1000, 2));
    await put(local, NAME, walBytes(1000, 1));
    for (const partial of [true, false]) {
      const { content, log } = await restore(local, { partial });
      assert.deepEqual(content, Buffer.from(walBytes(1000, 1)));
      assert.deepEqual(log.lines.filter((line) => line.startsWith("WARNING")), []);
    }
  }));

Deno.test("wal-restore: a partial only when nothing else is there and it is wanted", () =>
  withLocalStore(async (local) => {
    await put(local, `${NAME}.partial.zst`, walBytes(1000, 2));
    assert.deepEqual((await restore(local)).content, Buffer.from(walBytes(1000, 2)));
    assert.deepEqual((await restore(local, { partial: false })).result, { kind: "not-found" });
    // Asked for by its own name it is what is wanted.
    const { content } = await restore(local, { partial: false, name: `${NAME}.partial` });
    assert.deepEqual(content, Buffer.from(walBytes(1000, 2)));
  }));

Deno.test("wal-restore: history and backup label files, plain and compressed", () =>
  withLocalStore(async (local) => {
    await put(local, "00000002.history.gz", walBytes(40, 1), "main/wals/");
    await put(local, "00000003.history", walBytes(41, 1), "main/wals/");
    await put(local, `${NAME}.00000028.backup.lz4`, walBytes(42, 1));
    for (
      const [name, size] of [
        ["00000002.history", 40],
        ["00000003.history", 41],
        [`${NAME}.00000028.backup`, 42],
      ] as const
    ) assert.deepEqual((await restore(local, { name })).content, Buffer.from(walBytes(size, 1)));
    // A label is not the segment that it belongs to.
    assert.equal((await restore(local)).result.kind, "not-found");
    assert.equal((await restore(local, { name: "00000004.history" })).result.kind, "not-found");
  }));

Deno.test("wal-restore: strangers beside the segment are told and ignored", () =>
  withLocalStore(async (local) => {
    await put(local, `${NAME}.tmp`, walBytes(10));
    const { result, log } = await restore(local);
    assert.equal(result.kind, "not-found");
    assert.deepEqual(log.lines, [`WARNING: Not a WAL file, ignored: ${FOLDER}${NAME}.tmp`]);
  }));

Deno.test("wal-restore: one listing and one read", () =>
  withLocalStore(async (local) => {
    await put(local, `${NAME}.gz`, walBytes(1000));
    const requests: string[] = [];
    const store = altered(local.store, {
      list(prefix, options) {
        requests.push(`list ${prefix} ${options?.delimiter}`);
        return local.store.list(prefix, options);
      },
      get(key, options) {
        requests.push(`get ${key}`);
        return local.store.get(key, options);
      },
      head: () => assert.fail("not needed"),
      bucketExists: () => assert.fail("not needed"),
    });
    await restore({ ...local, store });
    assert.deepEqual(requests, [`list ${FOLDER}${NAME} /`, `get ${FOLDER}${NAME}.gz`]);
  }));

Deno.test("wal-restore: an object that vanished between listing and read makes room for the next", () =>
  withLocalStore(async (local) => {
    await put(local, NAME, walBytes(1000, 1));
    await put(local, `${NAME}.gz`, walBytes(1000, 2));
    const vanishing = (...names: string[]) => {
      let read = false;
      return altered(local.store, {
        async *list(prefix, options) {
          for await (const entry of local.store.list(prefix, options)) {
            const key = entry.kind === "object" ? entry.key : "";
            if (!read || !names.some((name) => key === `${FOLDER}${name}`)) yield entry;
          }
        },
        get(key, options) {
          const gone = names.some((name) => key === `${FOLDER}${name}`);
          read = true;
          if (gone) return Promise.reject(new StoreError("not-found", `No ${key}`, { key }));
          return local.store.get(key, options);
        },
      });
    };
    const one = await restore({ ...local, store: vanishing(NAME) });
    assert.deepEqual(one.content, Buffer.from(walBytes(1000, 2)));
    const both = await restore({ ...local, store: vanishing(NAME, `${NAME}.gz`) });
    assert.deepEqual(both.result, { kind: "not-found" });
  }));

Deno.test("wal-restore: an object that stays listed and can't be read is an error, not an absence", () =>
  withLocalStore(async (local) => {
    await put(local, NAME, walBytes(1000));
    const store = altered(local.store, {
      get: (key) => Promise.reject(new StoreError("not-found", `No ${key}`, { key })),
    });
    await assert.rejects(restore({ ...local, store }), { name: "StoreError", kind: "not-found" });
  }));

Deno.test("wal-restore: damaged data is passed over for another complete object, never for a partial", () =>
  withLocalStore(async (local) => {
    await local.store.put(`${FOLDER}${NAME}.lz4`, walBytes(1000));
    await put(local, `${NAME}.partial`, walBytes(1000, 3));
    await assert.rejects(restore(local), CorruptDataError);
    assert.deepEqual(await readdir(local.directory), ["bucket"]);

    await put(local, `${NAME}.gz`, walBytes(1000, 2));
    const { content, log } = await restore(local);
    assert.deepEqual(content, Buffer.from(walBytes(1000, 2)));
    assert.ok(log.lines.some((line) => /^WARNING: .*\.lz4 is damaged/.test(line)));
  }));

Deno.test("wal-restore: truncated objects of every codec are an error and leave nothing", () =>
  withLocalStore(async (local) => {
    for (const codec of COMPRESSION_NAMES) {
      const key = `${FOLDER}${NAME}${COMPRESSIONS[codec].walSuffix}`;
      await put(local, key.slice(FOLDER.length), walBytes(200_000));
      const { object, body } = await local.store.get(key);
      const chunks: Uint8Array[] = [];
      for await (const chunk of body) chunks.push(chunk);
      for (const size of [object.size - 1, object.size >> 1, 1]) {
        await local.store.put(key, Buffer.concat(chunks).subarray(0, size));
        await assert.rejects(restore(local), CorruptDataError, `${codec} cut at ${size}`);
        assert.deepEqual(await readdir(local.directory), ["bucket"]);
      }
      await local.store.deleteMany([key]);
    }
  }));

Deno.test("wal-restore: a body that breaks or stops early leaves nothing at the destination", () =>
  withLocalStore(async (local) => {
    for (const suffix of ["", ".gz", ".zst"]) {
      const name = `${NAME}${suffix}`;
      await put(local, name, walBytes(600_000));
      const controller = new AbortController();
      const breaking = (act: () => void) =>
        altered(local.store, {
          async get(key, options) {
            const { object, body } = await local.store.get(key, options);
            return {
              object,
              body: async function* () {
                for await (const chunk of body) {
                  yield chunk.subarray(0, chunk.length >> 1);
                  act();
                  return;
                }
              }(),
            };
          },
        });
      const lost = breaking(() => {
        throw new StoreError("unreachable", "Connection reset");
      });
      await assert.rejects(restore({ ...local, store: lost }), /Connection reset/);
      await assert.rejects(restore({ ...local, store: breaking(() => {}) }));
      const stopped = breaking(() => controller.abort(new Error("Stopped by SIGTERM")));
      await assert.rejects(
        restore({ ...local, store: stopped }, { signal: controller.signal }),
        /Stopped by SIGTERM|received \d+ of/,
      );
      assert.deepEqual(await readdir(local.directory), ["bucket"]);
      await local.store.deleteMany([`${FOLDER}${name}`]);
    }
  }));

Deno.test("wal-restore: a store that can't tell is an error, not an absence", () =>
  withLocalStore(async (local) => {
    for (const kind of ["unreachable", "unavailable", "denied", "no-bucket", "other"] as const) {
      const store = altered(local.store, {
        // deno-lint-ignore require-yield -- it fails before the first entry
        list: async function* () {
          await Promise.reject(new StoreError(kind, "no answer"));
        },
      });
      await assert.rejects(restore({ ...local, store }), { name: "StoreError", kind });
    }
  }));

Deno.test("what decompresses to more than a file of its name has does not fill the disk", () =>
  withLocalStore(async (local) => {
    const before = await readdir(local.directory);
    await put(local, "00000002.history.zst", new Uint8Array(17 * 1024 ** 2), "main/wals/");
    await assert.rejects(restore(local, { name: "00000002.history" }), (error) => {
      assert.ok(error instanceof OversizedWal);
      assert.match(error.message, /00000002\.history\.zst: it holds more than 16777216 bytes/);
      return true;
    });
    await put(local, "00000003.history.zst", new Uint8Array(16 * 1024 ** 2), "main/wals/");
    assert.equal(
      (await restore(local, { name: "00000003.history" })).content?.length,
      16 * 1024 ** 2,
    );
    assert.deepEqual(
      (await readdir(local.directory)).filter((name) => !before.includes(name)),
      ["RECOVERYXLOG"],
    );
  }));

Deno.test("a segment has at most a gigabyte", async () => {
  const chunk = new Uint8Array(64 * 1024 ** 2);
  async function* content(count: number) {
    for (let i = 0; i < count; i++) yield await Promise.resolve(chunk);
  }
  const sizeOf = async (count: number) => {
    let size = 0;
    for await (const { length } of noLargerThanWal(`${FOLDER}${NAME}.gz`, content(count))) {
      size += length;
    }
    return size;
  };
  assert.equal(await sizeOf(16), 1024 ** 3);
  await assert.rejects(sizeOf(17), OversizedWal);
});
