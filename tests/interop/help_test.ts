/** Every option that the newest Barman tells of in its help is one of ours. */
import assert from "node:assert/strict";
import { COMMANDS, NEWEST, OURS, skipWithout } from "./commands.ts";

/** What ours does not have. Each is told in docs/compatibility.md. */
const NOT_OURS: readonly string[] = [];
/** What ours has and a Barman may lack: our additions, and what came with a newer Barman than the one here. */
const ONLY_OURS: Readonly<Record<string, readonly string[]>> = {
  // 3.20: --keepalive-interval, --zstd.
  "backup": ["--archive-timeout", "--compression-level", "--keepalive-interval", "--zstd"],
  "backup-delete": ["--format"],
  "backup-keep": ["--format"],
  "restore": ["--jobs", "-j"],
  "wal-archive": ["--look-ahead", "--no-wal-check", "--overwrite", "--spool-dir"],
  "wal-restore": ["--stop-recovery-on-error"],
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
      // 3.20, but check-wal-archive, which has it with us only.
      const only = [...ONLY_OURS[command] ?? [], "--sse-customer-key"];
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
