/**
 * A backup made of a snapshot of a real disk: the data directory is on a file system of its own on a loop device, the
 * "cloud" copies the device while it is frozen, and findmnt and the kernel are the real ones. In a mount namespace of
 * its own, so that nothing stays mounted however this ends.
 */
import assert from "node:assert/strict";
import { execFileSync } from "node:child_process";
import { fileURLToPath } from "node:url";
import { skipUnless } from "../skips.ts";
import { runProgram } from "./executable.ts";
import { haveS3 } from "./stores.ts";

Deno.test({
  name: "snapshots: of a real file system, restored and mounted, checked by the real findmnt",
  ignore: !haveS3 || skipUnless(
    canMount(),
    "A backup made of a snapshot of a real disk",
    "run the tests as root where loop devices, mkfs.ext4 and fsfreeze can be had",
  ),
  async fn() {
    const story = fileURLToPath(new URL("snapshots_disk_story.ts", import.meta.url));
    const { code, stdout, stderr } = await runProgram("/usr/bin/env", [
      ...["unshare", "--mount", "--propagation", "private"],
      ...[Deno.execPath(), "test", "-A", "--no-check", story],
    ], { env: { ...Deno.env.toObject(), NO_COLOR: "1" }, timeout: 240_000 });
    assert.equal(code, 0, stdout + stderr);
    assert.match(stdout, /1 passed/);
  },
});

function canMount(): boolean {
  try {
    execFileSync("unshare", [
      ...["--mount", "sh", "-c"],
      "command -v mkfs.ext4 && command -v fsfreeze && losetup --find && mount -t tmpfs none /mnt",
    ], { stdio: "ignore", timeout: 10_000 });
    return true;
  } catch {
    return false;
  }
}
