/** Whole command lines: what the quick parser makes of them, and what the executable says to them. */
import assert from "node:assert/strict";
import { mkdtemp, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import fc from "fast-check";
import { COMMANDS } from "../../lib/cli/commands.ts";
import { EXIT } from "../../lib/cli/exit_codes.ts";
import type { OptionSpec } from "../../lib/cli/options.ts";
import { parseCommandLine } from "../../lib/cli/parser.ts";
import { quickParse } from "../../lib/cli/quick_parse.ts";
import { barmanCloud } from "../e2e/executable.ts";
import {
  ABSURD_NUMBERS,
  fuzz,
  holdsNoSecret,
  NASTY_NAMES,
  SECRET_ENVIRONMENT,
  SECRETS,
} from "./hostile_inputs.ts";

const commands = await Promise.all(COMMANDS.map(async ({ load }) => (await load()).command));

const word = fc.oneof(
  fc.constantFrom("file:///nonexistent/store", "main", "key,value", "4MB", "7", "json", "auto"),
  fc.constantFrom("000000010000000000000001", "20260115T103000", "REDUNDANCY 3", "NAME:/x"),
  fc.constantFrom("", "-", "--", "-1", "--=", "=", "@file", "%p", "%(prog)s", "--help", "-vvq"),
  fc.constantFrom(...NASTY_NAMES.filter((name) => name.length < 100)),
  fc.constantFrom(...ABSURD_NUMBERS),
  fc.string({ maxLength: 10, unit: "binary" }),
);

function wordsFor(
  options: readonly OptionSpec[],
  positionals: number,
): fc.Arbitrary<string[]> {
  const option = fc.constantFrom(...options).chain((spec) =>
    fc.tuple(
      fc.constantFrom(...spec.flags),
      spec.choices === undefined ? word : fc.oneof(fc.constantFrom(...spec.choices), word),
      fc.constantFrom("apart", "joined", "glued", "short", "bare"),
      fc.nat(20),
    ).map(([name, text, how, length]) => {
      if (how === "bare" || spec.action === "flag" || spec.action === "count") return [name];
      if (how === "joined") return [`${name}=${text}`];
      if (how === "glued") return [name + text];
      // As far as it goes argparse takes beginnings of names.
      if (how === "short") return [name.slice(0, Math.max(3, length)), text];
      return [name, text];
    })
  );
  const some = options.length === 0 ? fc.constant([]) : fc.array(option, { maxLength: 4 });
  return fc.tuple(
    some,
    fc.array(word, { minLength: 0, maxLength: positionals + 1 }),
    fc.boolean(),
    some,
  ).map(([before, row, usual, after]) => [
    ...before.flat(),
    ...(usual ? Array.from({ length: positionals }, (_, i) => `word${i}`) : row),
    ...after.flat(),
  ]);
}

const commandLine = fc.constantFrom(...commands).chain((command) =>
  wordsFor(command.options, command.positionals.length).map((words) => ({
    name: command.name,
    words,
  }))
);

fuzz("command lines: both parsers agree", {
  runs: 5000,
  input: fc.tuple(commandLine, fc.nat(9)),
}, ([{ name, words }, some]) => {
  const command = commands.find((each) => each.name === name);
  assert.ok(command !== undefined);
  const values = quickParse(command, words);
  // What the quick one leaves to the real one is no difference; the real one takes 10 ms to make.
  if (values === undefined && some > 1) return;
  const parsed = parseCommandLine(command, words, name, 80);
  if (values !== undefined) assert.deepEqual(parsed, { kind: "values", values });
  if (parsed.kind === "exit") {
    assert.ok(parsed.code === EXIT.success || parsed.code === EXIT.usage);
    assert.notEqual(parsed.stdout + parsed.stderr, "");
  }
});

const secretWord = fc.constantFrom(
  `s3://AKIAFUZZ:${SECRETS.url}@bucket/path`,
  `https://user:${SECRETS.url}@account.blob.core.windows.net/c/p`,
  `https://account.blob.core.windows.net/c/p?sv=2024-01-01&sig=${SECRETS.sas}`,
  `https://host/c?sig=${SECRETS.sas}&se=2026`,
  `gs://user:${SECRETS.url}@bucket/path`,
  `file://user:${SECRETS.url}@localhost/srv`,
  `postgresql://user:${SECRETS.postgres}@127.0.0.1:1/db`,
  `host=127.0.0.1 port=1 password=${SECRETS.postgres}`,
  `host=127.0.0.1 port=1 password='${SECRETS.postgres}' nonsense`,
  `host=127.0.0.1 port=1 password = ${SECRETS.postgres} x=1`,
  `http://user:${SECRETS.url}@127.0.0.1:1/`,
  `--endpoint-url=http://user:${SECRETS.url}@127.0.0.1:1/`,
  `--dbname=postgresql://user:${SECRETS.postgres}@127.0.0.1:1/db`,
  `--password=${SECRETS.postgres}`,
  `BlobEndpoint=http://127.0.0.1:1/a;SharedAccessSignature=sv=1&sig=${SECRETS.sas}`,
);

const CODES = new Set<number>(Object.values(EXIT));

const secretLine = fc.record({
  name: fc.constantFrom(...commands.filter(({ name }) => name !== "links")).map(({ name }) => name),
  before: fc.array(fc.oneof(secretWord, word), { maxLength: 2 }),
  url: fc.oneof({ weight: 3, arbitrary: secretWord }, {
    weight: 1,
    arbitrary: fc.constantFrom("file:///nonexistent/store", "s3://bucket/p", "gs://bucket/p"),
  }),
  rest: fc.array(fc.oneof(word, secretWord, fc.constantFrom("-d", "--endpoint-url")), {
    maxLength: 4,
  }),
  spelling: fc.constantFrom("-vv", "-v", "-q"),
});

fuzz("command lines: the executable tells no secret and ends with a documented code", {
  runs: 100,
  input: secretLine,
}, async ({ name, before, url, rest, spelling }) => {
  const directory = await mkdtemp(join(tmpdir(), "barman-cloud-fuzz-"));
  try {
    const words = [name, spelling, ...before, url, ...rest, "--endpoint-url", "http://127.0.0.1:1/"]
      // What a command line can't hold, and what would write elsewhere.
      .filter((each) => !each.includes("\0") && each.isWellFormed());
    const { code, stdout, stderr } = await barmanCloud(words, {
      env: {
        ...SECRET_ENVIRONMENT,
        AZURE_STORAGE_CONNECTION_STRING:
          `BlobEndpoint=http://127.0.0.1:1/fuzzaccount;SharedAccessSignature=sv=2024&sig=${SECRETS.sas}`,
        STORAGE_EMULATOR_HOST: "http://127.0.0.1:1",
        AWS_MAX_ATTEMPTS: "1",
        HTTPS_PROXY: `http://proxy:${SECRETS.url}@127.0.0.1:1`,
        HTTP_PROXY: `http://proxy:${SECRETS.url}@127.0.0.1:1`,
        HOME: directory,
      },
      cwd: directory,
    });
    assert.ok(code !== null && CODES.has(code), `exit code ${code}: ${stderr}`);
    assert.doesNotMatch(stderr, /Internal error/);
    holdsNoSecret(stdout, "the output");
    holdsNoSecret(stderr, "the log");
  } finally {
    await rm(directory, { recursive: true, force: true });
  }
});
