/** Run by snapshots_disk_test.ts in a mount namespace; root only. */
import assert from "node:assert/strict";
import { execFileSync } from "node:child_process";
import { chownSync } from "node:fs";
import { join } from "node:path";
import { startEc2Fake } from "../../scripts/servers/ec2_fake.ts";
import { serverUser } from "../../scripts/servers/embedded_postgres.ts";
import { makeDirectory, newHost } from "./host.ts";
import { newStore } from "./stores.ts";

const OPTIONS = "rw,noatime";

Deno.test("a data directory on a disk of its own comes back from a snapshot of the disk", async () => {
  await using fake = await startEc2Fake();
  await using store = await newStore("s3");
  const env = { ...store.env, AWS_ENDPOINT_URL_EC2: fake.endpoint };
  await using host = await newHost({ ...store, env });
  const image = host.newPath("disk");
  run("truncate", "-s", "512M", image);
  run("mkfs.ext4", "-q", image);
  // With a blank, as mount points may have.
  const mountPoint = makeDirectory(`${host.newPath("pg")} disk`);
  const device = mount(image, mountPoint);
  // Before the server, so that it is unmounted after the server has ended.
  host.own({
    [Symbol.asyncDispose]: () => {
      run("umount", "--lazy", mountPoint);
      return Promise.resolve();
    },
  });
  const user = serverUser();
  if (user !== undefined) chownSync(mountPoint, user.uid, user.gid);
  const server = await host.start({ major: 17, dir: join(mountPoint, "pg") });
  await server.query("create table t as select generate_series(1, 10000) i");

  const db1 = fake.addInstance({ name: "db1" });
  fake.addVolume(db1, { device, tags: new Map([["Name", "pgdata"]]) });
  const copy = host.newPath("snapshot");
  fake.hooks.set("CreateSnapshot", async () => {
    await server.query("insert into t values (0)");
    run("fsfreeze", "--freeze", mountPoint);
    try {
      run("cp", "--sparse=always", image, copy);
    } finally {
      run("fsfreeze", "--unfreeze", mountPoint);
    }
    await server.query("insert into t values (-1)");
  });
  await host.ok("backup", [
    ...["-h", "127.0.0.1", "-p", `${server.port}`, "-U", "postgres", "--immediate-checkpoint"],
    ...["--aws-region", fake.region],
    ...["--snapshot-instance", "db1", "--snapshot-disk", "pgdata"],
  ]);
  const [snapshot = ""] = [...fake.snapshots.keys()];
  await server.query("insert into t values (-2)");
  await server.query("select pg_switch_wal()");
  await server.stop();
  run("umount", mountPoint);

  const restore = (message: RegExp, code: number) =>
    host.cloud(
      "restore",
      ["--snapshot-recovery-instance", "db2"],
      ["last", server.dataDirectory],
    ).then((done) => {
      assert.equal(done.code, code, done.stderr);
      assert.match(done.stderr, message);
    });
  const db2 = fake.addInstance({ name: "db2" });
  const volume = fake.addVolume(db2, { device: "/dev/sdz", snapshot });
  await restore(/must be mounted on .*pg.* disk, but is not mounted/, 4);
  const other = mount(copy, mountPoint, "rw,relatime");
  fake.volumes.set(volume.id, {
    ...volume,
    attachment: { instance: db2.id, device: other },
  });
  await restore(/must have the options rw,noatime, but has rw,relatime/, 4);
  run("mount", "-o", `remount,${OPTIONS}`, mountPoint);
  await restore(/^$/, 0);

  // What the running server had left on the disk.
  run("rm", "-f", join(server.dataDirectory, "postmaster.pid"));
  const again = await host.startRestored(server.dataDirectory, { major: 17 });
  await again.waitUntilReady({ promoted: true });
  const [row] = await again.query("select count(*)::int as rows, min(i) as least from t");
  assert.deepEqual({ ...row }, { rows: 10_003, least: -2 });
  await again.stop();
});

/** @returns the loop device, which goes away with the mount */
function mount(image: string, mountPoint: string, options = OPTIONS): string {
  const device = run("losetup", "--find", "--show", image).trim();
  try {
    run("mount", "-o", options, device, mountPoint);
  } finally {
    run("losetup", "--detach", device);
  }
  return device;
}

function run(program: string, ...args: string[]): string {
  return execFileSync(program, args, { encoding: "utf8", timeout: 60_000 });
}
