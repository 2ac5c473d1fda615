/** The command line by the rules of Python's argparse, which callers rely on (npm `argparse` is its port). */
import {
  ArgumentParser,
  ArgumentTypeError,
  type MutuallyExclusiveGroup,
  RawDescriptionHelpFormatter,
} from "argparse";
import type { CommandDeclaration } from "./command.ts";
import { EXIT, type ExitCode } from "./exit_codes.ts";
import { type OptionSpec, OptionValueError, type Section, SECTIONS, snakeCase } from "./options.ts";
import { COMPATIBILITY_VERSION } from "./version.ts";

/** What came of the words: values, or an early end (help, version, usage error). */
export type ParseResult =
  | { readonly kind: "values"; readonly values: Readonly<Record<string, unknown>> }
  | {
    readonly kind: "exit";
    readonly code: ExitCode;
    readonly stdout: string;
    readonly stderr: string;
  };

/** Thrown inside argparse's `exit`, which must not end the process by itself. */
class ParserExit extends Error {
  readonly code: number;
  constructor(code: number) {
    super(`exit ${code}`);
    this.code = code;
  }
}

const SECTION_TITLES: Readonly<Record<Section, string | undefined>> = {
  general: undefined,
  s3: "options for S3 (aws-s3)",
  azure: "options for Azure (azure-blob-storage)",
  gcs: "options for Google Cloud (google-cloud-storage)",
};

/**
 * Parse the words after the command's name.
 * @param program what usage lines call it
 * @param columns width of help texts, as Python takes it from COLUMNS
 */
export function parseCommandLine(
  command: CommandDeclaration,
  words: readonly string[],
  program: string,
  columns: number,
): ParseResult {
  let stdout = "";
  let stderr = "";
  const parser = buildParser(command, program, columns);
  // argparse prints and exits through these two; both are public, overridable methods in Python.
  Object.assign(parser, {
    _print_message(message: string, stream?: unknown) {
      if (stream === process.stderr) stderr += message;
      else stdout += message;
    },
    exit(status = 0, message?: string) {
      if (message) stderr += message;
      throw new ParserExit(status);
    },
    error(message: string) {
      stderr += `${parser.format_usage()}${parser.prog}: error: ${message}\n`;
      throw new ParserExit(EXIT.usage);
    },
  });
  preferBarmans(parser, command);
  try {
    const namespace = parser.parse_args([...words]);
    const values: Record<string, unknown> = {};
    for (const spec of [...command.positionals, ...command.options]) {
      values[spec.dest] = namespace[spec.dest] ?? undefined;
    }
    return { kind: "values", values };
  } catch (error) {
    if (!(error instanceof ParserExit)) throw error;
    return {
      kind: "exit",
      code: error.code === 0 ? EXIT.success : EXIT.usage,
      stdout,
      stderr,
    };
  }
}

/** An abbreviation that is unambiguous with Barman stays so: of several options that it may mean ours are none. */
function preferBarmans(parser: ArgumentParser, command: CommandDeclaration): void {
  const ours = new Set<unknown>(
    command.options.filter((spec) => spec.ours).flatMap(({ flags }) => flags),
  );
  const name = "_get_option_tuples";
  const matches: unknown = Reflect.get(parser, name);
  if (typeof matches !== "function") throw new Error(`argparse has no ${name} any more`);
  Object.assign(parser, {
    [name](word: string): unknown[] {
      const found: unknown[][] = Reflect.apply(matches, parser, [word]);
      const barmans = found.filter(([, flag]) => !ours.has(flag));
      return barmans.length === 0 ? found : barmans;
    },
  });
}

/** The full help text, for documentation too. */
export function helpText(command: CommandDeclaration, program: string, columns: number): string {
  return buildParser(command, program, columns).format_help();
}

function buildParser(
  command: CommandDeclaration,
  program: string,
  columns: number,
): ArgumentParser {
  class Formatter extends RawDescriptionHelpFormatter {
    constructor(options: { prog: string }) {
      super({ ...options, width: Math.max(columns - 2, 20) });
    }
  }
  const parser = new ArgumentParser({
    prog: program,
    description: wrap(command.description, columns - 2),
    epilog: examplesText(command, program),
    formatter_class: Formatter,
    add_help: false,
    // Texts must be the same whether or not a terminal is there.
    color: false,
  });
  parser.add_argument("-V", "--version", {
    action: "version",
    version: `${program.replaceAll(" ", "-")} ${COMPATIBILITY_VERSION}`,
    help: "show the version of Barman that this is compatible with, and exit",
  });
  parser.add_argument("--help", { action: "help", help: "show this help and exit" });
  for (const spec of command.positionals) {
    parser.add_argument(spec.dest, {
      metavar: spec.metavar,
      help: escapePercent(spec.help),
      ...(spec.optional ? { nargs: "?" as const } : {}),
    });
  }
  const sections = new Map<Section, ArgumentParser | ReturnType<typeof parser.add_argument_group>>(
    [["general", parser]],
  );
  for (const section of SECTIONS) {
    const title = SECTION_TITLES[section];
    if (title !== undefined && command.options.some((option) => option.section === section)) {
      sections.set(section, parser.add_argument_group({ title }));
    }
  }
  const exclusive = new Map<string, MutuallyExclusiveGroup>();
  for (const spec of command.options) {
    const section = sections.get(spec.section) ?? parser;
    let container: Pick<ArgumentParser, "add_argument"> = section;
    if (spec.exclusive !== undefined) {
      const required = command.requiredGroups?.includes(spec.exclusive) ?? false;
      const group = exclusive.get(spec.exclusive) ??
        section.add_mutually_exclusive_group({ required });
      exclusive.set(spec.exclusive, group);
      container = group;
    }
    addOption(container, spec);
  }
  return parser;
}

function addOption(container: Pick<ArgumentParser, "add_argument">, spec: OptionSpec): void {
  const common = { dest: spec.dest, help: escapePercent(spec.help), default: spec.default };
  switch (spec.action) {
    case "flag":
      container.add_argument(...spec.flags, { ...common, action: "store_true" });
      return;
    case "count":
      container.add_argument(...spec.flags, { ...common, action: "count" });
      return;
  }
  const { parse } = spec;
  const valued = {
    ...common,
    ...(spec.choices === undefined
      ? { metavar: spec.metavar ?? snakeCase(spec.dest).toUpperCase() }
      : { choices: [...spec.choices] }),
    ...(parse === undefined ? {} : {
      type: (word: string) => {
        try {
          return parse(word);
        } catch (error) {
          if (error instanceof OptionValueError) throw new ArgumentTypeError(error.message);
          throw error;
        }
      },
    }),
  };
  switch (spec.action) {
    case "value":
      container.add_argument(...spec.flags, valued);
      return;
    case "values":
      container.add_argument(...spec.flags, { ...valued, nargs: "*" });
      return;
    case "append":
      container.add_argument(...spec.flags, { ...valued, action: "append" });
      return;
  }
}

/** argparse's help strings are %-formats. */
function escapePercent(text: string): string {
  return text.replaceAll("%", "%%");
}

function examplesText(command: CommandDeclaration, program: string): string {
  if (command.examples.length === 0) return "";
  const lines = command.examples.map(([what, line]) => `  # ${what}\n  ${line}`);
  return `examples:\n${lines.join("\n\n")}`.replaceAll("PROGRAM", program);
}

/** Fill a paragraph; the formatter leaves descriptions as they are because the examples need that. */
function wrap(text: string, width: number): string {
  const lines: string[] = [];
  let line = "";
  for (const word of text.split(/\s+/)) {
    if (line !== "" && line.length + 1 + word.length > width) {
      lines.push(line);
      line = word;
    } else line = line === "" ? word : `${line} ${word}`;
  }
  lines.push(line);
  return lines.join("\n");
}
