import assert from "node:assert/strict";
import {
  DeletionFailed,
  executeDeletion,
  type ExecutionOptions,
  planDeletion,
  printDeletion,
} from "../../../lib/backup/delete.ts";
import { deletionPlan } from "../../../lib/backup/deletion_plan.ts";
import { newBackupInfo } from "../../../lib/backup/backup_info.ts";
import { writeKeep } from "../../../lib/backup/keep.ts";
import { parseRetentionPolicy } from "../../../lib/backup/retention.ts";
import { WalFolderFailed } from "../../../lib/backup/wal_deletion.ts";
import {
  type DeleteFailure,
  type ObjectLock,
  type ObjectStore,
  StoreError,
} from "../../../providers/object_store.ts";
import { AWS_SNAPSHOTS } from "./fixtures.ts";
import { recordingLogger, type TemporaryStore, temporaryStore } from "./temporary_store.ts";

const NOW = new Date("2026-02-01T00:00:00Z");
const A = "20260110T000000";
const B = "20260111T000000";
const C = "20260112T000000";

function segment(log: number, number: number, timeline = 1): string {
  return [timeline, log, number].map((part) => part.toString(16).toUpperCase().padStart(8, "0"))
    .join("");
}

function lines(begin: string, end = begin): string {
  return `begin_wal=${begin}\nend_wal=${end}\ntimeline=${parseInt(begin.slice(0, 8), 16)}`;
}

/** Three backups and WAL around them. */
async function archive(): Promise<TemporaryStore> {
  const temporary = await temporaryStore();
  await temporary.addBackup(A, lines(segment(0, 2)));
  await temporary.addBackup(B, lines(segment(2, 5)));
  await temporary.addBackup(C, lines(segment(3, 1)));
  await temporary.addWal(
    ...[segment(0, 1), segment(0, 2), `${segment(0, 2)}.00000028.backup`, `${segment(1, 0)}.gz`],
    ...[segment(1, 0), segment(2, 4), segment(2, 5), segment(3, 1), "00000002.history"],
  );
  return temporary;
}

interface Wanted {
  readonly id?: string;
  readonly policy?: string;
  readonly minimumRedundancy?: number;
  readonly store?: ObjectStore;
  readonly checkObjectLock?: boolean;
  readonly batchSize?: number;
  readonly deleteSnapshots?: ExecutionOptions["deleteSnapshots"];
}

function prepare(temporary: TemporaryStore, wanted: Wanted) {
  const log = recordingLogger();
  const { layout } = temporary;
  const context = {
    store: wanted.store ?? temporary.store,
    layout,
    log,
    signal: new AbortController().signal,
  };
  const plan = () =>
    planDeletion(
      context,
      wanted.policy === undefined
        ? { kind: "backup", argument: wanted.id ?? "" }
        : { kind: "policy", policy: parseRetentionPolicy(wanted.policy) },
      { minimumRedundancy: wanted.minimumRedundancy ?? 0, now: NOW },
    );
  return { context, log, plan };
}

async function run(temporary: TemporaryStore, wanted: Wanted): Promise<string[]> {
  const { context, log, plan } = prepare(temporary, wanted);
  await executeDeletion(context, await plan(), {
    minimumRedundancy: wanted.minimumRedundancy ?? 0,
    now: () => NOW,
    batchSize: wanted.batchSize ?? null,
    checkObjectLock: wanted.checkObjectLock ?? false,
    deleteSnapshots: wanted.deleteSnapshots ?? (() => Promise.reject(new Error("no snapshots"))),
  });
  return log.lines;
}

async function dryRun(temporary: TemporaryStore, wanted: Wanted): Promise<string> {
  const { context, plan } = prepare(temporary, wanted);
  let output = "";
  await printDeletion(context, await plan(), (text) => output += text);
  return output;
}

const asS3 = (store: ObjectStore): ObjectStore => ({ ...store, provider: "aws-s3" });

Deno.test("the oldest backup goes with its WAL, and nothing else", async () => {
  await using temporary = await archive();
  const before = await temporary.keys();
  await temporary.put(`srv/base/${A}/stranger`, "x");
  await temporary.put("srv/wals/0000000100000000/stranger", "x");
  await run(temporary, { id: A });
  const gone = [
    `srv/base/${A}/backup.info`,
    `srv/base/${A}/data.tar`,
    ...[segment(0, 1), segment(0, 2), `${segment(0, 2)}.00000028.backup`].map((name) =>
      `srv/wals/0000000100000000/${name}`
    ),
    `srv/wals/0000000100000001/${segment(1, 0)}`,
    `srv/wals/0000000100000001/${segment(1, 0)}.gz`,
    `srv/wals/0000000100000002/${segment(2, 4)}`,
  ];
  const strangers = [`srv/base/${A}/stranger`, "srv/wals/0000000100000000/stranger"];
  assert.deepEqual(
    await temporary.keys(),
    [...before.filter((key) => !gone.includes(key)), ...strangers].sort(),
  );
});

Deno.test("a backup in the middle goes without WAL; by name and shortcut too", async () => {
  await using temporary = await archive();
  const wals = (await temporary.keys()).filter((key) => key.includes("/wals/"));
  await run(temporary, { id: B });
  await run(temporary, { id: "last" });
  const keys = await temporary.keys();
  assert.deepEqual(keys.filter((key) => key.includes("/wals/")), wals);
  assert.deepEqual(keys.filter((key) => key.endsWith("backup.info")), [
    `srv/base/${A}/backup.info`,
  ]);
});

Deno.test("a policy deletes several; batches of one do the same", async () => {
  for (const batchSize of [1, 1000]) {
    await using temporary = await archive();
    await run(temporary, { policy: "REDUNDANCY 1", batchSize });
    assert.deepEqual(
      await temporary.keys(),
      [
        `srv/base/${C}/backup.info`,
        `srv/base/${C}/data.tar`,
        "srv/wals/00000002.history",
        `srv/wals/0000000100000003/${segment(3, 1)}`,
      ].sort(),
    );
  }
});

Deno.test("a dry run prints Barman's lines and changes nothing", async () => {
  await using temporary = await archive();
  const before = await temporary.keys();
  const skip = (what: string) => `Skipping deletion of ${what} due to --dry-run option\n`;
  const prefix = "all objects under prefix srv/wals/";
  const s3 = await dryRun(temporary, { policy: "REDUNDANCY 1", store: asS3(temporary.store) });
  assert.equal(
    s3,
    [
      skip(`objects ['srv/base/${A}/data.tar', 'srv/base/${A}/backup.info']`),
      skip(`${prefix}0000000100000000/`),
      skip(`${prefix}0000000100000001/`),
      skip(`objects ['srv/wals/0000000100000002/${segment(2, 4)}']`),
      skip(`objects ['srv/base/${B}/data.tar', 'srv/base/${B}/backup.info']`),
      skip(`${prefix}0000000100000000/`),
      skip(`${prefix}0000000100000001/`),
      skip(`${prefix}0000000100000002/`),
    ].join(""),
  );
  const local = await dryRun(temporary, { policy: "REDUNDANCY 2" });
  assert.equal(
    local,
    skip(`objects ['srv/base/${A}/data.tar', 'srv/base/${A}/backup.info']`) +
      skip(
        `objects ['srv/wals/0000000100000000/${segment(0, 1)}', 'srv/wals/0000000100000000/${
          segment(0, 2)
        }', 'srv/wals/0000000100000000/${
          segment(0, 2)
        }.00000028.backup', 'srv/wals/0000000100000001/${
          segment(1, 0)
        }', 'srv/wals/0000000100000001/${segment(1, 0)}.gz', 'srv/wals/0000000100000002/${
          segment(2, 4)
        }']`,
      ),
  );
  assert.equal(await dryRun(temporary, { policy: "REDUNDANCY 3" }), "");
  assert.deepEqual(await temporary.keys(), before);
});

Deno.test("what S3 is told to delete by folder goes whole, strangers too", async () => {
  await using temporary = await archive();
  await temporary.put("srv/wals/0000000100000000/stranger", "x");
  await temporary.put("srv/wals/0000000100000002/stranger", "x");
  await run(temporary, { id: A, store: asS3(temporary.store) });
  const wals = (await temporary.keys()).filter((key) => key.startsWith("srv/wals/"));
  assert.deepEqual(wals, [
    `srv/wals/0000000100000002/${segment(2, 5)}`,
    "srv/wals/0000000100000002/stranger",
    `srv/wals/0000000100000003/${segment(3, 1)}`,
    "srv/wals/00000002.history",
  ]);
});

Deno.test("refusals change nothing", async () => {
  await using temporary = await archive();
  await writeKeep(temporary.store, temporary.layout, B, "standalone");
  const before = await temporary.keys();
  await assert.rejects(run(temporary, { id: B }), /20260111T000000: it is kept \(standalone\)/);
  await assert.rejects(run(temporary, { id: A, minimumRedundancy: 3 }), /minimum redundancy is 3/);
  await assert.rejects(run(temporary, { id: "nope" }), /Unknown backup 'nope'/);
  assert.deepEqual(await temporary.keys(), before);
  await temporary.put(temporary.layout.backupInfo("20260101T000000"), "garbage");
  for (const wanted of [{ id: A }, { policy: "REDUNDANCY 1" }]) {
    await assert.rejects(run(temporary, wanted), (error: unknown) => {
      assert.ok(error instanceof DeletionFailed);
      assert.match(error.message, /backup.info of 20260101T000000: .*nothing was deleted/);
      return true;
    });
  }
});

Deno.test("an absent backup is a warning", async () => {
  await using temporary = await archive();
  const before = await temporary.keys();
  assert.deepEqual(await run(temporary, { id: "20990101T000000" }), [
    "WARNING Backup 20990101T000000 does not exist",
  ]);
  assert.deepEqual(await temporary.keys(), before);
});

Deno.test("a backup whose deletion did not finish stands for no other", async () => {
  const marked = async (state: string) => {
    const temporary = await archive();
    const mark = temporary.layout.deletionMark(C, crypto.randomUUID());
    await temporary.put(mark, JSON.stringify({ state, archives: 1 }));
    return temporary;
  };
  const backups = async (temporary: TemporaryStore) =>
    (await temporary.keys()).filter((key) => key.endsWith("backup.info"))
      .map((key) => key.split("/")[2]);
  // C may be half gone: A and B are the two.
  await using half = await marked("deleting");
  await run(half, { policy: "REDUNDANCY 2" });
  assert.deepEqual(await backups(half), [A, B, C]);
  // Once it is obsolete by itself its deletion is finished, and the marks go with it.
  await half.addBackup("20260113T000000", lines(segment(3, 3)));
  await half.addBackup("20260114T000000", lines(segment(3, 4)));
  await run(half, { policy: "REDUNDANCY 2" });
  assert.deepEqual(await backups(half), ["20260113T000000", "20260114T000000"]);
  assert.ok(!(await half.keys()).some((key) => key.includes("/deletion-")));
  await using withdrawn = await marked("withdrawn");
  await run(withdrawn, { policy: "REDUNDANCY 2" });
  assert.deepEqual(await backups(withdrawn), [B, C]);
});

Deno.test("a failed backup without WAL goes, and leaves WAL alone", async () => {
  await using temporary = await temporaryStore();
  await temporary.put(temporary.layout.backupInfo(A), "status=FAILED\n");
  await temporary.addWal(segment(0, 1));
  await run(temporary, { id: A });
  assert.deepEqual(await temporary.keys(), [`srv/wals/0000000100000000/${segment(0, 1)}`]);
});

Deno.test("snapshots go first, then their label and backup.info; what fails can be repeated", async () => {
  await using temporary = await archive();
  const id = "20260109T000000";
  await temporary.put(temporary.layout.backupInfo(id), AWS_SNAPSHOTS);
  await temporary.put(`srv/base/${id}/backup_label`, "x");
  const before = await temporary.keys();
  await assert.rejects(run(temporary, { id }), /no snapshots/);
  const withoutMarks = async () =>
    (await temporary.keys()).filter((key) => !/\/deletion-[0-9a-f-]{36}\.json$/.test(key));
  assert.deepEqual(await temporary.keys(), before);
  // When one of them may be gone, nobody may keep it any more.
  const half: ExecutionOptions["deleteSnapshots"] = (_id, _snapshots, onBegun) => {
    onBegun();
    return Promise.reject(new Error("the second can't be deleted"));
  };
  await assert.rejects(run(temporary, { id, deleteSnapshots: half }), /the second/);
  assert.deepEqual(await withoutMarks(), before);
  assert.equal((await temporary.keys()).length, before.length + 1);
  const output = await dryRun(temporary, { id });
  assert.ok(output.startsWith(
    "Skipping deletion of snapshots due to --dry-run option\n" +
      `Skipping deletion of srv/base/${id}/backup_label due to --dry-run option\n` +
      `Skipping deletion of objects ['srv/base/${id}/backup.info'] due to --dry-run option\n`,
  ));
  const deleted: unknown[] = [];
  await run(temporary, {
    id,
    deleteSnapshots: async (of, { snapshots }) => {
      assert.deepEqual(await withoutMarks(), before);
      deleted.push(of, ...snapshots.map(({ identifiers }) => identifiers.get("snapshot_id")));
    },
  });
  assert.deepEqual(deleted, [id, "snap-0a1b2c3d4e5f60718", "snap-0b2c3d4e5f607182a"]);
  const left = await temporary.keys();
  assert.deepEqual(left.filter((key) => key.startsWith(`srv/base/${id}/`)), []);
});

/** The store, but keys that match can't be deleted. */
function stubborn(store: ObjectStore, pattern: RegExp): ObjectStore {
  return {
    ...store,
    async deleteMany(keys, options) {
      const failures: DeleteFailure[] = keys.filter((key) => pattern.test(key)).map((key) => ({
        key,
        error: new StoreError("denied", "No permission", { key }),
      }));
      const rest = keys.filter((key) => !pattern.test(key));
      return [...failures, ...await store.deleteMany(rest, options)];
    },
  };
}

Deno.test("when an archive stays, backup.info and WAL stay, so that it can be repeated", async () => {
  await using temporary = await archive();
  const before = await temporary.keys();
  const store = stubborn(temporary.store, /data\.tar$/);
  await assert.rejects(run(temporary, { id: A, store }), (error: unknown) => {
    assert.ok(error instanceof DeletionFailed);
    assert.match(error.message, /data\.tar of backup 20260110T000000: No permission/);
    return true;
  });
  assert.deepEqual(await temporary.keys(), before);
  await run(temporary, { id: A });
  assert.ok(!(await temporary.keys()).some((key) => key.includes(A)));
});

Deno.test("WAL that stays is an error in the log; folders that stay are an error", async () => {
  await using temporary = await archive();
  const log = await run(temporary, { id: A, store: stubborn(temporary.store, /\/wals\//) });
  assert.ok(log.some((line) => line.startsWith("ERROR Cannot delete srv/wals/")), log.join("\n"));
  assert.ok(!(await temporary.keys()).some((key) => key.includes(A)));
  const s3 = stubborn(asS3(temporary.store), /\/wals\//);
  await assert.rejects(run(temporary, { id: B, store: s3 }), WalFolderFailed);
});

Deno.test("one locked object protects the whole backup", async () => {
  const locks: readonly (readonly [ObjectLock, RegExp])[] = [
    [{ retainUntil: new Date(Date.now() + 60_000), legalHold: false }, /locked until/],
    [{ retainUntil: null, legalHold: true }, /legal hold/],
  ];
  for (const [lock, message] of locks) {
    await using temporary = await archive();
    await temporary.put(`srv/base/${A}/data_0001.tar`, "x");
    const before = await temporary.keys();
    const past = { retainUntil: new Date(Date.now() - 60_000), legalHold: false };
    const store: ObjectStore = {
      ...temporary.store,
      objectLock: (key) => Promise.resolve(key.endsWith("_0001.tar") ? lock : past),
    };
    await assert.rejects(
      run(temporary, { id: A, store, checkObjectLock: true, batchSize: 1 }),
      message,
    );
    assert.deepEqual(await temporary.keys(), before);
    await run(temporary, { id: B, store, checkObjectLock: true });
    assert.ok(!(await temporary.keys()).some((key) => key.includes(B)));
  }
  await using temporary = await archive();
  const log = await run(temporary, { id: C, checkObjectLock: true });
  assert.ok(log.some((line) => line.startsWith("WARNING --check-object-lock has no effect")));
});

Deno.test("a plan never holds a kept backup", async () => {
  await using temporary = await archive();
  await writeKeep(temporary.store, temporary.layout, A, "full");
  const { plan } = prepare(temporary, { policy: "REDUNDANCY 1" });
  const [deletion, ...others] = await plan();
  assert.equal(deletion?.id, B);
  assert.equal(deletion?.wal.kind, "leave");
  assert.deepEqual(others, []);
  assert.throws(
    () =>
      deletionPlan({
        backups: [{ id: A, info: newBackupInfo() }],
        keeps: new Map([[A, "x"]]),
        ids: new Set([A]),
        objects: new Map(),
        layout: temporary.layout,
        stopAtStandalone: true,
        countsDoneOnly: false,
      }),
    /is kept/,
  );
});

Deno.test("only folders that may hold something to delete are listed", async () => {
  await using temporary = await archive();
  for (let log = 4; log < 20; log++) await temporary.addWal(segment(log, 1));
  const seen: string[] = [];
  const store: ObjectStore = {
    ...temporary.store,
    async *list(prefix, options) {
      for await (const entry of temporary.store.list(prefix, options)) {
        if (entry.kind === "object" && prefix.includes("/wals/")) seen.push(entry.key);
        yield entry;
      }
    },
  };
  await run(temporary, { id: A, store });
  // One key behind the last folder tells that it is done; history files lie beside the folders.
  const folders = seen.filter((key) => !key.endsWith(".history"));
  assert.equal(folders.at(-1), `srv/wals/0000000100000003/${segment(3, 1)}`);
});
