/**
 * Python literals, as `repr` writes them and `ast.literal_eval` reads them: the notation of the structured
 * fields of backup.info. What Python tells apart stays apart here: `1` and `1.0`, `[a]` and `(a,)`.
 */

/** A Python value. Integers beyond 2^53 are `bigint`, smaller ones `number`; floats are `PyFloat`. */
export type PyValue =
  | null
  | boolean
  | number
  | bigint
  | string
  | PyFloat
  | PyTuple
  | readonly PyValue[]
  | PyDict;

/** A dict; insertion order is kept. */
export type PyDict = ReadonlyMap<PyValue, PyValue>;

/** A Python float: a class of its own because a JavaScript number forgets the `.0` of `1.0`. */
export class PyFloat {
  readonly value: number;
  constructor(value: number) {
    this.value = value;
  }
}

/** A Python tuple. */
export class PyTuple {
  readonly items: readonly PyValue[];
  constructor(items: readonly PyValue[]) {
    this.items = items;
  }
}

/** A text that is no Python literal, or one that nests too deep or holds too many values. */
export class MalformedLiteral extends Error {
  override readonly name = "MalformedLiteral";
}

/** Real values nest 4 deep; Python's own parser ends at 200. */
const MAX_DEPTH = 100;
/** A cluster of ten thousand tablespaces has some fifty thousand values; each takes about a hundred bytes. */
const MAX_VALUES = 250_000;

/**
 * Read one literal: `None`, booleans, decimal integers, floats, strings, lists, tuples, dicts.
 * @throws {MalformedLiteral}
 */
export function parsePythonLiteral(text: string): PyValue {
  const reader = new Reader(text);
  const value = reader.value(0);
  reader.end();
  return value;
}

/** Write a value exactly as Python's `repr` does. */
export function formatPythonLiteral(value: PyValue): string {
  if (value === null) return "None";
  switch (typeof value) {
    case "boolean":
      return value ? "True" : "False";
    case "number":
      if (!Number.isSafeInteger(value)) {
        throw new RangeError(`Cannot write ${value} as an integer: use PyFloat or bigint`);
      }
      return String(value);
    case "bigint":
      return String(value);
    case "string":
      return formatString(value);
  }
  if (value instanceof PyFloat) return formatPythonFloat(value.value);
  if (value instanceof PyTuple) {
    const items = value.items.map(formatPythonLiteral);
    return items.length === 1 ? `(${items[0]},)` : `(${items.join(", ")})`;
  }
  if (isPyDict(value)) {
    const entries = [...value].map(([key, item]) =>
      `${formatPythonLiteral(key)}: ${formatPythonLiteral(item)}`
    );
    return `{${entries.join(", ")}}`;
  }
  return `[${value.map(formatPythonLiteral).join(", ")}]`;
}

/** `47.1`, `1.0`, `1e-05`, `1e+16`: the shortest digits that give the number back, in Python's notation. */
export function formatPythonFloat(value: number): string {
  if (Number.isNaN(value)) return "nan";
  if (!Number.isFinite(value)) return value < 0 ? "-inf" : "inf";
  const sign = value < 0 || Object.is(value, -0) ? "-" : "";
  // JavaScript finds the same shortest digits; only the notation around them differs.
  const [mantissa = "0", exponentText = "0"] = Math.abs(value).toExponential().split("e");
  const digits = mantissa.replace(".", "");
  const exponent = Number(exponentText);
  if (exponent < -4 || exponent >= 16) {
    const fraction = digits.length > 1 ? `.${digits.slice(1)}` : "";
    const size = String(Math.abs(exponent)).padStart(2, "0");
    return `${sign}${digits[0]}${fraction}e${exponent < 0 ? "-" : "+"}${size}`;
  }
  if (exponent < 0) return `${sign}0.${"0".repeat(-exponent - 1)}${digits}`;
  const whole = digits.slice(0, exponent + 1).padEnd(exponent + 1, "0");
  return `${sign}${whole}.${digits.slice(exponent + 1) || "0"}`;
}

/** `Array.isArray` and `instanceof` don't narrow readonly collections. */
export function isPyDict(value: PyValue): value is PyDict {
  return value instanceof Map;
}

export function isPyList(value: PyValue): value is readonly PyValue[] {
  return Array.isArray(value);
}

/** What Python's `str.isprintable` refuses, besides the blank. */
const UNPRINTABLE = /[\p{C}\p{Z}]/u;

const ESCAPED: ReadonlyMap<string, string> = new Map([
  ["\n", "\\n"],
  ["\r", "\\r"],
  ["\t", "\\t"],
  ["\\", "\\\\"],
]);

function formatString(text: string): string {
  const quote = text.includes("'") && !text.includes('"') ? '"' : "'";
  let body = "";
  for (const char of text) {
    const code = char.codePointAt(0) ?? 0;
    if (char === quote) body += `\\${char}`;
    else if (ESCAPED.has(char)) body += ESCAPED.get(char);
    else if (char === " " || !UNPRINTABLE.test(char)) body += char;
    else if (code < 0x100) body += `\\x${hex(code, 2)}`;
    else if (code < 0x10000) body += `\\u${hex(code, 4)}`;
    else body += `\\U${hex(code, 8)}`;
  }
  return quote + body + quote;
}

function hex(code: number, digits: number): string {
  return code.toString(16).padStart(digits, "0");
}

const SIMPLE_ESCAPES: ReadonlyMap<string, string> = new Map([
  ["\\", "\\"],
  ["'", "'"],
  ['"', '"'],
  ["a", "\x07"],
  ["b", "\b"],
  ["f", "\f"],
  ["n", "\n"],
  ["r", "\r"],
  ["t", "\t"],
  ["v", "\v"],
  ["\n", ""],
]);

const NUMBER = /[+-]?(?:\d+(?:_\d+)*)?(?:\.(?:\d+(?:_\d+)*)?)?(?:[eE][+-]?\d+(?:_\d+)*)?/y;
const WORD = /[A-Za-z_]\w*/y;
const BLANKS = /[ \t\r\n\f]*/y;
/** The part of a string up to what needs a decision. */
const PLAIN = /[^'"\\\n]*/y;

class Reader {
  readonly #text: string;
  #at = 0;
  #values = 0;

  constructor(text: string) {
    this.#text = text;
  }

  value(depth: number): PyValue {
    if (depth > MAX_DEPTH) throw this.#error("nests too deep");
    if (++this.#values > MAX_VALUES) throw this.#error("holds too many values");
    this.#match(BLANKS);
    const char = this.#peek();
    switch (char) {
      case "'":
      case '"':
        return this.#strings();
      case "[":
        return this.#sequence("]", depth).items;
      case "(": {
        const { items, comma } = this.#sequence(")", depth);
        const [only] = items;
        // Parentheses around one value without a comma only group.
        return items.length === 1 && !comma && only !== undefined ? only : new PyTuple(items);
      }
      case "{":
        return this.#dict(depth);
    }
    if (/[0-9.+-]/.test(char)) return this.#number();
    const word = this.#match(WORD);
    switch (word) {
      case "None":
        return null;
      case "True":
        return true;
      case "False":
        return false;
    }
    throw this.#error(word === "" ? "a value is missing" : `'${word.slice(0, 20)}' is not a value`);
  }

  end(): void {
    this.#match(BLANKS);
    if (this.#at < this.#text.length) throw this.#error("text after the value");
  }

  /** After the opening bracket: values with commas between, perhaps one after the last. */
  #sequence(close: string, depth: number): { items: PyValue[]; comma: boolean } {
    this.#at++;
    const items: PyValue[] = [];
    let comma = false;
    while (!this.#accept(close)) {
      if (items.length > 0 && !comma) throw this.#error(`',' or '${close}' is missing`);
      items.push(this.value(depth + 1));
      comma = this.#accept(",");
    }
    return { items, comma };
  }

  #dict(depth: number): PyDict {
    this.#at++;
    const entries = new Map<PyValue, PyValue>();
    let comma = true;
    while (!this.#accept("}")) {
      if (!comma) throw this.#error("',' or '}' is missing");
      const key = this.value(depth + 1);
      if (isPyList(key) || isPyDict(key)) throw this.#error("a list or dict can't be a key");
      if (!this.#accept(":")) throw this.#error("':' is missing");
      entries.set(key, this.value(depth + 1));
      comma = this.#accept(",");
    }
    return entries;
  }

  #number(): number | bigint | PyFloat {
    const text = this.#match(NUMBER);
    const plain = text.replaceAll("_", "");
    if (/^[+-]?\d+$/.test(plain)) {
      const digits = plain.replace(/^[+-]/, "");
      if (digits.length > 1 && /^0+[1-9]/.test(digits)) throw this.#error("leading zeros");
      // As Python refuses longer ones too; conversion takes quadratic time.
      if (digits.length > 4300) throw this.#error("the integer is too long");
      const value = Number(plain);
      // Adding zero turns -0, which Python's integers don't have, into 0.
      return Number.isSafeInteger(value) ? value + 0 : BigInt(plain.replace(/^\+/, ""));
    }
    if (!/\d/.test(plain) || /^[+-]?\.?[eE]/.test(plain)) throw this.#error("a bad number");
    return new PyFloat(Number(plain));
  }

  /** One string, or several side by side, which Python joins. */
  #strings(): string {
    let text = "";
    do {
      text += this.#string();
      this.#match(BLANKS);
    } while (this.#peek() === "'" || this.#peek() === '"');
    return text;
  }

  #string(): string {
    const quote = this.#peek();
    this.#at++;
    let text = "";
    for (;;) {
      text += this.#match(PLAIN);
      const char = this.#peek();
      if (char === "" || char === "\n") throw this.#error("a string does not end");
      this.#at++;
      if (char === quote) return text;
      text += char === "\\" ? this.#escape() : char;
    }
  }

  /** After the backslash. */
  #escape(): string {
    const char = this.#peek();
    this.#at++;
    const simple = SIMPLE_ESCAPES.get(char);
    if (simple !== undefined) return simple;
    const digits = { x: 2, u: 4, U: 8 }[char];
    if (digits !== undefined) {
      const code = this.#text.slice(this.#at, this.#at + digits);
      if (code.length < digits || !/^[0-9a-fA-F]+$/.test(code)) throw this.#error("a bad escape");
      this.#at += digits;
      const point = parseInt(code, 16);
      if (point > 0x10ffff) throw this.#error("a bad escape");
      return String.fromCodePoint(point);
    }
    if (/[0-7]/.test(char)) {
      this.#at--;
      return String.fromCodePoint(parseInt(this.#match(/[0-7]{1,3}/y), 8));
    }
    if (char === "N") throw this.#error("a named character");
    // Python keeps unknown escapes as they are.
    return `\\${char}`;
  }

  #peek(): string {
    return this.#text.charAt(this.#at);
  }

  #accept(char: string): boolean {
    this.#match(BLANKS);
    if (this.#peek() !== char) return false;
    this.#at++;
    return true;
  }

  #match(pattern: RegExp): string {
    pattern.lastIndex = this.#at;
    const found = pattern.exec(this.#text)?.[0] ?? "";
    this.#at += found.length;
    return found;
  }

  #error(what: string): MalformedLiteral {
    return new MalformedLiteral(`Not a Python literal: ${what} at character ${this.#at + 1}`);
  }
}
