/**
 * Writes THIRD_PARTY.md: the packages whose code is linked into the executable, with their licences, as esbuild
 * reports them; so a package that is only developed with is not in it, and one that is bundled can't be missing.
 *
 *   deno run -A scripts/third_party.ts           write
 *   deno run -A scripts/third_party.ts --check   fail when the file is stale
 */
import { readdir, readFile, writeFile } from "node:fs/promises";
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import { stop } from "esbuild";
import { bundle } from "./compile.ts";

const ROOT = fileURLToPath(new URL("..", import.meta.url));

interface LinkedPackage {
  readonly name: string;
  readonly version: string;
  readonly licence: string;
  readonly text: string;
}

/** The text of THIRD_PARTY.md for the sources as they are. */
export async function thirdPartyText(): Promise<string> {
  const inputs = Object.keys((await bundle(join(ROOT, "dist", ".third-party"))).inputs);
  const directories = new Set<string>();
  for (const input of inputs) {
    const match = /^(.*node_modules\/(?:@[^/]+\/)?[^/]+)\//.exec(input);
    if (match?.[1] !== undefined) directories.add(match[1]);
  }
  const packages = await Promise.all([...directories].map(readPackage));
  packages.sort((a, b) => a.name < b.name ? -1 : a.name > b.name ? 1 : 0);
  const lines = [
    "# Third-party software in the executable",
    "",
    "Made by `deno run -A scripts/third_party.ts` from what the bundler links in; do not edit.",
    "",
    "The executable contains the Bun runtime (MIT), which links JavaScriptCore (LGPL-2.1) and other",
    "libraries; Bun's own list is in its LICENSE.md, in the npm package of its executable.",
    "",
    "| package | version | licence |",
    "| --- | --- | --- |",
    ...packages.map(({ name, version, licence }) => `| ${name} | ${version} | ${licence} |`),
    "",
  ];
  const byText = new Map<string, string[]>();
  for (const { name, text } of packages) byText.set(text, [...byText.get(text) ?? [], name]);
  for (const [text, names] of byText) {
    lines.push(`## ${names.join(", ")}`, "", "```text", text, "```", "");
  }
  return lines.join("\n");
}

async function readPackage(directory: string): Promise<LinkedPackage> {
  const path = join(ROOT, directory);
  const manifest: unknown = JSON.parse(await readFile(join(path, "package.json"), "utf8"));
  const field = (name: string): string => {
    const found = typeof manifest === "object" && manifest !== null
      ? Object.entries(manifest).find(([key]) => key === name)?.[1]
      : undefined;
    if (typeof found !== "string") throw new Error(`${path}/package.json has no "${name}"`);
    return found;
  };
  const file = (await readdir(path)).find((name) => /^(licen[cs]e|copying|unlicense)/i.test(name));
  const text = file === undefined
    ? `(the package has no licence file; its package.json says ${field("license")})`
    : (await readFile(join(path, file), "utf8")).trim().replaceAll("\r\n", "\n")
      .replaceAll(/[ \t]+$/gm, "");
  return { name: field("name"), version: field("version"), licence: field("license"), text };
}

if (import.meta.main) {
  const target = join(ROOT, "THIRD_PARTY.md");
  const text = await thirdPartyText();
  await stop();
  if (Deno.args.includes("--check")) {
    if (await readFile(target, "utf8").catch(() => "") !== text) {
      console.error("THIRD_PARTY.md is stale: run deno run -A scripts/third_party.ts");
      Deno.exit(1);
    }
  } else await writeFile(target, text);
}
