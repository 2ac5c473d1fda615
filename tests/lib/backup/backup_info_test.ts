import assert from "node:assert/strict";
import fc from "fast-check";
import {
  type BackupInfo,
  backupInfoToJson,
  formatBackupInfo,
  MalformedBackupInfo,
  newBackupInfo,
  parseBackupInfo,
} from "../../../lib/backup/backup_info.ts";
import { PyFloat, type PyValue } from "../../../lib/backup/python_literal.ts";
import { pythonJson } from "../../../lib/cli/json.ts";
import {
  AWS_SNAPSHOTS,
  AZURE_LINE,
  FAILED_LINES,
  GCP_LINE,
  LIST_JSON,
  PLAIN,
  WITH_TABLESPACES,
  withLines,
} from "./fixtures.ts";

const SAMPLES = {
  plain: PLAIN,
  tablespaces: WITH_TABLESPACES,
  aws: AWS_SNAPSHOTS,
  azure: withLines(AWS_SNAPSHOTS, AZURE_LINE),
  gcp: withLines(AWS_SNAPSHOTS, GCP_LINE),
  failed: withLines(PLAIN, FAILED_LINES),
};

Deno.test("Barman's files come back byte for byte", () => {
  for (const [name, text] of Object.entries(SAMPLES)) {
    assert.equal(formatBackupInfo(parseBackupInfo(text)), text, name);
  }
});

Deno.test("fields have their types", () => {
  const info = parseBackupInfo(WITH_TABLESPACES);
  assert.equal(info.backupName, "before upgrade");
  assert.equal(info.timeline, 2);
  assert.equal(info.clusterSize, 90194313216);
  assert.deepEqual(info.tablespaces, [
    { name: "ts1", oid: 16384, location: "/srv/ts1" },
    { name: "it's fast", oid: 16385, location: "/srv/fast" },
  ]);
  assert.deepEqual(info.copyStats?.get("copy_time"), new PyFloat(640.504615));
  assert.equal(info.beginTime?.offsetSeconds, 3600);
  assert.equal(info.beginTime?.microseconds, 120);
  assert.equal(info.serverName, "cloud");
  assert.equal(info.snapshotsInfo, null);
  const snapshots = parseBackupInfo(AWS_SNAPSHOTS).snapshotsInfo;
  assert.equal(snapshots?.provider, "aws");
  assert.equal(snapshots?.snapshots[1]?.identifiers.get("snapshot_id"), "snap-0b2c3d4e5f607182a");
  assert.equal(snapshots?.snapshots[1]?.mountPoint, "/opt/tbs1");
});

Deno.test("JSON is exactly Barman's", () => {
  const text = withLines(
    PLAIN,
    [
      "backup_label='START WAL LOCATION: 0/1A000028 (file 00000001000000000000001A)\\n'",
      "end_time=2026-01-15 10:31:01+00:00",
      "copy_stats={'total_time': 12.5, 'number_of_workers': 2, 'analysis_time': 0, " +
      "'analysis_time_per_item': {'data': 0}, 'copy_time_per_item': {'data': 12.1}, " +
      "'serialized_copy_time_per_item': {'data': 11.8}, 'copy_time': 12.1, 'serialized_copy_time': 11.8}",
    ].join("\n"),
  );
  const object = backupInfoToJson(parseBackupInfo(text), "20260115T103000");
  assert.equal(pythonJson(new Map([["backups_list", [object]]])), LIST_JSON);
});

Deno.test("JSON of tablespaces, lists and missing times", () => {
  const info = parseBackupInfo(WITH_TABLESPACES);
  const json = JSON.parse(pythonJson(backupInfoToJson(info, "20260115T113000")));
  assert.deepEqual(json.tablespaces, [["ts1", 16384, "/srv/ts1"], [
    "it's fast",
    16385,
    "/srv/fast",
  ]]);
  assert.equal(json.included_files.length, 2);
  assert.equal(json.backup_name, "before upgrade");
  assert.equal(json.begin_time, "Thu Jan 15 11:30:01 2026");
  assert.equal(json.begin_time_iso, "2026-01-15T11:30:01.000120+01:00");
  const empty = backupInfoToJson(newBackupInfo({ childrenBackupIds: ["a", "b"] }), "x");
  assert.equal(empty.get("children_backup_ids"), "a,b");
  assert.equal(empty.get("backup_label"), null);
  for (const absent of ["backup_name", "snapshots_info", "begin_time_iso", "end_time_iso"]) {
    assert.ok(!empty.has(absent), absent);
  }
});

Deno.test("reads what other versions and hands may have written", () => {
  const info = parseBackupInfo(
    [
      "",
      "  \t",
      "# a comment",
      " timeline =  3 ",
      "pgdata=/a=b",
      "backup_name=None",
      "begin_time=Thu Jan 15 10:30:01 2026",
      "tablespaces=[('a', 1, '/a'),]",
      "included_files=()",
      "copy_stats={}",
      "version=10",
      "version=170002",
      "mode=x",
      "mode=None",
      "children_backup_ids=20260101T000000, 20260102T000000",
      "brand_new={'a': object()}",
    ].join("\n"),
  );
  assert.equal(info.timeline, 3);
  assert.equal(info.pgdata, "/a=b");
  assert.equal(info.backupName, null);
  assert.equal(info.version, 170002);
  assert.equal(info.mode, null);
  assert.equal(info.includedFiles, null);
  assert.equal(info.copyStats, null);
  assert.deepEqual(info.childrenBackupIds, ["20260101T000000", "20260102T000000"]);
  assert.deepEqual([...info.unknownFields], [["brand_new", "{'a': object()}"]]);
  assert.ok(!formatBackupInfo(info).includes("brand_new"));
  // Not told: what Barman takes for granted.
  assert.equal(info.status, "EMPTY");
  assert.equal(info.xlogSegmentSize, 16777216);
  assert.equal(parseBackupInfo("").status, "EMPTY");
  assert.equal(parseBackupInfo("timeline=1\r\nstatus=DONE\r\n").status, "DONE");
});

Deno.test("a malformed file is refused, and the message names the field", () => {
  const bad: readonly (readonly [string, RegExp])[] = [
    ["no equals sign", /^Line 1 /],
    ["timeline=one", /timeline.*'one' is not an integer/],
    ["size=99999999999999999999", /size/],
    ["begin_time=yesterday", /begin_time.*'yesterday'/],
    ["tablespaces=[('a', 'b')]", /tablespaces/],
    ["tablespaces=__import__('os')", /tablespaces/],
    ["copy_stats=[1]", /copy_stats.*dict/],
    ["backup_label=unquoted", /backup_label/],
    ["included_files=[1]", /included_files/],
    ["snapshots_info={'provider': 'aws'}", /snapshots_info.*missing/],
    ["snapshots_info={'provider': 'x', 'snapshots': []}", /snapshots_info.*unknown/],
  ];
  for (const [text, message] of bad) {
    assert.throws(() => parseBackupInfo(text), (error: unknown) => {
      assert.ok(error instanceof MalformedBackupInfo, text);
      assert.match(error.message, message);
      return true;
    });
  }
});

Deno.test("missing names inside snapshots_info are null", () => {
  const { snapshotsInfo } = parseBackupInfo(
    "snapshots_info={'provider': 'aws', 'snapshots': [{'provider': {'snapshot_id': 's'}}]}",
  );
  assert.deepEqual([...snapshotsInfo?.providerInfo ?? []], [["account_id", null], [
    "region",
    null,
  ]]);
  const [snapshot] = snapshotsInfo?.snapshots ?? [];
  assert.equal(snapshot?.mountPoint, null);
  assert.equal(snapshot?.identifiers.get("snapshot_lock_mode"), null);
});

Deno.test("a text that would break the file is refused; an error is put on one line", () => {
  assert.throws(
    () => formatBackupInfo(newBackupInfo({ pgdata: "/a\nstatus=DONE" })),
    /Cannot write pgdata .*line break/,
  );
  const text = formatBackupInfo(newBackupInfo({ error: "first\n  second\r\n" }));
  assert.match(text, /^error=first second$/m);
});

Deno.test("a new backup.info has all fields in order", () => {
  const names = formatBackupInfo(newBackupInfo()).trimEnd().split("\n").map((line) =>
    line.split("=")[0] ?? ""
  );
  assert.equal(names.length, 33);
  assert.deepEqual(names, [...names].sort());
});

const text = fc.string({ unit: "grapheme", minLength: 1 })
  .map((value) => value.replace(/\s/g, "_"))
  .filter((value) => value !== "None" && value.trim() === value && value !== "");
const optional = <T>(values: fc.Arbitrary<T>) => fc.option(values, { nil: null });
const time = fc.record({
  epochSeconds: fc.integer({ min: 0, max: 4_000_000_000 }),
  microseconds: fc.integer({ min: 0, max: 999_999 }),
  offsetSeconds: fc.integer({ min: -50_000, max: 50_000 }),
}, { noNullPrototype: true });
const infos: fc.Arbitrary<BackupInfo> = fc.record({
  backupLabel: optional(fc.string({ minLength: 1, unit: "binary" })),
  backupName: optional(text),
  beginOffset: optional(fc.nat()),
  beginTime: optional(time),
  clusterSize: optional(fc.maxSafeNat()),
  childrenBackupIds: optional(
    fc.array(text.map((id) => id.replaceAll(",", "")).filter(Boolean), { minLength: 1 }),
  ),
  copyStats: optional(
    fc.array(fc.tuple(fc.string(), fc.float({ noNaN: true, noDefaultInfinity: true })), {
      minLength: 1,
    }).map((entries) =>
      new Map<PyValue, PyValue>(entries.map(([key, value]) => [key, new PyFloat(value)]))
    ),
  ),
  endTime: optional(time),
  error: optional(text),
  includedFiles: optional(fc.array(fc.string({ unit: "binary" }), { minLength: 1 })),
  pgdata: optional(text),
  status: fc.constantFrom("DONE", "FAILED", "EMPTY"),
  tablespaces: optional(
    fc.array(
      fc.record(
        { name: fc.string(), oid: fc.nat(), location: fc.string({ unit: "binary" }) },
        { noNullPrototype: true },
      ),
      { minLength: 1 },
    ),
  ),
  timeline: optional(fc.nat()),
}).map((known) => newBackupInfo(known));

Deno.test("reading undoes writing", () => {
  fc.assert(fc.property(infos, (info) => {
    assert.deepEqual(parseBackupInfo(formatBackupInfo(info)), info);
  }));
});

Deno.test("JSON is ASCII and JSON", () => {
  fc.assert(fc.property(infos, (info) => {
    const json = pythonJson(backupInfoToJson(info, "20260115T103000"));
    assert.match(json, /^[\x20-\x7e]*$/);
    assert.equal(JSON.parse(json).backup_id, "20260115T103000");
    assert.equal(JSON.parse(json).pgdata, info.pgdata);
  }));
});

Deno.test("a file of nothing but unknown fields is refused", () => {
  const fields = (count: number) => Array.from({ length: count }, (_, i) => `f${i}=x\n`).join("");
  assert.equal(parseBackupInfo(fields(1000)).unknownFields.size, 1000);
  assert.throws(() => parseBackupInfo(fields(1001)), MalformedBackupInfo);
  assert.throws(() => parseBackupInfo(`status=DONE\n\n#\nx`), /Line 4 is not/);
});
