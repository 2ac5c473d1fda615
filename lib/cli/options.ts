/**
 * Options are declared as data: the parser, the help, and (later) man pages and completions are made
 * from the declarations. The helpers below carry the type of each value, so that a command's `run`
 * gets exactly what its declarations say.
 */

/** A bad value on the command line; the parser adds the option's name and exits with usage and code 3. */
export class OptionValueError extends Error {
  override readonly name = "OptionValueError";
}

/** Headings of the help, in this order; the first has no heading of its own. */
export const SECTIONS = [
  "general",
  "s3",
  "azure",
  "gcs",
] as const;
export type Section = (typeof SECTIONS)[number];

/** `-J`, `--jobs`, … */
export type Flags = readonly [string, ...string[]];

export type OptionAction = "flag" | "count" | "value" | "values" | "append";

export interface OptionSpec<Dest extends string = string, Value = unknown> {
  readonly flags: Flags;
  /** Name of the property that `run` gets. Several options may share one (the last one given wins). */
  readonly dest: Dest;
  /** flag: boolean; count: how often; value: one word; values: all words up to the next option; append: repeatable. */
  readonly action: OptionAction;
  /** The value when the option is not given. */
  readonly default: Value;
  /** From the word to the value; throws `OptionValueError`. For `values` and `append` it gets each word. */
  readonly parse?: ((word: string) => unknown) | undefined;
  readonly choices?: readonly string[] | undefined;
  readonly metavar?: string | undefined;
  readonly help: string;
  readonly section: Section;
  /** Options with the same name here exclude each other. */
  readonly exclusive?: string | undefined;
  /** Not one of Barman's: it makes no abbreviation of Barman's ambiguous. */
  readonly ours?: boolean | undefined;
}

export interface PositionalSpec<Dest extends string = string, Value = string> {
  readonly dest: Dest;
  readonly metavar: string;
  readonly help: string;
  readonly optional?: boolean;
  /** Only for the type. */
  readonly value?: Value;
}

/** The property types that a list of declarations results in. */
export type ValuesOf<Specs extends readonly { readonly dest: string }[]> = {
  readonly [D in Specs[number]["dest"]]: Extract<Specs[number], { dest: D }> extends
    OptionSpec<D, infer V> ? V
    : Extract<Specs[number], { dest: D }> extends PositionalSpec<D, infer V> ? V
    : never;
};

interface Extra {
  readonly section?: Section;
  readonly exclusive?: string;
  readonly metavar?: string;
  readonly ours?: true;
}

/** `--dry-run`: true when given. */
export function flag<D extends string>(
  dest: D,
  flags: Flags,
  help: string,
  extra: Extra = {},
): OptionSpec<D, boolean> {
  return { flags, dest, action: "flag", default: false, help, section: "general", ...extra };
}

/** `-vv`: how often it was given. */
export function count<D extends string>(
  dest: D,
  flags: Flags,
  help: string,
  extra: Extra = {},
): OptionSpec<D, number> {
  return { flags, dest, action: "count", default: 0, help, section: "general", ...extra };
}

/** `--name NAME`: undefined when not given. */
export function value<D extends string, T = string>(
  dest: D,
  flags: Flags,
  help: string,
  extra: Extra & { readonly parse?: (word: string) => T } = {},
): OptionSpec<D, T | undefined> {
  return { flags, dest, action: "value", default: undefined, help, section: "general", ...extra };
}

/** `--jobs N` with a default. */
export function valueWithDefault<D extends string, T>(
  dest: D,
  flags: Flags,
  help: string,
  extra: Extra & { readonly parse: (word: string) => T; readonly default: T },
): OptionSpec<D, T> {
  return { flags, dest, action: "value", help, section: "general", ...extra };
}

/** `--encryption {AES256,aws:kms}`. */
export function choice<D extends string, const C extends readonly string[]>(
  dest: D,
  flags: Flags,
  choices: C,
  help: string,
  extra: Extra = {},
): OptionSpec<D, C[number] | undefined> {
  return {
    flags,
    dest,
    action: "value",
    default: undefined,
    choices,
    help,
    section: "general",
    ...extra,
  };
}

/** `--tags a,b c,d`: undefined when not given, perhaps empty when given. */
export function values<D extends string, T>(
  dest: D,
  flags: Flags,
  help: string,
  extra: Extra & { readonly parse: (word: string) => T },
): OptionSpec<D, readonly T[] | undefined> {
  return { flags, dest, action: "values", default: undefined, help, section: "general", ...extra };
}

/** `--tag a,b --tag c,d`: undefined when not given. */
export function append<D extends string, T>(
  dest: D,
  flags: Flags,
  help: string,
  extra: Extra & { readonly parse: (word: string) => T },
): OptionSpec<D, readonly T[] | undefined> {
  return { flags, dest, action: "append", default: undefined, help, section: "general", ...extra };
}

export function positional<D extends string>(
  dest: D,
  help: string,
): PositionalSpec<D, string> {
  return { dest, metavar: snakeCase(dest), help };
}

export function optionalPositional<D extends string>(
  dest: D,
  help: string,
): PositionalSpec<D, string | undefined> {
  return { dest, metavar: snakeCase(dest), help, optional: true };
}

/** `walPath` → `wal_path`, the notation that Python's usage lines have. */
export function snakeCase(name: string): string {
  return name.replace(/[A-Z]/g, (letter) => `_${letter.toLowerCase()}`);
}
