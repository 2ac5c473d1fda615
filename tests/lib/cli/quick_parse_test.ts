import assert from "node:assert/strict";
import fc from "fast-check";
import type { Command } from "../../../lib/cli/command.ts";
import { COMMANDS } from "../../../lib/cli/commands.ts";
import type { OptionSpec } from "../../../lib/cli/options.ts";
import { parseCommandLine } from "../../../lib/cli/parser.ts";
import { quickParse } from "../../../lib/cli/quick_parse.ts";

const commands = await Promise.all(COMMANDS.map(async ({ load }) => (await load()).command));

function commandNamed(name: string): Command {
  const found = commands.find((command) => command.name === name);
  if (found === undefined) throw new Error(`There is no command ${name}`);
  return found;
}

/** What may stand behind an option: good values, bad ones, and what looks like something else. */
const word = fc.oneof(
  fc.constantFrom("s3://b/p", "main", "a b", "key,value", "a=b", "4MB", "0", "7", "1.5", "low"),
  fc.constantFrom(
    "AES256",
    "aws-s3",
    "azure-cli",
    "auto",
    "json",
    "REDUNDANCY 3",
    "latest",
    "full",
  ),
  fc.constantFrom("", "-", "--", "-1", "-x", "- x", "--=", "=", "é", "\ud800", "@file", "%p"),
  fc.constantFrom("-vv", "-J2", "-zv", "--ver", "--help", "-V", "--gz", "--endpoint", "-e=AES256"),
  fc.string(),
);

function pieceFor(options: readonly OptionSpec[]): fc.Arbitrary<string[]> {
  if (options.length === 0) return word.map((text) => [text]);
  const flag = fc.constantFrom(...options.flatMap(({ flags }) => [...flags]));
  const exact = fc.constantFrom(...options).chain((spec) =>
    fc.tuple(fc.constantFrom(...spec.flags), word, fc.boolean()).map(([name, text, joined]) =>
      spec.action === "flag" || spec.action === "count"
        ? [name]
        : joined
        ? [`${name}=${text}`]
        : [name, text]
    )
  );
  return fc.oneof(
    { weight: 6, arbitrary: exact },
    { weight: 1, arbitrary: flag.map((name) => [name]) },
    { weight: 1, arbitrary: fc.tuple(flag, word).map(([name, text]) => [name + text]) },
    { weight: 3, arbitrary: word.map((text) => [text]) },
  );
}

for (const command of commands) {
  Deno.test(`${command.name}: what is parsed quickly is parsed alike by argparse`, () => {
    const pieces = fc.array(pieceFor(command.options), { maxLength: 4 });
    const positionals = fc.array(word, { maxLength: 5 });
    const usual = fc.constant(command.positionals.map((_, index) => `word${index}`));
    const row = fc.oneof({ weight: 3, arbitrary: usual }, { weight: 1, arbitrary: positionals });
    fc.assert(
      fc.property(pieces, row, pieces, (before, inRow, after) => {
        const words = [...before.flat(), ...inRow, ...after.flat()];
        const values = quickParse(command, words);
        if (values === undefined) return;
        const parsed = parseCommandLine(command, words, command.name, 80);
        assert.deepEqual(parsed, { kind: "values", values }, JSON.stringify(words));
      }),
      { numRuns: 2000 },
    );
  });

  Deno.test(`${command.name}: every option is parsed alike on its own`, () => {
    const row = command.positionals.map((_, index) => `word${index}`);
    const samples = ["7", "key,value", "4MB", "main", "REDUNDANCY 3", "2026-01-01T00:00:00.0Z"];
    for (const spec of command.options) {
      for (const name of spec.flags) {
        for (const sample of [...samples, ...spec.choices ?? []]) {
          const words = spec.action === "flag" || spec.action === "count"
            ? [name, name, ...row]
            : [name, sample, ...row];
          const values = quickParse(command, words);
          if (values === undefined) continue;
          const parsed = parseCommandLine(command, words, command.name, 80);
          assert.deepEqual(parsed, { kind: "values", values }, JSON.stringify(words));
        }
      }
    }
  });
}

Deno.test("usual command lines are parsed quickly", () => {
  const usual: [name: string, words: string][] = [
    ["wal-archive", "s3://b/p main pg_wal/000000010000000000000001"],
    ["wal-archive", "--zstd --endpoint-url http://h s3://b/p main 000000010000000000000001"],
    ["wal-archive", "-z -v --tag a,b --tag=c,d -e AES256 s3://b/p main x"],
    ["wal-restore", "file:///d main 000000010000000000000001 pg_wal/RECOVERYXLOG"],
    ["wal-restore", "file:///d main 000000010000000000000001 x --endpoint-url=http://h"],
    ["backup", "-J 4 --gzip --immediate-checkpoint -h /tmp -p 5432 -U postgres s3://b main"],
    ["backup-list", "--format json s3://b/p main"],
    ["backup-delete", "--retention-policy x --cloud-provider aws-s3 s3://b main"],
  ];
  for (const [name, line] of usual) {
    const command = commandNamed(name);
    const words = line.replace("x --cloud", "REDUNDANCY_3 --cloud").split(" ")
      .map((text) => text.replace("REDUNDANCY_3", "REDUNDANCY 3"));
    const values = quickParse(command, words);
    assert.notEqual(values, undefined, line);
    assert.deepEqual(parseCommandLine(command, words, name, 80), { kind: "values", values });
  }
});

Deno.test("what is not plain is left to argparse", () => {
  const command = commandNamed("wal-archive");
  for (
    const line of [
      "s3://b main x --help",
      "-vv s3://b main x",
      "--gz s3://b main x",
      "--zstd --gzip s3://b main x",
      "-v -q s3://b main x",
      "s3://b --zstd main x",
      "--tags a,b -- s3://b main x",
      "s3://b",
      "s3://b main x y",
      "--compression-level -5 s3://b main x",
      "--compression-level much s3://b main x",
      "-e none s3://b main x",
    ]
  ) assert.equal(quickParse(command, line.split(" ")), undefined, line);
});
