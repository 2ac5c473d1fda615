import assert from "node:assert/strict";
import fc from "fast-check";
import {
  compareWalNames,
  formatTimeline,
  hashDirectory,
  isSegmentSize,
  nextSegmentName,
  offsetOf,
  parseTimeline,
  parseWalName,
  previousSegmentName,
  segmentDistance,
  segmentNameOf,
  segmentsPerXlogId,
  startOfSegment,
} from "../../../lib/wal/segment.ts";

const MIB = 1024 ** 2;

Deno.test("WAL names: the four kinds and their parts", () => {
  assert.deepEqual(parseWalName("0000000A000000b4000000FF"), {
    kind: "segment",
    name: "0000000A000000b4000000FF",
    timeline: 10,
    segment: "0000000A000000B4000000FF",
    xlogId: 0xB4,
    index: 255,
  });
  assert.equal(parseWalName("000000010000000000000004.partial")?.kind, "partial");
  const label = parseWalName("000000010000000000000003.00000028.backup");
  assert.equal(label?.kind, "backup-label");
  assert.equal(label.kind === "backup-label" ? label.offset : -1, 0x28);
  assert.deepEqual(parseWalName("0000001f.history"), {
    kind: "history",
    name: "0000001f.history",
    timeline: 31,
  });
});

Deno.test("WAL names: everything else is refused", () => {
  for (
    const name of [
      "",
      "00000001",
      "00000001000000000000000",
      "0000000100000000000000011",
      "00000001000000000000000G",
      "000000010000000000000001\n",
      "\n000000010000000000000001",
      "000000010000000000000001.gz",
      "000000010000000000000001.PARTIAL",
      "000000010000000000000001.partial.gz",
      "000000010000000000000001.backup",
      "000000010000000000000001.0000028.backup",
      "000000010000000000000001.history",
      "00000001.History",
      "00000001.partial",
      "pg_wal/000000010000000000000001",
      "RECOVERYXLOG",
    ]
  ) assert.equal(parseWalName(name), null, JSON.stringify(name));
});

Deno.test("WAL names: agree with Barman's expression for every text", () => {
  const barman =
    /^[0-9A-Fa-f]{8}(?:[0-9A-Fa-f]{16}(?:\.[0-9A-Fa-f]{8}\.backup|\.partial)?|\.history)$/;
  const hex = (length: number) =>
    fc.string({
      minLength: length - 1,
      maxLength: length,
      unit: fc.constantFrom(..."0123456789abcdefABCDEFg"),
    });
  const names = fc.tuple(
    hex(8),
    fc.oneof(hex(16), fc.constant("")),
    fc.oneof(
      fc.constantFrom("", ".partial", ".history", ".backup", ".gz"),
      hex(8).map((offset) => `.${offset}.backup`),
    ),
  ).map((parts) => parts.join(""));
  fc.assert(
    fc.property(fc.oneof(names, fc.string()), (name) => {
      assert.equal(parseWalName(name) !== null, barman.test(name));
    }),
    { numRuns: 2000 },
  );
});

Deno.test("segments: name and offset of an LSN", () => {
  assert.equal(segmentNameOf(0x1A000028n, 1, 16 * MIB), "00000001000000000000001A");
  assert.equal(offsetOf(0x1A000028n, 16 * MIB), 40);
  // At a boundary it is the following segment.
  assert.equal(segmentNameOf(0x1B000000n, 1, 16 * MIB), "00000001000000000000001B");
  assert.equal(segmentNameOf(0x5_00000000n, 0x1F, 16 * MIB), "0000001F0000000500000000");
  assert.equal(segmentNameOf(0xFFFFFFFF_FFFFFFFFn, 1, MIB), "00000001FFFFFFFF00000FFF");
  assert.equal(segmentNameOf(0xFFFFFFFF_FFFFFFFFn, 1, 1024 * MIB), "00000001FFFFFFFF00000003");
  assert.equal(segmentsPerXlogId(16 * MIB), 256);
});

Deno.test("segments: neighbours cross the xlogId, and end at the ends", () => {
  const size = 16 * MIB;
  assert.equal(nextSegmentName("0000000200000000000000FF", size), "000000020000000100000000");
  assert.equal(previousSegmentName("000000020000000100000000", size), "0000000200000000000000FF");
  assert.equal(nextSegmentName("00000002FFFFFFFF000000FF", size), null);
  assert.equal(previousSegmentName("000000020000000000000000", size), null);
  assert.equal(nextSegmentName("000000020000000000000003", 1024 * MIB), "000000020000000100000000");
  assert.throws(() => nextSegmentName("000000020000000000000004", 1024 * MIB), RangeError);
  assert.throws(() => nextSegmentName("00000002.history", size), RangeError);
  assert.throws(() => segmentNameOf(1n, 1, 3 * MIB), RangeError);
  assert.throws(() => segmentNameOf(1n, 2 ** 32, size), RangeError);
});

Deno.test("segments: arithmetic holds for every LSN and segment size", () => {
  const lsns = fc.bigInt({ min: 0n, max: 2n ** 64n - 1n });
  const sizes = fc.integer({ min: 20, max: 30 }).map((power) => 2 ** power);
  const timelines = fc.integer({ min: 1, max: 2 ** 32 - 1 });
  fc.assert(fc.property(lsns, timelines, sizes, (lsn, timeline, size) => {
    const name = segmentNameOf(lsn, timeline, size);
    const wal = parseWalName(name);
    assert.equal(wal?.kind, "segment");
    assert.equal(wal?.timeline, timeline);
    assert.equal(startOfSegment(name, size) + BigInt(offsetOf(lsn, size)), lsn);
    const next = nextSegmentName(name, size);
    if (next === null) return assert.ok(lsn + BigInt(size) >= 2n ** 64n);
    assert.equal(next, segmentNameOf(lsn + BigInt(size), timeline, size));
    assert.equal(previousSegmentName(next, size), name);
    assert.equal(segmentDistance(name, next, size), 1);
    assert.ok(compareWalNames(name, next) < 0);
  }));
});

Deno.test("segments: sizes, folders, timelines, order", () => {
  assert.ok([1, 2, 16, 64, 1024].every((mib) => isSegmentSize(mib * MIB)));
  assert.ok(![0, 1, MIB / 2, 3 * MIB, 2048 * MIB, NaN].some(isSegmentSize));
  const folder = (name: string) => {
    const wal = parseWalName(name);
    return wal && hashDirectory(wal);
  };
  assert.equal(folder("0000000a000000bc00000001.partial"), "0000000A000000BC");
  assert.equal(folder("0000000a.history"), null);
  assert.equal(parseTimeline("0000000a"), 10);
  assert.equal(parseTimeline("a"), null);
  assert.equal(formatTimeline(10), "0000000A");
  const sorted = [
    "00000009.history",
    "000000090000000000000001",
    "000000090000000000000001.00000028.backup",
    "000000090000000000000001.partial",
    "0000000a.history",
    "0000000A0000000000000000",
    "0000000a0000000000000001",
    "0000000B0000000000000000",
  ];
  assert.deepEqual([...sorted].reverse().sort(compareWalNames), sorted);
  assert.equal(compareWalNames("0000000a.history", "0000000A.HISTORY"), 0);
});
