/** The marks of backups that are being taken or deleted, and of WAL that is being archived, mean nothing to Barman. */
import assert from "node:assert/strict";
import { startS3ForTests } from "../../scripts/servers/s3_for_tests.ts";
import { PLAIN } from "../lib/backup/fixtures.ts";
import { newBucket } from "./bucket.ts";
import { NEWEST, OURS, PACKAGED, skipWithout } from "./commands.ts";

const s3 = await startS3ForTests();
const DONE = "20260115T103000";
const RUNNING = "20260116T103000";
const text = (content: string) => new TextEncoder().encode(content);

for (const [barman, which] of [[NEWEST, "newest"], [PACKAGED, "packaged"]] as const) {
  Deno.test({
    name: `Barman (${which}) looks past our marks`,
    ignore: s3 === null || skipWithout(barman, which),
    async fn() {
      if (s3 === null || barman === null) throw new Error("Is ignored");
      await using bucket = await newBucket(s3);
      // Older Barmans do not know the newer fields.
      const info = which === "newest"
        ? PLAIN
        : PLAIN.split("\n").filter((line) =>
          !/^(children_backup_ids|cluster_size|compression|data_checksums|encryption|parent_backup_id|summarize_wal)=/
            .test(line)
        ).join("\n");
      const base = "p/main/base";
      const mark = `${base}/${DONE}/deletion-${crypto.randomUUID()}.json`;
      await bucket.put(`${base}/${DONE}/data.tar`, text("data"));
      await bucket.put(`${base}/${DONE}/backup.info`, text(info));
      await bucket.put(mark, text("{}"));
      await bucket.put(`${base}/${DONE}/running.json`, text("{}"));
      await bucket.put(`${base}/${RUNNING}/running.json`, text("{}"));
      await bucket.put("p/main/wal-claims/00000002.history", text("{}"));
      const place = [...bucket.words, bucket.url, "main"];
      const run = (
        tool: typeof OURS,
        command: Parameters<typeof OURS.run>[0],
        ...words: string[]
      ) => tool.run(command, [...place, ...words], { env: bucket.env });

      const listed = await run(barman, "backup-list", "--format", "json");
      assert.equal(listed.code, 0, listed.stderr);
      const ids = JSON.parse(listed.stdout).backups_list.map((
        { backup_id }: { backup_id: string },
      ) => backup_id);
      assert.deepEqual(ids, [DONE]);
      assert.equal((await run(barman, "check-wal-archive")).code, 0);
      assert.equal((await run(barman, "backup-keep", DONE, "--target", "full")).code, 0);
      assert.equal((await run(barman, "backup-keep", DONE, "--release")).code, 0);
      const deleted = await run(barman, "backup-delete", "-r", "REDUNDANCY 0");
      assert.equal(deleted.code, 0, deleted.stderr);
      const left = await bucket.keys();
      assert.ok(!left.includes(`${base}/${DONE}/backup.info`), left.join());
      // What Barman leaves of a backup that it has deleted is one of those that we clean up.
      assert.ok(left.includes(mark) && left.includes(`${base}/${RUNNING}/running.json`));
      assert.equal((await run(OURS, "backup-list")).code, 0);
    },
  });
}
