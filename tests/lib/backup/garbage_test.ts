import assert from "node:assert/strict";
import { createCollector } from "../../../lib/backup/garbage.ts";

const MIB = 1024 ** 2;

Deno.test("garbage is collected each 10 MiB, and left alone where the runtime can't", () => {
  const before = Reflect.get(globalThis, "gc");
  try {
    let times = 0;
    Reflect.set(globalThis, "gc", () => times++);
    const collect = createCollector();
    for (let i = 0; i < 7; i++) collect(5 * MIB);
    assert.equal(times, 3);
    collect(100 * MIB);
    assert.equal(times, 4);
    Reflect.deleteProperty(globalThis, "gc");
    const cannot = createCollector();
    for (let i = 0; i < 7; i++) cannot(5 * MIB);
    assert.equal(times, 4);
  } finally {
    if (before === undefined) Reflect.deleteProperty(globalThis, "gc");
    else Reflect.set(globalThis, "gc", before);
  }
});
