import { defineCommand } from "../cli/command.ts";
import { formatOf, OUTPUT_FORMAT } from "../cli/common_options.ts";
import { EXIT } from "../cli/exit_codes.ts";
import { pythonJson } from "../cli/json.ts";
import { flag } from "../cli/options.ts";
import { COMPATIBILITY_VERSION, VERSION } from "../cli/version.ts";

export const command = defineCommand({
  name: "version",
  summary: "tell the version, the runtime and the compatibility version",
  description:
    "Tell our own version, the runtime that the executable was built with, and the version of Barman whose " +
    "commands it stands in for (what --version prints, since callers compare that).",
  positionals: [],
  options: [...OUTPUT_FORMAT, flag("json", ["--json"], "short for --format json")],
  examples: [["what is installed here", "barman-cloud version"]],
}, (values, { stdout }) => {
  const runtime = runtimeName();
  stdout(
    values.json || formatOf(values) === "json"
      ? `${
        pythonJson(
          new Map([
            ["version", VERSION],
            ["runtime", runtime],
            ["compatible_with_barman", COMPATIBILITY_VERSION],
          ]),
        )
      }\n`
      : `barman-cloud ${VERSION}\nruntime ${runtime}\ncompatible with Barman ${COMPATIBILITY_VERSION}\n`,
  );
  return Promise.resolve(EXIT.success);
});

function runtimeName(): string {
  const { bun, deno } = process.versions as Readonly<Record<string, string | undefined>>;
  if (bun !== undefined) return `Bun ${bun}`;
  if (deno !== undefined) return `Deno ${deno}`;
  return `Node.js ${process.versions.node}`;
}
