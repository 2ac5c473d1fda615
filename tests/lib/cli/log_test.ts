import assert from "node:assert/strict";
import { createLogger, LEVELS, thresholdOf } from "../../../lib/cli/log.ts";
import { redactor } from "../../../lib/cli/redact.ts";

Deno.test("a line has local time with milliseconds, process id, level, message", () => {
  const lines: string[] = [];
  const log = createLogger({
    threshold: 0,
    write: (text) => lines.push(text),
    redact: (text) => text,
    now: () => new Date(2026, 0, 5, 3, 4, 5, 6),
    pid: 42,
  });
  log.warning("something");
  assert.deepEqual(lines, ["2026-01-05 03:04:05,006 [42] WARNING: something\n"]);
});

Deno.test("the threshold starts at WARNING; -v lowers it, -q raises it", () => {
  const shown = (verbose: number, quiet: number) => {
    const seen: string[] = [];
    const log = createLogger({
      threshold: thresholdOf(verbose, quiet),
      write: (text) => seen.push(text.split(" ")[3] ?? ""),
      redact: (text) => text,
      now: () => new Date(),
      pid: 1,
    });
    log.debug("m");
    log.info("m");
    log.warning("m");
    log.error("m");
    log.critical("m");
    return seen.map((word) => word.replace(":", ""));
  };
  assert.deepEqual(shown(0, 0), ["WARNING", "ERROR", "CRITICAL"]);
  assert.deepEqual(shown(1, 0), ["INFO", "WARNING", "ERROR", "CRITICAL"]);
  assert.deepEqual(shown(5, 0), [...LEVELS]);
  assert.deepEqual(shown(0, 1), ["ERROR", "CRITICAL"]);
  assert.deepEqual(shown(0, 3), []);
  assert.deepEqual(shown(0, 9), []);
});

Deno.test("secrets do not reach a line", () => {
  const redact = redactor({ AWS_SECRET_ACCESS_KEY: "s3cr3t/key+x", PGPASSWORD: "hunter22" });
  const cases = [
    "key s3cr3t/key+x refused",
    "connect to host=x password=hunter22 dbname=y",
    "password='it\\'s long' x=1",
    "https://a.blob.core.windows.net/c?sv=1&sig=AbC%2F123&se=2",
    "https://x/?X-Amz-Signature=deadbeef&X-Amz-Security-Token=toktoktok",
    "postgresql://bob:pa55word@host/db",
    "AccountName=x;AccountKey=Zm9vYmFy==;EndpointSuffix=y",
    "Authorization: Bearer eyJhbGciOi",
    "Proxy-Authorization: Basic hunter22Zm9v",
    '{"access_token":"eyJhbGciOi","password" : "pa55\\"word"}',
    "https://bob:pa55/wo@rd@host:443/path",
    "3://bob:pa55word@host",
    "password='pa55 word",
    "password=pa55\\ word x=1",
    "https://x/?X-Goog-Signature=deadbeef",
  ];
  for (const text of cases) {
    const shown = redact(text);
    assert.match(shown, /\*\*\*/, shown);
    assert.doesNotMatch(
      shown,
      /s3cr3t|hunter22|long|AbC|deadbeef|toktoktok|pa55word|Zm9v|eyJ/,
      shown,
    );
  }
  assert.equal(redact("nothing to hide: key=1"), "nothing to hide: key=1");
});

Deno.test("parts of a composed secret do not reach a line either, in any of their forms", () => {
  const redact = redactor({
    AZURE_STORAGE_SAS_TOKEN: "?sv=2024&se=2030&sig=AbC%2F123%3D",
    AZURE_STORAGE_CONNECTION_STRING: "AccountName=a;AccountKey=Zm9vYmFyKey==;EndpointSuffix=b",
    HTTPS_PROXY: "http://me:pr0xypass@proxy:3128",
  });
  for (
    const text of [
      "Signature did not match: AbC%2F123%3D",
      "Signature did not match: AbC/123=",
      "the key Zm9vYmFyKey== is refused",
      "the key Zm9vYmFyKey%3D%3D is refused",
      "wrong: pr0xypass",
    ]
  ) assert.doesNotMatch(redact(text), /AbC|Zm9v|pr0xy/, text);
  assert.equal(
    redact("sv=2024 of 2030 for a at http://proxy:3128/x"),
    "sv=2024 of 2030 for a at http://proxy:3128/x",
  );
});

Deno.test("a name can't forge a line, colour a terminal or fill the log", () => {
  const lines: string[] = [];
  const log = createLogger({
    threshold: 0,
    write: (text) => lines.push(text),
    redact: (text) => text,
    now: () => new Date(2026, 0, 5, 3, 4, 5, 6),
    pid: 42,
  });
  log.warning("Left out a\r\n2026 [1] ERROR: forged\u001b[31m\u202e\ud800 \u{1f600}é");
  log.error("x".repeat(100_000));
  log.debug("Error: y\n    at z\u0007");
  assert.equal(
    lines[0],
    "2026-01-05 03:04:05,006 [42] WARNING: Left out a\\r\\n2026 [1] ERROR: forged\\x1b[31m" +
      "\\u202e\\ud800 \u{1f600}é\n",
  );
  assert.match(lines[1] ?? "", /x… \(83616 more characters\)\n$/);
  assert.equal(lines[2], "2026-01-05 03:04:05,006 [42] DEBUG: Error: y\n    at z\\x07\n");
});
