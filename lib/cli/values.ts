/** Parsers of option values that several commands share. Each throws `OptionValueError`. */
import { OptionValueError } from "./options.ts";

/** An integer in a range (inclusive), as Python's `int()` reads it: sign, blanks around, underscores. */
export function integer(
  what: string,
  min = -Number.MAX_SAFE_INTEGER,
  max = Number.MAX_SAFE_INTEGER,
): (word: string) => number {
  return (word) => {
    const text = word.trim();
    const number = /^[+-]?\d+(_\d+)*$/.test(text) ? Number(text.replaceAll("_", "")) : NaN;
    if (!Number.isSafeInteger(number)) {
      throw new OptionValueError(`'${word}' is not a valid ${what}`);
    }
    if (number < min || number > max) {
      throw new OptionValueError(
        max === Number.MAX_SAFE_INTEGER
          ? `'${word}' is not a valid ${what} (at least ${min})`
          : `'${word}' is not a valid ${what} (${min} to ${max})`,
      );
    }
    return number;
  };
}

const MULTIPLIERS = "KMGTPEZY";

/**
 * A size in bytes, 1 or more, by Barman's rules: a plain integer is bytes; with a trailing `B` there may be
 * a fraction, a multiplier and blanks. **`KB`, `MB`, … are powers of 1024 and `KiB`, `MiB`, … powers of
 * 1000**: the reverse of the usual meaning, kept because archives of existing scripts depend on it.
 *
 * `4MB` = 4194304, `4MiB` = 4000000, `1.5GB` = 1610612736, `10B` = 10.
 */
export function size(word: string): number {
  const refuse = () =>
    new OptionValueError(
      `'${word}' is not a valid size (examples: 1048576, 64MB, 1.5GB; MB counts 1024, MiB 1000)`,
    );
  if (/^\s*[+-]?\d+(_\d+)*\s*$/.test(word)) return checked(Number(word.replaceAll("_", "")));
  const match = /^\s*(\d+(?:\.\d*)?|\.\d+)\s*(?:([KMGTPEZY])(I?))?B\s*$/i.exec(word);
  if (match === null) throw refuse();
  const [, number = "", letter, decimal] = match;
  const power = letter === undefined ? 0 : MULTIPLIERS.indexOf(letter.toUpperCase()) + 1;
  return checked(Math.trunc(Number(number) * (decimal ? 1000 : 1024) ** power));

  function checked(bytes: number): number {
    if (!Number.isFinite(bytes) || bytes < 1) throw refuse();
    // Sizes beyond 2^53 mean "no limit"; arithmetic stays exact below it.
    return Math.min(bytes, Number.MAX_SAFE_INTEGER);
  }
}

/** One `KEY,VALUE` of `--tag`: split at the first comma, both sides stripped, S3's rules for characters. */
export function tag(word: string): readonly [string, string] {
  const comma = word.indexOf(",");
  if (comma < 0) throw new OptionValueError(`'${word}' is not a tag: use KEY,VALUE`);
  const key = word.slice(0, comma).trim();
  const value = word.slice(comma + 1).trim();
  const allowed = /^[A-Za-z0-9\s_.:/=+\-@]*$/;
  if (key.length < 1 || key.length > 128 || !allowed.test(key)) {
    throw new OptionValueError(
      `'${word}' has an invalid tag key: 1 to 128 of letters, digits, blanks and _.:/=+-@`,
    );
  }
  if (/^aws:/i.test(key)) {
    throw new OptionValueError(`'${word}' has an invalid tag key: 'aws:' is reserved`);
  }
  if (value.length > 256 || !allowed.test(value)) {
    throw new OptionValueError(
      `'${word}' has an invalid tag value: up to 256 of letters, digits, blanks and _.:/=+-@`,
    );
  }
  return [key, value];
}

/** One word of `--tags`: a CSV row of exactly two fields, double quotes allowed. */
export function csvTag(word: string): readonly [string, string] {
  const fields = csvRow(word);
  const [key, value] = fields ?? [];
  if (fields?.length !== 2 || key === undefined || value === undefined) {
    throw new OptionValueError(`'${word}' is not a tag: use KEY,VALUE, with "…" around a comma`);
  }
  return [key, value];
}

/** The fields of one CSV row (RFC 4180 quoting, as Python's csv module reads it); null for several rows. */
function csvRow(text: string): string[] | null {
  const fields: string[] = [];
  let field = "";
  let state: "start" | "plain" | "quoted" | "after-quote" = "start";
  for (const char of text) {
    if (state === "quoted") {
      if (char === '"') state = "after-quote";
      else field += char;
    } else if (char === ",") {
      fields.push(field);
      field = "";
      state = "start";
    } else if (char === "\n" || char === "\r") {
      return null;
    } else if (char === '"' && state === "start") {
      state = "quoted";
    } else if (char === '"' && state === "after-quote") {
      field += '"';
      state = "quoted";
    } else {
      field += char;
      state = "plain";
    }
  }
  fields.push(field);
  return fields;
}

/** Words that a backup can't be named, because they are shortcuts. */
export const RESERVED_BACKUP_NAMES: readonly string[] = [
  "latest",
  "last",
  "oldest",
  "first",
  "last-failed",
  "latest-full",
  "last-full",
  "auto",
];

/** `--name`: not empty, not of the form of a backup id, not a shortcut. */
export function backupName(word: string): string {
  if (word === "") throw new OptionValueError("a backup name can't be empty");
  if (/^\d{8}T\d{6}$/.test(word)) {
    throw new OptionValueError(`'${word}' looks like a backup id and can't be a name`);
  }
  if (RESERVED_BACKUP_NAMES.includes(word)) {
    throw new OptionValueError(`'${word}' is reserved and can't be a name`);
  }
  // A line of backup.info is a line: anything else would change the meaning of the file.
  if (/[\r\n\0]/.test(word)) throw new OptionValueError("a backup name can't hold line breaks");
  return word;
}
