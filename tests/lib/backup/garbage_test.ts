import assert from "node:assert/strict";
import { createCollector } from "../../../lib/backup/garbage.ts";

const MIB = 1024 ** 2;

Deno.test("garbage is collected each 10 or 40 MiB, and left alone where the runtime can't", () => {
  const before = Reflect.get(globalThis, "gc");
  try {
    let times = 0;
    Reflect.set(globalThis, "gc", () => times++);
    const collect = createCollector("zstd");
    for (let i = 0; i < 7; i++) collect.sent(5 * MIB);
    assert.equal(times, 3);
    collect.sent(100 * MIB);
    assert.equal(times, 4);
    const seldom = createCollector(undefined);
    for (let i = 0; i < 15; i++) seldom.sent(5 * MIB);
    assert.equal(times, 5);
    // Many small files, of which hardly anything is sent, and a large one.
    const files = createCollector("zstd");
    for (let i = 0; i < 3000; i++) files.file(100);
    assert.equal(times, 6);
    files.file(200 * MIB);
    assert.equal(times, 7);
    Reflect.deleteProperty(globalThis, "gc");
    const cannot = createCollector("gzip");
    for (let i = 0; i < 7; i++) cannot.sent(5 * MIB);
    assert.equal(times, 7);
  } finally {
    if (before === undefined) Reflect.deleteProperty(globalThis, "gc");
    else Reflect.set(globalThis, "gc", before);
  }
});
