import assert from "node:assert/strict";
import { fileURLToPath } from "node:url";
import { ensureBun } from "../../../scripts/servers/npm_package.ts";
import { HTTP_CASES } from "./http_cases.ts";

for (const [name, run] of HTTP_CASES) Deno.test(`HTTP handler: ${name}`, run);

Deno.test("HTTP handler: all of it in Bun too, the runtime of the executable", async () => {
  const { code, stdout, stderr } = await new Deno.Command(await ensureBun(), {
    args: [fileURLToPath(new URL("./http_cases.ts", import.meta.url))],
    signal: AbortSignal.timeout(60_000),
  }).output();
  const text = new TextDecoder().decode(stdout) + new TextDecoder().decode(stderr);
  assert.equal(code, 0, text);
  assert.equal(text.match(/^ok /gm)?.length, HTTP_CASES.length, text);
});
