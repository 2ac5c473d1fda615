import assert from "node:assert/strict";
import { Readable } from "node:stream";
import { readBody } from "../../providers/body.ts";

const LARGE = 64 * 1024;

Deno.test("chunks that are all of some large memory are taken away when they are used up, if they may be", async () => {
  for (const reuse of [true, false, undefined]) {
    const whole = () => new Uint8Array(LARGE).fill(1);
    const [first, second] = [whole(), whole()];
    const small = new Uint8Array(LARGE - 1).fill(2);
    const part = new Uint8Array(2 * LARGE).fill(3).subarray(0, LARGE);
    const body = readBody(Readable.from([first, small, part, second]), {
      context: { action: "read a" },
      where: "bucket b",
      expected: undefined,
      reuse,
      storeError: (error) => error as Error,
    });
    const sums: number[] = [];
    for await (const chunk of body) sums.push(chunk.reduce((sum, byte) => sum + byte, 0));
    assert.deepEqual(sums, [LARGE, 2 * (LARGE - 1), 3 * LARGE, LARGE]);
    const left = reuse === true ? 0 : LARGE;
    assert.deepEqual([first.length, second.length], [left, left]);
    assert.deepEqual([small.length, part.length], [LARGE - 1, LARGE]);
  }
});
