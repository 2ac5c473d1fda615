/** Manual pages, in the macros of man(7). */
import { COMPATIBILITY_VERSION } from "../../lib/cli/version.ts";
import { type DocumentedCommand, flagsWithValue, SECTION_HEADINGS, synopsis } from "./model.ts";

/** A page for each command, and one about all: file name to text. */
export function manualPages(commands: readonly DocumentedCommand[]): Map<string, string> {
  const pages = new Map<string, string>([["barman-cloud.1", overview(commands)]]);
  for (const documented of commands) {
    pages.set(`${pageName(documented)}.1`, page(documented, commands));
  }
  return pages;
}

function pageName({ command }: DocumentedCommand): string {
  return `barman-cloud-${command.name}`;
}

function title(name: string): string[] {
  return [
    '.\\" Made by scripts/docs.ts; do not edit.',
    `.TH ${escaped(name.toUpperCase())} 1 "" "barman\\-cloud" "PostgreSQL backup"`,
  ];
}

function overview(commands: readonly DocumentedCommand[]): string {
  return [
    ...title("barman-cloud"),
    ".SH NAME",
    "barman\\-cloud \\- back up PostgreSQL to object storage or a directory",
    ".SH SYNOPSIS",
    ".B barman\\-cloud",
    ".I COMMAND",
    "\\&.\\|.\\|.",
    ".SH DESCRIPTION",
    ...paragraph(
      `Backs up PostgreSQL to object storage or a directory, and brings it back. The commands are those of Barman ${COMPATIBILITY_VERSION}; ` +
        "each of Barman's also runs under its own name.",
    ),
    ".SH COMMANDS",
    ...commands.flatMap((
      { command },
    ) => [".TP", `.B ${escaped(command.name)}`, ...paragraph(command.summary)]),
    ...seeAlso(commands.map(pageName)),
    "",
  ].join("\n");
}

function page(documented: DocumentedCommand, all: readonly DocumentedCommand[]): string {
  const { command, program, sections, exitCodes } = documented;
  return [
    ...title(pageName(documented)),
    ".SH NAME",
    `${escaped(pageName(documented))} \\- ${escaped(command.summary)}`,
    ".SH SYNOPSIS",
    escaped(synopsis(documented)),
    ".SH DESCRIPTION",
    ...paragraph(command.description),
    ...(command.positionals.length === 0 ? [] : [".SH ARGUMENTS"]),
    ...command.positionals.flatMap(({ metavar, help }) => [
      ".TP",
      `.I ${escaped(metavar.toUpperCase())}`,
      ...paragraph(help),
    ]),
    ...sections.flatMap(({ section, options }) => [
      `.SH ${SECTION_HEADINGS[section].toUpperCase()}`,
      ...options.flatMap((option) => [
        ".TP",
        `.B ${escaped(flagsWithValue(option))}`,
        ...paragraph(option.help),
      ]),
    ]),
    '.SH "EXIT STATUS"',
    ...exitCodes.flatMap(([code, meaning]) => [".TP", `.B ${code}`, ...paragraph(meaning)]),
    ...(command.examples.length === 0 ? [] : [".SH EXAMPLES"]),
    ...command.examples.flatMap(([what, line]) => [
      ".PP",
      ...paragraph(`${what}:`),
      ".PP",
      ".nf",
      ".RS",
      ...line.replaceAll("PROGRAM", program).split("\n").map(escaped),
      ".RE",
      ".fi",
    ]),
    ...seeAlso(
      ["barman-cloud", ...all.map(pageName)].filter((name) => name !== pageName(documented)),
    ),
    "",
  ].join("\n");
}

function seeAlso(names: readonly string[]): string[] {
  return [
    '.SH "SEE ALSO"',
    ...names.map((name, i) => `.BR ${escaped(name)} (1)${i === names.length - 1 ? "" : ","}`),
  ];
}

function paragraph(text: string): string[] {
  return [escaped(text)];
}

/** A line of text that is text to roff; other letters than ASCII's by name, for terminals of any kind. */
function escaped(text: string): string {
  const plain = text.replaceAll("\\", "\\e").replaceAll("-", "\\-").replaceAll("'", "\\(aq")
    .replaceAll("`", "\\(ga").replaceAll("~", "\\(ti").replaceAll("^", "\\(ha")
    .replaceAll("…", "\\&.\\|.\\|.");
  return plain.replace(/^\./, "\\&.").replace(
    // deno-lint-ignore no-control-regex
    /[^\x00-\x7f]/gu,
    (letter) => `\\[u${(letter.codePointAt(0) ?? 0).toString(16).toUpperCase().padStart(4, "0")}]`,
  );
}
