/** What killed processes left goes, and nothing that may be alive, or that anybody needs. */
import assert from "node:assert/strict";
import { readdir, rm, utimes } from "node:fs/promises";
import { fileURLToPath } from "node:url";
import { executeCleanup, planCleanup } from "../../../lib/backup/cleanup.ts";
import { writeKeep } from "../../../lib/backup/keep.ts";
import { command as cleanup } from "../../../lib/commands/cleanup.ts";
import { command as list } from "../../../lib/commands/backup_list.ts";
import { command as show } from "../../../lib/commands/backup_show.ts";
import type { ObjectStore } from "../../../providers/object_store.ts";
import { runWords } from "../commands/run_words.ts";
import { AWS_SNAPSHOTS, FAILED_LINES, withLines } from "./fixtures.ts";
import { recordingLogger, type TemporaryStore, temporaryStore } from "./temporary_store.ts";

const HOUR = 3600_000;
const DAYS = 24 * HOUR;
/** The time that `runWords` gives commands. */
const NOW = new Date("2026-02-01T00:00:00Z");
const DONE = "20260101T000000";
const FAILED = "20260102T000000";
const HALF = "20260103T000000";
const KEPT = "20260104T000000";
const SNAPSHOTS = "20260105T000000";
const DELETED = "20260106T000000";

/** Everything that there can be, with nothing written for ten days. */
async function everything(): Promise<TemporaryStore> {
  const temporary = await temporaryStore();
  const { store, layout, put } = temporary;
  await temporary.addBackup(DONE);
  await temporary.addBackup(FAILED, FAILED_LINES);
  await put(layout.archive(HALF, "data", 0, "tar"), "data");
  await put(layout.runningMark(HALF), JSON.stringify({ host: "db1", pid: 7, beginWal: null }));
  await put(layout.archive(KEPT, "data", 0, "tar"), "data");
  await writeKeep(store, layout, KEPT, "full");
  await put(
    layout.backupInfo(SNAPSHOTS),
    withLines(AWS_SNAPSHOTS, "status=FAILED"),
  );
  await put(layout.deletionMark(DELETED, crypto.randomUUID()), "{}");
  await temporary.addWal("000000010000000000000001", "00000002.history");
  await put(layout.identity, "{}");
  await put(layout.walClaim("00000003.history"), "{}");
  for (
    const key of [
      layout.archive(DONE, "16384", 0, "tar"),
      layout.archive(HALF, "data", 1, "tar"),
      layout.wal("000000010000000000000002"),
      // Another server's.
      "other/base/20260101T000000/data.tar",
    ]
  ) {
    const upload = await store.startMultipart(key);
    await upload.uploadPart(1, new TextEncoder().encode("part"));
  }
  await age(temporary, 10 * DAYS);
  return temporary;
}

/** All files look as if they had been written so long ago. */
async function age(temporary: TemporaryStore, ms: number, path = /./): Promise<void> {
  const root = fileURLToPath(temporary.url);
  const seconds = (NOW.getTime() - ms) / 1000;
  for (const entry of await readdir(root, { recursive: true, withFileTypes: true })) {
    const file = `${entry.parentPath}/${entry.name}`;
    if (entry.isFile() && path.test(file)) await utimes(file, seconds, seconds);
  }
}

async function remaining(temporary: TemporaryStore): Promise<string[]> {
  const uploads = (await Array.fromAsync(temporary.store.listUploads("")))
    .map(({ key }) => `${key.slice(0, key.lastIndexOf("/"))}/upload`);
  return [...await temporary.keys(), ...uploads].sort();
}

async function cleaned(temporary: TemporaryStore, ...words: string[]) {
  return await runWords(cleanup, temporary.url, "srv", ...words);
}

Deno.test("cleanup: what is dead goes, and nothing else", async () => {
  await using temporary = await everything();
  const before = await remaining(temporary);
  for (const words of [["--dry-run"], ["--older-than", "11 days"], ["--older-than", "300h"]]) {
    const { code, stdout } = await cleaned(temporary, ...words);
    assert.equal(code, 0);
    assert.equal(stdout.split("\n").length - 1, words[0] === "--dry-run" ? 5 : 0, stdout);
    assert.deepEqual(await remaining(temporary), before);
  }
  const { code, stdout } = await cleaned(temporary);
  assert.equal(code, 0);
  const lines = stdout.trimEnd().split("\n");
  assert.match(
    lines[0] ?? "",
    /^Removed the unfinished upload of srv\/base\/20260101T000000\/\.barman-cloud\.[0-9a-f]+\.tmp \(4 bytes\): its backup has ended, and nothing has happened for 10 days$/,
  );
  assert.match(
    lines[1] ?? "",
    /^Removed the unfinished backup srv\/base\/20260103T000000\/ \(2 objects, \d+ bytes\): it has no backup\.info, and nothing has happened for 10 days$/,
  );
  assert.match(lines[2] ?? "", /20260106T000000\/.*: its deletion did not finish, and nothing/);
  assert.match(lines[3] ?? "", /upload of srv\/wals\/0000000100000000\//);
  assert.match(lines[4] ?? "", /the claim srv\/wal-claims\/00000003\.history: its archiver did/);
  assert.deepEqual(
    await remaining(temporary),
    before.filter((name) =>
      !name.includes(HALF) && !name.includes(DELETED) && !name.includes("wal-claims") &&
      (!name.endsWith("/upload") || name.startsWith("other/"))
    ),
  );
  assert.equal((await cleaned(temporary)).stdout, "");
});

Deno.test("cleanup: failed backups only when told, never those of snapshots or kept ones", async () => {
  await using temporary = await everything();
  await temporary.addBackup("20260107T000000", FAILED_LINES);
  await writeKeep(temporary.store, temporary.layout, "20260107T000000", "full");
  await age(temporary, 10 * DAYS);
  await cleaned(temporary);
  const before = await remaining(temporary);
  const { code, stdout } = await cleaned(temporary, "--failed", "--format", "json");
  assert.equal(code, 0);
  const { removed } = JSON.parse(stdout);
  assert.deepEqual(removed.map(({ key }: { key: string }) => key), [`srv/base/${FAILED}/`]);
  assert.deepEqual(
    await remaining(temporary),
    before.filter((name) => !name.includes(FAILED)),
  );
});

Deno.test("cleanup: any sign of life protects all of a backup", async () => {
  for (const sign of [/running\.json$/, /data\.tar$/, /20260103T000000.*\.tmp$/]) {
    await using temporary = await everything();
    await age(temporary, 2 * HOUR, sign);
    const left = async () =>
      (await remaining(temporary)).filter((name) => name.includes(HALF)).length;
    await cleaned(temporary, "--older-than", "3 hours");
    assert.equal(await left(), 3, String(sign));
    await cleaned(temporary, "--older-than", "1 hour");
    assert.equal(await left(), 0, String(sign));
  }
});

Deno.test("cleanup: what comes to life after the plan was made stays", async () => {
  await using temporary = await everything();
  const { store, layout } = temporary;
  const context = {
    store,
    layout,
    log: recordingLogger(),
    signal: new AbortController().signal,
  };
  const request = { olderThanMs: DAYS, failed: false, now: NOW };
  const plan = await planCleanup(context, request);
  assert.equal(plan.remove.length, 5);
  // The backup was alive after all: it completes; and a segment is sent on.
  await temporary.put(layout.backupInfo(HALF), "x");
  await age(temporary, 0, /wals.*\.tmp$/);
  const { removed, left, failed } = await executeCleanup(context, request, plan);
  assert.equal(failed, false);
  assert.deepEqual(removed.map(({ backupId }) => backupId), [DONE, DELETED, null]);
  assert.deepEqual(left.map(({ reason }) => reason), [
    "its backup has ended, and something happened 0 minutes ago",
    "a part has arrived",
  ]);
  assert.ok((await temporary.keys()).includes(layout.archive(HALF, "data", 0, "tar")));
});

Deno.test("cleanup: blocks that the store does not date are left, unless a mark or backup.info tells", async () => {
  await using temporary = await everything();
  const undated: ObjectStore = {
    ...temporary.store,
    async *listUploads(prefix, options) {
      for await (
        const { lastActivity: _, ...upload } of temporary.store.listUploads(prefix, options)
      ) {
        yield upload;
      }
    },
  };
  const context = {
    store: undated,
    layout: temporary.layout,
    log: recordingLogger(),
    signal: new AbortController().signal,
  };
  const request = { olderThanMs: DAYS, failed: false, now: NOW };
  const ids = async () =>
    (await planCleanup(context, request)).remove.map(({ backupId }) => backupId);
  assert.deepEqual(await ids(), [DONE, HALF, DELETED, null]);
  // By hand: the store would take the opportunity to remove old temporary files.
  await rm(fileURLToPath(`${temporary.url}/${temporary.layout.runningMark(HALF)}`));
  assert.deepEqual(await ids(), [DONE, DELETED, null]);
});

Deno.test("cleanup: times", async () => {
  await using temporary = await temporaryStore();
  for (const word of ["0 hours", "7", "1 week", "", "-3 days", "30 minutes"]) {
    assert.equal((await cleaned(temporary, "--older-than", word)).code, 3, word);
  }
  for (const word of ["1 hour", "7 DAYS", "36h", "2d"]) {
    assert.equal((await cleaned(temporary, "--older-than", word)).code, 0, word);
  }
});

Deno.test("list and show tell half backups from those that are being taken", async () => {
  await using temporary = await everything();
  const warned = await runWords(list, temporary.url, "srv");
  const lines = warned.log.filter((line) => line.startsWith("WARNING"));
  for (const id of [HALF, KEPT, DELETED]) {
    assert.ok(lines.some((line) => line.includes(`Backup ${id} has no backup.info`)), `${lines}`);
  }
  const shown = await runWords(show, temporary.url, "srv", HALF);
  assert.equal(shown.code, 1);
  assert.match(shown.log.join("\n"), /ERROR Backup 20260103T000000 has no backup\.info/);
  await age(temporary, 0, /running\.json$/);
  const running = await runWords(list, temporary.url, "srv", "--format", "json", "-v");
  assert.match(
    running.log.join("\n"),
    /INFO Backup 20260103T000000 is being taken \(on db1, process 7\)/,
  );
});
