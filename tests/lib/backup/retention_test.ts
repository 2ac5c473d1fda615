import assert from "node:assert/strict";
import fc from "fast-check";
import { newBackupInfo } from "../../../lib/backup/backup_info.ts";
import type { CatalogueEntry } from "../../../lib/backup/catalogue.ts";
import {
  MalformedPolicy,
  parseRetentionPolicy,
  type RetentionPolicy,
  retentionReport,
} from "../../../lib/backup/retention.ts";
import { timestampOfDate } from "../../../lib/backup/timestamp.ts";

const NOW = new Date("2026-02-01T00:00:00Z");
const DAY = 24 * 60 * 60 * 1000;

/** A backup that ended so many days ago. */
function backup(id: string, days: number, status = "DONE"): CatalogueEntry {
  const endTime = timestampOfDate(new Date(NOW.getTime() - days * DAY), 0);
  return { id, info: newBackupInfo({ status, endTime }) };
}

function report(
  backups: readonly CatalogueEntry[],
  policy: string,
  { keeps = {}, minimumRedundancy = 0 }: {
    keeps?: Record<string, string>;
    minimumRedundancy?: number;
  } = {},
): Record<string, string> {
  return Object.fromEntries(retentionReport(backups, {
    policy: parseRetentionPolicy(policy),
    keeps: new Map(Object.entries(keeps)),
    minimumRedundancy,
    now: NOW,
  }));
}

Deno.test("policies are read in Barman's grammar", () => {
  const policies: readonly (readonly [string, RetentionPolicy])[] = [
    ["REDUNDANCY 3", { kind: "redundancy", count: 3 }],
    ["  redundancy   0 ", { kind: "redundancy", count: 0 }],
    ["RECOVERY WINDOW OF 30 DAYS", { kind: "recovery-window", days: 30 }],
    ["recovery window of 1 day", { kind: "recovery-window", days: 1 }],
    ["Recovery Window Of 2 Weeks", { kind: "recovery-window", days: 14 }],
    ["RECOVERY WINDOW OF 2 MONTHS", { kind: "recovery-window", days: 62 }],
    ["main", { kind: "main" }],
  ];
  for (const [text, policy] of policies) assert.deepEqual(parseRetentionPolicy(text), policy);
  for (
    const text of [
      "",
      "REDUNDANCY",
      "REDUNDANCY -1",
      "REDUNDANCY 1.5",
      "RECOVERY WINDOW OF 3 YEARS",
      "RECOVERY WINDOW 3 DAYS",
      "RECOVERYWINDOW OF 3 DAYS",
      "REDUNDANCY 2 x",
    ]
  ) assert.throws(() => parseRetentionPolicy(text), MalformedPolicy, text);
  assert.throws(() => report([], "main"), MalformedPolicy);
});

const FOUR = [backup("a", 40), backup("b", 30), backup("c", 20), backup("d", 10)];

Deno.test("redundancy keeps the newest, and kept backups count", () => {
  assert.deepEqual(report(FOUR, "REDUNDANCY 2"), {
    d: "VALID",
    c: "VALID",
    b: "OBSOLETE",
    a: "OBSOLETE",
  });
  assert.deepEqual(report(FOUR, "REDUNDANCY 2", { keeps: { d: "full", a: "standalone" } }), {
    d: "KEEP:FULL",
    c: "VALID",
    b: "OBSOLETE",
    a: "KEEP:STANDALONE",
  });
  assert.deepEqual(report(FOUR, "REDUNDANCY 0", { minimumRedundancy: 3 }), {
    d: "VALID",
    c: "VALID",
    b: "VALID",
    a: "OBSOLETE",
  });
  assert.equal(report(FOUR, "REDUNDANCY 0")["d"], "OBSOLETE");
});

Deno.test("the newest backup older than the window stays", () => {
  assert.deepEqual(report(FOUR, "RECOVERY WINDOW OF 25 DAYS"), {
    d: "VALID",
    c: "VALID",
    b: "VALID",
    a: "OBSOLETE",
  });
  assert.deepEqual(report(FOUR, "RECOVERY WINDOW OF 5 DAYS", { minimumRedundancy: 2 }), {
    d: "VALID",
    c: "POTENTIALLY OBSOLETE",
    b: "OBSOLETE",
    a: "OBSOLETE",
  });
  assert.deepEqual(report(FOUR, "RECOVERY WINDOW OF 5 DAYS", { keeps: { c: "other" } }), {
    d: "VALID",
    c: "KEEP:FULL",
    b: "OBSOLETE",
    a: "OBSOLETE",
  });
  // Exactly at the edge is inside.
  assert.equal(report(FOUR, "RECOVERY WINDOW OF 30 DAYS")["a"], "VALID");
});

Deno.test("backups that are not DONE have no status and do not count", () => {
  const backups = [
    backup("a", 40),
    backup("b", 30, "FAILED"),
    backup("c", 20, "WAITING_FOR_WALS"),
    backup("d", 10),
  ];
  assert.deepEqual(report(backups, "REDUNDANCY 1"), { d: "VALID", a: "OBSOLETE" });
});

Deno.test("no policy lets a needed or kept backup go", () => {
  const catalogues = fc.array(
    fc.record({
      days: fc.integer({ min: 0, max: 60 }),
      status: fc.constantFrom("DONE", "DONE", "DONE", "FAILED", "WAITING_FOR_WALS"),
      keep: fc.option(fc.constantFrom("full", "standalone", "x"), { nil: undefined }),
    }),
    { maxLength: 12 },
  );
  const numbers = fc.integer({ min: 0, max: 30 });
  fc.assert(fc.property(catalogues, numbers, fc.boolean(), fc.nat(4), (specs, n, isWindow, m) => {
    const backups = specs.map(({ days, status }, index) =>
      backup(`2026${String(index).padStart(4, "0")}T000000`, days, status)
    );
    const keeps = new Map(
      specs.flatMap(({ keep }, index) =>
        keep === undefined ? [] : [[backups[index]?.id ?? "", keep]]
      ),
    );
    const statuses = retentionReport(backups, {
      policy: isWindow ? { kind: "recovery-window", days: n } : { kind: "redundancy", count: n },
      keeps,
      minimumRedundancy: m,
      now: NOW,
    });
    const done = backups.filter(({ info }) => info.status === "DONE");
    assert.equal(statuses.size, done.length);
    const obsolete = done.filter(({ id }) => statuses.get(id) === "OBSOLETE");
    for (const { id } of obsolete) assert.ok(!keeps.has(id));
    assert.ok(done.length - obsolete.length >= Math.min(m, done.length));
    if (!isWindow) {
      const newest = done.slice(-Math.max(n, m, 0)).filter(() => Math.max(n, m) > 0);
      for (const entry of newest) assert.ok(!obsolete.includes(entry));
    } else {
      // From every moment of the window there is a backup to begin with, if there ever was one.
      const start = NOW.getTime() - n * DAY;
      const ended = (entry: CatalogueEntry) => (entry.info.endTime?.epochSeconds ?? 0) * 1000;
      const newestOutside = done.findLast((entry) => ended(entry) < start);
      const at = newestOutside === undefined ? 0 : done.indexOf(newestOutside);
      for (const entry of done.slice(at)) assert.ok(!obsolete.includes(entry));
    }
  }));
});
