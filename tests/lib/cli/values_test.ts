import assert from "node:assert/strict";
import fc from "fast-check";
import { OptionValueError } from "../../../lib/cli/options.ts";
import { backupName, csvTag, integer, size, tag } from "../../../lib/cli/values.ts";

Deno.test("sizes: MB counts 1024, MiB 1000, as Barman has it", () => {
  const cases: Record<string, number> = {
    "1": 1,
    "1048576": 1048576,
    "4MB": 4194304,
    "4MiB": 4000000,
    "100GB": 107374182400,
    "1.5GB": 1610612736,
    "10B": 10,
    "4 mb": 4194304,
    "64kb": 65536,
    "1tb": 1099511627776,
    ".5KB": 512,
  };
  for (const [text, bytes] of Object.entries(cases)) assert.equal(size(text), bytes, text);
  for (const text of ["", "0", "-1", "1.5", "MB", "10 X", "0.0001B", "1e3", "10MBB", "4M"]) {
    assert.throws(() => size(text), OptionValueError, text);
  }
});

Deno.test("sizes: every integer is itself, with B or without", () => {
  fc.assert(fc.property(fc.integer({ min: 1, max: 2 ** 40 }), (bytes) => {
    assert.equal(size(String(bytes)), bytes);
    assert.equal(size(`${bytes}B`), bytes);
    assert.equal(size(`${bytes}KB`), bytes * 1024);
    assert.equal(size(`${bytes}KiB`), bytes * 1000);
  }));
});

Deno.test("sizes: any text gives a size of at least 1 or a clear error", () => {
  fc.assert(fc.property(fc.string(), (text) => {
    try {
      assert.ok(size(text) >= 1);
    } catch (error) {
      assert.ok(error instanceof OptionValueError, String(error));
    }
  }));
});

Deno.test("integers are read as Python reads them, within their range", () => {
  const jobs = integer("number of jobs", 1, 100);
  assert.equal(jobs(" 4 "), 4);
  assert.equal(jobs("+4"), 4);
  assert.equal(jobs("1_0"), 10);
  for (const text of ["0", "101", "4.0", "", "x", "0x10", "1__0", "99999999999999999999"]) {
    assert.throws(() => jobs(text), OptionValueError, text);
  }
});

Deno.test("--tag splits at the first comma and strips", () => {
  assert.deepEqual(tag(" key , value "), ["key", "value"]);
  assert.deepEqual(tag("k,"), ["k", ""]);
  for (
    const text of ["", "novalue", ",v", "aws:x,1", "AWS:x,1", "k,ü", "k#,v", `${"k".repeat(129)},v`]
  ) assert.throws(() => tag(text), OptionValueError, text);
  assert.throws(() => tag(`k,${"v".repeat(257)}`), OptionValueError);
});

Deno.test("--tags is a CSV row of exactly two fields", () => {
  assert.deepEqual(csvTag("a,b"), ["a", "b"]);
  assert.deepEqual(csvTag('"b,az",qux'), ["b,az", "qux"]);
  assert.deepEqual(csvTag('"a ""b""",c'), ['a "b"', "c"]);
  for (const text of ["", "a", "a,b,c", "a,b\nc,d"]) {
    assert.throws(() => csvTag(text), OptionValueError, text);
  }
});

Deno.test("backup names can't be empty, ids, shortcuts, or several lines", () => {
  assert.equal(backupName("before upgrade"), "before upgrade");
  for (const text of ["", "20260101T000000", "latest", "auto", "last-failed", "a\nstatus=DONE"]) {
    assert.throws(() => backupName(text), OptionValueError, text);
  }
});
