/**
 * The one place that keeps secrets out of what is printed. It is applied to every log line, so that
 * a message composed of an SDK's error text can't carry a key or a signature.
 */

/** Variables whose values must never be shown. */
const SECRET_VARIABLES = [
  "AWS_SECRET_ACCESS_KEY",
  "AWS_SESSION_TOKEN",
  "AZURE_STORAGE_KEY",
  "AZURE_STORAGE_SAS_TOKEN",
  "AZURE_STORAGE_CONNECTION_STRING",
  "AZURE_CLIENT_SECRET",
  "PGPASSWORD",
];

const PATTERNS: readonly (readonly [RegExp, string])[] = [
  // key=value secrets: query strings of signed URLs and SAS tokens, connection strings, conninfo
  [
    /\b(sig|X-Amz-Signature|X-Amz-Security-Token|X-Amz-Credential|AccountKey|SharedAccessSignature|password|sslpassword|client_secret|access_token|refresh_token)(\s*=\s*)('(?:[^'\\]|\\.)*'|"[^"]*"|[^\s&;,]+)/gi,
    "$1$2***",
  ],
  // user:password@ in URLs
  [/([a-z][a-z0-9+.-]*:\/\/[^\s:/@]*):[^\s@/]+@/gi, "$1:***@"],
  [/\b(Bearer|AWS4-HMAC-SHA256|SharedKey)\s+[^\s,]+/gi, "$1 ***"],
];

/** A function that replaces secrets in a text by `***`. The environment's values are looked up now. */
export function redactor(
  env: Readonly<Record<string, string | undefined>>,
): (text: string) => string {
  const values = SECRET_VARIABLES.map((name) => env[name])
    // Very short values would blank out ordinary words.
    .filter((value): value is string => value !== undefined && value.length >= 6);
  return (text) => {
    for (const value of values) {
      if (text.includes(value)) text = text.replaceAll(value, "***");
    }
    for (const [pattern, replacement] of PATTERNS) text = text.replace(pattern, replacement);
    return text;
  };
}
