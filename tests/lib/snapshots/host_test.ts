/** From what a cloud calls a disk to the kernel's device and its mounts. */
import assert from "node:assert/strict";
import { chmod, mkdtemp, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import {
  deviceOf,
  HostError,
  isPresent,
  localHost,
  mountableOf,
  mountOfPath,
  mountsOf,
  parseFindmnt,
} from "../../../lib/snapshots/host.ts";
import type { DiskLocation } from "../../../providers/snapshots/provider.ts";
import { newMachine } from "./machine.ts";

const { signal } = new AbortController();

function ebs(device: string, volumeId = "vol-0123456789abcdef0"): DiskLocation {
  return { kind: "ec2", device, volumeId };
}

Deno.test("EBS with NVMe: by the serial number, which need not be in the order of the names", async () => {
  await using machine = await newMachine();
  await machine.sysFile("block/nvme0n1/device/serial", "vol0aaaaaaaaaaaaaaaa\n");
  await machine.sysFile("block/nvme1n1/device/serial", "vol0bbbbbbbbbbbbbbbb    \n");
  // Ends alike, and an instance store without a volume.
  await machine.sysFile("block/nvme2n1/device/serial", "AWS0123456789ABCDEF0\n");
  await machine.sysFile("block/nvme3n1/device/serial", "vol0123456789abcdef0\n");
  await machine.sysFile("block/nvme4n1/size", "1\n");
  assert.equal(await deviceOf(machine.host, ebs("/dev/sdf")), "/dev/nvme3n1");
  const other = ebs("/dev/sdf", "vol-0bbbbbbbbbbbbbbbb");
  assert.equal(await deviceOf(machine.host, other), "/dev/nvme1n1");
});

Deno.test("EBS with Xen: sdf is xvdf, hdf in paravirtual machines, or itself; without any, as EC2 says", async () => {
  for (const block of ["xvdf", "hdf", "sdf"]) {
    await using machine = await newMachine();
    await machine.sysFile(`block/${block}/size`, "1\n");
    await machine.sysFile("block/xvdd/size", "1\n");
    assert.equal(await deviceOf(machine.host, ebs("/dev/sdf")), `/dev/${block}`);
  }
  await using machine = await newMachine();
  await machine.sysFile("block/xvdba/size", "1\n");
  await machine.sysFile("block/vdev/size", "1\n");
  assert.equal(await deviceOf(machine.host, ebs("xvdba")), "/dev/xvdba");
  // Names that begin with letters of "/dev/".
  assert.equal(await deviceOf(machine.host, ebs("/dev/vdev")), "/dev/vdev");
  assert.equal(await deviceOf(machine.host, ebs("/dev/sdz")), "/dev/sdz");
  await rm(join(machine.host.sys, "block"), { recursive: true });
  assert.equal(await deviceOf(machine.host, ebs("/dev/sdz")), "/dev/sdz");
});

Deno.test("links of udev are followed; without them findmnt gets the first", async () => {
  await using machine = await newMachine();
  await machine.link("disk/by-id/google-data", "sdb");
  await machine.link("disk/azure/data/by-lun/10", "nvme1n2");
  const google: DiskLocation = { kind: "links", paths: ["/dev/disk/by-id/google-data"] };
  const azure: DiskLocation = {
    kind: "links",
    paths: ["/dev/disk/azure/scsi1/lun10", "/dev/disk/azure/data/by-lun/10"],
  };
  assert.equal(await deviceOf(machine.host, google), "/dev/sdb");
  assert.equal(await deviceOf(machine.host, azure), "/dev/nvme1n2");
  const absent: DiskLocation = { kind: "links", paths: ["/dev/disk/azure/scsi1/lun1"] };
  assert.equal(await deviceOf(machine.host, absent), "/dev/disk/azure/scsi1/lun1");
  assert.equal(await isPresent(machine.host, google), true);
  assert.equal(await isPresent(machine.host, absent), false);
});

Deno.test("a device mounted twice: the whole file system comes before a part, and both are told", async () => {
  await using machine = await newMachine([
    { device: "/dev/xvdf", mountPoint: "/srv/bind", root: "/sub dir" },
    { device: "/dev/xvdf", mountPoint: "/srv/pg data", options: "rw,noatime" },
    { device: "/dev/xvdf1", mountPoint: "/other" },
    { device: "/dev/xvdff", mountPoint: "/ends/alike" },
  ]);
  await machine.sysFile("block/xvdf/size", "1\n");
  assert.deepEqual(await mountsOf(machine.host, ebs("/dev/sdf"), signal), [
    { mountPoint: "/srv/pg data", root: "/", device: "/dev/xvdf", options: "rw,noatime" },
    { mountPoint: "/srv/bind", root: "/sub dir", device: "/dev/xvdf", options: "rw,relatime" },
  ]);
});

Deno.test("a partition, a logical volume and an encrypted disk are found below the disk", async () => {
  await using machine = await newMachine([{ device: "/dev/nvme1n1p1", mountPoint: "/srv/a" }]);
  await machine.sysFile("block/nvme1n1/device/serial", "vol0123456789abcdef0\n");
  await machine.sysFile("block/nvme1n1/nvme1n1p1/partition", "1\n");
  // Not a partition, for all its name.
  await machine.sysFile("block/nvme1n1/nvme1n1foo/size", "1\n");
  const [mount] = await mountsOf(machine.host, ebs("/dev/sdf"), signal);
  assert.deepEqual([mount?.device, mount?.mountPoint], ["/dev/nvme1n1p1", "/srv/a"]);
  assert.equal(await mountableOf(machine.host, ebs("/dev/sdf")), "/dev/nvme1n1p1");

  machine.mounts = [{ device: "/dev/mapper/vg-data", mountPoint: "/srv/b" }];
  await machine.sysFile("block/nvme1n1/nvme1n1p1/holders/dm-0/size", "1\n");
  await machine.sysFile("block/dm-0/dm/name", "luks-1\n");
  await machine.sysFile("block/dm-0/holders/dm-1/size", "1\n");
  await machine.sysFile("block/dm-1/dm/name", "vg-data\n");
  const [volume] = await mountsOf(machine.host, ebs("/dev/sdf"), signal);
  assert.equal(volume?.mountPoint, "/srv/b");

  machine.mounts = [{ device: "/dev/md0", mountPoint: "/srv/c" }];
  await machine.sysFile("block/nvme1n1/holders/md0/size", "1\n");
  const [array] = await mountsOf(machine.host, ebs("/dev/sdf"), signal);
  assert.equal(array?.mountPoint, "/srv/c");
  machine.mounts = [];
  assert.deepEqual(await mountsOf(machine.host, ebs("/dev/sdf"), signal), []);
});

Deno.test("what is to be mounted: the only partition, else the disk", async () => {
  await using machine = await newMachine();
  await machine.sysFile("block/xvdf/size", "1\n");
  assert.equal(await mountableOf(machine.host, ebs("/dev/sdf")), "/dev/xvdf");
  await machine.sysFile("block/xvdf/xvdf1/partition", "1\n");
  assert.equal(await mountableOf(machine.host, ebs("/dev/sdf")), "/dev/xvdf1");
  await machine.sysFile("block/xvdf/xvdf2/partition", "2\n");
  assert.equal(await mountableOf(machine.host, ebs("/dev/sdf")), "/dev/xvdf");
});

Deno.test("the mount that a path lies on", async () => {
  await using machine = await newMachine([
    { device: "/dev/xvda1", mountPoint: "/" },
    { device: "/dev/xvdf", mountPoint: "/srv" },
  ]);
  const on = async (path: string) => (await mountOfPath(machine.host, path, signal))?.device;
  assert.equal(await on("/srv/pg"), "/dev/xvdf");
  assert.equal(await on("/srvx"), "/dev/xvda1");
  machine.mounts = [];
  assert.equal(await on("/srv"), undefined);
});

Deno.test("findmnt's raw lines: blanks, backslashes, UTF-8, and what is none", () => {
  assert.deepEqual(parseFindmnt(""), []);
  const text = "/srv/pg\\x20data\\x5c1 / /dev/sdb rw,noatime\n" +
    "/srv/gr\\xc3\\xb6\\xc3\\x9fe /a\\x20b /dev/sdb[/a\\x20b] ro\n";
  assert.deepEqual(parseFindmnt(text), [
    { mountPoint: "/srv/pg data\\1", root: "/", device: "/dev/sdb", options: "rw,noatime" },
    { mountPoint: "/srv/größe", root: "/a b", device: "/dev/sdb", options: "ro" },
  ]);
  for (const line of ["/srv / /dev/sdb", "TARGET FSROOT SOURCE OPTIONS", "/a / b c d"]) {
    assert.throws(() => parseFindmnt(line), HostError);
  }
});

Deno.test("findmnt itself: found by PATH, its errors, its silence, and the signal", async () => {
  const directory = await mkdtemp(join(tmpdir(), "findmnt-"));
  const program = join(directory, "findmnt");
  const be = async (script: string) => {
    await writeFile(program, `#!/bin/sh\n${script}\n`);
    await chmod(program, 0o755);
  };
  const host = localHost({ PATH: directory });
  try {
    await be('echo "$LC_ALL $@"');
    assert.equal(await host.findmnt(["--source", "/dev/a b"], signal), "C --source /dev/a b\n");
    await be("exit 1");
    assert.equal(await host.findmnt([], signal), "");
    await be("echo 'findmnt: bad' >&2; exit 1");
    await assert.rejects(host.findmnt([], signal), /Cannot run findmnt: findmnt: bad/);
    await be("exit 3");
    await assert.rejects(host.findmnt([], signal), HostError);
    await be("sleep 60 >/dev/null 2>&1");
    const stopped = AbortSignal.timeout(50);
    await assert.rejects(host.findmnt([], stopped), (error) => error === stopped.reason);
  } finally {
    await rm(directory, { recursive: true });
  }
  // Without a PATH there is still the system's.
  assert.match(await localHost({}).findmnt(["--version"], signal), /util-linux/);
});
