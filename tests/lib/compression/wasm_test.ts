import assert from "node:assert/strict";
import { readFile } from "node:fs/promises";
import { blocksWasmText } from "../../../scripts/wasm.ts";

Deno.test("blocks_wasm.ts is what AssemblyScript makes of assembly/blocks.ts", async () => {
  const path = new URL("../../../lib/compression/blocks_wasm.ts", import.meta.url);
  assert.equal(await readFile(path, "utf8"), await blocksWasmText());
});
