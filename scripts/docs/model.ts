/** The declarations of all commands, as what is written from them needs them. */
import type { Command } from "../../lib/cli/command.ts";
import { COMMANDS } from "../../lib/cli/commands.ts";
import { type OptionSpec, type Section, SECTIONS, snakeCase } from "../../lib/cli/options.ts";
import { EXIT_CODE_MEANINGS, type Meaning } from "./exit_codes.ts";

export interface DocumentedCommand {
  readonly command: Command;
  /** What it is called by: `barman-cloud-backup`, `barman-cloud links`. */
  readonly program: string;
  /** One of Barman's nine. */
  readonly barman: boolean;
  /** Those of each section, in the order of the help; --version and --help are the last of the first. */
  readonly sections: readonly {
    readonly section: Section;
    readonly options: readonly DocumentedOption[];
  }[];
  readonly exitCodes: readonly Meaning[];
}

export interface DocumentedOption {
  readonly flags: readonly string[];
  /** What the value is called, or the choices between braces; null for a flag. */
  readonly value: string | null;
  readonly choices: readonly string[];
  readonly help: string;
  readonly repeatable: boolean;
  /** All following words are values. */
  readonly greedy: boolean;
  /** Options of which only one may be given besides this. */
  readonly exclusive: string | undefined;
}

const ALWAYS: readonly DocumentedOption[] = [
  simple(["-V", "--version"], "show the version of Barman that this is compatible with, and exit"),
  simple(["--help"], "show the help and exit"),
];

function simple(flags: readonly string[], help: string): DocumentedOption {
  const none = { value: null, choices: [], exclusive: undefined };
  return { flags, help, repeatable: false, greedy: false, ...none };
}

/** Headings of the sections of options. */
export const SECTION_HEADINGS: Readonly<Record<Section, string>> = {
  general: "Options",
  s3: "Options for S3",
  azure: "Options for Azure",
  gcs: "Options for Google Cloud",
};

export async function documentedCommands(): Promise<DocumentedCommand[]> {
  const documented: DocumentedCommand[] = [];
  for (const entry of COMMANDS) {
    const { command } = await entry.load();
    const exitCodes = EXIT_CODE_MEANINGS[entry.name];
    if (exitCodes === undefined) throw new Error(`No exit codes are told of ${entry.name}`);
    const sections = SECTIONS.map((section) => ({
      section,
      options: [
        ...command.options.filter((option) => option.section === section).map(documentedOption),
        ...(section === "general" ? ALWAYS : []),
      ],
    })).filter(({ options }) => options.length > 0);
    documented.push({
      command,
      program: entry.barman ? `barman-cloud-${entry.name}` : `barman-cloud ${entry.name}`,
      barman: entry.barman,
      sections,
      exitCodes,
    });
  }
  return documented;
}

function documentedOption(spec: OptionSpec): DocumentedOption {
  const hasValue = spec.action !== "flag" && spec.action !== "count";
  const { choices = [] } = spec;
  const named = choices.length > 0
    ? `{${choices.join(",")}}`
    : spec.metavar ?? snakeCase(spec.dest).toUpperCase();
  return {
    flags: spec.flags,
    value: hasValue ? named : null,
    choices,
    help: spec.help,
    repeatable: spec.action === "append" || spec.action === "count",
    greedy: spec.action === "values",
    exclusive: spec.exclusive,
  };
}

/** `barman-cloud-backup [OPTIONS] DESTINATION_URL SERVER_NAME` */
export function synopsis({ command, program }: DocumentedCommand): string {
  const positionals = command.positionals.map(({ metavar, optional }) =>
    optional === true ? `[${metavar.toUpperCase()}]` : metavar.toUpperCase()
  );
  return [program, "[OPTIONS]", ...positionals].join(" ");
}

/** `-J N, --jobs N` */
export function flagsWithValue({ flags, value, greedy }: DocumentedOption): string {
  const suffix = value === null ? "" : greedy ? ` [${value} …]` : ` ${value}`;
  return flags.map((flag) => `${flag}${suffix}`).join(", ");
}
