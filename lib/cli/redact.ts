/**
 * The one place that keeps secrets out of what is printed. It is applied to every log line and to what the parser says,
 * so that a message composed of an SDK's or a server's text can't carry a key or a signature.
 */

/** Variables whose values must never be shown. */
const SECRET_VARIABLES = [
  "AWS_SECRET_ACCESS_KEY",
  "AWS_SESSION_TOKEN",
  "AWS_CONTAINER_AUTHORIZATION_TOKEN",
  "AZURE_STORAGE_KEY",
  "AZURE_STORAGE_SAS_TOKEN",
  "AZURE_STORAGE_CONNECTION_STRING",
  "AZURE_CLIENT_SECRET",
  "AZURE_CLIENT_CERTIFICATE_PASSWORD",
  "AZURE_PASSWORD",
  "PGPASSWORD",
];

/** Variables whose values hold a secret among other things, which a server may repeat without its name. */
const COMPOSED_VARIABLES = [
  "AZURE_STORAGE_SAS_TOKEN",
  "AZURE_STORAGE_CONNECTION_STRING",
  "HTTPS_PROXY",
  "https_proxy",
  "HTTP_PROXY",
  "http_proxy",
  "ALL_PROXY",
  "all_proxy",
];
/** The secret parts of those. */
const PARTS: readonly RegExp[] = [
  /(?:^|[?&;=])sig=([^&;\s]+)/gi,
  /\bAccountKey=([^;\s]+)/gi,
  /:\/\/[^\s:/@]*:([^\s@]+)@/g,
];

const PATTERNS: readonly (readonly [RegExp, string])[] = [
  // key=value secrets: query strings of signed URLs and SAS tokens, connection strings, conninfo
  [
    /\b(sig|X-Amz-Signature|X-Amz-Security-Token|X-Amz-Credential|X-Goog-Signature|AccountKey|SharedAccessSignature|PGPASSWORD|password|sslpassword|client_secret|access_token|refresh_token|id_token)(\s*=\s*)('(?:[^'\\]|\\.)*'?|"[^"]*"?|(?:[^\s&;,\\]|\\.)+)/gi,
    "$1$2***",
  ],
  // The same in JSON
  [
    /("(?:access_?token|refresh_?token|id_token|client_?secret|private_key|SecretAccessKey|SessionToken|password)"\s*:\s*")(?:[^"\\]|\\.)*/gi,
    "$1***",
  ],
  // user:password@ in URLs, whatever characters the password has; host:port/ is none
  [/(:\/\/[^\s:/?#@]{0,200}):(?!\d{0,9}[/?#\s])\S{1,1000}@/g, "$1:***@"],
  // The value goes on to the end of the header
  [/\b(Bearer|Basic|SharedKey)\s+[^\s,]+/g, "$1 ***"],
  [/\b(AWS4-HMAC-SHA256)\s+[^\r\n]+/g, "$1 ***"],
];

/** Longer texts repeat what somebody has made long, and the patterns take their time. Characters. */
const LONGEST = 64 * 1024;

/** Very short values would blank out ordinary words. Characters. */
const SHORTEST = 6;

/** A function that replaces secrets in a text by `***`. The environment's values are looked up now. */
export function redactor(
  env: Readonly<Record<string, string | undefined>>,
): (text: string) => string {
  let secrets: readonly string[] | undefined;
  return (given) => {
    let text = given.length <= LONGEST
      ? given
      : `${given.slice(0, LONGEST)}… (${given.length - LONGEST} more characters)`;
    // Not before something is printed, since most commands print nothing.
    secrets ??= secretsOf(env);
    for (const secret of secrets) {
      if (text.includes(secret)) text = text.replaceAll(secret, "***");
    }
    for (const [pattern, replacement] of PATTERNS) text = text.replace(pattern, replacement);
    return text;
  };
}

/** The longest first: one may be part of another. */
function secretsOf(env: Readonly<Record<string, string | undefined>>): readonly string[] {
  const secrets = new Set<string>();
  const add = (value: string) => {
    for (const form of [value, decoded(value), encodeURIComponent(value.toWellFormed())]) {
      if (form.length >= SHORTEST) secrets.add(form);
    }
  };
  for (const name of SECRET_VARIABLES) add(env[name] ?? "");
  for (const name of COMPOSED_VARIABLES) {
    for (const part of PARTS) {
      for (const [, value = ""] of (env[name] ?? "").matchAll(part)) add(value);
    }
  }
  return [...secrets].sort((a, b) => b.length - a.length);
}

function decoded(text: string): string {
  try {
    return decodeURIComponent(text);
  } catch {
    return text;
  }
}
