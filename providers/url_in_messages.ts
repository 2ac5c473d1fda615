/** A URL as messages show it, and whether somebody has put credentials into it. */

const SCHEME = /^(?:[^/?#@]*:)?\/\//;

/**
 * Does it hold a user's name? `//user@host` and `//user:password@host`; a password may have a slash in it, but what
 * stands between a host and a slash is a port.
 */
export function namesUser(url: string): boolean {
  const [text = ""] = url.replace(SCHEME, "").split(/[?#]/, 1);
  const at = text.indexOf("@");
  if (at < 0) return false;
  // Steps, since one pattern for all of it takes quadratic time.
  const before = text.slice(0, at);
  return !before.includes("/") || before.includes("://") ||
    /^[^/@:]*:(?!\d*(?:\/|$))/.test(text);
}

/** Nobody reads more of it. Characters. */
const LONGEST = 2000;

/** Without user and password; also without what may be one in a text that is no URL at all. */
export function withoutUser(given: string): string {
  const url = given.length > LONGEST ? `${given.slice(0, LONGEST)}…` : given;
  const scheme = SCHEME.exec(url)?.[0] ?? "";
  const rest = url.slice(scheme.length);
  const shown = namesUser(url) ? rest.replace(/^[^?#]*@/, "") : rest;
  return scheme + shown.replace(/[^/:@\s]{0,200}:[^/@\s]{0,200}@/g, "");
}

/** Without user, password, query (which may be a signature) and fragment. */
export function withoutSecrets(url: string): string {
  return withoutUser(url).replace(/[?#].*$/s, "");
}
