/** As the hook script of a Barman server: what it has taken is stored and can be restored, with the options that were given. */
import assert from "node:assert/strict";
import { mkdir, mkdtemp, readdir, readFile, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { formatBackupInfo, newBackupInfo } from "../../lib/backup/backup_info.ts";
import { openStore } from "../../providers/open.ts";
import { barmanCloud } from "./executable.ts";
import { haveS3, newStore, testOnStores, type TestStore } from "./stores.ts";

const MIB = 1024 ** 2;
const ID = "20260101T000000";
const SERVER = "main";

interface TakenBackup extends AsyncDisposable {
  readonly env: Readonly<Record<string, string>>;
  readonly root: string;
}

/** A backup as it lies on a Barman server, with one file of 17 MiB that nothing compresses. */
async function takenBackup(): Promise<TakenBackup> {
  const root = await mkdtemp(join(tmpdir(), "bce2e-hook-"));
  const directory = join(root, "base", ID);
  await mkdir(join(directory, "data/global"), { recursive: true });
  const large = new Uint8Array(17 * MIB);
  for (let at = 0; at < large.length; at += 65_536) {
    crypto.getRandomValues(large.subarray(at, at + 65_536));
  }
  await writeFile(join(directory, "data/large"), large);
  await writeFile(join(directory, "data/backup_label"), "label");
  await writeFile(join(directory, "data/global/pg_control"), new Uint8Array(8192));
  const info = join(root, "backup.info");
  await writeFile(
    info,
    formatBackupInfo(newBackupInfo({ status: "DONE", mode: "rsync-concurrent", version: 170_000 })),
  );
  return {
    root,
    env: {
      BARMAN_HOOK: "backup_retry_script",
      BARMAN_PHASE: "post",
      BARMAN_BACKUP_DIR: directory,
      BARMAN_BACKUP_ID: ID,
      BARMAN_STATUS: "DONE",
      BARMAN_BACKUP_INFO_PATH: info,
    },
    [Symbol.asyncDispose]: () => rm(root, { recursive: true, force: true }),
  };
}

async function run(
  store: TestStore,
  [command = "", ...options]: readonly string[],
  positionals: readonly string[] = [],
  env: Readonly<Record<string, string>> = {},
): Promise<string> {
  const words = [command, ...options, ...store.options, store.url, SERVER, ...positionals];
  const { code, stdout, stderr } = await barmanCloud(words, { env: { ...store.env, ...env } });
  assert.equal(code, 0, stderr);
  return stdout;
}

testOnStores("a backup of a Barman server is stored, listed and restored", async (store) => {
  await using taken = await takenBackup();
  assert.equal(await run(store, ["backup", "--gzip"], [], taken.env), "");
  const list = JSON.parse(await run(store, ["backup-list", "--format", "json"]));
  assert.deepEqual(
    list.backups_list.map((backup: { backup_id: string }) => backup.backup_id),
    [ID],
  );
  const restored = join(taken.root, "restored");
  await mkdir(restored);
  await run(store, ["restore"], [ID, restored]);
  const original = join(taken.root, "base", ID, "data");
  for (const path of ["large", "backup_label", "global/pg_control"]) {
    const [there, here] = await Promise.all([
      readFile(join(original, path)),
      readFile(join(restored, path)),
    ]);
    assert(there.equals(here), `${path} is another file`);
  }
  // Directories that a server cannot be without are made where they were not backed up.
  const made = ["pg_tblspc", "pg_wal"];
  assert.deepEqual(
    (await readdir(restored)).filter((name) => !made.includes(name)).sort(),
    ["backup_label", "global", "large"],
  );
});

// Barman before 3.10 took no notice of it here.
Deno.test({
  name: "--min-chunk-size counts in a hook script too",
  ignore: !haveS3,
  async fn() {
    await using taken = await takenBackup();
    await using store = await newStore("s3");
    const partsWith = async (...options: string[]): Promise<number> => {
      await run(store, ["backup", ...options], [], taken.env);
      const { store: s3, location } = await openStore(store.url, {
        env: store.env,
        endpointUrl: store.endpoint,
      });
      try {
        const { etag } = await s3.head(`${location.prefix}/${SERVER}/base/${ID}/data.tar`);
        // S3 tells there how many parts an object was made of.
        return Number(/-(\d+)"?$/.exec(etag ?? "")?.[1] ?? 1);
      } finally {
        await s3.close();
      }
    };
    const archive = ["--max-archive-size", "1GB"];
    assert.equal(await partsWith(...archive), 4);
    assert.equal(await partsWith(...archive, "--min-chunk-size", "9MB"), 2);
  },
});
