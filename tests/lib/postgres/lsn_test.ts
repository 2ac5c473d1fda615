import assert from "node:assert/strict";
import fc from "fast-check";
import {
  addToLsn,
  compareLsn,
  formatLsn,
  lsnDistance,
  lsnOf,
  parseLsn,
  segmentOffset,
} from "../../../lib/postgres/lsn.ts";

Deno.test("LSN: text and back, padded or not, in either case", () => {
  const any = fc.bigInt(0n, 2n ** 64n - 1n);
  fc.assert(fc.property(any, (value) => {
    const lsn = lsnOf(value);
    const text = formatLsn(lsn);
    assert.match(text, /^(0|[1-9A-F][0-9A-F]{0,7})\/(0|[1-9A-F][0-9A-F]{0,7})$/);
    assert.equal(parseLsn(text), value);
    assert.equal(parseLsn(text.toLowerCase()), value);
    const [high = "", low = ""] = text.split("/");
    assert.equal(parseLsn(`${high}/${low.padStart(8, "0")}`), value);
  }));
});

Deno.test("LSN: order and distance", () => {
  const any = fc.bigInt(0n, 2n ** 63n);
  fc.assert(fc.property(any, any, (a, b) => {
    assert.equal(Math.sign(compareLsn(lsnOf(a), lsnOf(b))), a < b ? -1 : a > b ? 1 : 0);
    assert.equal(addToLsn(lsnOf(a), lsnDistance(lsnOf(a), lsnOf(b))), b);
  }));
});

Deno.test("LSN: examples", () => {
  assert.equal(parseLsn("2/80000028"), 0x2_8000_0028n);
  assert.equal(formatLsn(parseLsn("00000002/00000028")), "2/28");
  assert.equal(formatLsn(lsnOf(0n)), "0/0");
  assert.equal(segmentOffset(parseLsn("2/91000158"), 16 * 1024 ** 2), 0x158);
});

Deno.test("LSN: what is none", () => {
  for (
    const text of ["", "/", "1", "1/", "/1", "1/123456789", "123456789/1", "G/1", " 1/1", "1/1\n"]
  ) {
    assert.throws(() => parseLsn(text), RangeError, text);
  }
  assert.throws(() => lsnOf(-1n), RangeError);
  assert.throws(() => addToLsn(lsnOf(2n ** 64n - 1n), 1), RangeError);
});
