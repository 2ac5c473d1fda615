import assert from "node:assert/strict";
import { mkdir, mkdtemp, readdir, readFile, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { spawnSync } from "node:child_process";
import { formatBackupInfo, newBackupInfo } from "../../../lib/backup/backup_info.ts";
import {
  hookBackupOf,
  HookError,
  majorVersionOf,
  storeHookBackup,
} from "../../../lib/backup/hook.ts";
import { serverLayout } from "../../../lib/layout.ts";
import { openStore } from "../../../providers/open.ts";

const ENV = {
  BARMAN_HOOK: "backup_script",
  BARMAN_PHASE: "post",
  BARMAN_BACKUP_DIR: "/b/main/base/ID",
  BARMAN_BACKUP_ID: "20260101T000000",
  BARMAN_STATUS: "DONE",
  BARMAN_BACKUP_INFO_PATH: "/b/main/meta/20260101T000000-backup.info",
};

Deno.test("the environment of a hook script", () => {
  assert.deepEqual(hookBackupOf(ENV, false), {
    id: ENV.BARMAN_BACKUP_ID,
    directory: ENV.BARMAN_BACKUP_DIR,
    infoPath: ENV.BARMAN_BACKUP_INFO_PATH,
  });
  assert(hookBackupOf({ ...ENV, BARMAN_HOOK: "backup_retry_script" }, false) !== undefined);
  assert.equal(hookBackupOf({ ...ENV, BARMAN_PHASE: undefined }, true), undefined);
  assert.equal(hookBackupOf({}, true), undefined);
});

Deno.test("what a hook script can't do, in Barman's order", () => {
  const refused = (env: Record<string, string | undefined>, named = false): HookError => {
    try {
      hookBackupOf(env, named);
    } catch (error) {
      assert(error instanceof HookError);
      return error;
    }
    return assert.fail("not refused");
  };
  const nothing = { BARMAN_HOOK: "backup_script", BARMAN_PHASE: "post" };
  assert.match(refused({ ...ENV, BARMAN_PHASE: "pre" }, true).message, /pre-backup_script/);
  assert.match(refused({ ...ENV, BARMAN_HOOK: "archive_script" }).message, /post-archive_script/);
  assert.match(refused(nothing, true).message, /-n/);
  assert.match(refused(nothing).message, /BARMAN_BACKUP_DIR/);
  assert.match(refused({ ...nothing, BARMAN_BACKUP_DIR: "/x" }).message, /BARMAN_BACKUP_ID/);
  const failed = refused({ ...ENV, BARMAN_STATUS: "FAILED", BARMAN_BACKUP_INFO_PATH: undefined });
  assert(failed.unrecoverable);
  const noInfo = refused({ ...ENV, BARMAN_BACKUP_INFO_PATH: undefined });
  assert.match(noInfo.message, /BARMAN_BACKUP_INFO_PATH/);
  assert(!noInfo.unrecoverable);
});

Deno.test("versions of tablespace directories", () => {
  assert.equal(majorVersionOf(150_004), "15");
  assert.equal(majorVersionOf(90_624), "9.6");
  assert.equal(majorVersionOf(100_023), "10");
});

Deno.test("a backup of a Barman server: archives, label kept, metadata unchanged and last", async () => {
  const root = await mkdtemp(join(tmpdir(), "hook-"));
  try {
    const directory = join(root, "base/ID");
    await mkdir(join(directory, "data/global"), { recursive: true });
    await mkdir(join(directory, "16384/PG_15_202209061/5"), { recursive: true });
    await writeFile(join(directory, "16384/PG_15_202209061/5/16999"), "x");
    await writeFile(join(directory, "data/global/pg_control"), new Uint8Array(8192));
    await writeFile(join(directory, "data/backup_label"), "label");
    const info = formatBackupInfo(newBackupInfo({
      status: "DONE",
      mode: "rsync-concurrent",
      version: 150_004,
      tablespaces: [{ name: "ts", oid: 16384, location: "/elsewhere" }],
    }));
    // Unknown fields and comments are the Barman server's business.
    const metadata = `# from the server\n${info}future_field=1\n`;
    const infoPath = join(root, "backup.info");
    await writeFile(infoPath, metadata);
    const { store } = await openStore(`file://${root}/store`, { env: {} });
    await store.createBucket();
    const options = {
      store,
      layout: serverLayout("", "main"),
      tags: undefined,
      compression: undefined,
      level: undefined,
      jobs: 2,
      sizes: { maxArchiveSize: 1e12, partSize: 100_000, minPartSize: 100_000, maxParts: 10_000 },
      signal: new AbortController().signal,
      onProgress: () => {},
      onNotice: (message: string) => assert.fail(message),
      onWarning: (message: string) => assert.fail(message),
      checks: { pages: "warn", manifest: "sha256" },
    } as const;
    const backup = { id: "20260101T000000", directory, infoPath };
    await storeHookBackup(backup, options);
    const stored = join(root, "store/main/base/20260101T000000");
    assert.deepEqual((await readdir(stored)).sort(), ["16384.tar", "backup.info", "data.tar"]);
    assert.equal(await readFile(join(stored, "backup.info"), "utf8"), metadata);
    const listing = spawnSync("tar", ["-tf", join(stored, "data.tar")]);
    const names = String(listing.stdout).trimEnd().split("\n");
    assert(names.includes("./backup_label"));
    assert.equal(names.at(-1), "global/pg_control");

    // Metadata that tell which WAL is needed: there is a manifest then, instead of one that lies there.
    await writeFile(join(directory, "data/backup_manifest"), "not ours");
    await writeFile(
      infoPath,
      metadata.replace("timeline=None", "timeline=1")
        .replace("begin_xlog=None", "begin_xlog=0/2000028")
        .replace("end_xlog=None", "end_xlog=0/2000138"),
    );
    const complete = join(root, "store/main/base/20260101T000002");
    await storeHookBackup({ ...backup, id: "20260101T000002" }, options);
    const manifest = JSON.parse(await readFile(join(complete, "backup_manifest"), "utf8"));
    assert.deepEqual(
      manifest.Files.map(({ Path, Size }: { Path: string; Size: number }) => [Path, Size]),
      [
        ["pg_tblspc/16384/PG_15_202209061/5/16999", 1],
        ["global/pg_control", 8192],
        ["backup_label", 5],
      ],
    );
    assert.deepEqual(manifest["WAL-Ranges"], [
      { "Timeline": 1, "Start-LSN": "0/2000028", "End-LSN": "0/2000138" },
    ]);

    // A failure leaves no metadata.
    await rm(join(directory, "data/global/pg_control"));
    await assert.rejects(
      storeHookBackup({ ...backup, id: "20260101T000001" }, options),
      /pg_control: it is not there/,
    );
    await assert.rejects(readdir(join(root, "store/main/base/20260101T000001/backup.info")));
    await store.close();
  } finally {
    await rm(root, { recursive: true, force: true });
  }
});
