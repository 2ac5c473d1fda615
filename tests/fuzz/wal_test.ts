/** What the WAL archive and the spool tell: names, headers, histories, the archive's identity, notes. */
import assert from "node:assert/strict";
import { mkdtemp, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import fc from "fast-check";
import { NotText } from "../../lib/backup/small_object.ts";
import { serverLayout } from "../../lib/layout.ts";
import { formatLsn, lsnOf, parseLsn } from "../../lib/postgres/lsn.ts";
import { isNoted, markOf, note } from "../../lib/wal/archive_notes.ts";
import { headerMismatch, parseWalHeader, secondPageMagic } from "../../lib/wal/header.ts";
import { parseHistory } from "../../lib/wal/history.ts";
import { parseIdentity, readIdentity } from "../../lib/wal/identity.ts";
import {
  compareWalNames,
  hashDirectory,
  nextSegmentName,
  parseWalName,
  previousSegmentName,
  segmentNumber,
} from "../../lib/wal/segment.ts";
import { stripSuffix } from "../../lib/compression/table.ts";
import { recordingLogger } from "../lib/backup/temporary_store.ts";
import { walSegment } from "../lib/wal/wal_files.ts";
import { scriptedStore } from "../providers/scripted_store.ts";
import { bytesNear, encoded, fuzz, outcome, outcomeOf, textNear } from "./hostile_inputs.ts";

const NAMES = [
  "000000010000000000000001",
  "0000000A00000002000000FF.partial",
  "000000010000000000000001.00000028.backup",
  "0000000A.history",
  "ffffffffffffffffffffffff",
  "000000010000000000000001.gz",
  "00000002.history.zst",
];

fuzz("WAL names", {
  runs: 4000,
  input: fc.tuple(
    textNear(NAMES, [".partial", ".backup", ".history", ".gz", "FFFFFFFF", "../", "\n"]),
    fc.constantFrom(2 ** 20, 2 ** 24, 2 ** 30),
  ),
}, ([text, segmentSize]) => {
  const wal = parseWalName(text);
  stripSuffix(text);
  compareWalNames(text, NAMES[0] ?? "");
  if (wal === null) return;
  // It becomes part of a key and of a path, so nothing but these characters may be in it.
  assert.match(text, /^[0-9A-Fa-f]{8,24}(\.[0-9A-Fa-f]{8})?(\.(partial|backup|history))?$/);
  hashDirectory(wal);
  if (wal.kind !== "segment") return;
  const next = outcome(() => nextSegmentName(wal.segment, segmentSize), RangeError);
  if (next === undefined || next === null) return;
  assert.equal(previousSegmentName(next, segmentSize), wal.segment);
  assert.equal(segmentNumber(next, segmentSize), segmentNumber(wal.segment, segmentSize) + 1);
});

const segment = walSegment("000000010000000000000003").subarray(0, 9000);
const swapped = walSegment("000000010000000000000003", { bigEndian: true }).subarray(0, 9000);

fuzz("WAL headers", {
  runs: 3000,
  input: fc.tuple(
    bytesNear([segment, swapped], { places: [0, 2, 4, 8, 24, 32, 36, 8192] }),
    fc.constantFrom(
      "000000010000000000000003",
      "FFFFFFFFFFFFFFFFFFFFFFFF",
      "000000020000000000000003",
    ),
    fc.constantFrom(null, "1\t0/3000028\tno recovery target\n", "garbage"),
  ),
}, ([bytes, name, history]) => {
  secondPageMagic(bytes, 3n * 2n ** 20n);
  const header = parseWalHeader(bytes);
  const wal = parseWalName(name);
  if (header === null || wal?.kind !== "segment") return;
  const mismatch = headerMismatch(header, { ...wal, kind: "segment" }, header.segmentSize, history);
  assert.ok(mismatch === null || mismatch.length < 300);
});

fuzz("timeline histories", {
  runs: 3000,
  input: textNear([
    "1\t0/3000028\tno recovery target specified\n\n2\t0/5000000\tbefore 2026-01-15\n",
    "# comment\n 4294967295 FFFFFFFF/FFFFFFFF x",
  ], ["\t", "0/", "/", "FFFFFFFF", "4294967296", "\n"]),
}, (text) => {
  for (const { timeline, lsn } of parseHistory(text)) {
    assert.ok(Number.isSafeInteger(timeline));
    assert.equal(parseLsn(formatLsn(lsn)), lsn);
  }
});

fuzz(
  "LSNs",
  { runs: 2000, input: textNear(["0/1A000028", "FFFFFFFF/FFFFFFFF", "1/0"]) },
  (text) => {
    const lsn = outcome(() => parseLsn(text), RangeError);
    if (lsn !== undefined) assert.equal(parseLsn(formatLsn(lsnOf(lsn))), lsn);
  },
);

const IDENTITY = `{"about": "x", "systemIdentifier": "7600000000000000001", "pageMagic": "0xd118",
 "suffixes": [".gz", ""], "conditionalWrites": {"store": "bucket", "result": "kept"}}`;

fuzz("the archive's identity", {
  runs: 2000,
  input: textNear([IDENTITY], [
    "null",
    "[]",
    "{}",
    '"__proto__": {"x": 1},',
    '"suffixes": {},',
    '"systemIdentifier": 1,',
    '"conditionalWrites": [],',
    "[".repeat(5000),
  ]),
}, async (text) => {
  const identity = parseIdentity(text);
  if (identity !== null) {
    assert.ok(identity.systemIdentifier >= 0n && identity.magic <= 0xffff);
    assert.ok(identity.suffixes.every((suffix) => typeof suffix === "string"));
  }
  const { store, objects } = scriptedStore(1000);
  const layout = serverLayout("p", "srv");
  objects.set(layout.identity, encoded(text));
  const log = recordingLogger();
  const read = await outcomeOf(() => readIdentity(store, layout, { log }), NotText);
  assert.ok(read === "damaged" ? log.lines.length === 1 : read !== null);
});

fuzz("notes in the spool", {
  runs: 600,
  input: textNear(["NOTE"], ["\n", "archived", "0", "-1", "NaN"]),
}, async (text) => {
  const directory = await mkdtemp(join(tmpdir(), "barman-cloud-fuzz-"));
  try {
    const spool = join(directory, "spool", "part");
    await Deno.mkdir(spool, { recursive: true, mode: 0o700 });
    const file = join(directory, "000000010000000000000001");
    await writeFile(file, segment);
    await note(spool, "000000010000000000000001", await markOf(file));
    const true_ = await Deno.readTextFile(join(spool, "000000010000000000000001"));
    const changed = text.replace("NOTE", true_);
    await writeFile(join(spool, "000000010000000000000001"), changed);
    const [, mark] = true_.split("\n");
    // Believed only with the whole mark of this very file and the word behind it.
    if (await isNoted(spool, file)) assert.ok(changed.includes(`\n${mark}\narchived`));
  } finally {
    await rm(directory, { recursive: true });
  }
});
