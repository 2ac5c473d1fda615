import assert from "node:assert/strict";
import { command } from "../../../lib/commands/backup_keep.ts";
import { temporaryStore } from "../backup/temporary_store.ts";
import { runWords } from "./run_words.ts";

const ID = "20260115T103000";
const FAILED = "20260116T103000";

Deno.test("keep, ask, switch and release", async () => {
  await using temporary = await temporaryStore();
  await temporary.addBackup(ID, "backup_name=yearly");
  const { url, layout } = temporary;
  const run = (...words: string[]) => runWords(command, url, "srv", ...words);
  const silent = { code: 0, stdout: "", log: [] };
  const status = (keep: string) => ({ code: 0, stdout: `Keep: ${keep}\n`, log: [] });
  assert.deepEqual(await run(ID, "--status"), status("nokeep"));
  assert.deepEqual(await run("yearly", "--target", "standalone"), silent);
  assert.deepEqual(await run(ID, "-s"), status("standalone"));
  assert.equal(await temporary.read(layout.annotation(ID, "keep")), "standalone");
  assert.deepEqual(await run("last", "--target", "full"), silent);
  assert.deepEqual(await run(ID, "-s"), status("full"));
  assert.deepEqual(await run(ID, "--release"), silent);
  assert.deepEqual(await run(ID, "-r"), silent);
  assert.deepEqual(await run(ID, "-s"), status("nokeep"));
});

Deno.test("exit codes", async () => {
  await using temporary = await temporaryStore();
  await temporary.addBackup(ID);
  await temporary.addBackup(FAILED, "status=FAILED");
  const before = await temporary.keys();
  const { url } = temporary;
  const code = async (...words: string[]) => (await runWords(command, url, "srv", ...words)).code;
  assert.equal(await code(FAILED, "--target", "full"), 1);
  assert.equal(await code("20990101T000000", "--target", "full"), 4);
  assert.equal(await code("20990101T000000", "--status"), 0);
  assert.equal(await code("20990101T000000", "--release"), 0);
  assert.equal(await code("unknown", "--status"), 4);
  assert.equal(await code(ID), 3);
  assert.equal(await code(ID, "-t"), 3);
  assert.equal(await code(ID, "-t", "-s"), 0);
  assert.equal(await code(ID, "-r", "-s"), 3);
  assert.equal(await code(ID, "--target", "other"), 3);
  assert.deepEqual(await temporary.keys(), before);
});

Deno.test("an annotation can't make a terminal obey", async () => {
  await using temporary = await temporaryStore();
  await temporary.addBackup(ID);
  const { url, layout } = temporary;
  await temporary.put(layout.annotation(ID, "keep"), "full\u001b[2J\u0007\n");
  const { stdout } = await runWords(command, url, "srv", ID, "-s");
  assert.equal(stdout, "Keep: full\\x1b[2J\\x07\n");
});
