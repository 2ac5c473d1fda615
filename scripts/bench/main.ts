/** `deno task bench [NAME …]`: measures the executable, beside Barman where it can be had. */
import { stop } from "esbuild";
import { ensureExecutable } from "../compile.ts";
import { ensureBarman } from "../servers/barman.ts";
import { catalogue } from "./catalogue.ts";
import { startup } from "./startup.ts";

const BENCHES = { startup, catalogue } as const;

const names = Deno.args.filter((word) => word !== "--");
const unknown = names.filter((name) => !Object.hasOwn(BENCHES, name));
if (unknown.length > 0) {
  console.error(`There is no bench '${unknown[0]}' (${Object.keys(BENCHES).join(", ")})`);
  Deno.exit(3);
}
const executable = await ensureExecutable();
await stop();
const { newest, packaged } = await ensureBarman((text) => console.error(text));
for (const [name, bench] of Object.entries(BENCHES)) {
  if (names.length === 0 || names.includes(name)) {
    console.log(await bench({ executable, barman: newest ?? packaged }));
  }
}
