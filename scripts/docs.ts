/**
 * Writes the documentation that is made from the commands' declarations: docs/commands.md, docs/man, docs/completions.
 *
 *   deno run -A scripts/docs.ts            write what changed, remove what is no longer made
 *   deno run -A scripts/docs.ts --check    exit with 1 when something would change, and say what
 */
import { mkdir, readdir, readFile, rm, writeFile } from "node:fs/promises";
import { dirname, join, relative } from "node:path";
import { fileURLToPath } from "node:url";
import { bashCompletion, fishCompletion, zshCompletion } from "./docs/completions.ts";
import { manualPages } from "./docs/man.ts";
import { commandsMarkdown } from "./docs/markdown.ts";
import { documentedCommands } from "./docs/model.ts";

const DOCS = fileURLToPath(new URL("../docs", import.meta.url));

/** All generated files: path below docs/ to text. */
export async function generatedDocs(): Promise<Map<string, string>> {
  const commands = await documentedCommands();
  const files = new Map<string, string>([
    ["commands.md", commandsMarkdown(commands)],
    ["completions/bash/barman-cloud", bashCompletion(commands)],
    ["completions/zsh/_barman-cloud", zshCompletion(commands)],
    ["completions/fish/barman-cloud.fish", fishCompletion(commands)],
  ]);
  for (const [name, text] of manualPages(commands)) files.set(join("man", name), text);
  return files;
}

/**
 * Compare with what is in the directory.
 * @returns paths that are missing, differ, or are not made any more
 */
export async function staleDocs(
  files: ReadonlyMap<string, string>,
  directory = DOCS,
): Promise<string[]> {
  const stale: string[] = [];
  for (const [path, text] of files) {
    if (await textOf(join(directory, path)) !== text) stale.push(path);
  }
  for (const owned of ["man", "completions"]) {
    const found = await readdir(join(directory, owned), { recursive: true, withFileTypes: true })
      .catch(() => []);
    for (const entry of found) {
      const path = relative(directory, join(entry.parentPath, entry.name));
      if (entry.isFile() && !files.has(path)) stale.push(path);
    }
  }
  return stale;
}

async function textOf(path: string): Promise<string | undefined> {
  try {
    return await readFile(path, "utf8");
  } catch (error) {
    if (error instanceof Error && "code" in error && error.code === "ENOENT") return undefined;
    throw error;
  }
}

if (import.meta.main) {
  const files = await generatedDocs();
  const stale = await staleDocs(files);
  if (Deno.args.includes("--check")) {
    for (const path of stale) {
      console.error(`docs/${path} is stale: run deno run -A scripts/docs.ts`);
    }
    Deno.exit(stale.length === 0 ? 0 : 1);
  }
  for (const path of stale) {
    const text = files.get(path);
    const target = join(DOCS, path);
    if (text === undefined) await rm(target);
    else {
      await mkdir(dirname(target), { recursive: true });
      await writeFile(target, text);
    }
    console.log(`${text === undefined ? "Removed" : "Wrote"} docs/${path}`);
  }
}
