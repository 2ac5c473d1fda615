/**
 * Compiles lib/compression/assembly/blocks.ts into lib/compression/blocks_wasm.ts, with npm's AssemblyScript, which
 * nothing else needs and which is fetched (100 MB unpacked) when this is run.
 *
 *   deno run -A scripts/wasm.ts            write
 *   deno run -A scripts/wasm.ts --check    exit with 1 when the file is not what would be written
 */
import { mkdtemp, readFile, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { fileURLToPath } from "node:url";

/** It pins the optimizer that it needs, so that its output is always the same. */
const COMPILER = "assemblyscript@0.28.20";
/** Milliseconds, with fetching it. */
const TIMEOUT = 5 * 60_000;
const SOURCE = fileURLToPath(new URL("../lib/compression/assembly/blocks.ts", import.meta.url));
const MODULE = fileURLToPath(new URL("../lib/compression/blocks_wasm.ts", import.meta.url));

/** The text of blocks_wasm.ts for the source as it is. @throws Error when the compiler can't be had or complains */
export async function blocksWasmText(): Promise<string> {
  const directory = await mkdtemp(join(tmpdir(), "wasm-"));
  try {
    const output = join(directory, "blocks.wasm");
    const compiler = ["-y", "-p", COMPILER, "asc"];
    const options = ["-O3", "--noAssert", "--runtime", "stub", "-o", output];
    const { success, stdout, stderr } = await new Deno.Command("npx", {
      args: [...compiler, "blocks.ts", ...options],
      // Names of functions, which are made of paths, stay out of it.
      cwd: join(SOURCE, ".."),
      signal: AbortSignal.timeout(TIMEOUT),
    }).output();
    if (!success) {
      const text = new TextDecoder().decode(stderr) + new TextDecoder().decode(stdout);
      throw new Error(`Cannot compile ${SOURCE} with ${COMPILER}: ${text.trim()}`);
    }
    const base64 = (await readFile(output)).toString("base64");
    return [
      "/** Made by `deno run -A scripts/wasm.ts` from assembly/blocks.ts; do not edit. Base64. */",
      "export const BLOCKS_WASM =",
      `  "${base64}";`,
      "",
    ].join("\n");
  } finally {
    await rm(directory, { recursive: true, force: true });
  }
}

if (import.meta.main) {
  const text = await blocksWasmText();
  if (!Deno.args.includes("--check")) await writeFile(MODULE, text);
  else if (await readFile(MODULE, "utf8") !== text) {
    console.error(`${MODULE} is stale: deno run -A scripts/wasm.ts`);
    Deno.exit(1);
  }
}
