import { defineCommand } from "../cli/command.ts";
import { EXIT } from "../cli/exit_codes.ts";
import { flag } from "../cli/options.ts";
import { COMPATIBILITY_VERSION, VERSION } from "../cli/version.ts";

export const command = defineCommand({
  name: "version",
  summary: "tell the version, the runtime and the compatibility version",
  description:
    "Tell our own version, the runtime that the executable was built with, and the version of Barman whose " +
    "commands it stands in for (what --version prints, since callers compare that).",
  positionals: [],
  options: [flag("json", ["--json"], "print one line of JSON")],
  examples: [["what is installed here", "barman-cloud version"]],
}, ({ json }, { stdout }) => {
  const runtime = runtimeName();
  stdout(
    json
      ? `${
        JSON.stringify({ version: VERSION, runtime, compatible_with_barman: COMPATIBILITY_VERSION })
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
