/** backup.info, its literals and times, keep annotations: all that says what a backup is. */
import assert from "node:assert/strict";
import fc from "fast-check";
import {
  backupInfoToJson,
  formatBackupInfo,
  MalformedBackupInfo,
  parseBackupInfo,
} from "../../lib/backup/backup_info.ts";
import { readKeep } from "../../lib/backup/keep.ts";
import {
  formatPythonLiteral,
  MalformedLiteral,
  parsePythonLiteral,
} from "../../lib/backup/python_literal.ts";
import {
  formatCtime,
  formatIsoTimestamp,
  formatTimestamp,
  MalformedTimestamp,
  parseTimestamp,
} from "../../lib/backup/timestamp.ts";
import { describeBackup } from "../../lib/backup/describe.ts";
import { pythonJson } from "../../lib/cli/json.ts";
import { serverLayout } from "../../lib/layout.ts";
import {
  AWS_SNAPSHOTS,
  AZURE_LINE,
  FAILED_LINES,
  GCP_LINE,
  PLAIN,
  WITH_TABLESPACES,
  withLines,
} from "../lib/backup/fixtures.ts";
import { scriptedStore } from "../providers/scripted_store.ts";
import { bytesNear, encoded, fuzz, outcome, textNear } from "./hostile_inputs.ts";

const FILES = [
  PLAIN,
  WITH_TABLESPACES,
  AWS_SNAPSHOTS,
  withLines(AWS_SNAPSHOTS, AZURE_LINE),
  withLines(AWS_SNAPSHOTS, GCP_LINE),
  withLines(PLAIN, FAILED_LINES),
];

const WORDS = [
  "\ntablespaces=[('a', -5, '/x')]\n",
  "\ntablespaces=[('a', 1, '../x'), ('a', 1, '/')]\n",
  "\nbackup_label='\\ud800\\x00\\N{BELL}'\n",
  "\nsnapshots_info={'provider': 'aws', 'snapshots': [{'mount': 1, 'provider': ()}]}\n",
  "\nxlog_segment_size=3\n",
  "\n__proto__=1\n",
  "\nconstructor=None\n",
  "\nstatus=\u001b[2J\n",
  "\r\n",
  "=",
  "None",
  "True",
  "b'x'",
  "[[[[",
  "{1: {2: {3:",
  "0000-00-00 00:00:00",
  "9999-12-31 23:59:59.999999+23:59",
  "0001-01-01 00:00:00-23:59:59",
];

fuzz("backup.info", { runs: 9000, input: textNear(FILES, WORDS) }, (text) => {
  const info = outcome(() => parseBackupInfo(text), MalformedBackupInfo);
  if (info === undefined) return;
  pythonJson(backupInfoToJson(info, "20260115T103000"));
  describeBackup("20260115T103000", info);
  // Only a text with a line break in it can't be written, and none was read from a line.
  const written = outcome(() => formatBackupInfo(info), RangeError);
  if (written === undefined) {
    assert.match(text, /\r/);
    return;
  }
  assert.equal(formatBackupInfo(parseBackupInfo(written)), written);
});

/** Grammatical literals, which random texts never are. */
const literal = fc.letrec<{ value: string; atom: string }>((tie) => ({
  atom: fc.oneof(
    fc.constantFrom("None", "True", "False", "''", "()", "[]", "{}", "1_000", "1e5", ".5", "-0"),
    fc.bigInt().map(String),
    fc.double().map(String),
    fc.string({ unit: "binary" }).map((text) => `'${text.replace(/['\n\r\\]/g, "\\$&")}'`),
    fc.constantFrom("'\\ud800'", '"\\N{x}"', "'\\U00110000'", "'\\777'", "'a' \"b\"", "'\\"),
  ),
  value: fc.oneof(
    { maxDepth: 4 },
    tie("atom"),
    fc.array(tie("value"), { maxLength: 3 }).map((items) => `[${items.join(", ")}]`),
    fc.array(tie("value"), { maxLength: 3 }).map((items) => `(${items.join(",")},)`),
    fc.array(fc.tuple(tie("value"), tie("value")), { maxLength: 3 })
      .map((items) => `{${items.map(([key, item]) => `${key}:${item}`).join(",")}}`),
  ),
})).value;

fuzz("Python literals", {
  runs: 8000,
  input: fc.oneof(
    literal,
    literal.chain((text) => textNear([text], ["'", "[", "]", ",", ":", "\\", "(", ")", "1"])),
  ),
}, (text) => {
  const value = outcome(() => parsePythonLiteral(text), MalformedLiteral);
  if (value === undefined) return;
  const written = formatPythonLiteral(value);
  // Python's repr of what is infinite or not a number is no literal either.
  if (/(^|[^'"\w])-?(inf|nan)/.test(written)) return;
  assert.equal(formatPythonLiteral(parsePythonLiteral(written)), written);
  pythonJson(value);
});

fuzz("timestamps", {
  runs: 6000,
  input: textNear([
    "2026-01-15 10:30:01.123456+00:00",
    "20260115T103001Z",
    "Thu Jan 15 10:30:01 2026",
    "Thu Jan 15 10:30:01.5 2026 UTC",
    "Thu, 15 Jan 2026 10:30:01 +0000",
    "Jan 15, 2026 10:30",
    "2026-01-15",
  ], ["+23:59:59", "-99:99", " ", "Z", "UTC", "T", ":", ".", "0001", "9999", "31", "Feb"]),
}, (text) => {
  const time = outcome(() => parseTimestamp(text), MalformedTimestamp);
  if (time === undefined) return;
  formatCtime(time);
  formatIsoTimestamp(time);
  assert.deepEqual(parseTimestamp(formatTimestamp(time)), time);
});

fuzz("keep annotations", {
  runs: 1500,
  input: bytesNear(["full", "standalone", "", "\n\nfull", "é\n"].map(encoded)),
}, async (bytes) => {
  const { store, objects } = scriptedStore(7);
  const layout = serverLayout("p", "srv");
  objects.set(layout.annotation("20260115T103000", "keep"), bytes);
  const keep = await readKeep(store, layout, "20260115T103000");
  // It is there, so it protects.
  assert.notEqual(keep, null);
  assert.notEqual(keep, "");
});
