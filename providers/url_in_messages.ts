/** A URL as messages show it, and whether somebody has put credentials into it. */

const SCHEME = /^[a-z][a-z0-9+.-]*:\/\//i;

/**
 * Does it hold a user's name? `//user@host` and `//user:password@host`; a password may have a slash in it, but what
 * stands between a host and a slash is a port.
 */
export function namesUser(url: string): boolean {
  return /^(?:[^/?#]*@|[^/?#@:]*:(?!\d*(?:[/?#]|$))[^?#]*@)/.test(url.replace(SCHEME, ""));
}

/** Without user and password. */
export function withoutUser(url: string): string {
  if (!namesUser(url)) return url;
  const scheme = SCHEME.exec(url)?.[0] ?? "";
  return scheme + url.slice(scheme.length).replace(/^[^?#]*@/, "");
}

/** Without user, password, query (which may be a signature) and fragment. */
export function withoutSecrets(url: string): string {
  return withoutUser(url).replace(/[?#].*$/s, "");
}
