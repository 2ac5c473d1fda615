/** The examples at the end of each command's help: whoever pastes them gets no usage error. */
import assert from "node:assert/strict";
import { COMMANDS } from "../../../lib/cli/commands.ts";
import { helpText, parseCommandLine } from "../../../lib/cli/parser.ts";

/** What the shell makes of an example, the program's name left out. */
function wordsOf(line: string): string[] {
  const quoted = /^(?:archive|restore)_command = '(.*)'$/.exec(line)?.[1] ?? line;
  const [, rest = ""] = /^PROGRAM (.*?)(?: && .*)?$/.exec(quoted) ?? [];
  return [...rest.matchAll(/'([^']*)'|(\S+)/g)].map(([, inner, word]) => inner ?? word ?? "");
}

Deno.test("every example of every help is a command line that we take, by the name that we were called by", async () => {
  for (const { name, load } of COMMANDS) {
    const { command } = await load();
    const program = `barman-cloud ${name}`;
    assert.ok(command.examples.length > 0, name);
    for (const [what, line] of command.examples) {
      const example = line.replace(/^barman-cloud \S+/, "PROGRAM");
      assert.match(example, /(^|')PROGRAM/, `${name}: ${what}`);
      const parsed = parseCommandLine(command, wordsOf(example), program, 80);
      assert.equal(parsed.kind, "values", parsed.kind === "exit" ? parsed.stderr : "");
    }
    assert.doesNotMatch(helpText(command, program, 80), /PROGRAM/);
  }
});
