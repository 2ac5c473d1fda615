import assert from "node:assert/strict";
import { mkdtemp, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { backupIdOf, newBackupId } from "../../../lib/backup/backup_id.ts";
import { serverLayout } from "../../../lib/layout.ts";
import { type ObjectStore, StoreError } from "../../../providers/object_store.ts";
import { openStore } from "../../../providers/open.ts";

const layout = serverLayout("", "main");

/** A local store with `backup.info` of these ids. */
async function withBackups(
  ids: readonly string[],
  use: (store: ObjectStore) => Promise<void>,
): Promise<void> {
  const root = await mkdtemp(join(tmpdir(), "ids-"));
  const { store } = await openStore(`file://${root}/store`, { env: {} });
  try {
    await store.createBucket();
    for (const id of ids) await store.put(layout.backupInfo(id), new Uint8Array(1));
    await use(store);
  } finally {
    await store.close();
    await rm(root, { recursive: true, force: true });
  }
}

function options(now: () => Date, notices: string[] = []) {
  const signal = new AbortController().signal;
  return { now, signal, onNotice: (message: string) => notices.push(message) };
}

const at = (hour: number, minute: number, second: number) =>
  new Date(2026, 10, 1, hour, minute, second);

Deno.test("an id is the local time", () => {
  assert.equal(backupIdOf(new Date(2026, 0, 5, 3, 4, 9)), "20260105T030409");
});

Deno.test("normally the time, also with older backups and strangers in the folder", async () => {
  await withBackups(["20251231T235959", "20261101T102959", "zzz"], async (store) => {
    assert.equal(await newBackupId(store, layout, options(() => at(10, 30, 0))), "20261101T103000");
  });
});

Deno.test("a start in the same second waits for the next one", async () => {
  await withBackups(["20261101T103000"], async (store) => {
    const began = performance.now();
    const now = () => new Date(at(10, 30, 0).getTime() + performance.now() - began);
    assert.equal(await newBackupId(store, layout, options(now)), "20261101T103001");
  });
});

Deno.test("an id that another backup is about to use is left to it", async () => {
  await withBackups([], async (store) => {
    const began = performance.now();
    const now = () => new Date(at(10, 30, 0).getTime() + performance.now() - began);
    const asked: string[] = [];
    const isFree = (id: string) => {
      asked.push(id);
      return Promise.resolve(asked.length > 1);
    };
    const id = await newBackupId(store, layout, { ...options(now), isFree });
    assert.deepEqual([...asked], ["20261101T103000", "20261101T103001"]);
    assert.equal(id, "20261101T103001");
  });
});

Deno.test("after the clock was put back an hour the id follows the newest", async () => {
  await withBackups(["20261101T102959", "20261101T235959"], async (store) => {
    const notices: string[] = [];
    const id = await newBackupId(store, layout, options(() => at(23, 5, 0), notices));
    assert.equal(id, "20261102T000000");
    assert.match(notices.join(), /clock is behind backup 20261101T235959/);
  });
});

Deno.test("a backup from the future is refused", async () => {
  await withBackups(["20991231T000000"], async (store) => {
    await assert.rejects(newBackupId(store, layout, options(() => at(10, 0, 0))), {
      name: "BackupError",
      kind: "refused",
      message: /20991231T000000/,
    });
  });
});

Deno.test("credentials that may not list are no obstacle, an unreachable store is", async () => {
  const failing = (kind: "denied" | "unreachable") => ({
    // deno-lint-ignore require-yield -- it fails before the first entry
    async *list() {
      throw new StoreError(kind, "no");
    },
  } as unknown as ObjectStore);
  const notices: string[] = [];
  const now = () => at(10, 0, 0);
  assert.equal(
    await newBackupId(failing("denied"), layout, options(now, notices)),
    "20261101T100000",
  );
  assert.equal(notices.length, 1);
  await assert.rejects(newBackupId(failing("unreachable"), layout, options(now)), {
    kind: "unreachable",
  });
});
