import assert from "node:assert/strict";
import {
  loadBackupInfo,
  loadCatalogue,
  resolveBackupId,
  UnknownBackup,
  UnreadableBackupInfo,
} from "../../../lib/backup/catalogue.ts";
import { type ObjectStore, StoreError } from "../../../providers/object_store.ts";
import { temporaryStore } from "./temporary_store.ts";

const IDS = ["20260110T000000", "20260111T000000", "20260112T000000", "20260113T000000"] as const;

/** The store, but `get` of one key fails. */
function failing(store: ObjectStore, key: string, error: StoreError): ObjectStore {
  return {
    ...store,
    get: (wanted, options) => wanted === key ? Promise.reject(error) : store.get(wanted, options),
  };
}

Deno.test("the catalogue is in order of ids and tells unreadable backups apart", async () => {
  await using temporary = await temporaryStore("pre");
  const { store, layout } = temporary;
  for (const id of [...IDS].reverse()) await temporary.addBackup(id);
  await temporary.put(layout.backupInfo(IDS[1]), "garbage");
  await temporary.put(layout.backupInfo(IDS[2]), "timeline=x\n");
  // Unfinished: no backup.info. And an object that is no directory.
  await temporary.put(`${layout.backup("20260114T000000")}data.tar`, "x");
  await temporary.put(`${layout.base}stray`, "x");
  const catalogue = await loadCatalogue(store, layout);
  assert.deepEqual(catalogue.backups.map(({ id }) => id), [IDS[0], IDS[3]]);
  assert.deepEqual(catalogue.unreadable.map(({ id }) => id), [IDS[1], IDS[2]]);
  assert.match(catalogue.unreadable[1]?.reason ?? "", /timeline/);
});

Deno.test("a hundred backups, some fetched at once, stay in order", async () => {
  await using temporary = await temporaryStore();
  const ids = Array.from({ length: 100 }, (_, n) => `202601${String(n).padStart(2, "0")}T000000`);
  for (const id of ids) await temporary.put(temporary.layout.backupInfo(id), "status=DONE\n");
  const { backups } = await loadCatalogue(temporary.store, temporary.layout);
  assert.deepEqual(backups.map(({ id }) => id), ids.sort());
});

Deno.test("when the store fails there is no short catalogue", async () => {
  await using temporary = await temporaryStore();
  const { store, layout } = temporary;
  for (const id of IDS) await temporary.addBackup(id);
  const key = layout.backupInfo(IDS[2]);
  const silent = failing(store, key, new StoreError("unreachable", "No answer"));
  await assert.rejects(loadCatalogue(silent, layout), /No answer/);
  const refusing = failing(store, key, new StoreError("denied", "No permission"));
  await assert.rejects(loadCatalogue(refusing, layout), (error: unknown) => {
    assert.ok(error instanceof UnreadableBackupInfo);
    assert.equal(error.message, `Cannot read backup.info of ${IDS[2]}: No permission`);
    return true;
  });
  // In an archive storage class: there is nothing more to know, so the others are still listed.
  const archived = failing(
    store,
    key,
    new StoreError("denied", "In Glacier", { code: "InvalidObjectState" }),
  );
  assert.equal((await loadCatalogue(archived, layout)).backups.length, 3);
  // Deleted between listing and reading.
  const gone = failing(store, key, new StoreError("not-found", "Not there"));
  const { backups, unreadable } = await loadCatalogue(gone, layout);
  assert.deepEqual([backups.length, unreadable.length], [3, 0]);
});

Deno.test("a huge or binary backup.info is unreadable, not read into memory", async () => {
  await using temporary = await temporaryStore();
  const { store, layout } = temporary;
  await store.put(layout.backupInfo(IDS[0]), new Uint8Array(17 * 1024 * 1024));
  await store.put(layout.backupInfo(IDS[1]), Uint8Array.of(0x61, 0x3d, 0xff));
  const { unreadable } = await loadCatalogue(store, layout);
  assert.match(unreadable[0]?.reason ?? "", /17825792 bytes/);
  assert.match(unreadable[1]?.reason ?? "", /UTF-8/);
});

Deno.test("one backup.info", async () => {
  await using temporary = await temporaryStore();
  await temporary.addBackup(IDS[0]);
  const { store, layout } = temporary;
  assert.equal((await loadBackupInfo(store, layout, IDS[0]))?.timeline, 1);
  assert.equal(await loadBackupInfo(store, layout, IDS[1]), null);
});

Deno.test("an argument is an id, a shortcut, or a name", async () => {
  await using temporary = await temporaryStore();
  const { store, layout } = temporary;
  await temporary.addBackup(IDS[0], "backup_name=nightly");
  await temporary.addBackup(IDS[1], "status=FAILED\nbackup_name=twice");
  await temporary.addBackup(IDS[2], "status=FAILED\nbackup_name=latest-full");
  await temporary.addBackup(IDS[3], "status=STARTED\nbackup_name=twice");
  const resolve = (argument: string) =>
    resolveBackupId(argument, () => loadCatalogue(store, layout));
  const expected = {
    first: IDS[0],
    oldest: IDS[0],
    last: IDS[3],
    latest: IDS[3],
    "last-failed": IDS[2],
    nightly: IDS[0],
    "latest-full": IDS[2],
  };
  for (const [argument, id] of Object.entries(expected)) {
    assert.equal(await resolve(argument), id, argument);
  }
  await assert.rejects(resolve("twice"), new RegExp(`${IDS[1]}, ${IDS[3]}`));
  for (const argument of ["unknown", "last-full", "auto", "", "20260110"]) {
    await assert.rejects(resolve(argument), UnknownBackup, argument);
  }
  // An id needs no look-up, and need not exist.
  const unused = () => Promise.reject(new Error("looked up"));
  assert.equal(await resolveBackupId("20990101T000000", unused), "20990101T000000");
});
