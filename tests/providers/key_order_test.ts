import assert from "node:assert/strict";
import { Buffer } from "node:buffer";
import fc from "fast-check";
import { compareKeys } from "../../providers/key_order.ts";

Deno.test("keys compare as the bytes of their UTF-8 form", () => {
  const text = fc.string({ unit: fc.constantFrom("a", "b", "é", "\ue000", "\uffee", "😀", "𐀀") });
  fc.assert(fc.property(text, text, (a, b) => {
    const expected = Buffer.compare(Buffer.from(a), Buffer.from(b));
    assert.equal(Math.sign(compareKeys(a, b)), expected);
  }));
});
