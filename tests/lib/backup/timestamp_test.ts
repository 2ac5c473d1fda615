import assert from "node:assert/strict";
import fc from "fast-check";
import {
  compareTimestamps,
  epochMilliseconds,
  formatCtime,
  formatIsoTimestamp,
  formatTimestamp,
  formatWallClock,
  MalformedTimestamp,
  parseTimestamp,
  type Timestamp,
  timestampOfDate,
} from "../../../lib/backup/timestamp.ts";

const LOCAL = new Date(2026, 0, 15, 10, 30, 1);
const localOffset = -LOCAL.getTimezoneOffset() * 60 + 0;

Deno.test("reads the forms that are met in backup.info", () => {
  const utc = Date.UTC(2026, 0, 15, 10, 30, 1) / 1000;
  const forms: readonly (readonly [string, Timestamp])[] = [
    ["2026-01-15 10:30:01.123456+00:00", at(utc, 123456, 0)],
    ["2026-01-15 10:30:01+00:00", at(utc, 0, 0)],
    ["2026-01-15T10:30:01Z", at(utc, 0, 0)],
    ["2026-01-15 10:30:01+00", at(utc, 0, 0)],
    ["2026-01-15 10:30:01 UTC", at(utc, 0, 0)],
    ["2026-01-15 16:00:01.5+05:30", at(utc, 500000, 19800)],
    ["2026-01-15 16:00:01,5+0530", at(utc, 500000, 19800)],
    ["2026-01-15 02:30:01.1234567-08", at(utc, 123456, -28800)],
    ["2026-01-15 10:49:33+00:19:32", at(utc, 0, 1172)],
    ["20260115T103001Z", at(utc, 0, 0)],
    ["2026-01-15 10:30Z", at(utc - 1, 0, 0)],
    ["Thu, 15 Jan 2026 10:30:01 +0000", at(utc, 0, 0)],
    ["Thu Jan 15 10:30:01 UTC 2026", at(utc, 0, 0)],
    ["Jan 15, 2026 10:30:01 GMT", at(utc, 0, 0)],
    ["Thu Jan 15 10:30:01.5 2026 UTC", at(utc, 500000, 0)],
    // Without an offset it is local time.
    ["Thu Jan 15 10:30:01 2026", at(LOCAL.getTime() / 1000, 0, localOffset)],
    ["2026-01-15 10:30:01", at(LOCAL.getTime() / 1000, 0, localOffset)],
    ["2026-01-15", at(new Date(2026, 0, 15).getTime() / 1000, 0, localOffset)],
  ];
  for (const [text, time] of forms) assert.deepEqual(parseTimestamp(text), time, text);

  function at(epochSeconds: number, microseconds: number, offsetSeconds: number): Timestamp {
    return { epochSeconds, microseconds, offsetSeconds };
  }
});

Deno.test("refuses what is no time", () => {
  const texts = [
    "",
    "now",
    "2026",
    "2026-13-01",
    "2026-02-30 10:00:00",
    "2026-01-15 25:00:00",
    "2026-01-15 10:61:00",
    "2026-01-15 10:00:00 CET",
    "2026-01-15 10:00:00+99:00",
    "01/02/2026",
  ];
  for (const text of texts) assert.throws(() => parseTimestamp(text), MalformedTimestamp, text);
});

Deno.test("writes the stored zone, and a fraction of six digits or none", () => {
  const time = parseTimestamp("2026-01-05 11:30:01.00012+01:00");
  assert.equal(formatTimestamp(time), "2026-01-05 11:30:01.000120+01:00");
  assert.equal(formatIsoTimestamp(time), "2026-01-05T11:30:01.000120+01:00");
  assert.equal(formatCtime(time), "Mon Jan  5 11:30:01 2026");
  assert.equal(formatWallClock(time), "2026-01-05 11:30:01");
  const west = parseTimestamp("1999-12-31 23:59:59-03:30");
  assert.equal(formatTimestamp(west), "1999-12-31 23:59:59-03:30");
  assert.equal(formatCtime(west), "Fri Dec 31 23:59:59 1999");
});

Deno.test("compares instants, whatever the zone", () => {
  const early = parseTimestamp("2026-01-15 11:00:00.000001+02:00");
  const late = parseTimestamp("2026-01-15 10:00:00.000002+01:00");
  assert.ok(compareTimestamps(early, late) < 0);
  assert.equal(compareTimestamps(early, parseTimestamp("2026-01-15 09:00:00.000001Z")), 0);
  assert.equal(epochMilliseconds(parseTimestamp("1970-01-01 00:00:01.5Z")), 1500);
});

Deno.test("takes a Date apart, before 1970 too", () => {
  const time = timestampOfDate(new Date(-1), 0);
  assert.equal(formatTimestamp(time), "1969-12-31 23:59:59.999000+00:00");
  assert.equal(timestampOfDate(LOCAL).offsetSeconds, localOffset);
});

Deno.test("reading undoes both notations", () => {
  const times = fc.record({
    epochSeconds: fc.integer({ min: -2_000_000_000, max: 200_000_000_000 }),
    microseconds: fc.integer({ min: 0, max: 999_999 }),
    offsetSeconds: fc.integer({ min: -86_000, max: 86_000 }),
  }, { noNullPrototype: true });
  fc.assert(fc.property(times, (time) => {
    assert.deepEqual(parseTimestamp(formatTimestamp(time)), time);
    assert.deepEqual(parseTimestamp(formatIsoTimestamp(time)), time);
  }));
});
