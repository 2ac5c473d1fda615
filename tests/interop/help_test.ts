/** Every option that the newest Barman tells of in its help is one of ours. */
import assert from "node:assert/strict";
import { type CommandEntry, COMMANDS as ENTRIES } from "../../lib/cli/commands.ts";
import { COMMANDS, NEWEST, OURS, skipWithout } from "./commands.ts";

/** What ours does not have. Each is told in docs/compatibility.md. */
const NOT_OURS: readonly string[] = [];
/** What came with a newer Barman than the one here may be. What is ours alone is declared so (`ours`). */
const SINCE_3_20 = ["--keepalive-interval", "--zstd"];

const env = { COLUMNS: "1000" };

for (const command of COMMANDS) {
  Deno.test({
    name: `${command} has the options that Barman's has`,
    ignore: skipWithout(NEWEST, "newest"),
    async fn() {
      if (NEWEST === null) throw new Error("Without Barman this is ignored");
      const [ours, barman] = await Promise.all(
        [OURS, NEWEST].map(async (tool) => {
          const { code, stdout, stderr } = await tool.run(command, ["--help"], { env });
          assert.deepEqual([code, stderr], [0, ""]);
          return usageOf(stdout);
        }),
      );
      assert.ok(ours !== undefined && barman !== undefined);
      assert.ok(barman.options.size > 10, "Barman's help was not understood");
      const { command: declared } = await entryOf(command).load();
      const marked = declared.options.filter((spec) => spec.ours).flatMap(({ flags }) => flags);
      // Barman's abbreviations stay unambiguous only if additions are declared as such.
      assert.deepEqual(marked.filter((option) => barman.options.has(option)), []);
      // 3.20, but check-wal-archive, which has it with us only.
      const only = [...marked, ...SINCE_3_20, "--sse-customer-key"];
      const lacking = [...barman.options].filter((option) =>
        !ours.options.has(option) && !NOT_OURS.includes(option)
      );
      assert.deepEqual(lacking, []);
      const added = [...ours.options].filter((option) =>
        !barman.options.has(option) && !only.includes(option)
      );
      assert.deepEqual(added, []);
      assert.deepEqual(ours.positionals, barman.positionals);
    },
  });
}

function entryOf(name: string): CommandEntry {
  const entry = ENTRIES.find((each) => each.name === name);
  assert.ok(entry !== undefined);
  return entry;
}

interface Usage {
  readonly options: ReadonlySet<string>;
  readonly positionals: readonly string[];
}

/** From the usage line and the list of options: `  -P, --aws-profile AWS_PROFILE`. */
function usageOf(help: string): Usage {
  const [usage = "", ...rest] = help.split(/\n\n/);
  const options = new Set<string>();
  for (const line of rest.join("\n").split("\n")) {
    const [, flags] = /^ {2}(-.*?)(?: {2}|$)/.exec(line) ?? [];
    for (const word of flags?.split(/[ ,]+/) ?? []) {
      if (/^--?[a-zA-Z]/.test(word)) options.add(word);
    }
  }
  const outside = usage.replaceAll(
    /\[[^[\]]*(?:\[[^[\]]*\][^[\]]*)*\]/g,
    (text) => text.startsWith("[wal_path") ? text : "",
  );
  const positionals = outside.split(/\s+/).filter((word) => /^\[?[a-z]+_[a-z_]+\]?$/.test(word));
  return { options, positionals };
}
