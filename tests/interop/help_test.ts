/** Every option that the newest Barman tells of in its help is one of ours. */
import assert from "node:assert/strict";
import { COMMANDS, NEWEST, OURS, skipWithout } from "./commands.ts";

/** What ours does not have. Each is told in docs/compatibility.md. */
const NOT_OURS: readonly string[] = [];
/** What only ours has. */
const ONLY_OURS: Readonly<Record<string, readonly string[]>> = {
  "backup": ["--archive-timeout", "--compression-level"],
  "restore": ["--jobs", "-j"],
};

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
      const only = ONLY_OURS[command] ?? [];
      assert.deepEqual(
        [...ours.options].filter((option) => !only.includes(option)).sort(),
        [...barman.options].filter((option) => !NOT_OURS.includes(option)).sort(),
      );
      assert.deepEqual(ours.positionals, barman.positionals);
    },
  });
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
