/**
 * `deno task bench [NAME …]`: measures the executable beside its peers, prints the tables, and puts them into
 * docs/benchmarks.md, each between the marks of its name. `BENCH_DATA=DIRECTORY` keeps the clusters for the next time,
 * `BENCH_SIZE` is theirs in MiB, `BENCH_RUNS` the number of runs, `BENCH_PEERS=none` measures ours alone, `BENCH_WALG` is
 * where WAL-G is (default: /usr/local/bin/wal-g); `BARMAN_CLOUD_EXECUTABLE` measures another executable than that of
 * these sources.
 */
import { stop } from "esbuild";
import { ensureExecutable } from "../compile.ts";
import { backup } from "./backup.ts";
import { catalogue } from "./catalogue.ts";
import { checks } from "./checks.ts";
import { replaceSection } from "./document.ts";
import { growth } from "./growth.ts";
import { lookAhead } from "./look_ahead.ts";
import { requests } from "./requests.ts";
import { restore } from "./restore.ts";
import { type Bench, describeSurroundings, openContext } from "./setup.ts";
import { startup } from "./startup.ts";
import { walPush } from "./wal_push.ts";

const BENCHES: Readonly<Record<string, Bench>> = {
  startup,
  "wal-push": walPush,
  "look-ahead": lookAhead,
  backup,
  restore,
  checks,
  catalogue,
  requests,
  growth,
};

const names = Deno.args.filter((word) => word !== "--");
const unknown = names.filter((name) => !Object.hasOwn(BENCHES, name));
if (unknown.length > 0) {
  console.error(`There is no bench '${unknown[0]}' (${Object.keys(BENCHES).join(", ")})`);
  Deno.exit(3);
}
const executable = Deno.env.get("BARMAN_CLOUD_EXECUTABLE") ?? await ensureExecutable();
await stop();
const context = await openContext(executable, (text) => console.error(text));
try {
  // Without peers it would tell less than what stands there.
  if (context.peers.barman !== null) {
    await replaceSection("surroundings", await describeSurroundings(context));
  }
  for (const [name, bench] of Object.entries(BENCHES)) {
    if (names.length > 0 && !names.includes(name)) continue;
    const text = await bench(context, (text) => replaceSection(name, text));
    console.log(text);
    await replaceSection(name, text);
  }
} finally {
  await context.close();
}
