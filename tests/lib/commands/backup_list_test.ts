import assert from "node:assert/strict";
import { command } from "../../../lib/commands/backup_list.ts";
import { AWS_SNAPSHOTS, PLAIN, WITH_TABLESPACES } from "../backup/fixtures.ts";
import { temporaryStore } from "../backup/temporary_store.ts";
import { runWords } from "./run_words.ts";

const HEADING =
  "Backup ID           End Time                 Begin Wal                     Archival Status  Name                \n";

Deno.test("the table is Barman's, blanks at line ends included", async () => {
  await using temporary = await temporaryStore();
  const { url, layout } = temporary;
  assert.deepEqual(await runWords(command, url, "srv"), { code: 0, stdout: HEADING, log: [] });
  await temporary.addBackup("20260115T103000", "backup_name=nightly");
  await temporary.put(layout.annotation("20260115T103000", "keep"), "standalone");
  await temporary.put(layout.backupInfo("20260115T113000"), WITH_TABLESPACES);
  await temporary.addBackup("20260116T000000", "status=FAILED\nend_time=None\nbackup_name=日本");
  await temporary.put(`${layout.backup("20260117T000000")}data.tar`, "unfinished");
  const { code, stdout } = await runWords(command, url, "srv", "--format", "console");
  assert.equal(code, 0);
  assert.equal(
    stdout,
    HEADING +
      "20260115T103000     2026-01-15 10:31:01      00000001000000000000001A      KEEP:STANDALONE  nightly             \n" +
      "20260115T113000     2026-01-15 11:40:52      000000020000000200000080                       before upgrade      \n" +
      `20260116T000000${" ".repeat(30)}00000001000000000000001A      FAILED           日本${
        " ".repeat(18)
      }\n`,
  );
});

Deno.test("any other format is JSON, one line, with failed backups and without keep status", async () => {
  await using temporary = await temporaryStore();
  const { url, layout } = temporary;
  assert.equal(
    (await runWords(command, url, "srv", "--format=json")).stdout,
    '{"backups_list": []}\n',
  );
  await temporary.put(layout.backupInfo("20260116T000000"), AWS_SNAPSHOTS);
  await temporary.put(layout.backupInfo("20260115T000000"), PLAIN);
  await temporary.addBackup("20260117T000000", "status=FAILED");
  for (const format of ["json", "yaml", "CONSOLE"]) {
    const { code, stdout, log } = await runWords(command, url, "srv", "--format", format);
    assert.equal(code, 0);
    assert.deepEqual(log, []);
    assert.ok(stdout.endsWith("\n") && stdout.indexOf("\n") === stdout.length - 1);
    const list = JSON.parse(stdout).backups_list as Record<string, unknown>[];
    assert.deepEqual(
      list.map((backup) => [backup["backup_id"], backup["status"], backup["server_name"]]),
      [
        ["20260115T000000", "DONE", "cloud"],
        ["20260116T000000", "DONE", "pg-main"],
        ["20260117T000000", "FAILED", "cloud"],
      ],
    );
  }
});

Deno.test("an unreadable backup is a warning, an unknown field is not worth one", async () => {
  await using temporary = await temporaryStore();
  const { url, layout } = temporary;
  await temporary.put(layout.backupInfo("20260115T000000"), "garbage");
  await temporary.addBackup("20260116T000000", "new_field=1");
  for (const format of ["console", "json"]) {
    const { code, stdout, log } = await runWords(command, url, "srv", "--format", format);
    assert.equal(code, 0);
    assert.ok(stdout.includes("20260116T000000") && !stdout.includes("20260115T000000"));
    assert.deepEqual(log.map((line) => line.split(" ")[0]), ["WARNING", "INFO"]);
  }
});

Deno.test("exit codes", async () => {
  await using temporary = await temporaryStore();
  const { url } = temporary;
  assert.equal((await runWords(command, url, "srv", "-t")).code, 0);
  assert.equal((await runWords(command, `${url}/missing`, "srv", "-t")).code, 1);
  const missing = await runWords(command, `${url}/missing`, "srv", "--format", "json");
  assert.deepEqual([missing.code, missing.stdout], [4, ""]);
  assert.equal((await runWords(command, url)).code, 3);
  assert.equal((await runWords(command, url, "srv", "-h")).code, 3);
  assert.equal((await runWords(command, "s3:///x", "srv")).code, 4);
});
