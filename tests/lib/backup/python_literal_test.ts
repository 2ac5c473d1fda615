import assert from "node:assert/strict";
import fc from "fast-check";
import {
  formatPythonFloat,
  formatPythonLiteral,
  MalformedLiteral,
  parsePythonLiteral,
  type PyDict,
  PyFloat,
  PyTuple,
  type PyValue,
} from "../../../lib/backup/python_literal.ts";

/** Text as Python's `repr` writes it, and the value. */
const REPRS: readonly (readonly [string, PyValue])[] = [
  ["None", null],
  ["True", true],
  ["False", false],
  ["0", 0],
  ["-17", -17],
  ["9007199254740991", 9007199254740991],
  ["9007199254740993", 9007199254740993n],
  ["-10000000000000000000000000", -10000000000000000000000000n],
  ["47.1", new PyFloat(47.1)],
  ["1.0", new PyFloat(1)],
  ["-0.0", new PyFloat(-0)],
  ["1e-05", new PyFloat(0.00001)],
  ["0.0001", new PyFloat(0.0001)],
  ["1e+16", new PyFloat(1e16)],
  ["9999999999999998.0", new PyFloat(9999999999999998)],
  ["1.2345e+22", new PyFloat(1.2345e22)],
  ["5e-324", new PyFloat(5e-324)],
  ["1.7976931348623157e+308", new PyFloat(Number.MAX_VALUE)],
  ["''", ""],
  ["'plain'", "plain"],
  [`"it's fast"`, "it's fast"],
  [`'say "hi"'`, 'say "hi"'],
  [String.raw`'both \' and "'`, `both ' and "`],
  [String.raw`'a\\b\n\t\r\x00\x7f\xa0\u200b'`, "a\\b\n\t\r\0\x7f\xa0\u200b"],
  ["'é日😀'", "é日😀"],
  [String.raw`'\ud800'`, "\ud800"],
  [String.raw`'\U000e0001'`, "\u{e0001}"],
  ["[]", []],
  ["()", new PyTuple([])],
  ["(1,)", new PyTuple([1])],
  [
    `[('ts1', 16384, '/srv/ts1'), ("it's fast", 16385, '/srv/fast')]`,
    [new PyTuple(["ts1", 16384, "/srv/ts1"]), new PyTuple(["it's fast", 16385, "/srv/fast"])],
  ],
  ["{}", new Map()],
  [
    "{'total_time': 12.5, 'number_of_workers': 2, 'items': {'data': 0}}",
    new Map<PyValue, PyValue>([
      ["total_time", new PyFloat(12.5)],
      ["number_of_workers", 2],
      ["items", new Map([["data", 0]])],
    ]),
  ],
];

Deno.test("reads and writes what repr writes", () => {
  for (const [text, value] of REPRS) {
    assert.deepEqual(parsePythonLiteral(text), value, text);
    assert.equal(formatPythonLiteral(value), text);
  }
});

Deno.test("reads other spellings of the same values", () => {
  const spellings: readonly (readonly [string, PyValue])[] = [
    [" [ 1 ,2 , ] ", [1, 2]],
    ["(1, 2,)", new PyTuple([1, 2])],
    ["(1)", 1],
    ["((1,))", new PyTuple([1])],
    ["{ 'a' :1, }", new Map([["a", 1]])],
    ["{1: 'a', None: 'b'}", new Map<PyValue, PyValue>([[1, "a"], [null, "b"]])],
    [String.raw`"it\'s" ' two'`, "it's two"],
    [String.raw`'\101\a\q'`, "A\x07\\q"],
    ["+5", 5],
    ["-0", 0],
    ["1_000", 1000],
    ["1e5", new PyFloat(100000)],
    [".5", new PyFloat(0.5)],
    ["5.", new PyFloat(5)],
  ];
  for (const [text, value] of spellings) assert.deepEqual(parsePythonLiteral(text), value, text);
});

Deno.test("refuses what is no literal", () => {
  const texts = [
    "",
    "null",
    "true",
    "[1",
    "[1 2]",
    "[,]",
    "{'a'}",
    "{'a' 1}",
    "{[]: 1}",
    "'open",
    "'a\nb'",
    String.raw`'\x1'`,
    String.raw`'\U00110000'`,
    String.raw`'\N{DASH}'`,
    "1 2",
    "01",
    "1-2",
    "--1",
    ".",
    "+",
    "1__0",
    "e5",
    "print(1)",
    "__import__('os')",
    "9".repeat(5000),
  ];
  for (const text of texts) {
    assert.throws(() => parsePythonLiteral(text), MalformedLiteral, text.slice(0, 40));
  }
});

Deno.test("hostile input ends quickly", () => {
  const deep = "[".repeat(1_000_000);
  assert.throws(() => parsePythonLiteral(deep), /nests too deep/);
  assert.throws(() => parsePythonLiteral("{'a': ".repeat(200_000)), /nests too deep/);
  const long = `'${"x\\n".repeat(1_000_000)}'`;
  assert.equal(parsePythonLiteral(long), "x\n".repeat(1_000_000));
});

Deno.test("a number that is neither a float nor exact is refused in writing", () => {
  assert.throws(() => formatPythonLiteral(1.5), RangeError);
  assert.throws(() => formatPythonLiteral(2 ** 60), RangeError);
});

Deno.test("floats keep their value", () => {
  fc.assert(fc.property(fc.double({ noNaN: true, noDefaultInfinity: true }), (number) => {
    const text = formatPythonFloat(number);
    assert.match(text, /^-?\d+(\.\d+)?(e[+-]\d{2,3})?$/);
    assert.ok(Object.is(Number(text), number), text);
    assert.deepEqual(parsePythonLiteral(text), new PyFloat(number));
  }));
});

const values: fc.Arbitrary<PyValue> = fc.letrec<{ value: PyValue }>((tie) => ({
  value: fc.oneof(
    { maxDepth: 4 },
    fc.constantFrom<PyValue>(null, true, false),
    fc.maxSafeInteger(),
    fc.bigInt({ min: 2n ** 53n, max: 2n ** 200n }),
    fc.double({ noNaN: true, noDefaultInfinity: true }).map((number) => new PyFloat(number)),
    fc.string({ unit: "binary" }),
    fc.array(tie("value"), { maxLength: 4 }),
    fc.array(tie("value"), { maxLength: 4 }).map((items) => new PyTuple(items)),
    fc.array(fc.tuple(fc.string(), tie("value")), { maxLength: 4 })
      .map((entries): PyDict => new Map(entries)),
  ),
})).value;

Deno.test("reading undoes writing, on one line of text", () => {
  fc.assert(fc.property(values, (value) => {
    const text = formatPythonLiteral(value);
    assert.ok(!/[\n\r]/.test(text));
    assert.deepEqual(parsePythonLiteral(text), value);
  }));
});

Deno.test("any text is read or refused", () => {
  fc.assert(
    fc.property(fc.string({ unit: fc.constantFrom(...`[](){}'",:\\x0e.-_ 1N`) }), (text) => {
      try {
        parsePythonLiteral(text);
      } catch (error) {
        assert.ok(error instanceof MalformedLiteral);
      }
    }),
  );
});

Deno.test("a literal of far more values than any backup has is refused", () => {
  parsePythonLiteral(`[${"1,".repeat(200_000)}]`);
  assert.throws(() => parsePythonLiteral(`[${"1,".repeat(300_000)}]`), /too many values/);
});
