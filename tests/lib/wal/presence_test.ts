import assert from "node:assert/strict";
import { setTimeout as sleep } from "node:timers/promises";
import fc from "fast-check";
import { missingWal, spanOf, spanText, waitForWal } from "../../../lib/wal/presence.ts";
import { nameOf } from "../../../lib/wal/scan.ts";
import { withCounting } from "../../../providers/counting.ts";
import { type LocalStore, withLocalStore } from "./stores.ts";
import { MIB } from "./wal_files.ts";

const SPAN = { timeline: 2, first: 3, last: 9, segmentSize: MIB };
const signal = new AbortController().signal;

function add({ store, layout }: LocalStore, number: number, suffix = "", timeline = 2) {
  return store.put(layout.wal(nameOf(number, timeline, MIB)) + suffix, new Uint8Array(1));
}

Deno.test("what a backup needs: an end at the beginning of a segment needs nothing of that one", () => {
  const span = (start: bigint, end: bigint) => spanOf(start, end, 1, 16 * MIB);
  assert.deepEqual(span(0x2000028n, 0x3000138n), {
    timeline: 1,
    segmentSize: 16 * MIB,
    first: 2,
    last: 3,
  });
  assert.equal(span(0x2000028n, 0x3000000n).last, 2);
  assert.equal(span(0x3000000n, 0x3000000n).last, 3);
  assert.equal(spanText(SPAN, { first: 3, last: 3 }), "000000020000000000000003");
});

Deno.test("what is missing is found, whatever else is there", () =>
  withLocalStore(async (local) => {
    const { store, layout } = local;
    const present = new Set<number>();
    await add(local, 5, "", 1);
    await add(local, 5, "", 3);
    await add(local, 4, ".partial");
    await add(local, 6, ".00000028.backup");
    await store.put(`${layout.wals}00000003.history`, new Uint8Array(1));
    await fc.assert(
      fc.asyncProperty(fc.integer({ min: 0, max: 12 }), async (number) => {
        if (!present.delete(number)) {
          present.add(number);
          await add(local, number, number % 2 === 0 ? ".gz" : "");
        } else {
          await store.deleteMany([
            layout.wal(nameOf(number, 2, MIB)) + (number % 2 === 0 ? ".gz" : ""),
          ]);
        }
        const expected: number[] = [];
        for (let i = SPAN.first; i <= SPAN.last; i++) if (!present.has(i)) expected.push(i);
        const missing = await missingWal(store, layout, SPAN, { signal });
        const found = (missing?.ranges.items ?? []).flatMap(({ first, last }) =>
          Array.from({ length: last - first + 1 }, (_, i) => first + i)
        );
        assert.deepEqual(found, expected);
        assert.equal(missing?.segments ?? 0, expected.length);
      }),
      { numRuns: 150 },
    );
  }));

Deno.test("waiting ends when all is there, when the time is over, and at once where there is nothing", () =>
  withLocalStore(async (local) => {
    const { store, layout } = local;
    let waits = 0;
    const wait = (timeoutMs: number, given: AbortSignal = signal) =>
      waitForWal(store, layout, SPAN, { timeoutMs, signal: given, onWaiting: () => waits++ });
    // A day would be noticed.
    assert.equal((await wait(86_400_000))?.segments, 7);
    assert.equal(waits, 0);
    for (const number of [3, 4, 6, 7, 8]) await add(local, number);
    assert.equal((await wait(0))?.segments, 2);
    assert.equal(waits, 0);
    const late = (async () => {
      await sleep(100);
      await add(local, 5);
      await sleep(700);
      await add(local, 9, ".zst");
    })();
    assert.equal(await wait(86_400_000), null);
    assert.equal(waits, 1);
    await late;
    await store.deleteMany([`${layout.wal(nameOf(9, 2, MIB))}.zst`]);
    assert.equal((await wait(600))?.segments, 1);
    const controller = new AbortController();
    setTimeout(() => controller.abort(new Error("enough")), 50);
    await assert.rejects(wait(86_400_000, controller.signal), /enough/);
  }));

Deno.test("one listing tells that nothing is missing", () =>
  withLocalStore(async (local) => {
    for (let number = 1; number <= 12; number++) await add(local, number);
    const { store, counts } = withCounting(local.store);
    const options = { timeoutMs: 1000, signal, onWaiting: () => assert.fail("waits") };
    assert.equal(await waitForWal(store, local.layout, SPAN, options), null);
    assert.deepEqual(counts().calls, { list: 1 });
  }));
