import assert from "node:assert/strict";
import { pythonJson } from "../../../lib/cli/json.ts";
import { PyFloat, PyTuple, type PyValue } from "../../../lib/backup/python_literal.ts";

Deno.test("JSON as Python's json.dumps writes it", () => {
  const cases: readonly (readonly [PyValue, string])[] = [
    [null, "null"],
    [true, "true"],
    [-3, "-3"],
    [10n ** 30n, "1000000000000000000000000000000"],
    [new PyFloat(1), "1.0"],
    [new PyFloat(0.00001), "1e-05"],
    [new PyFloat(Infinity), "Infinity"],
    ['é😀\x7f\u2028\n"\\', String.raw`"\u00e9\ud83d\ude00\u007f\u2028\n\"\\"`],
    [["a", new PyTuple([1, []])], '["a", [1, []]]'],
    [
      new Map<PyValue, PyValue>([["a", new Map()], [1, 2], [null, false], [new PyFloat(2), 3]]),
      '{"a": {}, "1": 2, "null": false, "2.0": 3}',
    ],
  ];
  for (const [value, text] of cases) assert.equal(pythonJson(value), text);
});
