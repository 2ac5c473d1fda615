/** docs/benchmarks.md: text by hand, and between marks what the benches have measured. */
import { readFile, writeFile } from "node:fs/promises";
import { fileURLToPath } from "node:url";

const DOCUMENT = fileURLToPath(new URL("../../docs/benchmarks.md", import.meta.url));

/** Directory of the pictures that the document shows. */
export const PICTURES = fileURLToPath(new URL("../../docs/benchmarks", import.meta.url));

/** @throws Error when the document has no marks for the name */
export async function replaceSection(name: string, text: string): Promise<void> {
  const [begin, end] = [`<!-- bench ${name} -->`, `<!-- end ${name} -->`];
  const document = await readFile(DOCUMENT, "utf8");
  const from = document.indexOf(begin);
  const to = document.indexOf(end);
  if (from < 0 || to < from) throw new Error(`${DOCUMENT} has no '${begin}' … '${end}'`);
  const day = new Date().toISOString().slice(0, 10);
  await writeFile(
    DOCUMENT,
    `${document.slice(0, from)}${begin}\n\n${text.trim()}\n\nMeasured on ${day}.\n\n${
      document.slice(to)
    }`,
  );
}
