/** What a command is: declarations for the parser, and a function that does it. */
import type { ExitCode } from "./exit_codes.ts";
import type { Logger } from "./log.ts";
import type { OptionSpec, PositionalSpec, ValuesOf } from "./options.ts";

export interface CommandContext {
  /** The name it was called by: `barman-cloud-backup`, or `barman-cloud backup`. */
  readonly program: string;
  /** The words after the command's name, as they were given; without them nothing is left for later calls. */
  readonly words?: readonly string[] | undefined;
  readonly env: Readonly<Record<string, string | undefined>>;
  readonly log: Logger;
  /** Aborted by SIGINT and SIGTERM with an `InterruptedError`. */
  readonly signal: AbortSignal;
  /** Writes documented output; everything else goes to the log. */
  readonly stdout: (text: string) => void;
  /** Writes progress; only used when `stderrIsTerminal`. */
  readonly stderr: (text: string) => void;
  readonly stderrIsTerminal: boolean;
  readonly now: () => Date;
}

export interface CommandDeclaration<
  P extends readonly PositionalSpec<string, string | undefined>[] = readonly PositionalSpec<
    string,
    string | undefined
  >[],
  O extends readonly OptionSpec[] = readonly OptionSpec[],
> {
  /** `wal-archive`. */
  readonly name: string;
  /** One line for the list of commands. */
  readonly summary: string;
  /** One paragraph for the help. */
  readonly description: string;
  readonly positionals: P;
  readonly options: O;
  /** Names of exclusive groups of which one member must be given. */
  readonly requiredGroups?: readonly string[];
  /** Examples for the end of the help: what they do, and a line that works when pasted. */
  readonly examples: readonly (readonly [what: string, line: string])[];
}

export interface Command extends CommandDeclaration {
  run(values: Readonly<Record<string, unknown>>, context: CommandContext): Promise<ExitCode>;
}

/** Ties `run` to the types of the declarations. */
export function defineCommand<
  const P extends readonly PositionalSpec<string, string | undefined>[],
  const O extends readonly OptionSpec[],
>(
  declaration: CommandDeclaration<P, O>,
  run: (values: ValuesOf<P> & ValuesOf<O>, context: CommandContext) => Promise<ExitCode>,
): Command {
  return {
    ...declaration,
    // The parser fills in every declared dest, so the record has the declared shape.
    run: (values, context) => run(values as ValuesOf<P> & ValuesOf<O>, context),
  };
}
