/**
 * The command lines that are written in scripts and archive_command, without the parser: loading that takes longer, and
 * more memory, than all else up to the first request. Whatever is not plain here is left to it, errors above all.
 */
import type { CommandDeclaration } from "./command.ts";
import { type OptionSpec, OptionValueError } from "./options.ts";

/**
 * The values, exactly as `parseCommandLine` would give them; undefined when that has to look. Plain are: whole names of
 * options, values as a word of their own or behind `--name=`, and all positionals in one row.
 */
export function quickParse(
  command: CommandDeclaration,
  words: readonly string[],
): Readonly<Record<string, unknown>> | undefined {
  const values: Record<string, unknown> = {};
  for (const spec of command.options) {
    // The parser reads a default that is text like a word.
    const { parse } = spec;
    const read = typeof spec.default === "string" && parse !== undefined;
    values[spec.dest] = read ? parse(String(spec.default)) : spec.default;
  }
  const given = new Set<OptionSpec>();
  const positionals: string[] = [];
  let rowEnded = false;
  for (let at = 0; at < words.length; at++) {
    const word = words[at] ?? "";
    if (word === "") return undefined;
    if (!word.startsWith("-")) {
      if (rowEnded) return undefined;
      positionals.push(word);
      continue;
    }
    rowEnded = positionals.length > 0;
    const equals = word.startsWith("--") ? word.indexOf("=") : -1;
    const name = equals < 0 ? word : word.slice(0, equals);
    const spec = command.options.find(({ flags }) => flags.includes(name));
    if (spec === undefined) return undefined;
    given.add(spec);
    if (spec.action === "flag" || spec.action === "count") {
      if (equals >= 0) return undefined;
      values[spec.dest] = spec.action === "flag" ? true : Number(values[spec.dest] ?? 0) + 1;
      continue;
    }
    if (spec.action === "values") return undefined;
    const text = equals < 0 ? words[++at] : word.slice(equals + 1);
    if (text === undefined || text === "" || (equals < 0 && text.startsWith("-"))) return undefined;
    const value = valueOf(spec, text);
    if (value === undefined) return undefined;
    const before = values[spec.dest];
    values[spec.dest] = spec.action === "value"
      ? value
      : Array.isArray(before)
      ? [...before, value]
      : [value];
  }
  if (!groupsAreFine(command, given)) return undefined;
  const needed = command.positionals.filter(({ optional }) => optional !== true).length;
  if (positionals.length < needed || positionals.length > command.positionals.length) {
    return undefined;
  }
  for (const [index, { dest }] of command.positionals.entries()) values[dest] = positionals[index];
  return values;
}

/** Undefined when the word is no good. */
function valueOf({ choices, parse }: OptionSpec, word: string): unknown {
  try {
    const value = parse === undefined ? word : parse(word);
    if (choices !== undefined && !choices.includes(String(value))) return undefined;
    return value;
  } catch (error) {
    if (error instanceof OptionValueError) return undefined;
    throw error;
  }
}

/** At most one of those that exclude each other, and one of those of which one is needed. */
function groupsAreFine(command: CommandDeclaration, given: ReadonlySet<OptionSpec>): boolean {
  const groups = [...given].flatMap(({ exclusive }) => exclusive === undefined ? [] : [exclusive]);
  return new Set(groups).size === groups.length &&
    (command.requiredGroups ?? []).every((group) => groups.includes(group));
}
