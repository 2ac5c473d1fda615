/**
 * Deletions and keeps of one backup at once, in any order of what they ask the store for, killed at any moment: no keep
 * that succeeded is lost, and no backup.info is there without its archives.
 */
import assert from "node:assert/strict";
import { utimes } from "node:fs/promises";
import { fileURLToPath } from "node:url";
import { DeletionFailed, executeDeletion, planDeletion } from "../../../lib/backup/delete.ts";
import { loadBackupInfo } from "../../../lib/backup/catalogue.ts";
import { keepBackup, KeepRefused, readKeep, releaseKeep } from "../../../lib/backup/keep.ts";
import { parseRetentionPolicy } from "../../../lib/backup/retention.ts";
import type { ObjectStore } from "../../../providers/object_store.ts";
import { recordingLogger, type TemporaryStore, temporaryStore } from "./temporary_store.ts";

const ID = "20260110T000000";
const NEXT = "20260111T000000";
const NOW = new Date("2026-02-01T00:00:00Z");
/** More with `RACES=5000 deno test -A tests/lib/backup/races_test.ts`. */
const SCHEDULES = Number(Deno.env.get("RACES") ?? "60");

/** Lets one call at a time through, of an actor that chance chooses. */
class Schedule {
  readonly #random: (below: number) => number;
  readonly #waiting: { readonly actor: string; readonly go: () => void }[] = [];
  readonly #dead = new Set<string>();
  #atWork = 0;

  readonly #slow: string | undefined;

  /** @param slow an actor that is seldom let through while others wait */
  constructor(seed: number, slow?: string) {
    this.#random = randomNumbers(seed);
    this.#slow = slow;
  }

  below(limit: number): number {
    return this.#random(limit);
  }

  /** Nothing of this actor goes on. */
  kill(actor: string): void {
    this.#dead.add(actor);
  }

  /** The store as an actor sees it. `dies` at that call; later ones never come back. */
  store(store: ObjectStore, actor: string, diesAt = Infinity): ObjectStore {
    let calls = 0;
    const turn = async () => {
      if (++calls >= diesAt) this.kill(actor);
      await new Promise<void>((go) => this.#waiting.push({ actor, go }));
      this.#atWork++;
    };
    const done = () => {
      this.#atWork--;
    };
    const scheduled = <A extends unknown[], R>(call: (...args: A) => Promise<R>) =>
    async (
      ...args: A
    ): Promise<R> => {
      await turn();
      return await call(...args).finally(done);
    };
    return {
      ...store,
      put: scheduled((...args) => store.put(...args)),
      head: scheduled((...args) => store.head(...args)),
      get: scheduled((...args) => store.get(...args)),
      deleteMany: scheduled((...args) => store.deleteMany(...args)),
      async *list(prefix, options) {
        await turn();
        const entries = await Array.fromAsync(store.list(prefix, options)).finally(done);
        yield* entries;
      },
    };
  }

  /** Go on until all actors have ended or are dead. */
  async run(actors: ReadonlyMap<string, Promise<unknown>>): Promise<void> {
    const running = new Set(actors.keys());
    for (const [actor, end] of actors) end.finally(() => running.delete(actor));
    for (let idle = 0; idle < 2000;) {
      for (const actor of this.#dead) running.delete(actor);
      if (running.size === 0) return;
      const able = this.#waiting.filter(({ actor }) => !this.#dead.has(actor));
      // All that are alive must have come to their next call, or chance would choose among those that are fast.
      if (this.#atWork > 0 || able.length < running.size) {
        await new Promise((resolve) => setTimeout(resolve, idle < 20 ? 0 : 2));
        // An actor may wait for time, not for the store.
        if (++idle < 40 || able.length === 0 || this.#atWork > 0) continue;
      }
      idle = 0;
      const slow = able.filter(({ actor }) => actor === this.#slow);
      const fast = able.filter(({ actor }) => actor !== this.#slow);
      const from = slow.length > 0 && fast.length > 0 ? (this.below(10) === 0 ? slow : fast) : able;
      const chosen = from[this.below(from.length)];
      if (chosen === undefined) continue;
      this.#waiting.splice(this.#waiting.indexOf(chosen), 1);
      chosen.go();
    }
    throw new Error("The schedule does not go on");
  }
}

type Outcome = "done" | "refused" | "killed";

function deletion(temporary: TemporaryStore, store: ObjectStore, policy = false): Promise<Outcome> {
  const { layout } = temporary;
  const context = { store, layout, log: recordingLogger(), signal: new AbortController().signal };
  return outcomeOf((async () => {
    const plan = await planDeletion(
      context,
      policy
        ? { kind: "policy", policy: parseRetentionPolicy("REDUNDANCY 1") }
        : { kind: "backup", argument: ID },
      { minimumRedundancy: 0, now: NOW },
    );
    await executeDeletion(context, plan, {
      minimumRedundancy: 0,
      now: () => NOW,
      batchSize: 1,
      checkObjectLock: false,
      deleteSnapshots: () => Promise.reject(new Error("no snapshots")),
    });
  })());
}

function keep(temporary: TemporaryStore, store: ObjectStore): Promise<Outcome> {
  const { layout } = temporary;
  return outcomeOf((async () => {
    const info = await loadBackupInfo(store, layout, ID);
    if (info === null) throw new KeepRefused("there is none");
    await keepBackup(store, layout, { id: ID, info }, "full", { patienceMs: 20 });
  })());
}

async function outcomeOf(work: Promise<void>): Promise<Outcome> {
  try {
    await work;
    return "done";
  } catch (error) {
    if (error instanceof DeletionFailed || error instanceof KeepRefused) return "refused";
    throw error;
  }
}

async function prepared(): Promise<TemporaryStore> {
  const temporary = await temporaryStore();
  await temporary.addBackup(ID, "begin_wal=000000010000000000000002\ntimeline=1");
  await temporary.put(temporary.layout.archive(ID, "data", 1, "tar"), "more");
  await temporary.addBackup(NEXT, "begin_wal=000000010000000000000005\ntimeline=1");
  await temporary.addWal("000000010000000000000002", "000000010000000000000005");
  return temporary;
}

/** What is there of the backup. */
async function stateOf(temporary: TemporaryStore) {
  const keys = await temporary.keys();
  const names = keys.filter((key) => key.startsWith(`srv/base/${ID}/`))
    .map((key) => key.slice(`srv/base/${ID}/`.length));
  return {
    info: names.includes("backup.info"),
    whole: names.includes("data.tar") && names.includes("data_0001.tar"),
    nothing: !names.some((name) => /^(backup\.info|data|deletion-)/.test(name)),
    marks: names.filter((name) => name.startsWith("deletion-")),
    kept: await readKeep(temporary.store, temporary.layout, ID) !== null,
    wal: keys.some((key) => key.endsWith("/000000010000000000000002")),
  };
}

Deno.test("a keep and two deletions at once, in many orders: no keep is lost, no backup.info dangles", async () => {
  const tally = new Map<string, number>();
  for (let seed = 1; seed <= SCHEDULES; seed++) {
    await using temporary = await prepared();
    // A keep has far fewer calls, and would usually be the first.
    const schedule = new Schedule(seed, seed % 3 === 0 ? undefined : "keep");
    const as = (actor: string) => schedule.store(temporary.store, actor);
    const actors = new Map([
      ["keep", keep(temporary, as("keep"))],
      ["delete", deletion(temporary, as("delete"))],
      ...(seed % 2 === 0 ? [["policy", deletion(temporary, as("policy"), true)] as const] : []),
    ]);
    await schedule.run(actors);
    const kept = await actors.get("keep");
    const deleted = await Promise.all(
      [...actors].filter(([actor]) => actor !== "keep").map(([, end]) => end),
    );
    const state = await stateOf(temporary);
    const told = `seed ${seed}: keep ${kept}, deletions ${deleted}: ${JSON.stringify(state)}`;
    if (kept === "done") {
      assert.ok(state.info && state.whole && state.kept && state.wal, `lost: ${told}`);
      assert.deepEqual(state.marks, [], told);
    }
    if (deleted.includes("done") && kept !== "done" && !state.info) {
      assert.ok(state.nothing, told);
    }
    // There is always one that gets its way.
    assert.ok(kept === "done" || !state.info || state.kept, told);
    if (state.info) assert.ok(state.whole, `dangling: ${told}`);
    const outcome = `keep ${kept}, backup ${state.info ? "there" : "gone"}`;
    tally.set(outcome, (tally.get(outcome) ?? 0) + 1);
  }
  console.log(`keep and delete at once: ${JSON.stringify(Object.fromEntries(tally))}`);
  assert.ok((tally.get("keep done, backup there") ?? 0) > SCHEDULES / 20);
  assert.ok((tally.get("keep refused, backup gone") ?? 0) > SCHEDULES / 20);
});

Deno.test("a deletion that is killed at any call: a later keep is right, and a later deletion finishes", async () => {
  const tally = { keptAfterwards: 0, halfDeleted: 0, gone: 0 };
  for (let diesAt = 1;; diesAt++) {
    await using temporary = await prepared();
    const schedule = new Schedule(diesAt);
    const actors = new Map([
      ["delete", deletion(temporary, schedule.store(temporary.store, "delete", diesAt))],
    ]);
    await schedule.run(actors);
    const before = await stateOf(temporary);
    if (before.marks.length > 0) {
      // While it could still be at work, nobody is told that the backup is kept.
      assert.equal(await keep(temporary, temporary.store), "refused");
      await releaseKeep(temporary.store, temporary.layout, ID);
      await age(temporary, before.marks);
    }
    const kept = await keep(temporary, temporary.store);
    const state = await stateOf(temporary);
    const told = `died at ${diesAt}: ${kept} ${JSON.stringify(state)}`;
    if (before.info && before.whole) {
      assert.equal(kept, "done", told);
      assert.ok(state.kept && state.whole && state.marks.length === 0, told);
      tally.keptAfterwards++;
      assert.equal(await deletion(temporary, temporary.store), "refused");
    } else {
      assert.equal(kept, "refused", told);
      assert.equal(state.kept, false, told);
      if (before.info) tally.halfDeleted++;
      else tally.gone++;
      assert.equal(await deletion(temporary, temporary.store), "done");
      // What is left when it died after backup.info is swept up by cleanup.
      if (before.info) assert.ok((await stateOf(temporary)).nothing, told);
    }
    if (before.nothing && !before.wal) break;
  }
  console.log(`kill -9 of a deletion: ${JSON.stringify(tally)}`);
  assert.ok(tally.keptAfterwards > 3 && tally.halfDeleted >= 1 && tally.gone >= 1);
});

async function age(temporary: TemporaryStore, marks: readonly string[]): Promise<void> {
  for (const mark of marks) {
    const path = fileURLToPath(`${temporary.url}/srv/base/${ID}/${mark}`);
    await utimes(path, Date.now() / 1000 - 7200, Date.now() / 1000 - 7200);
  }
}

Deno.test("two deletions at once leave the minimum redundancy", async () => {
  for (let seed = 1; seed <= SCHEDULES / 3; seed++) {
    await using temporary = await prepared();
    const schedule = new Schedule(seed);
    const { layout } = temporary;
    const remove = (id: string) => {
      const store = schedule.store(temporary.store, id);
      const context = {
        store,
        layout,
        log: recordingLogger(),
        signal: new AbortController().signal,
      };
      return outcomeOf((async () => {
        const plan = await planDeletion(context, { kind: "backup", argument: id }, {
          minimumRedundancy: 1,
          now: NOW,
        });
        await executeDeletion(context, plan, {
          minimumRedundancy: 1,
          now: () => NOW,
          batchSize: null,
          checkObjectLock: false,
          deleteSnapshots: () => Promise.reject(new Error("no snapshots")),
        });
      })());
    };
    const actors = new Map([[ID, remove(ID)], [NEXT, remove(NEXT)]]);
    await schedule.run(actors);
    const left = (await temporary.keys()).filter((key) => key.endsWith("backup.info"));
    assert.ok(left.length >= 1, `seed ${seed}`);
  }
});

Deno.test("WAL that a backup being taken, or just completed, needs is left", async () => {
  for (const kind of ["running", "completed", "dead", "later"] as const) {
    await using temporary = await prepared();
    const { layout } = temporary;
    // Its id is later than all others, its WAL begins before that of the next one.
    const other = "20260112T000000";
    const begin = kind === "later" ? "000000010000000000000006" : "000000010000000000000001";
    const mark = JSON.stringify({ host: "db1", pid: 1, beginWal: begin });
    const plan = async () => {
      const log = recordingLogger();
      const context = {
        store: temporary.store,
        layout,
        log,
        signal: new AbortController().signal,
      };
      const planned = await planDeletion(context, { kind: "backup", argument: ID }, {
        minimumRedundancy: 0,
        now: NOW,
      });
      return { context, planned, log };
    };
    const { context, planned, log } = await plan();
    if (kind === "completed") {
      await temporary.addBackup(other, `begin_wal=${begin}\ntimeline=1`);
    } else {
      await temporary.put(layout.runningMark(other), mark);
    }
    const now = kind === "dead" ? new Date(Date.now() + 25 * 3600_000) : new Date();
    await executeDeletion(context, planned, {
      minimumRedundancy: 0,
      now: () => now,
      batchSize: null,
      checkObjectLock: false,
      deleteSnapshots: () => Promise.reject(new Error("no snapshots")),
    });
    const state = await stateOf(temporary);
    assert.equal(state.info, false);
    assert.equal(state.wal, kind === "running" || kind === "completed", kind);
    const why = log.lines.find((line) => /^INFO WAL is left as it is: /.test(line));
    assert.equal(why !== undefined, state.wal, log.lines.join("\n"));
  }
});

/** Whole numbers from 0 to below a limit, the same for the same seed (mulberry32). */
function randomNumbers(seed: number): (below: number) => number {
  let state = seed | 0;
  return (below) => {
    state = (state + 0x6d2b79f5) | 0;
    let mixed = Math.imul(state ^ (state >>> 15), 1 | state);
    mixed = (mixed + Math.imul(mixed ^ (mixed >>> 7), 61 | mixed)) ^ mixed;
    return Math.floor(((mixed ^ (mixed >>> 14)) >>> 0) / 2 ** 32 * below);
  };
}
