/** The kernel's and findmnt's own word on a real file system, in a mount namespace of the test's. */
import assert from "node:assert/strict";
import { execFile, execFileSync } from "node:child_process";
import { mkdtemp, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import { promisify } from "node:util";
import type { Mount } from "../../../lib/snapshots/host.ts";
import { skipUnless } from "../../skips.ts";

/** A disk in a file, mounted with a blank in the path, and a part of it once more. */
const SCENE = `
set -eu
cd "$1"; shift
truncate -s 64M disk
mkfs.ext4 -q disk
device=$(losetup --find --show disk)
trap 'set +e; umount bind; umount "pg data"; losetup -d "$device"' EXIT
mkdir "pg data" bind
mount -o noatime "$device" "pg data"
mkdir "pg data/sub dir" "pg data/inner"
mount --bind "pg data/sub dir" bind
"$@" "$device"
`;

Deno.test({
  name: "findmnt and the kernel: a disk mounted twice, with blanks in its path",
  ignore: skipUnless(
    canMount(),
    "Mounts as the real findmnt shows them",
    "run the tests as root where loop devices and mkfs.ext4 can be had",
  ),
  async fn() {
    const directory = await mkdtemp(join(tmpdir(), "mounts "));
    try {
      const child = fileURLToPath(new URL("mounts_child.ts", import.meta.url));
      const { stdout } = await promisify(execFile)("unshare", [
        ...["--mount", "sh", "-c", SCENE, "sh", directory],
        ...[Deno.execPath(), "run", "-A", "--quiet", "--no-check", child, directory],
      ], { timeout: 60_000 });
      const { device, mounts, of, mountable, present } = JSON.parse(stdout) as {
        device: string;
        mounts: Mount[];
        of: Mount;
        mountable: string;
        present: boolean;
      };
      assert.deepEqual(
        mounts.map((mount) => [mount.mountPoint, mount.root, mount.device]),
        [
          [join(directory, "pg data"), "/", device],
          [join(directory, "bind"), "/sub dir", device],
        ],
      );
      assert.match(mounts[0]?.options ?? "", /^rw,noatime/);
      assert.deepEqual([of.mountPoint, of.device], [join(directory, "pg data"), device]);
      assert.equal(mountable, device);
      assert.equal(present, true);
    } finally {
      await rm(directory, { recursive: true, force: true });
    }
  },
});

function canMount(): boolean {
  try {
    execFileSync("unshare", [
      ...["--mount", "sh", "-c"],
      "command -v mkfs.ext4 && command -v findmnt && losetup --find && mount -t tmpfs none /mnt",
    ], { stdio: "ignore", timeout: 10_000 });
    return true;
  } catch {
    return false;
  }
}
