/** Where Barman, by Python's ways, takes what looks like a mistake, and we do not: the row of docs/compatibility.md. */
import assert from "node:assert/strict";
import { parseCommandLine } from "../../../lib/cli/parser.ts";
import { command as list } from "../../../lib/commands/backup_list.ts";
import { readS3Config } from "../../../providers/s3/config.ts";
import { isStoreError } from "../../../providers/object_store.ts";
import { openStore } from "../../../providers/open.ts";

Deno.test("blanks before a URL and digits of other scripts are refused, an empty profile is none", async () => {
  await assert.rejects(
    openStore(" s3://bucket/path", { env: {} }),
    (error) => isStoreError(error, "invalid"),
  );
  const words = ["--read-timeout", "\u0661", "s3://bucket/path", "main"];
  const parsed = parseCommandLine(list, words, "barman-cloud-backup-list", 80);
  assert.equal(parsed.kind === "exit" && parsed.code, 3);
  const env = { HOME: "/nonexistent", AWS_PROFILE: "" };
  assert.equal((await readS3Config({ awsProfile: "", env })).profile, undefined);
});
