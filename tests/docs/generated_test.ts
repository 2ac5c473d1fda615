/** What scripts/docs.ts makes is up to date, and works where it is used. */
import assert from "node:assert/strict";
import { spawnSync } from "node:child_process";
import { mkdtemp, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { dirname, join } from "node:path";
import { fileURLToPath } from "node:url";
import { COMMANDS } from "../../lib/cli/commands.ts";
import { parseCommandLine } from "../../lib/cli/parser.ts";
import { documentedCommands } from "../../scripts/docs/model.ts";
import { generatedDocs, staleDocs } from "../../scripts/docs.ts";
import { skipUnless } from "../skips.ts";

const DOCS = fileURLToPath(new URL("../../docs", import.meta.url));
const BASH_COMPLETION = join(DOCS, "completions", "bash", "barman-cloud");

Deno.test("docs/commands.md, docs/man and docs/completions are not stale", async () => {
  const stale = await staleDocs(await generatedDocs());
  assert.deepEqual(stale, [], "run: deno run -A scripts/docs.ts");
});

Deno.test("what is missing, changed or left over is found stale", async () => {
  const files = new Map([["man/a.1", "text"], ["commands.md", "text"]]);
  const directory = await mkdtemp(join(tmpdir(), "barman-cloud-docs-"));
  try {
    assert.deepEqual(await staleDocs(files, directory), ["man/a.1", "commands.md"]);
    await Deno.mkdir(join(directory, "man"));
    for (const [name, text] of files) await writeFile(join(directory, name), text);
    assert.deepEqual(await staleDocs(files, directory), []);
    await writeFile(join(directory, "man", "b.1"), "");
    await writeFile(join(directory, "commands.md"), "other");
    await writeFile(join(directory, "json.md"), "written by hand");
    assert.deepEqual(await staleDocs(files, directory), ["commands.md", "man/b.1"]);
  } finally {
    await rm(directory, { recursive: true });
  }
});

Deno.test("commands.md, the manual and the help know the same options", async () => {
  const files = await generatedDocs();
  const markdown = files.get("commands.md") ?? "";
  for (const { command, program, exitCodes } of await documentedCommands()) {
    const help = parseCommandLine(command, ["--help"], program, 200);
    assert.ok(help.kind === "exit");
    const flags = help.stdout.match(/(?<=^ +(?:\S+ ?\S*, )*)--?[a-zA-Z][a-z-]*(?=[ ,\n])/gm) ?? [];
    const page = files.get(`man/barman-cloud-${command.name}.1`) ?? "";
    const section = markdown.split(/^## /m).find((text) => text.startsWith(`${program}\n`)) ?? "";
    assert.ok(flags.length >= 3, command.name);
    for (const flag of flags) {
      assert.ok(
        page.includes(flag.replaceAll("-", "\\-")),
        `${flag} in the manual of ${command.name}`,
      );
      assert.ok(section.includes(flag), `${flag} in commands.md of ${command.name}`);
    }
    for (const [code] of exitCodes) assert.ok(section.includes(`| ${code} |`));
  }
});

Deno.test({
  name: "bash completes commands, options, choices and paths",
  ignore: skipUnless(
    available("bash", ["--version"]),
    "Completion in bash",
    "apt-get install bash",
  ),
  fn() {
    const names = COMMANDS.map(({ name }) => name);
    const cases: readonly (readonly [words: readonly string[], expected: readonly string[]])[] = [
      [["barman-cloud", "backup-"], names.filter((name) => name.startsWith("backup-"))],
      [["barman-cloud", ""], [...names, "--help", "--version"]],
      [["barman-cloud", "wal-archive", "--comp"], ["--compression-level"]],
      [["barman-cloud-wal-archive", "--zs"], ["--zstd"]],
      [["/usr/bin/barman-cloud-backup", "--encryption", ""], ["AES256", "aws:kms"]],
      [["barman-cloud-backup", "-e", "A"], ["AES256"]],
      [["barman-cloud-backup", "--cloud-provider", "=", "lo"], ["local"]],
      [["barman-cloud-backup", "--cloud-provider", "="], [
        ...["aws-s3", "azure-blob-storage", "google-cloud-storage", "local"],
      ]],
      [["barman-cloud", "backup-list", "--format", ""], ["console", "json"]],
      [["barman-cloud-backup-delete", "-b", ""], ["first", "last", "last-failed"]],
      [["barman-cloud-backup-show", "s3", ":", "//b/p", "main", "la"], ["last", "last-failed"]],
      [[
        "barman-cloud-backup-show",
        "--format",
        "json",
        "--endpoint-url",
        "=",
        "http",
        ":",
        "//h",
        "s3",
        ":",
        "//b",
        "main",
        "f",
      ], ["first"]],
      [["barman-cloud-wal-archive", "file", ":", "///srv", "main", `${DOCS}/comm`], [
        `${DOCS}/commands.md`,
      ]],
      [["barman-cloud-backup", "--name", ""], []],
      [["barman-cloud", "no-such", "--"], []],
    ];
    for (const [words, expected] of cases) {
      assert.deepEqual(completed(words).sort(), [...expected].sort(), words.join(" "));
    }
    const registered = bash(`source '${BASH_COMPLETION}' && complete -p`);
    for (const { name, barman } of COMMANDS) {
      if (barman) assert.match(registered, new RegExp(` barman-cloud-${name}$`, "m"));
    }
    assert.match(registered, / barman-cloud$/m);
  },
});

for (
  const [shell, file, check] of [
    ["zsh", join(DOCS, "completions", "zsh", "_barman-cloud"), ["-n"]],
    ["fish", join(DOCS, "completions", "fish", "barman-cloud.fish"), ["-n"]],
  ] as const
) {
  Deno.test({
    name: `${shell} can read its completions`,
    ignore: skipUnless(
      available(shell, ["--version"]),
      `Completion in ${shell}`,
      `apt-get install ${shell}`,
    ),
    fn() {
      const { status, stderr } = spawnSync(shell, [...check, file], { encoding: "utf8" });
      assert.deepEqual([status, stderr], [0, ""]);
    },
  });
}

Deno.test({
  name: "fish completes",
  ignore: skipUnless(
    available("fish", ["--version"]),
    "Completion in fish",
    "apt-get install fish",
  ),
  fn() {
    const file = join(DOCS, "completions", "fish", "barman-cloud.fish");
    const complete = (line: string) => {
      const { stdout } = spawnSync("fish", [
        "--no-config",
        "-c",
        `source '${file}'; complete -C '${line}'`,
      ], {
        encoding: "utf8",
        env: { HOME: dirname(file), PATH: "/usr/bin:/bin" },
      });
      return stdout.split("\n").filter(Boolean).map((found) => found.split("\t")[0]).sort();
    };
    assert.deepEqual(complete("barman-cloud backup-l"), ["backup-list"]);
    assert.deepEqual(complete("barman-cloud-wal-archive --zst"), ["--zstd"]);
    assert.deepEqual(complete("barman-cloud backup --encryption "), ["AES256", "aws:kms"]);
    assert.deepEqual(complete("barman-cloud-backup-keep --target s"), ["standalone"]);
  },
});

Deno.test({
  name: "zsh completes",
  ignore: skipUnless(
    available("zsh", ["--version"]),
    "Completion in zsh",
    "apt-get install zsh",
  ),
  fn() {
    const cases = [
      ["barman-cloud backup-l", "barman-cloud backup-list "],
      ["barman-cloud-wal-archive --zst", "barman-cloud-wal-archive --zstd "],
      ["barman-cloud backup -e aws", "barman-cloud backup -e aws:kms "],
      [
        "barman-cloud-backup-show s3://b main last-",
        "barman-cloud-backup-show s3://b main last-failed ",
      ],
    ];
    // A terminal of its own, in which the key after Tab prints the line.
    const script = `
      zmodload zsh/zpty
      zpty z zsh -f -i
      seen=
      until_seen() { local chunk; repeat 100 { while zpty -r -t z chunk; do seen+=$chunk; done; [[ $seen == *\${~1}* ]] && return; sleep 0.1 } }
      zpty -w z 'PS1="%# "; fpath=($COMPLETIONS $fpath); autoload -U compinit; compinit -u -D; bindkey "^I" complete-word; show-it() { print -r -- "<$BUFFER>"; BUFFER= }; zle -N show-it; bindkey "^X" show-it; print re""ady'
      until_seen ready
      for line in "$@"; do
        seen=
        zpty -w -n z "$line"$'\\t\\x18'
        until_seen '<*>'
        print -r -- "$seen" | grep -o '<[^>]*>'
      done
      zpty -d z`;
    const { stdout } = spawnSync("zsh", [
      "-f",
      "-c",
      script,
      "zsh",
      ...cases.map(([typed = ""]) => typed),
    ], {
      encoding: "utf8",
      env: {
        PATH: "/usr/bin:/bin",
        TERM: "xterm",
        COLUMNS: "200",
        COMPLETIONS: join(DOCS, "completions", "zsh"),
      },
    });
    assert.deepEqual(
      stdout.trim().split("\n").map((line) => line.trim()),
      cases.map(([, completed]) => `<${completed}>`),
    );
  },
});

Deno.test({
  name: "man finds nothing to warn about",
  ignore: skipUnless(
    available("man", ["--version"]),
    "Manual pages in man",
    "apt-get install man-db groff",
  ),
  async fn() {
    for (const path of (await generatedDocs()).keys()) {
      if (!path.startsWith("man/")) continue;
      const { status, stdout, stderr } = spawnSync("man", ["--warnings", "-l", join(DOCS, path)], {
        encoding: "utf8",
        env: { MANWIDTH: "100", LC_ALL: "C.UTF-8", PATH: "/usr/bin:/bin", MAN_KEEP_FORMATTING: "" },
      });
      assert.deepEqual([status, stderr], [0, ""], path);
      assert.match(stdout, /EXIT STATUS|COMMANDS/);
    }
  },
});

function available(program: string, words: readonly string[]): boolean {
  return spawnSync(program, words, { stdio: "ignore" }).status === 0;
}

/** What bash would offer for the last of the words, taken apart as it does on the command line. */
function completed(words: readonly string[]): string[] {
  const quoted = words.map((word) => `'${word}'`).join(" ");
  return bash(
    `source '${BASH_COMPLETION}'; COMP_WORDS=(${quoted}); COMP_CWORD=${words.length - 1}; ` +
      `_barman_cloud; printf '%s\\n' "\${COMPREPLY[@]}"`,
  ).split("\n").filter(Boolean);
}

function bash(script: string): string {
  const { status, stdout, stderr } = spawnSync("bash", ["--norc", "-c", script], {
    encoding: "utf8",
  });
  assert.deepEqual([status, stderr], [0, ""], script);
  return stdout;
}
