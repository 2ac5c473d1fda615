/** One call archives several segments; nothing is acknowledged that the archive does not hold. */
import assert from "node:assert/strict";
import { Buffer } from "node:buffer";
import {
  chmod,
  mkdir,
  readdir,
  readFile,
  rename,
  rm,
  stat,
  utimes,
  writeFile,
} from "node:fs/promises";
import { join } from "node:path";
import { command as archive } from "../../../lib/commands/wal_archive.ts";
import { answerFromSpool } from "../../../lib/commands/from_spool.ts";
import { archiveWal, planArchive } from "../../../lib/wal/archive.ts";
import { archiveAhead, readyAfter } from "../../../lib/wal/look_ahead.ts";
import { parseWalName, segmentNameOf } from "../../../lib/wal/segment.ts";
import { openSpool, spoolPath } from "../../../lib/wal/spool.ts";
import { withCounting } from "../../../providers/counting.ts";
import { type ObjectStore, StoreError } from "../../../providers/object_store.ts";
import { runIn } from "../commands/wal_command_run.ts";
import {
  altered,
  keysOf,
  type LocalStore,
  readObject,
  recordingLogger,
  settle,
  withLocalStore,
} from "./stores.ts";
import { MIB, type Segment, walSegment } from "./wal_files.ts";

const NAMES = Array.from(
  { length: 12 },
  (_, index) => segmentNameOf(BigInt((0xfa + index) * MIB), 1, MIB),
);

interface Cluster {
  readonly pgWal: string;
  readonly spool: string;
  path(name: string): string;
  make(name: string, options?: Segment): Promise<Uint8Array>;
  ready(...names: string[]): Promise<void>;
  done(name: string): Promise<void>;
  words(name: string, ...options: string[]): string[];
  /** As the executable: from the spool if that works, else by the command. */
  call(name: string, ...options: string[]): Promise<{ code: number; quick: boolean; log: string }>;
}

async function cluster(local: LocalStore, name = "pg"): Promise<Cluster> {
  const pgWal = join(local.directory, name, "pg_wal");
  const status = join(pgWal, "archive_status");
  const spool = join(local.directory, `spool-${name}`);
  await mkdir(status, { recursive: true });
  const self: Cluster = {
    pgWal,
    spool,
    path: (name) => join(pgWal, name),
    async make(name, options) {
      const content = walSegment(name, options);
      await writeFile(join(pgWal, name), content);
      return content;
    },
    async ready(...names) {
      for (const name of names) await writeFile(join(status, `${name}.ready`), "");
    },
    done: (name) => rename(join(status, `${name}.ready`), join(status, `${name}.done`)),
    words: (name, ...options) => [
      ...["--look-ahead", "8", "--spool-dir", spool, ...options, local.url, "main"],
      join(pgWal, name),
    ],
    async call(name, ...options) {
      const words = self.words(name, ...options);
      if (await answerFromSpool("wal-archive", words, {})) return { code: 0, quick: true, log: "" };
      const { code, log } = await runIn(archive, words);
      return { code, quick: false, log: log.join("\n") };
    },
  };
  return self;
}

async function notes({ spool }: Cluster): Promise<string[]> {
  const parts = await readdir(spool).catch(() => []);
  const names = await Promise.all(parts.map((part) => readdir(join(spool, part))));
  return names.flat().sort();
}

Deno.test("look-ahead: one call archives the next ones, and their calls answer at once", () =>
  withLocalStore(async (local) => {
    const pg = await cluster(local);
    const contents = new Map<string, Uint8Array>();
    for (const name of NAMES) contents.set(name, await pg.make(name));
    await pg.ready(...NAMES, "00000002.history", `${NAMES[0]}.00000028.backup`);
    const quick: boolean[] = [];
    for (const name of NAMES) {
      const result = await pg.call(name);
      assert.equal(result.code, 0, result.log);
      quick.push(result.quick);
      const stored = await readObject(local.store, local.layout.wal(name));
      assert.ok(Buffer.from(contents.get(name) ?? []).equals(stored), name);
      await pg.done(name);
    }
    assert.deepEqual(quick, NAMES.map((_, index) => index % 8 !== 0));
    assert.equal((await keysOf(local.store)).length, NAMES.length + 1);
  }));

Deno.test("look-ahead: requests of a batch", () =>
  withLocalStore(async (local) => {
    const pg = await cluster(local);
    for (const name of NAMES) await pg.make(name);
    await pg.ready(...NAMES);
    const log = recordingLogger();
    const { store, counts } = withCounting(local.store);
    const spool = await spoolPath(pg.spool, ["test"]);
    assert.ok(await openSpool(spool, log));
    const planOf = (path: string) => {
      const wal = parseWalName(path.slice(-24));
      assert.ok(wal);
      return planArchive(local.layout, { path, wal, compression: "zstd" });
    };
    const run = (name = "") =>
      archiveAhead(store, planOf(pg.path(name)), planOf, { log, spool, files: 6 });
    await run(NAMES[0]);
    await settle(local.store, local.layout);
    const before = counts().calls;
    await run(NAMES[6]);
    const { get = 0, put = 0, list = 0 } = counts().calls;
    assert.deepEqual(
      [get - (before.get ?? 0), put - (before.put ?? 0), list - (before.list ?? 0)],
      [1, 6, 0],
    );
  }));

Deno.test("look-ahead: a note is believed for the very file only", () =>
  withLocalStore(async (local) => {
    const pg = await cluster(local);
    const [first = "", second = "", third = ""] = NAMES;
    for (const name of [first, second, third]) await pg.make(name);
    await pg.ready(first, second, third);
    assert.equal((await pg.call(first)).code, 0);
    assert.deepEqual(await notes(pg), [second, third]);
    assert.equal((await pg.call(second)).quick, true);
    // PostgreSQL asks again when it crashed after the answer.
    assert.equal((await pg.call(second)).quick, true);
    const [part = ""] = await readdir(pg.spool);
    const file = join(pg.spool, part, second);
    const text = await readFile(file, "utf8");

    const spoilt: [string, () => Promise<unknown>][] = [
      ["half of it", () => writeFile(file, text.slice(0, 40))],
      ["without its end", () => writeFile(file, text.slice(0, -2))],
      ["empty", () => writeFile(file, "")],
      ["garbage", () => writeFile(file, "\0".repeat(100))],
      ["another file's", async () => writeFile(file, await readFile(join(pg.spool, part, third)))],
      ["old", () => writeFile(file, text.replace(/^\d+/, String(Date.now() - 7200_000)))],
      ["of the future", () => writeFile(file, text.replace(/^\d+/, String(Date.now() + 7200_000)))],
      ["where others may write", () => chmod(join(pg.spool, part), 0o777)],
      ["below a directory where others may write", async () => {
        await chmod(join(pg.spool, part), 0o700);
        await chmod(pg.spool, 0o777);
      }],
    ];
    for (const [what, spoil] of spoilt) {
      await spoil();
      const { code, quick } = await pg.call(second);
      assert.deepEqual([code, quick], [0, false], what);
    }
    await chmod(pg.spool, 0o700);
    await writeFile(file, text);
    assert.equal((await pg.call(second)).quick, true, "as it was");

    // Other words are another archive, or another way to store.
    for (const option of ["--zstd", "--no-wal-check"]) {
      assert.equal((await pg.call(second, option)).quick, false, option);
    }
    assert.equal(
      await answerFromSpool("wal-archive", pg.words(second), {
        AWS_PROFILE: "other",
      }),
      false,
    );
    // The same name with other content: a new cluster in the old place, with the same times, too.
    const { atime, mtime } = await stat(pg.path(second));
    await rm(pg.path(second));
    await pg.make(second, { seed: 2 });
    await utimes(pg.path(second), atime, mtime);
    const { code, quick, log } = await pg.call(second);
    assert.deepEqual([code, quick], [4, false], log);
    // A wiped spool costs time only.
    await rm(pg.spool, { recursive: true });
    assert.deepEqual(await pg.call(third), {
      code: 0,
      quick: false,
      log: (await pg.call(third)).log,
    });
  }));

Deno.test("look-ahead: a segment that was written over in place has no note", () =>
  withLocalStore(async (local) => {
    const pg = await cluster(local);
    const [first = "", second = ""] = NAMES;
    await pg.make(first);
    await pg.make(second);
    await pg.ready(first, second);
    await pg.call(first);
    await new Promise((resolve) => setTimeout(resolve, 20));
    await pg.make(second, { seed: 2 });
    assert.deepEqual(await pg.call(second).then(({ code, quick }) => [code, quick]), [4, false]);
  }));

Deno.test("look-ahead: what fails for another file is left to its own call", () =>
  withLocalStore(async (local) => {
    const pg = await cluster(local);
    const [first = "", second = "", third = "", fourth = ""] = NAMES;
    for (const name of [first, third, fourth]) await pg.make(name);
    // The second is of another cluster, the fourth is there with other content, one has no file.
    await pg.make(second, { systemIdentifier: 5n });
    await local.store.put(local.layout.wal(fourth), walSegment(fourth, { seed: 9 }));
    await local.store.put(
      local.layout.wal("000000010000000000000001"),
      walSegment("000000010000000000000001"),
    );
    await pg.ready(first, second, third, fourth, NAMES[5] ?? "");
    const { code, log } = await pg.call(first);
    assert.equal(code, 0, log);
    assert.deepEqual(await notes(pg), [third]);
    assert.equal((await pg.call(second)).code, 4);
    assert.equal((await pg.call(third)).quick, true);
    assert.equal((await pg.call(fourth)).code, 4);
  }));

Deno.test("look-ahead: no note before the store has confirmed, none when the own file fails", () =>
  withLocalStore(async (local) => {
    const pg = await cluster(local);
    for (const name of NAMES) await pg.make(name);
    await pg.ready(...NAMES);
    const log = recordingLogger();
    const spool = await spoolPath(pg.spool, ["test"]);
    assert.ok(await openSpool(spool, log));
    const planOf = (path: string) => {
      const wal = parseWalName(path.slice(-24));
      assert.ok(wal);
      return planArchive(local.layout, { path, wal, compression: null });
    };
    const [first = ""] = NAMES;
    const failing = (fails: (key: string) => boolean): ObjectStore =>
      altered(local.store, {
        async put(key, body, options) {
          if (fails(key)) throw new StoreError("unavailable", `No answer for ${key}`, { key });
          await local.store.put(key, body, options);
          for (const name of await readdir(spool)) {
            // Whatever is noted is there by now. (A note that is being written has another name.)
            if (!name.endsWith(".tmp")) await local.store.head(local.layout.wal(name));
          }
        },
      });
    const run = (store: ObjectStore) =>
      archiveAhead(store, planOf(pg.path(first)), planOf, { log, spool, files: 8 });
    await run(failing((key) => /[05]$/.test(key)));
    const noted = (await readdir(spool)).sort();
    assert.deepEqual(noted, NAMES.slice(1, 8).filter((name) => !/[05]$/.test(name)));
    await local.store.deleteMany(await keysOf(local.store));
    await rm(spool, { recursive: true });
    assert.ok(await openSpool(spool, log));
    await assert.rejects(run(failing((key) => key.endsWith(first))), { kind: "unavailable" });
    for (const name of await readdir(spool)) await local.store.head(local.layout.wal(name));
  }));

Deno.test("look-ahead: the order of PostgreSQL, over timelines, and nothing but segments", () =>
  withLocalStore(async (local) => {
    const pg = await cluster(local);
    await pg.ready(
      ...["0000000200000000000000FF", "0000000200000001000000AA", "000000010000000000000005"],
      ...["00000003.history", "000000010000000000000009.partial", "0000000200000000000000FE"],
    );
    const after = async (name: string, count: number) =>
      (await readyAfter(pg.path(name), count)).map((path) => path.slice(-24));
    assert.deepEqual(await after("000000010000000000000005", 5), [
      "0000000200000000000000FE",
      "0000000200000000000000FF",
      "0000000200000001000000AA",
    ]);
    assert.deepEqual(await after("0000000200000000000000FE", 1), ["0000000200000000000000FF"]);
    assert.deepEqual(await readyAfter(join(local.directory, "elsewhere", "x"), 5), []);
  }));

Deno.test("look-ahead: callers at once, each with its own spool or the same", () =>
  withLocalStore(async (local) => {
    const pg = await cluster(local);
    for (const name of NAMES) await pg.make(name);
    await pg.ready(...NAMES);
    const results = await Promise.all([...NAMES, ...NAMES].map((name) => pg.call(name)));
    assert.deepEqual(results.filter(({ code }) => code !== 0), []);
    assert.equal((await keysOf(local.store)).length, NAMES.length + 1);
  }));

Deno.test("look-ahead: a spool that can't be used is done without, with a warning", () =>
  withLocalStore(async (local) => {
    const pg = await cluster(local);
    const [first = "", second = ""] = NAMES;
    await pg.make(first);
    await pg.make(second);
    await pg.ready(first, second);
    await writeFile(pg.spool, "a file");
    const { code, log } = await pg.call(first);
    assert.equal(code, 0);
    assert.match(log, /WARNING: Cannot use the spool .*going on without it/);
    assert.equal((await keysOf(local.store)).length, 2);
    const refused = await runIn(archive, pg.words(first, "--overwrite"));
    assert.equal(refused.code, 3);
    assert.match(refused.log.join(), /--look-ahead is not allowed with --overwrite/);
  }));

Deno.test("look-ahead: a file that is archived by hand from elsewhere is archived alone", () =>
  withLocalStore(async (local) => {
    const name = NAMES[0] ?? "";
    const path = join(local.directory, name);
    await writeFile(path, walSegment(name));
    const words = [
      "--look-ahead=4",
      `--spool-dir=${local.directory}/spool`,
      local.url,
      "main",
      path,
    ];
    assert.equal((await runIn(archive, words)).code, 0);
    const wal = parseWalName(name);
    assert.ok(wal);
    const plan = planArchive(local.layout, { path, wal, compression: null });
    assert.equal(
      (await archiveWal(local.store, plan, { log: recordingLogger() })).outcome,
      "already-there",
    );
  }));
