/** docs/compatibility.md tells each difference that the tests pin, and names only tests that are there. */
import assert from "node:assert/strict";
import { existsSync, readFileSync } from "node:fs";
import { fileURLToPath } from "node:url";
import { CHANGING } from "./changing_cases.ts";
import { READING } from "./reading_cases.ts";

const root = fileURLToPath(new URL("../..", import.meta.url));
const text = readFileSync(`${root}/docs/compatibility.md`, "utf8");

Deno.test("docs/compatibility.md tells each difference that is pinned side by side", () => {
  const ids = [...READING, ...CHANGING].flatMap(({ differs }) => differs?.id ?? []);
  assert.ok(ids.length > 0);
  const untold = [...new Set(ids)].filter((id) => !text.includes(`\`${id}\``));
  assert.deepEqual(untold, []);
});

Deno.test("docs/compatibility.md names tests that are there", () => {
  const named = [...text.matchAll(/`(tests\/[^`]*)`/g)].map(([, path = ""]) => path);
  assert.ok(named.length > 10);
  assert.deepEqual(named.filter((path) => !existsSync(`${root}/${path}`)), []);
});
