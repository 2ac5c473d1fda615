import assert from "node:assert/strict";
import fc from "fast-check";
import { newBackupInfo } from "../../../lib/backup/backup_info.ts";
import type { CatalogueEntry } from "../../../lib/backup/catalogue.ts";
import {
  coversWalRule,
  judgeWalFolder,
  mayDeleteWal,
  walRule,
} from "../../../lib/backup/wal_cleanup.ts";
import { parseWalName } from "../../../lib/wal/segment.ts";

function segment(timeline: number, log: number, number: number): string {
  return [timeline, log, number].map((part) => part.toString(16).toUpperCase().padStart(8, "0"))
    .join("");
}

function backup(id: string, begin: string | null, end = begin, status = "DONE"): CatalogueEntry {
  const timeline = begin === null ? null : parseInt(begin.slice(0, 8), 16);
  return { id, info: newBackupInfo({ status, beginWal: begin, endWal: end, timeline }) };
}

/** Which of the names go when the backup is deleted; null when WAL is left as it is. */
function deleted(
  backups: readonly CatalogueEntry[],
  id: string,
  names: readonly string[],
  keeps: Record<string, string> = {},
  stopAtStandalone = false,
): string[] | null {
  const entry = backups.find((candidate) => candidate.id === id);
  assert.ok(entry !== undefined);
  const decision = walRule(backups, entry, new Map(Object.entries(keeps)), stopAtStandalone);
  if (decision.kind === "leave") return null;
  return names.filter((name) => mayDeleteWal(decision.rule, name));
}

const S = (number: number) => segment(1, 0, number);
const THREE = [backup("a", S(2), S(3)), backup("b", S(6), S(7)), backup("c", S(9), S(9))];
const NAMES = Array.from({ length: 12 }, (_, index) => S(index + 1));

Deno.test("WAL before the next backup goes with the oldest one only", () => {
  assert.deepEqual(deleted(THREE, "a", NAMES), NAMES.slice(0, 5));
  assert.equal(deleted(THREE, "b", NAMES), null);
  assert.equal(deleted(THREE, "c", NAMES), null);
  // Without another one, what comes from its begin on stays.
  assert.deepEqual(deleted(THREE.slice(0, 1), "a", NAMES), [S(1)]);
});

Deno.test("what belongs to the limit's segment stays, what belongs to earlier ones goes", () => {
  const names = [
    `${S(2)}.00000028.backup`,
    `${S(5)}.partial`,
    S(5).toLowerCase(),
    `${S(6)}.partial`,
    `${S(6)}.00000028.backup`,
    "00000001.history",
    "junk",
    `${S(1)}.gz`,
  ];
  assert.deepEqual(deleted(THREE, "a", names), names.slice(0, 3));
});

Deno.test("a standalone backup before it protects its range, or all WAL when one backup is deleted", () => {
  const names = [...NAMES, `${S(3)}.partial`, `${S(2)}.00000028.backup`];
  assert.deepEqual(
    deleted(THREE, "b", names, { a: "standalone" }),
    [S(1), S(4), S(5), S(6), S(7), S(8)],
  );
  assert.equal(deleted(THREE, "b", names, { a: "standalone" }, true), null);
  assert.equal(deleted(THREE, "b", names, { a: "full" }), null);
});

Deno.test("failed backups are no neighbours, waiting ones are", () => {
  const failed = [backup("a", S(2)), backup("b", S(4), S(4), "FAILED"), backup("c", S(6))];
  assert.deepEqual(deleted(failed, "a", NAMES), NAMES.slice(0, 5));
  const waiting = [backup("a", S(2)), backup("b", S(4), S(4), "WAITING_FOR_WALS")];
  assert.deepEqual(deleted(waiting, "a", NAMES), NAMES.slice(0, 3));
});

Deno.test("timelines of other backups stay, the deleted one's too until the next deletion", () => {
  const backups = [
    backup("a", segment(1, 0, 5)),
    backup("b", segment(3, 0, 9)),
    backup("c", segment(3, 1, 0)),
  ];
  const names = [segment(1, 0, 4), segment(2, 0, 7), segment(3, 0, 8), segment(3, 0, 9)];
  assert.deepEqual(deleted(backups, "a", names), [segment(2, 0, 7), segment(3, 0, 8)]);
  assert.deepEqual(deleted(backups.slice(1), "b", names), names);
});

Deno.test("a backup that does not tell where its WAL begins leaves WAL alone", () => {
  assert.equal(deleted([backup("a", null, null, "FAILED")], "a", NAMES), null);
  assert.equal(deleted([backup("a", S(2)), backup("b", null)], "a", NAMES), null);
  assert.equal(deleted([backup("a", "../../x")], "a", NAMES), null);
});

Deno.test("a changed clock does not cost a backup its WAL", () => {
  // "c" was taken before "b" but its id is greater.
  const backups = [backup("a", S(1)), backup("b", S(9)), backup("c", S(4))];
  assert.deepEqual(deleted(backups, "a", NAMES), NAMES.slice(0, 3));
  // A later id on an earlier timeline may be recovered along timelines that have no backup.
  const branched = [backup("a", S(1)), backup("b", segment(3, 0, 9)), backup("c", S(4))];
  assert.deepEqual(deleted(branched, "a", [segment(2, 0, 5), segment(3, 0, 1)]), []);
});

const segments = fc.tuple(fc.integer({ min: 1, max: 4 }), fc.nat(2), fc.nat(20))
  .map((parts) => segment(...parts));
const names = fc.tuple(segments, fc.constantFrom("", "", ".partial", ".00000028.backup"))
  .map(([name, suffix]) => name + suffix);
const catalogues = fc.array(
  fc.record({
    begin: segments,
    length: fc.nat(3),
    status: fc.constantFrom("DONE", "DONE", "DONE", "DONE", "FAILED", "WAITING_FOR_WALS"),
    keep: fc.constantFrom(undefined, undefined, undefined, "full", "standalone"),
  }),
  { minLength: 1, maxLength: 7 },
);

Deno.test("no WAL that a remaining backup needs is ever let go", () => {
  fc.assert(
    fc.property(catalogues, fc.nat(6), names, fc.boolean(), (specs, which, name, stop) => {
      const backups = specs.map(({ begin, length, status }, index) => {
        const end = begin.slice(0, 16) +
          (parseInt(begin.slice(16), 16) + length).toString(16).toUpperCase().padStart(8, "0");
        return backup(`b${index}`, begin, end, status);
      });
      const keeps = new Map(
        specs.flatMap(({ keep }, index) =>
          keep === undefined ? [] : [[`b${index}`, keep] as [string, string]]
        ),
      );
      const victim = backups[which % backups.length];
      assert.ok(victim !== undefined);
      const decision = walRule(backups, victim, keeps, stop);
      if (decision.kind === "leave") return;
      if (!mayDeleteWal(decision.rule, name)) return;
      const wal = parseWalName(name);
      assert.ok(wal !== null && wal.kind !== "history");
      for (const { id, info } of backups) {
        if (id === victim.id || info.status === "FAILED") continue;
        assert.ok(info.beginWal !== null && info.endWal !== null && info.timeline !== null);
        if (keeps.get(id) === "standalone") {
          assert.ok(wal.segment < info.beginWal || wal.segment > info.endWal, `${id} ${name}`);
        } else {
          // All from its begin on, along its own timeline and those that may follow.
          assert.ok(wal.timeline <= info.timeline, `${id} ${name}`);
          assert.ok(wal.timeline < info.timeline || wal.segment < info.beginWal, `${id} ${name}`);
        }
      }
    }),
    { numRuns: 5000 },
  );
});

Deno.test("what is said of a folder is true of every file in it", () => {
  fc.assert(
    fc.property(catalogues, names, fc.boolean(), (specs, name, stop) => {
      const backups = specs.map(({ begin, status }, index) =>
        backup(`b${index}`, begin, begin, status)
      );
      const keeps = new Map(
        specs.flatMap(({ keep }, index) =>
          keep === undefined ? [] : [[`b${index}`, keep] as [string, string]]
        ),
      );
      for (const victim of backups) {
        const decision = walRule(backups, victim, keeps, stop);
        if (decision.kind === "leave") continue;
        const verdict = judgeWalFolder(decision.rule, name.slice(0, 16));
        if (verdict === "all") assert.ok(mayDeleteWal(decision.rule, name), name);
        if (verdict === "none") assert.ok(!mayDeleteWal(decision.rule, name), name);
      }
    }),
    { numRuns: 3000 },
  );
});

Deno.test("a rule that covers another lets go what that one does", () => {
  let covered = 0;
  fc.assert(
    fc.property(catalogues, names, (specs, name) => {
      const backups = specs.map(({ begin, status }, index) =>
        backup(`b${index}`, begin, begin, status)
      );
      const rules = backups.flatMap((victim, index) => {
        const decision = walRule(backups.slice(index), victim, new Map(), false);
        return decision.kind === "clean" ? [decision.rule] : [];
      });
      for (const rule of rules) {
        for (const other of rules) {
          if (rule === other || !coversWalRule(rule, other)) continue;
          covered++;
          if (mayDeleteWal(other, name)) assert.ok(mayDeleteWal(rule, name), name);
        }
      }
    }),
    { numRuns: 1000 },
  );
  assert.ok(covered > 100, String(covered));
});

Deno.test("folders with other names are looked into", () => {
  const [a] = THREE;
  assert.ok(a !== undefined);
  const decision = walRule(THREE, a, new Map(), false);
  assert.ok(decision.kind === "clean");
  assert.equal(judgeWalFolder(decision.rule, "old"), "some");
  assert.equal(judgeWalFolder(decision.rule, "0000000100000000"), "some");
  assert.equal(judgeWalFolder(decision.rule, "0000000100000001"), "none");
});
