import assert from "node:assert/strict";
import { command } from "../../../lib/commands/backup_delete.ts";
import { AWS_SNAPSHOTS } from "../backup/fixtures.ts";
import { temporaryStore } from "../backup/temporary_store.ts";
import { runWords } from "./run_words.ts";
import { runIn } from "./wal_command_run.ts";

const OLD = "20251115T103000";
const ID = "20260115T103000";
const KEPT = "20260116T103000";

async function catalogue() {
  const temporary = await temporaryStore();
  await temporary.addBackup(OLD, "backup_name=old\nend_time=2025-11-15 10:31:01+00:00");
  await temporary.addBackup(ID);
  await temporary.addBackup(KEPT);
  await temporary.put(temporary.layout.annotation(KEPT, "keep"), "full");
  const run = (...words: string[]) => runWords(command, temporary.url, "srv", ...words);
  return { temporary, run };
}

Deno.test("deletes by name, and prints nothing", async () => {
  const { temporary, run } = await catalogue();
  await using _ = temporary;
  const { code, stdout } = await run("--backup-id", "old");
  assert.deepEqual([code, stdout], [0, ""]);
  assert.ok(!(await temporary.keys()).some((key) => key.includes(OLD)));
});

Deno.test("deletes by policy as CloudNativePG asks for it", async () => {
  const { temporary, run } = await catalogue();
  await using _ = temporary;
  const policy = ["--retention-policy", "RECOVERY WINDOW OF 7 DAYS"];
  const { code, stdout } = await run(...policy, "--dry-run");
  assert.equal(code, 0);
  assert.equal(
    stdout,
    `Skipping deletion of objects ['srv/base/${OLD}/data.tar', 'srv/base/${OLD}/backup.info'] due to --dry-run option\n` +
      `Skipping deletion of objects ['srv/base/${ID}/data.tar', 'srv/base/${ID}/backup.info'] due to --dry-run option\n`,
  );
  assert.equal((await run(...policy)).code, 0);
  assert.deepEqual((await temporary.keys()).filter((key) => key.endsWith("backup.info")), [
    temporary.layout.backupInfo(KEPT),
  ]);
});

Deno.test("refusals: exit code, and nothing is deleted", async () => {
  const { temporary, run } = await catalogue();
  await using _ = temporary;
  const before = await temporary.keys();
  const refusals: readonly (readonly [number, readonly string[]])[] = [
    [0, ["-b", "20990101T000000"]],
    [0, ["-b", ""]],
    [0, ["-r", "REDUNDANCY 3"]],
    [0, ["-r", "RECOVERY WINDOW OF 12 MONTHS"]],
    [0, ["-t", "-b", "x"]],
    [1, ["-b", KEPT]],
    [1, ["-b", ID, "-m", "3"]],
    [3, []],
    [3, ["-t"]],
    [3, ["-b", ID, "-r", "REDUNDANCY 1"]],
    [3, ["-r", "REDUNDANCY"]],
    [3, ["-b", ID, "-m", "-1"]],
    [3, ["-b", ID, "--batch-size", "many"]],
    [4, ["-b", "unknown"]],
    [4, ["-r", "main"]],
  ];
  for (const [code, words] of refusals) {
    assert.equal((await run(...words)).code, code, words.join(" "));
    assert.deepEqual(await temporary.keys(), before, words.join(" "));
  }
  await temporary.put(temporary.layout.backupInfo("20260101T000000"), "garbage");
  assert.equal((await run("-b", OLD)).code, 1);
  assert.equal((await run("-r", "REDUNDANCY 0")).code, 1);
  await temporary.put(temporary.layout.backupInfo("20260101T000000"), AWS_SNAPSHOTS);
  const withSnapshots = await temporary.keys();
  const snapshot = await runIn(command, [temporary.url, "srv", "-b", "20260101T000000"], {
    env: {
      AWS_ACCESS_KEY_ID: "test",
      AWS_SECRET_ACCESS_KEY: "test",
      AWS_ENDPOINT_URL_EC2: "http://127.0.0.1:1",
      AWS_MAX_ATTEMPTS: "1",
    },
  });
  assert.equal(snapshot.code, 4);
  assert.match(
    snapshot.log.join("\n"),
    /Cannot look for locks on snap-0b2c\w+ .*connection refused/,
  );
  assert.deepEqual(await temporary.keys(), withSnapshots);
});

Deno.test("batch sizes out of range are clamped", async () => {
  for (const size of ["-5", "0", "1", "1000000"]) {
    const { temporary, run } = await catalogue();
    await using _ = temporary;
    assert.equal((await run("-b", OLD, "--batch-size", size)).code, 0, size);
    assert.ok(!(await temporary.keys()).some((key) => key.includes(OLD)));
  }
});
