import assert from "node:assert/strict";
import { type CreatedDisk, mountCommands } from "../../../lib/snapshots/restore.ts";

const disk = (facts: Partial<CreatedDisk>): CreatedDisk => ({
  snapshot: "snap-1",
  disk: { device: "/dev/sdf", snapshot: null } as unknown as CreatedDisk["disk"],
  device: "/dev/sdf",
  mountPoint: "/opt/pg",
  mountOptions: "rw",
  ...facts,
});

Deno.test("commands that are pasted into root's shell hold nothing that a backup.info could make run", () => {
  assert.deepEqual(mountCommands([disk({ mountPoint: "/opt/a b'; reboot #" })]), [
    `mkdir -p '/opt/a b'\\''; reboot #'`,
    `mount -o rw /dev/sdf '/opt/a b'\\''; reboot #'`,
  ]);
  for (
    const facts of [
      { mountPoint: "--bind" },
      { mountPoint: "relative" },
      { mountPoint: "/opt/\nreboot" },
      { mountOptions: "rw\u001b[2K" },
      { mountPoint: null, snapshot: "snap\nreboot" },
    ]
  ) {
    const [line, ...more] = mountCommands([disk(facts)]);
    assert.equal(more.length, 0);
    assert.match(line ?? "", /^# \S[^\n]*, whose mount point is not known$/);
  }
});
