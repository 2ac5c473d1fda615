import assert from "node:assert/strict";
import { labelledLine, readableDuration, readableSize, tableLine } from "../../../lib/cli/table.ts";

Deno.test("cells are padded by characters and never cut", () => {
  assert.equal(tableLine(["a", "bb", ""], [3, 1, 2]), "a  bb  \n");
  assert.equal(tableLine(["😀", "|"], [2, 1]), "😀 |\n");
  assert.equal(labelledLine(2, 5, "Key", "v"), "  Key  : v\n");
});

Deno.test("sizes are of 1024, with one decimal", () => {
  const sizes: readonly (readonly [number, string])[] = [
    [0, "0 B"],
    [1023, "1023 B"],
    [1024, "1.0 KiB"],
    [1023999, "1000.0 KiB"],
    [26843546, "25.6 MiB"],
    [90194313216, "84.0 GiB"],
    [1024 ** 4, "1.0 TiB"],
  ];
  for (const [bytes, text] of sizes) assert.equal(readableSize(bytes), text);
});

Deno.test("durations name the units that are not zero", () => {
  const durations: readonly (readonly [number, string])[] = [
    [0, "less than one second"],
    [0.9, "less than one second"],
    [1, "1 second"],
    [47.143, "47 seconds"],
    [3600, "1 hour"],
    [93784.7, "1 day, 2 hours, 3 minutes, 4 seconds"],
    [2 * 86400 + 60, "2 days, 1 minute"],
  ];
  for (const [seconds, text] of durations) assert.equal(readableDuration(seconds), text);
});

Deno.test("a cell stays a cell, whatever a store has put into it", () => {
  assert.equal(tableLine(["a\nb", "\u001b[2J"], [6, 9]), "a\\nb  \\x1b[2J  \n");
  assert.equal(labelledLine(2, 6, "Name", "x\u0007\ny"), "  Name  : x\\x07\\ny\n");
});
