/** A file of the archive is never replaced by a different one: on every store that can be had. */
import assert from "node:assert/strict";
import { Buffer } from "node:buffer";
import { mkdtemp, readFile, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { COMPRESSION_NAMES, type CompressionName } from "../../../lib/compression/table.ts";
import { serverLayout } from "../../../lib/layout.ts";
import {
  type ArchivedWal,
  archiveWal,
  planArchive,
  WalConflictError,
} from "../../../lib/wal/archive.ts";
import { restoreWal } from "../../../lib/wal/restore.ts";
import { parseWalName } from "../../../lib/wal/segment.ts";
import { withCounting } from "../../../providers/counting.ts";
import { type ObjectStore, StoreError } from "../../../providers/object_store.ts";
import { everyStore } from "./every_store.ts";
import { altered, keysOf, readObject, recordingLogger, settle, walBytes } from "./stores.ts";
import { MIB, walSegment } from "./wal_files.ts";

const stores = await everyStore();
const layout = serverLayout("pre/fix", "main");
const SEGMENT = "000000010000000A00000001";
const KEY = layout.wal(SEGMENT);

interface Subject {
  readonly store: ObjectStore;
  /** Another connection to the same bucket. */
  another(): Promise<ObjectStore>;
  archive(
    name: string,
    content: Uint8Array,
    compression?: CompressionName | null,
    store?: ObjectStore,
    overwrite?: boolean,
  ): Promise<ArchivedWal>;
}

function onEveryStore(name: string, test: (subject: Subject) => Promise<void>): void {
  for (const kind of stores) {
    Deno.test(`${name} (${kind.name})`, async () => {
      const directory = await mkdtemp(join(tmpdir(), "barman-cloud-create-only-"));
      const bucket = await kind.newBucket();
      const opened: ObjectStore[] = [];
      const open = async () => {
        const store = await kind.open(bucket);
        opened.push(store);
        return store;
      };
      let files = 0;
      try {
        const store = await open();
        await test({
          store,
          another: open,
          async archive(name, content, compression = null, using = store, overwrite = false) {
            const path = join(directory, `${++files}-${name}`);
            await writeFile(path, content);
            const wal = parseWalName(name);
            assert.ok(wal);
            const plan = planArchive(layout, { path, wal, compression, overwrite });
            return await archiveWal(using, plan, { log: recordingLogger() });
          },
        });
        await store.deleteMany(await keysOf(store));
      } finally {
        for (const store of opened) await store.close();
        await rm(directory, { recursive: true, force: true });
      }
    });
  }
}

const FILES: readonly [string, Uint8Array, Uint8Array][] = [
  [SEGMENT, walSegment(SEGMENT), walSegment(SEGMENT, { seed: 2 })],
  [`${SEGMENT}.partial`, walSegment(SEGMENT), walSegment(SEGMENT, { seed: 2 })],
  ["0000000100000000000000FF", walBytes(100), walBytes(101)],
  ["00000002.history", text("1\t0/5000000\tno\n"), text("1\t0/6000000\tno\n")],
  [`${SEGMENT}.00000028.backup`, text("START WAL LOCATION: 0/1"), text("START WAL LOCATION: 0/")],
];

onEveryStore(
  "create-only: the same content is fine, another is refused, nothing changes",
  async (subject) => {
    const { store, archive } = subject;
    for (const [name, content, other] of FILES) {
      assert.equal((await archive(name, content)).outcome, "stored");
      const keys = await keysOf(store);
      for (const compression of [null, ...COMPRESSION_NAMES]) {
        const again = await archive(name, content, compression);
        assert.deepEqual([again.outcome, again.key], ["already-there", layout.wal(name)]);
        await assert.rejects(
          archive(name, other, compression),
          (error) =>
            error instanceof WalConflictError &&
            /^Refused to archive .* is there and (differs|has).*Nothing was changed/.test(
              error.message,
            ),
          `${name} ${compression}`,
        );
      }
      assert.deepEqual(await keysOf(store), keys);
      assert.ok(Buffer.from(content).equals(await readObject(store, layout.wal(name))));
      assert.equal((await archive(name, other, null, store, true)).outcome, "stored");
      assert.ok(Buffer.from(other).equals(await readObject(store, layout.wal(name))));
    }
  },
);

onEveryStore("create-only: of 16 archivers with different content one wins", async (subject) => {
  // Each with its own connection and its own compression at first sight: all the same key.
  for (const [name, compression] of [[SEGMENT, "zstd"], ["0000000A.history", null]] as const) {
    const contents = Array.from(
      { length: 16 },
      (_, seed) =>
        name === SEGMENT ? walSegment(name, { seed: seed + 1 }) : text(`1\t0/${seed}000000\tno\n`),
    );
    const results = await Promise.allSettled(
      contents.map(async (content) =>
        await subject.archive(name, content, compression, await subject.another())
      ),
    );
    const winners = results.flatMap(({ status }, index) => status === "fulfilled" ? [index] : []);
    assert.equal(winners.length, 1, JSON.stringify(results));
    for (const result of results) {
      assert.ok(
        result.status === "fulfilled" || result.reason instanceof WalConflictError,
        String(
          result.status === "rejected" ? result.reason : "",
        ),
      );
    }
    const winner = contents[winners[0] ?? -1];
    assert.ok(winner);
    const directory = await mkdtemp(join(tmpdir(), "barman-cloud-create-only-"));
    const destination = join(directory, "restored");
    const wal = parseWalName(name);
    assert.ok(wal);
    const request = { wal, destination, partial: false };
    await restoreWal(subject.store, layout, request, { log: recordingLogger() });
    assert.ok(Buffer.from(winner).equals(await readFile(destination)));
    await rm(directory, { recursive: true });
  }
});

onEveryStore(
  "create-only: of 16 archivers with different content and compression one wins, from the first segment on",
  async (subject) => {
    const compressions = [null, "zstd", "gzip", "lz4"] as const;
    for (const name of [SEGMENT, "000000010000000A00000002", "0000000A.history"]) {
      const contents = Array.from(
        { length: 16 },
        (_, seed) =>
          name.endsWith(".history")
            ? text(`1\t0/${seed}000000\tno\n`)
            : walSegment(name, { seed: seed + 1 }),
      );
      const results = await Promise.allSettled(
        contents.map(async (content, index) =>
          await subject.archive(
            name,
            content,
            compressions[index % compressions.length],
            await subject.another(),
          )
        ),
      );
      const there = (await keysOf(subject.store)).filter((key) => key.includes(name));
      const failures = results.flatMap((result) =>
        result.status === "rejected" ? [result.reason] : []
      );
      for (const failure of failures) assert.ok(failure instanceof WalConflictError, `${failure}`);
      assert.equal(failures.length, 15, there.join());
      // Neither a second copy nor a claim is left.
      assert.equal(there.length, 1, there.join());
    }
  },
);

onEveryStore(
  "create-only: 16 archivers with the same content and any compression all succeed",
  async (subject) => {
    const content = walSegment(SEGMENT);
    const compressions = [null, "zstd", "gzip", "lz4"] as const;
    await Promise.all(
      Array.from(
        { length: 16 },
        async (_, index) =>
          await subject.archive(
            SEGMENT,
            content,
            compressions[index % compressions.length],
            await subject.another(),
          ),
      ),
    );
    const keys = (await keysOf(subject.store)).filter((key) => key.includes(SEGMENT));
    assert.ok(keys.length >= 1 && keys.every((key) => key.startsWith(KEY)), keys.join());
  },
);

onEveryStore(
  "create-only: a claim that a killed archiver left lets the same file through, and no other",
  async (subject) => {
    const { store, archive } = subject;
    const history = "0000000B.history";
    const content = text("1\t0/5000000\tno\n");
    // The archiver dies after its claim: nothing more reaches the store.
    const dying = altered(await subject.another(), {
      async put(key, body, options) {
        if (key.includes("/wals/")) throw new StoreError("unreachable", "The archiver was killed");
        await store.put(key, body, options);
      },
    });
    await assert.rejects(archive(history, content, "gzip", dying), /was killed/);
    await assert.rejects(
      archive(history, text("1\t0/6000000\tno\n"), "zstd"),
      (error) =>
        error instanceof WalConflictError && /is being archived \(.*wal-claims/.test(error.message),
    );
    assert.equal((await archive(history, content, "zstd")).outcome, "stored");
    assert.deepEqual(await keysOf(store), [`${layout.wal(history)}.zst`]);
  },
);

onEveryStore("create-only: 16 archivers with the same content all succeed", async (subject) => {
  const content = walSegment(SEGMENT);
  const outcomes = await Promise.all(
    Array.from(
      { length: 16 },
      async () => (await subject.archive(SEGMENT, content, "lz4", await subject.another())).outcome,
    ),
  );
  assert.equal(outcomes.filter((outcome) => outcome === "stored").length, 1);
});

onEveryStore("create-only: segments too large for one request, too", async (subject) => {
  const size = 64 * MIB;
  const name = "000000010000000A00000002";
  const content = walSegment(name, { size });
  assert.equal((await subject.archive(name, content)).outcome, "stored");
  assert.equal((await subject.archive(name, content)).outcome, "already-there");
  await assert.rejects(
    subject.archive(name, walSegment(name, { size, seed: 3 })),
    WalConflictError,
  );
  assert.ok(Buffer.from(content).equals(await readObject(subject.store, layout.wal(name))));
});

onEveryStore("create-only: requests of a push", async (subject) => {
  const { store, counts } = withCounting(await subject.another());
  const requests = async (work: Promise<unknown>) => {
    const before = { ...counts().calls };
    await work;
    const after = Object.entries(counts().calls);
    return Object.fromEntries(
      after.map(([call, count]) => [call, count - (Reflect.get(before, call) ?? 0)])
        .filter(([, count]) => count !== 0),
    );
  };
  await subject.archive(SEGMENT, walSegment(SEGMENT), "zstd", store);
  await settle(subject.store, layout);
  const next = "000000010000000A00000003";
  const again = (compression: CompressionName) =>
    requests(subject.archive(next, walSegment(next), compression, store));
  assert.deepEqual(await again("zstd"), { get: 1, put: 1 });
  // A segment that is there: the put is refused, and the object is read.
  assert.deepEqual(await again("zstd"), { get: 2, put: 1 });
  // Another compression for the first time is recorded, and looked for from then on.
  assert.deepEqual(await again("lz4"), { get: 2, put: 1, list: 1 });
  assert.deepEqual(await again("lz4"), { get: 2, list: 1 });
  // With several in use a new file is claimed first.
  await settle(subject.store, layout);
  const third = "000000010000000A00000004";
  assert.deepEqual(await requests(subject.archive(third, walSegment(third), "lz4", store)), {
    ...{ get: 1, list: 2, put: 2, deleteMany: 2 },
  });
  const history = text("1\t0/5000000\tno\n");
  assert.deepEqual(await requests(subject.archive("00000002.history", history, null, store)), {
    ...{ list: 2, put: 2, deleteMany: 2 },
  });
});

const directory = stores.find(({ name }) => name === "directory");
assert.ok(directory);

async function withStore(
  changes: (store: ObjectStore) => Partial<ObjectStore>,
  test: (subject: {
    readonly store: ObjectStore;
    archive(name: string, content: Uint8Array): Promise<ArchivedWal>;
    readonly lines: readonly string[];
  }) => Promise<void>,
): Promise<void> {
  if (directory === undefined) return;
  const folder = await mkdtemp(join(tmpdir(), "barman-cloud-create-only-"));
  const real = await directory.open(await directory.newBucket());
  const store = altered(real, changes(real));
  const log = recordingLogger();
  try {
    await test({
      store,
      lines: log.lines,
      async archive(name, content) {
        const path = join(folder, name);
        await writeFile(path, content);
        const wal = parseWalName(name);
        assert.ok(wal);
        const plan = planArchive(layout, { path, wal, compression: null });
        return await archiveWal(store, plan, { log });
      },
    });
  } finally {
    await real.close();
    await rm(folder, { recursive: true });
  }
}

Deno.test("create-only: a store that ignores the condition is found out once, and looked at first", () =>
  withStore((real) => ({
    capabilities: { ...real.capabilities, looksFirst: true },
    // As the S3 provider does for a store that drops If-None-Match: looks, unless told that it need not.
    async put(key, body, options = {}) {
      const { createOnly, conditionKept, ...rest } = options;
      if (createOnly && !conditionKept && await isThere(real, key)) {
        throw new StoreError("exists", `${key} is there`, { key });
      }
      await real.put(key, body, rest);
    },
  }), async ({ store, archive, lines }) => {
    await archive(SEGMENT, walSegment(SEGMENT));
    const identity = new TextDecoder().decode(await readObject(store, layout.identity));
    assert.equal(JSON.parse(identity).conditionalWrites.result, "ignored");
    assert.ok(lines.some((line) => /^WARNING: .* ignores the condition/.test(line)));
    await assert.rejects(archive(SEGMENT, walSegment(SEGMENT, { seed: 2 })), WalConflictError);
    assert.equal((await archive(SEGMENT, walSegment(SEGMENT))).outcome, "already-there");
    assert.ok(Buffer.from(walSegment(SEGMENT)).equals(await readObject(store, KEY)));
    assert.equal(lines.filter((line) => /ignores the condition/.test(line)).length, 1);
  }));

Deno.test("create-only: who may only write is let in, with a warning, and replaces nothing", () => {
  const denied = () => new StoreError("denied", "Access denied");
  return withStore(() => ({
    get: () => Promise.reject(denied()),
    head: () => Promise.reject(denied()),
    // deno-lint-ignore require-yield -- it fails before
    async *list() {
      throw await Promise.resolve(denied());
    },
  }), async ({ archive, lines }) => {
    assert.equal((await archive(SEGMENT, walSegment(SEGMENT))).outcome, "stored");
    assert.ok(lines.some((line) => /^WARNING: Cannot check whether the archive/.test(line)));
    await assert.rejects(
      archive(SEGMENT, walSegment(SEGMENT)),
      (error) =>
        error instanceof WalConflictError && /can't be told without permission/.test(error.message),
    );
  });
});

Deno.test("create-only: who may create but not replace may send a segment twice", () =>
  withStore((real) => ({
    async put(key, body, options = {}) {
      if (await isThere(real, key)) throw new StoreError("denied", `May not replace ${key}`);
      await real.put(key, body, options);
    },
  }), async ({ archive }) => {
    assert.equal((await archive(SEGMENT, walSegment(SEGMENT))).outcome, "stored");
    assert.equal((await archive(SEGMENT, walSegment(SEGMENT))).outcome, "already-there");
    await assert.rejects(archive(SEGMENT, walSegment(SEGMENT, { seed: 2 })), WalConflictError);
  }));

Deno.test("create-only: a damaged object is not replaced either", () =>
  withStore(() => ({}), async ({ store, archive }) => {
    await store.put(`${KEY}.gz`, text("no gzip at all"));
    await assert.rejects(
      archive(SEGMENT, walBytes(1000)),
      (error) => error instanceof WalConflictError && /is damaged/.test(error.message),
    );
    assert.deepEqual(await keysOf(store), [`${KEY}.gz`]);
  }));

async function isThere(store: ObjectStore, key: string): Promise<boolean> {
  for await (const entry of store.list(key)) {
    if (entry.kind === "object" && entry.key === key) return true;
  }
  return false;
}

function text(content: string): Uint8Array {
  return new TextEncoder().encode(content);
}
