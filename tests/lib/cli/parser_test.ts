import assert from "node:assert/strict";
import { defineCommand } from "../../../lib/cli/command.ts";
import { COMMANDS } from "../../../lib/cli/commands.ts";
import { COMMON, SOURCE, tagsOf, WRITE_TAGS } from "../../../lib/cli/common_options.ts";
import { flag, optionalPositional, valueWithDefault } from "../../../lib/cli/options.ts";
import { parseCommandLine, type ParseResult } from "../../../lib/cli/parser.ts";
import { integer } from "../../../lib/cli/values.ts";

const command = defineCommand({
  name: "sample",
  summary: "a sample",
  description: "A sample with 100 % of the kinds of options.",
  positionals: [...SOURCE, optionalPositional("walPath", "a path")],
  options: [
    ...COMMON,
    ...WRITE_TAGS,
    flag("gzip", ["-z", "--gzip"], "gzip", { exclusive: "compression" }),
    flag("bzip2", ["-j", "--bzip2"], "bzip2", { exclusive: "compression" }),
    valueWithDefault("jobs", ["-J", "--jobs"], "jobs", {
      parse: integer("number of jobs", 1),
      default: 2,
    }),
    valueWithDefault("minimum", ["-m", "--minimum-redundancy"], "minimum", {
      parse: integer("number"),
      default: 0,
    }),
  ],
  examples: [["look at it", "PROGRAM s3://bucket/path main"]],
}, () => Promise.resolve(0));

function parse(...words: string[]): ParseResult {
  return parseCommandLine(command, words, "barman-cloud-sample", 80);
}

function valuesOf(...words: string[]): Readonly<Record<string, unknown>> {
  const result = parse(...words);
  assert.equal(result.kind, "values", JSON.stringify(result));
  return result.kind === "values" ? result.values : {};
}

function usageError(...words: string[]): string {
  const result = parse(...words);
  assert.equal(result.kind, "exit");
  if (result.kind !== "exit") return "";
  assert.equal(result.code, 3);
  assert.equal(result.stdout, "");
  assert.match(result.stderr, /^usage: barman-cloud-sample /);
  assert.match(result.stderr, /\nbarman-cloud-sample: error: .+\n$/);
  return result.stderr;
}

Deno.test("defaults are filled in for every declared option", () => {
  const values = valuesOf("s3://b/p", "main");
  assert.equal(values["sourceUrl"], "s3://b/p");
  assert.equal(values["serverName"], "main");
  assert.equal(values["walPath"], undefined);
  assert.equal(values["jobs"], 2);
  assert.equal(values["verbose"], 0);
  assert.equal(values["gzip"], false);
  assert.equal(values["tags"], undefined);
});

Deno.test("options stand between and after positionals, with = or a blank, bundled, abbreviated", () => {
  const values = valuesOf(
    "--cloud",
    "local",
    "-vzJ4",
    "url",
    "--endpoint-url=http://x",
    "main",
    "-v",
  );
  assert.equal(values["cloudProvider"], "local");
  assert.equal(values["verbose"], 2);
  assert.equal(values["gzip"], true);
  assert.equal(values["jobs"], 4);
  assert.equal(values["endpointUrl"], "http://x");
  assert.equal(values["serverName"], "main");
});

Deno.test("an exact name beats a longer one, an ambiguous prefix is an error", () => {
  assert.deepEqual(valuesOf("u", "s", "--tag", "a,b")["tag"], [["a", "b"]]);
  assert.match(usageError("u", "s", "--ta", "a,b"), /ambiguous option: --ta/);
});

Deno.test("--tags takes every word up to the next option, --tag is repeatable, both exclude each other", () => {
  assert.deepEqual(valuesOf("--tags", "a,b", '"b,az",qux', "--gzip", "u", "s")["tags"], [
    ["a", "b"],
    ["b,az", "qux"],
  ]);
  assert.deepEqual(valuesOf("u", "s", "--tags")["tags"], []);
  assert.deepEqual(valuesOf("--tag", "a, b", "u", "--tag=c,d=e", "s")["tag"], [
    ["a", "b"],
    ["c", "d=e"],
  ]);
  usageError("u", "s", "--tag", "a,b", "--tags", "c,d");
  usageError("--tags", "a,b", "u", "s"); // swallows the positionals
  assert.deepEqual(tagsOf({ tag: undefined, tags: [] }), []);
});

Deno.test("a negative number is a value, the last of a repeated option wins", () => {
  assert.equal(valuesOf("u", "s", "-m", "-1")["minimum"], -1);
  assert.equal(valuesOf("u", "s", "-J", "3", "-J", "5")["jobs"], 5);
  assert.equal(valuesOf("u", "s", "-P", "one", "--profile", "two")["awsProfile"], "two");
  assert.equal(valuesOf("u", "s", "--default", "azure-cli")["azureCredential"], "azure-cli");
});

Deno.test("usage errors end with 3, usage and reason on stderr", () => {
  assert.match(usageError("u"), /required: server_name/);
  assert.match(usageError("u", "s", "-z", "-j"), /not allowed with/);
  assert.match(usageError("u", "s", "-v", "-q"), /not allowed with/);
  assert.match(usageError("u", "s", "-J", "0"), /-J\/--jobs: '0' is not a valid number of jobs/);
  assert.match(usageError("u", "s", "--cloud-provider", "x"), /invalid choice: 'x'/);
  assert.match(usageError("u", "s", "-h"), /unrecognized arguments: -h/);
  assert.match(usageError("u", "s", "--tag", ""), /not a tag/);
  usageError("u", "s", "--", "w", "extra");
});

Deno.test("-V and --help act even when required arguments are missing", () => {
  for (const word of ["-V", "--version", "--vers"]) {
    assert.deepEqual(parse(word), {
      kind: "exit",
      code: 0,
      stdout: "barman-cloud-sample 3.21.0\n",
      stderr: "",
    });
  }
  const help = parse("--help");
  assert.equal(help.kind, "exit");
  if (help.kind === "exit") {
    assert.equal(help.code, 0);
    assert.equal(help.stderr, "");
    assert.match(help.stdout, /100 % of the kinds/);
    assert.match(help.stdout, /barman-cloud-sample s3:\/\/bucket\/path main/);
    assert.match(help.stdout, /options for S3/);
  }
});

Deno.test("the optional WAL path may stand after options", () => {
  assert.equal(valuesOf("u", "s", "w")["walPath"], "w");
  assert.equal(valuesOf("-z", "u", "s", "w", "-v")["walPath"], "w");
});

Deno.test("no option of ours makes an abbreviation of Barman's mean something else", async () => {
  let ours = 0;
  for (const { load } of COMMANDS) {
    const { command } = await load();
    const barmans = command.options.filter((spec) => !spec.ours);
    const additions = command.options.filter((spec) => spec.ours).flatMap(({ flags }) => flags);
    ours += additions.length;
    const flags = [...barmans.flatMap((spec) => spec.flags), "--version", "--help"]
      .filter((name) => name.startsWith("--"));
    const prefixes = new Set(
      flags.flatMap((name) => Array.from(name.slice(2), (_, at) => name.slice(0, at + 3))),
    );
    for (const prefix of prefixes) {
      if (!additions.some((name) => name.startsWith(prefix))) continue;
      for (const words of [[prefix], [`${prefix}=1`]]) {
        const with_ = parseCommandLine(command, words, "p", 80);
        const without = parseCommandLine({ ...command, options: barmans }, words, "p", 80);
        assert.deepEqual(messageOf(with_), messageOf(without), `${command.name} ${words}`);
      }
    }
  }
  assert.ok(ours > 5);
});

/** Usage lines differ, since there are more options. */
function messageOf(result: ParseResult): unknown {
  if (result.kind === "values") return { ...result.values };
  return { ...result, stdout: "", stderr: result.stderr.split("\n").at(-2) };
}
