/** One call fetches several segments; what it leaves for later calls is whole, and the right file. */
import assert from "node:assert/strict";
import { Buffer } from "node:buffer";
import { mkdir, readdir, readFile, rm, truncate, utimes, writeFile } from "node:fs/promises";
import { join } from "node:path";
import { gzipSync } from "node:zlib";
import { answerFromSpool } from "../../../lib/commands/from_spool.ts";
import { command as restore } from "../../../lib/commands/wal_restore.ts";
import { restoreAhead } from "../../../lib/wal/prefetch.ts";
import { parseWalName, segmentNameOf } from "../../../lib/wal/segment.ts";
import { openSpool, spoolPath } from "../../../lib/wal/spool.ts";
import { withCounting } from "../../../providers/counting.ts";
import { type ObjectStore, StoreError } from "../../../providers/object_store.ts";
import { runIn } from "../commands/wal_command_run.ts";
import { altered, type LocalStore, recordingLogger, withLocalStore } from "./stores.ts";
import { MIB, walSegment } from "./wal_files.ts";

const NAMES = Array.from(
  { length: 12 },
  (_, index) => segmentNameOf(BigInt((0xfa + index) * MIB), 1, MIB),
);

async function standby(local: LocalStore) {
  const spool = join(local.directory, "spool");
  const pgWal = join(local.directory, "pg_wal");
  await mkdir(pgWal, { recursive: true });
  const destination = join(pgWal, "RECOVERYXLOG");
  const words = (name: string, ...options: string[]) => [
    ...["-p", "6", "--spool-dir", spool, ...options, local.url, "main", name, destination],
  ];
  return {
    spool,
    destination,
    words,
    async archive(names: readonly string[], seed = 1) {
      for (const [index, name] of names.entries()) {
        const content = walSegment(name, { seed });
        const key = local.layout.wal(name);
        if (index % 2 === 0) await local.store.put(key, content);
        else await local.store.put(`${key}.gz`, gzipSync(content));
      }
    },
    async call(name: string, ...options: string[]) {
      await rm(destination, { force: true });
      const all = words(name, ...options);
      if (await answerFromSpool("wal-restore", all, {})) return { code: 0, quick: true, log: "" };
      const { code, log } = await runIn(restore, all);
      return { code, quick: false, log: log.join("\n") };
    },
    async isThere(name: string, seed = 1) {
      const found = await readFile(destination);
      assert.ok(Buffer.from(walSegment(name, { seed })).equals(found), name);
    },
    async fetched() {
      const parts = await readdir(spool).catch(() => []);
      return (await Promise.all(parts.map((part) => readdir(join(spool, part))))).flat().sort();
    },
  };
}

Deno.test("prefetch: one call fetches the next ones, and their calls answer at once", () =>
  withLocalStore(async (local) => {
    const pg = await standby(local);
    await pg.archive(NAMES);
    const next = NAMES[11] ?? "";
    await local.store.put(`${local.layout.wal(next)}.partial`, walSegment(next, { seed: 3 }));
    const quick: boolean[] = [];
    for (const name of NAMES) {
      const result = await pg.call(name);
      assert.equal(result.code, 0, result.log);
      await pg.isThere(name);
      quick.push(result.quick);
    }
    assert.deepEqual(quick, NAMES.map((_, index) => index % 6 !== 0));
    assert.deepEqual(await pg.fetched(), []);
    // Nothing is fetched for a segment that is not there, and later ones are found when they come.
    const later = segmentNameOf(BigInt(0x106 * MIB), 1, MIB);
    assert.equal((await pg.call(later)).code, 1);
    await pg.archive([later]);
    assert.equal((await pg.call(later)).code, 0);
    await pg.isThere(later);
    assert.equal((await pg.call("00000002.history")).code, 1);
  }));

Deno.test("prefetch: requests of a batch", () =>
  withLocalStore(async (local) => {
    const pg = await standby(local);
    await pg.archive(NAMES);
    const log = recordingLogger();
    const { store, counts } = withCounting(local.store);
    const spool = await spoolPath(pg.spool, ["test"]);
    assert.ok(await openSpool(spool, log));
    const wal = parseWalName(NAMES[0] ?? "");
    assert.ok(wal);
    const request = { wal, destination: pg.destination, partial: true };
    await restoreAhead(store, local.layout, request, { log, spool, files: 6 });
    const { get, list } = counts().calls;
    // One listing finds the file that was asked for, one those that follow.
    assert.deepEqual([get, list], [6, 2]);
  }));

Deno.test("prefetch: what lies in the spool is taken only as the segment that it is", () =>
  withLocalStore(async (local) => {
    const pg = await standby(local);
    await pg.archive(NAMES);
    const [first = "", second = "", third = ""] = NAMES;
    assert.equal((await pg.call(first)).code, 0);
    const [part = ""] = await readdir(pg.spool);
    const file = join(pg.spool, part, second);
    const content = await readFile(file);
    const old = new Date(Date.now() - 7200_000);
    const spoilt: [string, () => Promise<unknown>][] = [
      ["half of it", () => truncate(file, MIB / 2)],
      ["empty", () => truncate(file, 0)],
      ["no WAL", () => writeFile(file, new Uint8Array(MIB))],
      ["another segment", () => writeFile(file, walSegment(third))],
      ["too old", () => utimes(file, old, old)],
    ];
    for (const [what, spoil] of spoilt) {
      await writeFile(file, content);
      await spoil();
      const { code, quick } = await pg.call(second);
      assert.deepEqual([code, quick], [0, false], what);
      await pg.isThere(second);
    }
    assert.equal((await pg.call(third)).quick, true);
    await pg.isThere(third);
    await rm(pg.spool, { recursive: true });
    assert.deepEqual((await pg.call(NAMES[3] ?? "")).code, 0);
    // Another archive has another part of the spool.
    assert.equal((await pg.call(NAMES[4] ?? "", "--no-partial")).quick, false);
  }));

Deno.test("prefetch: standbys at once that share a spool each get every segment", () =>
  withLocalStore(async (local) => {
    const pg = await standby(local);
    await pg.archive(NAMES);
    const replay = async (number: number) => {
      const destination = join(local.directory, `RECOVERYXLOG-${number}`);
      for (const name of NAMES) {
        const words = [...pg.words(name).slice(0, -1), destination];
        const quick = await answerFromSpool("wal-restore", words, {});
        if (!quick) {
          const { code, log } = await runIn(restore, words);
          assert.equal(code, 0, log.join("\n"));
        }
        assert.ok(Buffer.from(walSegment(name)).equals(await readFile(destination)), name);
        await rm(destination);
      }
    };
    await Promise.all([1, 2, 3].map(replay));
  }));

Deno.test("prefetch: a timeline switch leaves nothing behind that is taken for the new timeline", () =>
  withLocalStore(async (local) => {
    const pg = await standby(local);
    await pg.archive(NAMES);
    assert.equal((await pg.call(NAMES[0] ?? "")).code, 0);
    const switched = (NAMES[2] ?? "").replace(/^00000001/, "00000002");
    assert.equal((await pg.call(switched)).code, 1);
    // The first segment of the timeline begins with a page of the old one.
    await local.store.put(
      local.layout.wal(switched),
      walSegment(switched, { timeline: 1, seed: 7 }),
    );
    const after = segmentNameOf(BigInt(0xfd * MIB), 2, MIB);
    await pg.archive([after], 7);
    assert.equal((await pg.call(switched)).code, 0);
    assert.ok(
      Buffer.from(walSegment(switched, { timeline: 1, seed: 7 }))
        .equals(await readFile(pg.destination)),
    );
    const { quick } = await pg.call(after);
    assert.equal(quick, true);
    await pg.isThere(after, 7);
  }));

Deno.test("prefetch: what fails for another segment, or breaks off, leaves nothing and is no failure", () =>
  withLocalStore(async (local) => {
    const pg = await standby(local);
    await pg.archive(NAMES);
    const log = recordingLogger();
    const spool = await spoolPath(pg.spool, ["test"]);
    assert.ok(await openSpool(spool, log));
    const [first = "", second = ""] = NAMES;
    const wal = parseWalName(first);
    assert.ok(wal);
    const store: ObjectStore = altered(local.store, {
      async get(key, options) {
        const reader = await local.store.get(key, options);
        if (!key.includes(second)) return reader;
        return {
          ...reader,
          body: (async function* () {
            yield new Uint8Array(1000);
            throw new StoreError("unreachable", "The connection broke", { key });
          })(),
        };
      },
    });
    const request = { wal, destination: pg.destination, partial: true };
    const result = await restoreAhead(store, local.layout, request, { log, spool, files: 6 });
    assert.equal(result.kind, "restored");
    const names = await readdir(spool);
    assert.ok(!names.some((name) => name.includes(second)), names.join());
    assert.ok(log.lines.some((line) => /^INFO: Did not fetch .* ahead: /.test(line)));
    // The file itself must not fail quietly.
    const failing = altered(local.store, {
      get: () => Promise.reject(new StoreError("unreachable", "No answer")),
    });
    await rm(pg.destination);
    await assert.rejects(
      restoreAhead(failing, local.layout, request, { log, spool, files: 6 }),
      { kind: "unreachable" },
    );
    await assert.rejects(readFile(pg.destination), { code: "ENOENT" });
  }));
