/** The two notations of libpq's connection strings. */

/** Keyword → value, as written; a later one of the same keyword replaces an earlier one. */
export type ConninfoWords = Map<string, string>;

/** A connection string or parameter that cannot be used; a mistake of the user. */
export class ConninfoError extends Error {
  override readonly name = "ConninfoError";
}

/**
 * Reads a connection string: `keyword=value` pairs or a `postgresql://` URI.
 *
 * @throws ConninfoError when it has neither form
 */
export function parseConninfo(text: string): ConninfoWords {
  return isConnectionUri(text) ? parseUri(text) : parsePairs(text);
}

/** Whether libpq would take this for a URI. */
export function isConnectionUri(text: string): boolean {
  return /^postgres(ql)?:\/\//.test(text);
}

/** The value as it must stand in a `keyword=value` string. */
export function quoteConninfoValue(value: string): string {
  return /^[^\s'\\]+$/.test(value)
    ? value
    : `'${value.replaceAll("\\", "\\\\").replaceAll("'", "\\'")}'`;
}

/**
 * Blanks around `=` are allowed; a value ends at a blank unless it is in single quotes; a backslash
 * takes the next character as it is, with and without quotes.
 */
function parsePairs(text: string): ConninfoWords {
  const words: ConninfoWords = new Map();
  let at = 0;
  const skipBlanks = () => {
    while (at < text.length && isBlank(text.charAt(at))) at++;
  };
  for (skipBlanks(); at < text.length; skipBlanks()) {
    const start = at;
    while (at < text.length && text.charAt(at) !== "=" && !isBlank(text.charAt(at))) at++;
    const keyword = text.slice(start, at);
    skipBlanks();
    if (text.charAt(at) !== "=") {
      throw new ConninfoError(
        words.has("password") || words.has("sslpassword")
          // A password with a blank in it, without quotes: the word may be its second half.
          ? 'Invalid connection string: missing "=" after a word behind a password (quotes around it?)'
          : `Invalid connection string: missing "=" after ${shownWord(keyword)}`,
      );
    }
    at++;
    skipBlanks();
    let value = "";
    const quoted = text.charAt(at) === "'";
    if (quoted) at++;
    for (;; at++) {
      if (at >= text.length) {
        if (quoted) {
          throw new ConninfoError(
            `Invalid connection string: unterminated quoted value of ${shownWord(keyword)}`,
          );
        }
        break;
      }
      const character = text.charAt(at);
      if (quoted ? character === "'" : isBlank(character)) break;
      if (character === "\\") at++;
      value += text.charAt(at);
    }
    if (quoted) at++;
    words.set(keyword, value);
  }
  return words;
}

/** For messages: what does not look like a keyword may be a secret that stands in the wrong place. */
export function shownWord(word: string): string {
  return /^\w{1,40}$/.test(word) ? `"${word}"` : "a word that is no keyword";
}

function isBlank(character: string): boolean {
  return /^[ \t\n\r\v\f]$/.test(character);
}

/** `postgresql://[user[:password]@][host[:port],…][/dbname][?keyword=value&…]` */
function parseUri(text: string): ConninfoWords {
  const words: ConninfoWords = new Map();
  let rest = text.slice(text.indexOf("://") + 3);

  const userInfo = /^([^@/]*)@/.exec(rest)?.[1];
  if (userInfo !== undefined) {
    rest = rest.slice(userInfo.length + 1);
    const colon = userInfo.indexOf(":");
    const user = colon < 0 ? userInfo : userInfo.slice(0, colon);
    if (user !== "") words.set("user", decode(user));
    if (colon >= 0) words.set("password", decode(userInfo.slice(colon + 1)));
  }

  const authority = /^[^/?]*/.exec(rest)?.[0] ?? "";
  rest = rest.slice(authority.length);
  const hosts: string[] = [];
  const ports: string[] = [];
  for (const part of authority.split(",")) {
    const match = /^(?:\[([^\]]+)\]|([^:[\]]*))(?::(.*))?$/.exec(part);
    if (match === null) {
      throw new ConninfoError(
        "Invalid connection URI: it has something else than host and port behind // (an IPv6 address needs [ ], " +
          "signs of a password like / @ [ ] must be percent-encoded)",
      );
    }
    hosts.push(decode(match[1] ?? match[2] ?? ""));
    ports.push(decode(match[3] ?? ""));
  }
  if (hosts.some((host) => host !== "")) words.set("host", hosts.join(","));
  if (ports.some((port) => port !== "")) words.set("port", ports.join(","));

  const question = rest.indexOf("?");
  const path = question < 0 ? rest : rest.slice(0, question);
  if (path.length > 1) words.set("dbname", decode(path.slice(1)));
  const query = question < 0 ? "" : rest.slice(question + 1);
  for (const pair of query === "" ? [] : query.split("&")) {
    const sides = pair.split("=");
    const [keyword, value] = sides;
    if (sides.length !== 2 || keyword === undefined || keyword === "" || value === undefined) {
      throw new ConninfoError(
        `Invalid connection URI: the query parameter ${shownWord(keyword ?? "")} must have one "="`,
      );
    }
    const name = decode(keyword);
    // JDBC's way, which libpq understands too.
    if (name === "ssl" && value === "true") words.set("sslmode", "require");
    else words.set(name, decode(value));
  }
  return words;
}

function decode(text: string): string {
  let decoded: string;
  try {
    decoded = decodeURIComponent(text);
  } catch {
    // Not shown: it may be a password.
    throw new ConninfoError("Invalid connection URI: a percent-encoding in it is malformed");
  }
  if (decoded.includes("\0")) {
    throw new ConninfoError("Invalid connection URI: %00 is not allowed");
  }
  return decoded;
}
