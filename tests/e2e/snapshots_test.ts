/**
 * Backups made of disk snapshots, by the compiled executable, with a real PostgreSQL. The APIs of the disks are
 * fakes, and findmnt is a script found by PATH; what findmnt and the kernel really say is in tests/lib/snapshots.
 */
import assert from "node:assert/strict";
import { execFileSync } from "node:child_process";
import { mkdirSync, statSync } from "node:fs";
import { copyFile, readFile } from "node:fs/promises";
import { join } from "node:path";
import process from "node:process";
import { setTimeout as sleep } from "node:timers/promises";
import { serverUser, type TestPostgres } from "../../scripts/servers/embedded_postgres.ts";
import { type Cloud, newAws, testOnClouds } from "./clouds.ts";
import { runProgram, type RunResult } from "./executable.ts";
import { installFindmnt, type MountTable } from "./findmnt.ts";
import { type CloudOptions, type Host, makeDirectory, newHost } from "./host.ts";
import { haveS3 } from "./stores.ts";

interface Scene extends AsyncDisposable {
  readonly cloud: Cloud;
  readonly host: Host;
  readonly server: TestPostgres;
  /** Mounted file systems: device → mount point, options. */
  readonly mounts: MountTable;
  /** By which that findmnt is found. */
  readonly path: string;
  run(
    command: string,
    options?: readonly string[],
    positionals?: readonly string[],
    run?: CloudOptions,
  ): Promise<RunResult>;
  backup(options?: readonly string[], run?: CloudOptions): Promise<RunResult>;
  /** Text of backup.info. */
  info(id: string): Promise<string>;
}

/** The server's data is on the disk `pgdata`, a tablespace on `tbs`. */
async function newScene(cloud: Cloud): Promise<Scene> {
  const host = await newHost(cloud.store);
  const tbs = makeDirectory(host.newPath("tbs"));
  const server = await host.start({ major: 17, tablespaces: { fast: tbs } });
  const mounts: MountTable = new Map([
    [cloud.devices.pgdata, [server.dataDirectory, "rw,noatime"]],
    [cloud.devices.tbs, [tbs, "rw,relatime,discard"]],
  ]);
  const findmnt = installFindmnt(makeDirectory(host.newPath("bin"), 0o755));
  const run: Scene["run"] = async (command, options, positionals, { env = {}, ...more } = {}) => {
    findmnt.tell(mounts);
    return await host.cloud(command, options, positionals, {
      ...more,
      env: { PATH: findmnt.path, ...env },
    });
  };
  return {
    cloud,
    host,
    server,
    mounts,
    path: findmnt.path,
    run,
    backup: (options = [], more = {}) =>
      run(
        "backup",
        [
          ...["-d", server.conninfo(), "--immediate-checkpoint", ...cloud.backupOptions],
          ...["--snapshot-instance", "db1", "--snapshot-disk", "pgdata", "--snapshot-disk", "tbs"],
          ...options,
        ],
        [],
        more,
      ),
    info: async (id) =>
      new TextDecoder().decode(await cloud.store.read(`${host.serverName}/base/${id}/backup.info`)),
    [Symbol.asyncDispose]: () => host[Symbol.asyncDispose](),
  };
}

async function ids(
  { host }: Scene,
): Promise<{ id: string; status: string; error: string | null }[]> {
  const { backups_list } = JSON.parse(await host.ok("backup-list", ["--format", "json"])) as {
    backups_list: { backup_id: string; status: string; error: string | null }[];
  };
  return backups_list.map(({ backup_id, status, error }) => ({ id: backup_id, status, error }));
}

testOnClouds("snapshots: backup, show, list, restore with new volumes, delete", async (cloud) => {
  await using scene = await newScene(cloud);
  const { host, run } = scene;
  const taken = await scene.backup(["-v", "--name", "nightly", "--tag", "team,db"]);
  assert.deepEqual([taken.code, taken.stdout], [0, ""], taken.stderr);
  assert.doesNotMatch(taken.stderr, /WARNING|ERROR/);
  assert.match(taken.stderr, /Disk pgdata.* is .*mounted on .*rw,noatime/);
  assert.match(taken.stderr, /Snapshots: .*100%/);

  const [{ id } = { id: "" }, ...others] = await ids(scene);
  assert.deepEqual(others, []);
  const names = ["pgdata", "tbs"].map((disk) => `${disk}-${id.toLowerCase()}`);
  assert.deepEqual(cloud.snapshots(), names);
  for (const name of names) assert.deepEqual(cloud.tagsOf(name), { team: "db" });
  const base = `${host.serverName}/base/${id}`;
  assert.deepEqual((await cloud.store.paths()).filter((path) => path.includes("/base/")), [
    `${base}/backup.info`,
    `${base}/backup_label`,
  ]);
  await checkInfo(scene, id, names);
  await checkShown(scene, id, names);

  // Restore: first what is lacking, in Barman's order.
  const recovery = host.newPath("recovery");
  const restore = async (options: readonly string[], code: number, message: RegExp) => {
    const done = await run("restore", options, ["nightly", recovery]);
    assert.equal(done.code, code, done.stderr);
    assert.match(done.stderr, message);
    return done.stdout;
  };
  const onto = [...cloud.restoreOptions, "--snapshot-recovery-instance", "db2"];
  await restore(["--tablespace", "fast:/x"], 4, /leave out --tablespace/);
  await restore([], 4, /--snapshot-recovery-instance/);
  if (cloud.restoreOptions.length > 0) {
    await restore(onto.slice(2), 4, /--gcp-zone|--azure-resource-group/);
  }
  await restore([...onto, "--snapshot-recovery-instance", "db3"], 4, /db3 does not exist/);
  const source = [...cloud.restoreOptions, "--snapshot-recovery-instance", "db1"];
  await restore(source, 4, /No disk of instance db1 was made from these.*, .*--create-volumes/);

  const commands = await restore([...onto, "--create-volumes"], 0, /mount them with the commands/);
  const devices = names.map((name) => cloud.deviceOn("db2", name));
  const [pgdata, tbs] = [...scene.mounts.values()];
  assert.ok(pgdata !== undefined && tbs !== undefined);
  assert.deepEqual(
    new Set(commands.trimEnd().split("\n")),
    new Set([pgdata, tbs].flatMap(([mountPoint, options], i) => [
      `mkdir -p ${mountPoint}`,
      `mount -o ${options} ${devices[i]} ${mountPoint}`,
    ])),
  );
  // On db2 nothing is mounted, then in the wrong place, then with other options, then right.
  scene.mounts.clear();
  await restore(onto, 4, /must be mounted on .*but is not mounted.*; .*not mounted/);
  const mount = (places: readonly (readonly [string, string])[]) => {
    scene.mounts.clear();
    places.forEach((place, i) => scene.mounts.set(devices[i] ?? "", place));
  };
  mount([pgdata, ["/mnt/else where", tbs[1]]]);
  await restore(onto, 4, /must be mounted on .*, but is mounted on \/mnt\/else where/);
  mount([[pgdata[0], "ro"], tbs]);
  await restore(onto, 4, /must have the options rw,noatime, but has ro/);
  mount([pgdata, tbs]);
  await restore(onto, 4, /recovery/);
  makeDirectory(recovery);
  await restore(onto, 0, /^$/);
  const label = await readFile(join(recovery, "backup_label"), "utf8");
  assert.match(label, new RegExp(`LABEL: Barman backup ${host.serverName} ${id}\n`));
  const user = serverUser();
  if (user !== undefined) assert.equal(statSync(join(recovery, "backup_label")).uid, user.uid);

  const dry = await run("backup-delete", ["--dry-run", "-b", "nightly"]);
  assert.equal(dry.code, 0, dry.stderr);
  assert.match(dry.stdout, /^Skipping deletion of snapshots due to --dry-run option\n/);
  assert.deepEqual(cloud.snapshots(), names);
  const deleted = await run("backup-delete", ["-b", "nightly"]);
  assert.deepEqual([deleted.code, deleted.stdout, deleted.stderr], [0, "", ""]);
  assert.deepEqual(cloud.snapshots(), []);
  assert.deepEqual((await cloud.store.paths()).filter((path) => path.includes("/base/")), []);
});

/** As the specification of backup.info has it, line by line. */
async function checkInfo(
  { cloud, host, server, mounts, info }: Scene,
  id: string,
  names: readonly string[],
): Promise<void> {
  const lines = (await info(id)).split("\n");
  assert.equal(lines.pop(), "");
  const fields = new Map(lines.map((line) => {
    const at = line.indexOf("=");
    return [line.slice(0, at), line.slice(at + 1)];
  }));
  assert.deepEqual([...fields.keys()], [...fields.keys()].toSorted());
  const snapshots = (["pgdata", "tbs"] as const).map((disk, i) => {
    const [mountPoint, options] = mounts.get(cloud.devices[disk]) ?? [];
    return `{'mount': {'mount_options': '${options}', 'mount_point': '${mountPoint}'}, ` +
      `'provider': ${cloud.expected(names[i] ?? "", disk)}}`;
  });
  const provider = { AWS: "aws", Azure: "azure", Google: "gcp" }[cloud.name];
  assert.equal(
    fields.get("snapshots_info"),
    `{'provider': '${provider}', 'provider_info': ${cloud.expectedInfo}, ` +
      `'snapshots': [${snapshots.join(", ")}]}`,
  );
  assert.match(
    fields.get("copy_stats") ?? "",
    /^\{'copy_time': (\d+\.\d+), 'total_time': \1\}$/,
  );
  const [row] = await server.query("select system_identifier::text as id from pg_control_system()");
  const expected: Record<string, string> = {
    backup_name: "nightly",
    children_backup_ids: "None",
    compression: "None",
    data_checksums: "on",
    deduplicated_size: "None",
    encryption: "None",
    error: "None",
    mode: "None",
    parent_backup_id: "None",
    pgdata: server.dataDirectory,
    server_name: host.serverName,
    size: "None",
    status: "DONE",
    summarize_wal: "off",
    systemid: String(row?.["id"]),
    timeline: "1",
    xlog_segment_size: "16777216",
  };
  for (const [name, value] of Object.entries(expected)) assert.equal(fields.get(name), value, name);
  const label = await cloud.store.read(`${host.serverName}/base/${id}/backup_label`);
  assert.equal(
    fields.get("backup_label"),
    `'${new TextDecoder().decode(label).replaceAll("\n", "\\n")}'`,
  );
  assert.match(fields.get("tablespaces") ?? "", /^\[\('fast', \d+, '.*tbs.*'\)\]$/);
}

async function checkShown({ cloud, host, run }: Scene, id: string, names: readonly string[]) {
  assert.match(await host.ok("backup-list"), new RegExp(`^${id} .* nightly`, "m"));
  const shown = await run("backup-show", [], ["nightly"]);
  assert.equal(shown.code, 0, shown.stderr);
  assert.match(shown.stdout, /Snapshot information:\n {4}provider {13}: (aws|azure|gcp)\n/);
  for (const name of names) {
    assert.match(shown.stdout, new RegExp(`^ {4}snapshot_name {8}: ${name}$`, "m"));
  }
  assert.match(shown.stdout, /Mount options {8}: rw,noatime\n/);
  const json = JSON.parse(await host.ok("backup-show", ["--format", "json"], [id])) as Record<
    string,
    { snapshots_info: { snapshots: unknown[] } }
  >;
  assert.equal(json[host.serverName]?.snapshots_info.snapshots.length, 2);
  assert.ok(cloud.name.length > 0);
}

testOnClouds(
  "snapshots: a signal removes them, or what can't be removed is recorded and deleted later",
  async (cloud) => {
    await using scene = await newScene(cloud);
    cloud.stall(true);
    const stopped = async (signal: NodeJS.Signals) => {
      let pid = 0;
      const backup = scene.backup([], { onSpawn: (child) => pid = child });
      await until(() => cloud.snapshots().length === 2);
      // They are known to it by now, or will be when their calls are answered.
      await sleep(300);
      process.kill(pid, signal);
      const result = await backup;
      assert.equal(result.code, 1, result.stderr);
      assert.match(result.stderr, new RegExp(`Stopped by ${signal}`));
      return result.stderr;
    };
    await stopped("SIGTERM");
    assert.deepEqual(cloud.snapshots(), []);
    const [first] = await ids(scene);
    assert.match(`${first?.status} ${first?.error}`, /^FAILED failure uploading data \(.*SIGTERM/);
    assert.doesNotMatch(await scene.info(first?.id ?? ""), /snapshots_info/);

    cloud.forbidDeletion(true);
    const log = await stopped("SIGINT");
    assert.match(
      log,
      /could not be deleted: .*; backup\.info names them: delete backup \d{8}T\d{6}/,
    );
    const [, second] = await ids(scene);
    const names = cloud.snapshots();
    assert.equal(names.length, 2);
    const info = await scene.info(second?.id ?? "");
    for (const name of names) assert.ok(info.includes(`'snapshot_name': '${name}'`), info);
    const denied = await scene.run("backup-delete", ["-b", second?.id ?? ""]);
    assert.equal(denied.code, 4, denied.stderr);
    assert.match(denied.stderr, /Cannot delete snapshot /);
    cloud.forbidDeletion(false);
    const deleted = await scene.run("backup-delete", ["-b", second?.id ?? ""]);
    assert.equal(deleted.code, 0, deleted.stderr);
    assert.deepEqual(cloud.snapshots(), []);
    // The server is in no backup any more.
    cloud.stall(false);
    const fine = await scene.backup();
    assert.equal(fine.code, 0, fine.stderr);
  },
);

testOnClouds("snapshots: what can't be is refused before PostgreSQL hears of it", async (cloud) => {
  await using scene = await newScene(cloud);
  const refused = async (options: readonly string[], message: RegExp) => {
    const { code, stderr } = await scene.backup(options);
    assert.equal(code, 4, stderr);
    assert.match(stderr, message);
  };
  await refused(["--snapshot-instance", "db9"], /Instance db9 does not exist/);
  await refused(
    ["--snapshot-disk", "nope", "--snapshot-disk", "no"],
    /Not attached to instance db1.*: nope, no; attached are .*pgdata/,
  );
  await refused(["--snapshot-disk", "pgdata", "--gzip"], /can't be compressed/);
  if (cloud.name === "Google") {
    // It is attached; its name only ends with that of another.
    await refused(["--snapshot-disk", "not-pgdata"], /Not mounted.*: not-pgdata/);
  }
  scene.mounts.clear();
  await refused([], /Not mounted on this machine: pgdata, tbs/);
  const incomplete = await scene.run("backup", [
    "-d",
    scene.server.conninfo(),
    "--snapshot-disk=d",
  ]);
  assert.equal(incomplete.code, 4);
  assert.match(incomplete.stderr, /--snapshot-instance/);
  assert.deepEqual(await cloud.store.paths(), []);
  assert.deepEqual(cloud.snapshots(), []);
});

Deno.test("snapshots: a directory is no cloud", async () => {
  const { newStore } = await import("./stores.ts");
  await using store = await newStore("file");
  await using host = await newHost(store);
  const server = await host.start();
  const { code, stderr } = await host.cloud("backup", [
    ...["-d", server.conninfo(), "--snapshot-disk", "d", "--snapshot-instance", "i"],
  ]);
  assert.equal(code, 4);
  assert.match(stderr, /Disk snapshots belong to a cloud/);
});

Deno.test({
  name: "snapshots: what they hold recovers to a running server (AWS)",
  ignore: !haveS3,
  async fn() {
    await using cloud = await newAws();
    await using scene = await newScene(cloud);
    const { host, server } = scene;
    await server.query("create table t tablespace fast as select generate_series(1, 5000) i");
    const copy = host.newPath("copy");
    // The "snapshots": copies of the disks at the time of the call.
    cloud.fake.hooks.set("CreateSnapshots", async () => {
      mkdirSync(copy);
      await server.query("insert into t values (0)");
      execFileSync("cp", ["-a", server.dataDirectory, join(copy, "pgdata")]);
      execFileSync("cp", ["-a", scene.mounts.get("/dev/sdg")?.[0] ?? "", join(copy, "tbs")]);
      await server.query("insert into t values (-1)");
    });
    assert.equal((await scene.backup()).code, 0);
    await server.query("insert into t values (-2)");
    await server.query("select pg_switch_wal()");
    await server.stop();
    // Disks are made of them and mounted where they were.
    const tbs = scene.mounts.get("/dev/sdg")?.[0] ?? "";
    execFileSync("rm", ["-rf", server.dataDirectory, tbs]);
    execFileSync("cp", ["-a", join(copy, "pgdata"), server.dataDirectory]);
    execFileSync("cp", ["-a", join(copy, "tbs"), tbs]);
    execFileSync("rm", ["-f", join(server.dataDirectory, "postmaster.pid")]);
    const onto = ["--snapshot-recovery-instance", "db2"];
    const made = await scene.run(
      "restore",
      [...onto, "--create-volumes", "--format", "json"],
      ["last", server.dataDirectory],
    );
    assert.equal(made.code, 0, made.stderr);
    const { volumes, mount_commands: mountCommands, ...more } = JSON.parse(made.stdout);
    assert.deepEqual(more, {});
    assert.equal(mountCommands.length, 4);
    assert.deepEqual(
      volumes.map((volume: Record<string, unknown>) => volume["mount_point"]),
      [...scene.mounts.values()].map(([mountPoint]) => mountPoint),
    );
    for (const volume of volumes) {
      const { snapshot, volume: id, device, mount_options: options, ...rest } = volume;
      assert.match(`${snapshot} ${id} ${device} ${options}`, /^snap-\w+ vol-\w+ \/dev\/\S+ rw\S*$/);
      assert.deepEqual(Object.keys(rest), ["mount_point"]);
    }
    const restored = await scene.run("restore", onto, ["last", server.dataDirectory]);
    assert.equal(restored.code, 0, restored.stderr);
    const again = await host.startRestored(server.dataDirectory, { major: 17 });
    await again.waitUntilReady({ promoted: true });
    const [row] = await again.query("select count(*)::int as rows, min(i) as least from t");
    assert.deepEqual({ ...row }, { rows: 5003, least: -2 });
  },
});

Deno.test({
  name: "snapshots: locks, the time-out, and locked snapshots that backup-delete must leave (AWS)",
  ignore: !haveS3,
  async fn() {
    await using cloud = await newAws();
    await using scene = await newScene(cloud);
    const { fake } = cloud;
    const lock = ["--aws-snapshot-lock-mode", "compliance"];
    const refused = await scene.backup([...lock, "--aws-snapshot-lock-cool-off-period=1"]);
    assert.equal(refused.code, 4);
    assert.match(refused.stderr, /Snapshots need more options: --aws-snapshot-lock-duration \(or/);
    const done = await scene.backup([
      ...[...lock, "--aws-snapshot-lock-cool-off-period", "24"],
      ...["--aws-snapshot-lock-expiration-date", "2031-02-03T04:05:06.123456Z"],
    ]);
    assert.equal(done.code, 0, done.stderr);
    assert.deepEqual(
      [...fake.snapshots.values()].map(({ lock }) => lock),
      [1, 2].map(() => ({
        mode: "compliance",
        duration: undefined,
        coolOff: "24",
        expires: "2031-02-03T04:05:06.123Z",
      })),
    );
    const [backup] = await ids(scene);
    assert.match(await scene.info(backup?.id ?? ""), /'snapshot_lock_mode': 'compliance'/);
    const locked = await scene.run("backup-delete", ["-b", backup?.id ?? ""]);
    assert.equal(locked.code, 1);
    assert.match(locked.stderr, /Cannot delete backup .*: Cannot delete locked snapshots: snap-/);
    assert.equal(fake.snapshots.size, 2);
    assert.ok((await cloud.store.paths()).some((path) => path.endsWith("backup_label")));

    cloud.stall(true);
    const late = await scene.backup([
      ...["--aws-await-snapshots-timeout", "1", "--aws-snapshot-lock-mode", "governance"],
      ...["--aws-snapshot-lock-duration", "1"],
    ]);
    assert.equal(late.code, 1);
    assert.match(late.stderr, /not complete within 1 s \(--aws-await-snapshots-timeout\)/);
    assert.match(late.stderr, /could not be deleted: .*locked.*; backup\.info names them/);
    assert.equal(fake.snapshots.size, 4);
    const own = await scene.backup(["--snapshot-timeout", "1", "--aws-snapshot-lock-duration=1"]);
    assert.match(own.stderr, /WARNING: Snapshots are not locked: .*--aws-snapshot-lock-mode/);
    assert.match(own.stderr, /not complete within 1 s \(--snapshot-timeout\)/);
    assert.equal(fake.snapshots.size, 4);
    const all = await ids(scene);
    const failed = all.filter(({ status }) => status === "FAILED");
    assert.equal(failed.length, 2);
    for (const snapshot of fake.snapshots.values()) snapshot.lock = undefined;
    for (const { id } of all) {
      const deleted = await scene.run("backup-delete", ["-b", id]);
      assert.equal(deleted.code, 0, deleted.stderr);
    }
    assert.equal(fake.snapshots.size, 0);
  },
});

Deno.test({
  name: "snapshots: a second signal while they are being removed: backup.info names them (AWS)",
  ignore: !haveS3,
  async fn() {
    await using cloud = await newAws();
    await using scene = await newScene(cloud);
    cloud.stall(true);
    let pid = 0;
    cloud.fake.hooks.set("DeleteSnapshot", () => {
      process.kill(pid, "SIGTERM");
      return new Promise(() => {});
    });
    // It is deleted in the fake before the answer: only the record counts here.
    const backup = scene.backup([], { onSpawn: (child) => pid = child });
    await until(() => cloud.snapshots().length === 2);
    const names = cloud.snapshots();
    process.kill(pid, "SIGTERM");
    const { code, signal } = await backup;
    assert.ok(code === 143 || signal === "SIGTERM", `${code} ${signal}`);
    const [failed] = await ids(scene);
    assert.equal(failed?.status, "FAILED");
    const info = await scene.info(failed?.id ?? "");
    for (const name of names) assert.ok(info.includes(name), info);
    cloud.fake.hooks.clear();
    const deleted = await scene.run("backup-delete", ["-b", failed?.id ?? ""]);
    assert.equal(deleted.code, 0, deleted.stderr);
    assert.match(deleted.stderr, /was not there any more/);
    assert.deepEqual(cloud.snapshots(), []);
  },
});

Deno.test({
  name: "snapshots: the script that users verify their cloud with (AWS)",
  ignore: !haveS3,
  async fn() {
    await using cloud = await newAws();
    await using scene = await newScene(cloud);
    const { host, server } = scene;
    const script = host.newPath("verify.sh");
    await copyFile(new URL("../../scripts/verify_snapshots.sh", import.meta.url), script);
    // A backup takes some seconds, so that it can be stopped.
    cloud.fake.looksUntilComplete = 4;
    await scene.run("backup-list");
    const verify = (...words: string[]) =>
      runProgram("/bin/sh", [
        ...[script, ...words, cloud.store.url, ...cloud.store.options, ...cloud.backupOptions],
        ...["-d", server.conninfo(), "--snapshot-instance", "db1", "--snapshot-disk", "pgdata"],
      ], {
        env: { ...cloud.store.env, PATH: scene.path, BARMAN_CLOUD: host.executable },
        cwd: host.directory,
        timeout: 120_000,
        ...serverUser(),
      });
    const well = await verify();
    assert.equal(well.code, 0, well.stdout + well.stderr);
    assert.doesNotMatch(well.stdout, /FAILED|skipped/);
    assert.match(well.stdout, /ok +a backup was taken/);
    assert.match(well.stdout, /ok +backup-show tells of its snapshots\n.*provider/);
    assert.match(well.stdout, /ok +restore looks at the disks of db1/);
    assert.match(well.stdout, /ok +a backup that was stopped deleted its snapshots/);
    assert.equal(well.stdout.match(/ok +backup \w+ was deleted/g)?.length, 2);
    assert.match(well.stdout, /All is well\n$/);
    assert.deepEqual(cloud.snapshots(), []);
    // The fake's disk never comes to this machine: that it notices.
    const ill = await verify("--create-volumes");
    assert.equal(ill.code, 1, ill.stdout);
    assert.deepEqual(ill.stdout.match(/FAILED .*/g), ["FAILED  /dev/sdi is no block device"]);
    assert.match(ill.stdout, /Attached volume vol-\w+ to i-\w+ as \/dev\/sdi/);
    assert.match(ill.stdout, /ok +restore finds these disks, and that they are not mounted/);
    assert.equal((await verify("x")).code, 1);
    assert.equal((await runProgram("/bin/sh", [script], { cwd: host.directory })).code, 3);
  },
});

async function until(done: () => boolean): Promise<void> {
  const deadline = performance.now() + 60_000;
  while (!done()) {
    if (performance.now() > deadline) throw new Error("It did not happen within a minute");
    await sleep(20);
  }
}
