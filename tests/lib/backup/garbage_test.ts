import assert from "node:assert/strict";
import { createCollector } from "../../../lib/backup/garbage.ts";

const MIB = 1024 ** 2;

Deno.test("garbage is collected each 40 MiB, and left alone where the runtime can't", () => {
  const before = Reflect.get(globalThis, "gc");
  try {
    let times = 0;
    Reflect.set(globalThis, "gc", () => times++);
    const collect = createCollector();
    for (let i = 0; i < 15; i++) collect.sent(5 * MIB);
    assert.equal(times, 1);
    collect.sent(100 * MIB);
    assert.equal(times, 2);
    // Small archives are one part each.
    for (let i = 0; i < 9; i++) collect.sent(1000);
    assert.equal(times, 3);
    // Many small files, of which hardly anything is sent, and a large one.
    const files = createCollector();
    for (let i = 0; i < 1100; i++) files.file(100);
    assert.equal(times, 4);
    files.file(700 * MIB);
    assert.equal(times, 5);
    Reflect.deleteProperty(globalThis, "gc");
    const cannot = createCollector();
    for (let i = 0; i < 15; i++) cannot.sent(5 * MIB);
    assert.equal(times, 5);
  } finally {
    if (before === undefined) Reflect.deleteProperty(globalThis, "gc");
    else Reflect.set(globalThis, "gc", before);
  }
});
