import assert from "node:assert/strict";
import { command } from "../../../lib/commands/backup_show.ts";
import {
  AWS_SNAPSHOTS,
  FAILED_LINES,
  PLAIN,
  WITH_TABLESPACES,
  withLines,
} from "../backup/fixtures.ts";
import { temporaryStore } from "../backup/temporary_store.ts";
import { runWords } from "./run_words.ts";

const ID = "20260115T103000";

async function show(text: string, ...words: string[]): Promise<string> {
  await using temporary = await temporaryStore();
  await temporary.put(temporary.layout.backupInfo(ID), text);
  const { code, stdout, log } = await runWords(command, temporary.url, "srv", ID, ...words);
  assert.equal(code, 0);
  assert.deepEqual(log, []);
  return stdout;
}

Deno.test("a named backup with tablespaces", async () => {
  assert.equal(
    await show(WITH_TABLESPACES),
    `Backup ${ID}:
  Backup Name            : before upgrade
  Server Name            : cloud
  System Id              : 7321456789012345678
  Status                 : DONE
  PostgreSQL Version     : 170002
  PGDATA directory       : /var/lib/postgresql/17/main
  Estimated Cluster Size : 84.0 GiB

  Server information:
    Checksums            : on
    WAL summarizer       : off

  Tablespaces:
    ts1                  : /srv/ts1 (oid: 16384)
    it's fast            : /srv/fast (oid: 16385)

  Base backup information:
    Timeline             : 2
    Begin WAL            : 000000020000000200000080
    End WAL              : 000000020000000200000091
    Begin time           : 2026-01-15 11:30:01.000120+01:00
    End time             : 2026-01-15 11:40:52+01:00
    Copy time            : 10 minutes, 40 seconds
    Begin Offset         : 40
    End Offset           : 344
    Begin LSN            : 2/80000028
    End LSN              : 2/91000158

`,
  );
});

Deno.test("a snapshot backup", async () => {
  const text = await show(AWS_SNAPSHOTS);
  const from = text.indexOf("  Snapshot information:");
  assert.equal(
    text.slice(from, text.indexOf("  Tablespaces:")),
    `  Snapshot information:
    provider             : aws
    account_id           : 123456789012
    region               : eu-west-1

    device_name          : /dev/sdf
    snapshot_id          : snap-0a1b2c3d4e5f60718
    snapshot_lock_mode   : None
    snapshot_name        : data-vol-20260115t103000
    Mount point          : /opt/postgres
    Mount options        : rw,noatime

    device_name          : /dev/sdg
    snapshot_id          : snap-0b2c3d4e5f607182a
    snapshot_lock_mode   : compliance
    snapshot_name        : vol-0fedcba9876543210-20260115t103000
    Mount point          : /opt/tbs1
    Mount options        : rw,noatime

`,
  );
});

Deno.test("a failed backup ends with its error", async () => {
  assert.equal(
    await show(withLines(PLAIN, FAILED_LINES)),
    `Backup ${ID}:
  Server Name            : cloud
  System Id              : 7321456789012345678
  Status                 : FAILED

  Server information:
    Checksums            : on

  Error                  : failure uploading data (An error occurred (AccessDenied) when calling the UploadPart operation: no)
`,
  );
  assert.equal(
    await show("status=EMPTY\n"),
    `Backup ${ID}:\n  Server Name            : None\n  Status                 : EMPTY\n\n`,
  );
});

Deno.test("a backup that a Barman server uploaded", async () => {
  const text = await show(withLines(
    PLAIN,
    "mode=postgres\ncompression=gzip\nencryption=gpg\ndeduplicated_size=1234567\ncluster_size=999\n" +
      "children_backup_ids=a,b\ncopy_stats={'copy_time': 93784.7, 'analysis_time': 3.5}",
  ));
  assert.ok(text.includes("  Estimated Cluster Size : 999 B\n"));
  assert.ok(text.includes(
    "    Backup Method        : postgres\n    Encryption           : gpg\n" +
      "    Backup Size          : 1.2 MiB\n    Backup Compression   : gzip\n",
  ));
  assert.ok(text.includes(
    "    Copy time            : 1 day, 2 hours, 3 minutes, 4 seconds + 3 seconds startup\n",
  ));
  assert.ok(text.endsWith("\n\n    Children Backup(s)   : a,b\n"));
});

Deno.test("JSON has the stored server name as its key", async () => {
  const cloud = await show(PLAIN, "--format", "json");
  assert.ok(cloud.startsWith('{"cloud": {"backup_label": "\'START WAL LOCATION: 0/1A000028'));
  assert.ok(cloud.endsWith('"end_time_iso": "2026-01-15T10:31:01.407833+00:00"}}\n'));
  assert.deepEqual(Object.keys(JSON.parse(await show(AWS_SNAPSHOTS, "--format=x"))), ["pg-main"]);
});

Deno.test("exit codes", async () => {
  await using temporary = await temporaryStore();
  const { url } = temporary;
  await temporary.addBackup(ID, "backup_name=nightly");
  await temporary.addBackup("20260116T000000", "backup_name=twice");
  await temporary.addBackup("20260117T000000", "backup_name=twice");
  const code = async (...words: string[]) => (await runWords(command, url, "srv", ...words)).code;
  assert.equal(await code("nightly"), 0);
  assert.equal(await code("last"), 0);
  assert.equal(await code("20990101T000000"), 1);
  assert.equal(await code("unknown"), 4);
  assert.equal(await code("twice"), 4);
  assert.equal(await code(), 3);
  assert.equal(await code("whatever", "-t"), 0);
  await temporary.put(temporary.layout.backupInfo(ID), "garbage");
  assert.equal(await code(ID), 4);
});
