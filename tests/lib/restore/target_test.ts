import assert from "node:assert/strict";
import { openFileStore } from "../../../providers/file/store.ts";
import { serverLayout } from "../../../lib/layout.ts";
import type { BackupInfo } from "../../../lib/backup/backup_info.ts";
import { parseTimestamp } from "../../../lib/backup/timestamp.ts";
import {
  chooseBackup,
  describeTarget,
  latestTimeline,
  parseTarget,
  type TargetWords,
} from "../../../lib/restore/target.ts";
import { RestoreError } from "../../../lib/restore/restore_error.ts";
import { doneInfo, workspace } from "./fixtures.ts";

const backup = (id: string, known: Partial<BackupInfo>) => ({ id, info: doneInfo(known) });
const at = (text: string) => parseTimestamp(text);

const BACKUPS = [
  backup("20260101T000000", { endTime: at("2026-01-01 00:10:00+00"), endXlog: "0/10" }),
  backup("20260102T000000", { endTime: at("2026-01-02 00:10:00.5+00"), endXlog: "1/0" }),
  backup("20260103T000000", {
    endTime: at("2026-01-03 00:10:00+00"),
    endXlog: "2/FF000000",
    timeline: 2,
  }),
  backup("20260104T000000", { status: "FAILED", endTime: null, endXlog: null }),
];

function choice(words: TargetWords): string | undefined {
  const target = parseTarget(words);
  assert(target.timeline !== "latest");
  return chooseBackup(BACKUPS, { ...target, timeline: target.timeline })?.id;
}

Deno.test("target: the newest DONE backup that ended in time", () => {
  assert.equal(choice({}), "20260103T000000");
  assert.equal(choice({ time: "2026-01-02 00:10:00.499999+00" }), "20260101T000000");
  assert.equal(choice({ time: "2026-01-02T00:10:00.5Z" }), "20260102T000000");
  assert.equal(choice({ time: "2026-01-02 01:10:00.5+01" }), "20260102T000000");
  assert.equal(choice({ time: "Sat Jan  3 00:10:00 2026 UTC" }), "20260103T000000");
  assert.equal(choice({ time: "2025-12-31" }), undefined);
  assert.equal(choice({ lsn: "0/F" }), undefined);
  assert.equal(choice({ lsn: "0/10" }), "20260101T000000");
  assert.equal(choice({ lsn: "2/fefFFFFF" }), "20260102T000000");
  assert.equal(choice({ timeline: 1 }), "20260102T000000");
  assert.equal(choice({ timeline: 1, lsn: "A/0" }), "20260102T000000");
  assert.equal(choice({ timeline: 3 }), undefined);
});

Deno.test("target: words that make no sense", () => {
  for (
    const [words, message] of [
      [{ timeline: "current" }, /'current'/],
      [{ time: "soon" }, /--target-time: 'soon' is not a timestamp/],
      [{ lsn: "0-1" }, /--target-lsn: '0-1' is not an LSN/],
    ] as const
  ) {
    assert.throws(() => parseTarget(words), (error) => {
      assert(error instanceof RestoreError);
      assert.equal(error.kind, "invalid");
      assert.match(error.message, message);
      return true;
    });
  }
  assert.equal(
    describeTarget(parseTarget({ timeline: 2, time: "2026-01-02 00:00:00+01" })),
    " on timeline 2 that ended by 2026-01-02 00:00:00+01:00",
  );
  assert.equal(describeTarget(parseTarget({ lsn: "0/1a" })), " that ended by LSN 0/1A");
});

Deno.test("target: the latest timeline of the WAL archive", async () => {
  await using space = await workspace();
  const { store } = await openFileStore(space.url, { env: {} });
  const layout = serverLayout("", "main");
  await assert.rejects(latestTimeline(store, layout, {}), RestoreError);
  await space.putWal("0000000100000000/000000010000000000000001");
  assert.equal(await latestTimeline(store, layout, {}), 1);
  await space.putWal("0000000A00000000/0000000A0000000000000001.gz");
  await space.putWal("0000000B00000000/junk");
  await space.putWal("junk/0000000C0000000000000001");
  assert.equal(await latestTimeline(store, layout, {}), 10);
  await space.putWal("0000000C.history.bz2");
  assert.equal(await latestTimeline(store, layout, {}), 12);
  await store.close();
});
