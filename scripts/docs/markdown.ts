/** docs/commands.md */
import { type DocumentedCommand, flagsWithValue, SECTION_HEADINGS, synopsis } from "./model.ts";

export function commandsMarkdown(commands: readonly DocumentedCommand[]): string {
  return [
    "# Commands",
    "",
    "Made by `deno run -A scripts/docs.ts` from the declarations in `lib/commands/`; do not edit.",
    "",
    "Options may stand anywhere; a long option may be shortened as long as it is unambiguous, and takes its value as",
    "`--option value` or `--option=value`. `-h` is no help: in `barman-cloud-backup` it is the host. Options of other",
    "providers than the one in use are accepted and ignored. Logs go to stderr; what is on stdout is described in",
    "[json.md](json.md).",
    "",
    "| command | |",
    "| --- | --- |",
    ...commands.map(({ command, program }) =>
      `| [${program}](#${anchor(program)}) | ${cell(command.summary)} |`
    ),
    "",
    ...commands.flatMap(oneCommand),
  ].join("\n");
}

function oneCommand(documented: DocumentedCommand): string[] {
  const { command, program, sections, exitCodes } = documented;
  return [
    `## ${program}`,
    "",
    command.description,
    "",
    "```",
    synopsis(documented),
    "```",
    "",
    ...(command.positionals.length === 0 ? [] : [
      "| argument | |",
      "| --- | --- |",
      ...command.positionals.map(({ metavar, help }) =>
        `| \`${metavar.toUpperCase()}\` | ${cell(help)} |`
      ),
      "",
    ]),
    ...sections.flatMap(({ section, options }) => [
      `| ${
        SECTION_HEADINGS[section].toLowerCase().replace("s3", "S3").replace("azure", "Azure")
          .replace("google cloud", "Google Cloud")
      } | |`,
      "| --- | --- |",
      ...options.map((option) => `| \`${cell(flagsWithValue(option))}\` | ${cell(option.help)} |`),
      "",
    ]),
    ...groups(documented),
    "| exit code | |",
    "| --- | --- |",
    ...exitCodes.map(([code, meaning]) => `| ${code} | ${cell(meaning)} |`),
    "",
    ...(command.examples.length === 0 ? [] : [
      "```sh",
      ...command.examples.flatMap(([what, line]) => [
        `# ${what}`,
        line.replaceAll("PROGRAM", program),
      ]),
      "```",
      "",
    ]),
  ];
}

function groups({ command, sections }: DocumentedCommand): string[] {
  const members = new Map<string, string[]>();
  for (const { flags, exclusive } of sections.flatMap(({ options }) => options)) {
    if (exclusive === undefined) continue;
    members.set(exclusive, [...members.get(exclusive) ?? [], `\`${flags.at(-1)}\``]);
  }
  const lines = [...members].map(([name, flags]) => {
    const required = command.requiredGroups?.includes(name) ?? false;
    return `- ${required ? "Exactly" : "At most"} one of ${flags.join(", ")}`;
  });
  return lines.length === 0 ? [] : [...lines, ""];
}

function anchor(heading: string): string {
  return heading.toLowerCase().replaceAll(" ", "-");
}

function cell(text: string): string {
  return text.replaceAll("|", "\\|");
}
