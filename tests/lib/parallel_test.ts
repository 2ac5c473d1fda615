import assert from "node:assert/strict";
import { setTimeout as sleep } from "node:timers/promises";
import { mapInParallel } from "../../lib/parallel.ts";

Deno.test("results are in order, and no more than the limit run at once", async () => {
  let running = 0;
  let most = 0;
  const results = await mapInParallel(Array.from({ length: 20 }, (_, n) => n), 4, async (n) => {
    most = Math.max(most, ++running);
    await sleep((7 * n) % 5);
    running--;
    return n * n;
  });
  assert.deepEqual(results, Array.from({ length: 20 }, (_, n) => n * n));
  assert.equal(most, 4);
});

Deno.test("after a failure nothing is begun, and what runs is waited for", async () => {
  const begun: number[] = [];
  let ended = 0;
  let closed = false;
  async function* numbers() {
    try {
      for (let n = 0; n < 100; n++) {
        await Promise.resolve();
        yield n;
      }
    } finally {
      closed = true;
    }
  }
  const call = async (n: number) => {
    begun.push(n);
    await sleep(n === 1 ? 1 : 20);
    ended++;
    if (n === 1) throw new Error("one");
  };
  await assert.rejects(mapInParallel(numbers(), 3, call), /one/);
  assert.equal(ended, begun.length);
  assert.ok(begun.length <= 4);
  assert.ok(closed);
});
