/**
 * Texts as they may be shown: names come from stores and archives, and a terminal must not obey them, nor a reader take
 * a part of them for another line.
 */

/** Longer messages repeat a name that somebody has made long. Characters. */
const LONGEST_MESSAGE = 16_384;

/** Control characters, line and paragraph separators, what turns the direction of text, halves of pairs. */
const CONTROL =
  // deno-lint-ignore no-control-regex -- they are what is looked for
  /[\u0000-\u001f\u007f-\u009f\u2028\u2029\u200e\u200f\u202a-\u202e\u2066-\u2069]|\p{Surrogate}/gu;

/** One line. */
export function withoutControls(text: string): string {
  return text.replace(CONTROL, escaped);
}

/**
 * A message.
 * @param withLines keeps line breaks (stack traces, usage)
 */
export function printable(text: string, withLines = false): string {
  const shown = text.length <= LONGEST_MESSAGE
    ? text
    : `${text.slice(0, LONGEST_MESSAGE)}… (${text.length - LONGEST_MESSAGE} more characters)`;
  return shown.replace(CONTROL, (char) => withLines && char === "\n" ? char : escaped(char));
}

function escaped(char: string): string {
  if (char === "\n") return "\\n";
  if (char === "\r") return "\\r";
  if (char === "\t") return "\\t";
  const code = char.charCodeAt(0);
  return code < 0x100
    ? `\\x${code.toString(16).padStart(2, "0")}`
    : `\\u${code.toString(16).padStart(4, "0")}`;
}
