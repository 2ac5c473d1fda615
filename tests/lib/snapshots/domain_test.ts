/** Plans, backups, restores and deletions of snapshots: our fake EC2, a machine in a directory, a store in another. */
import assert from "node:assert/strict";
import { mkdtemp, readFile, rm, stat } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import type { BackupServer } from "../../../lib/backup/backup.ts";
import { parseBackupInfo } from "../../../lib/backup/backup_info.ts";
import type { SnapshotsInfo } from "../../../lib/backup/snapshots_info.ts";
import type { WalChecks } from "../../../lib/backup/wal_of_backup.ts";
import { parseTimestamp } from "../../../lib/backup/timestamp.ts";
import type { Logger } from "../../../lib/cli/log.ts";
import { takeSnapshotBackup } from "../../../lib/snapshots/backup.ts";
import { notCovered, planSnapshots, snapshotNames } from "../../../lib/snapshots/plan.ts";
import { deleteSnapshots } from "../../../lib/snapshots/remove.ts";
import {
  createVolumes,
  mountCommands,
  restoreFromSnapshots,
} from "../../../lib/snapshots/restore.ts";
import type { ObjectStore } from "../../../providers/object_store.ts";
import { openSnapshotProvider } from "../../../providers/snapshots/open.ts";
import {
  SnapshotError,
  type SnapshotErrorKind,
  type SnapshotProvider,
} from "../../../providers/snapshots/provider.ts";
import { type Ec2Fake, startEc2Fake } from "../../../scripts/servers/ec2_fake.ts";
import { PAUSES } from "../../providers/snapshots/recorder.ts";
import { type TemporaryStore, temporaryStore } from "../backup/temporary_store.ts";
import { type Machine, newMachine } from "./machine.ts";

interface Scene {
  readonly fake: Ec2Fake;
  readonly provider: SnapshotProvider;
  readonly machine: Machine;
  readonly store: TemporaryStore;
  readonly log: Logger;
  /** `WARNING …` and the like. */
  readonly lines: string[];
}

const { signal } = new AbortController();

/** The instance db1 with pgdata on /dev/sdf and tbs on /dev/sdg, mounted on /srv/pg and "/srv/t b s". */
async function withScene(body: (scene: Scene) => Promise<void>): Promise<void> {
  await using fake = await startEc2Fake();
  const db1 = fake.addInstance({ name: "db1" });
  fake.addVolume(db1, { device: "/dev/sdf", tags: new Map([["Name", "pgdata"]]) });
  fake.addVolume(db1, { device: "/dev/sdg", tags: new Map([["Name", "tbs"]]) });
  await using machine = await newMachine([
    { device: "/dev/xvda1", mountPoint: "/" },
    { device: "/dev/sdf", mountPoint: "/srv/pg", options: "rw,noatime" },
    { device: "/dev/sdg", mountPoint: "/srv/t b s" },
  ]);
  await using store = await temporaryStore();
  const lines: string[] = [];
  const at = (level: string) => (message: string) => void lines.push(`${level} ${message}`);
  const provider = await openSnapshotProvider("aws", {
    env: {
      HOME: "/nowhere",
      AWS_ACCESS_KEY_ID: "test",
      AWS_SECRET_ACCESS_KEY: "test",
      AWS_ENDPOINT_URL_EC2: fake.endpoint,
    },
    pauses: PAUSES,
    aws: { profile: undefined, region: fake.region },
  });
  const log: Logger = {
    debug: at("DEBUG"),
    info: at("INFO"),
    warning: at("WARNING"),
    error: at("ERROR"),
    critical: at("CRITICAL"),
    shows: () => true,
  };
  try {
    await body({ fake, provider, machine, store, log, lines });
  } finally {
    provider.close();
  }
}

Deno.test("disks are chosen by id before name; what is ambiguous, double, absent or not mounted is refused", () =>
  withScene(async ({ fake, provider, machine }) => {
    const plan = (...disks: string[]) =>
      planSnapshots(provider, machine.host, { instance: "db1", disks }, signal);
    const [pgdata, tbs] = [...fake.volumes.values()].slice(1);
    assert.ok(pgdata !== undefined && tbs !== undefined);
    const { disks } = await plan("tbs", pgdata.id, "tbs");
    assert.deepEqual(
      disks.map(({ argument, disk, mount }) => [argument, disk.id, mount.mountPoint]),
      [
        ["tbs", tbs.id, "/srv/t b s"],
        [pgdata.id, pgdata.id, "/srv/pg"],
      ],
    );
    await assert.rejects(plan("pgdata", pgdata.id), /pgdata and vol-\w+ are the same disk/);
    await assert.rejects(plan("data", "pgdata", "root"), {
      kind: "refused",
      message: new RegExp(
        `: data, root; attached are ${pgdata.id} \\(pgdata\\), ${tbs.id} \\(tbs\\)`,
      ),
    });
    tbs.tags.set("Name", "pgdata");
    await assert.rejects(plan("pgdata"), /2 disks are named pgdata: vol-\w+, vol-\w+; give the id/);
    machine.mounts = [];
    await assert.rejects(plan(pgdata.id, tbs.id), /Not mounted on this machine: vol-\w+, vol-/);
  }));

Deno.test("names of snapshots: as Barman's, cut where a cloud takes less, never the same", () => {
  const id = "20260115T103000";
  assert.deepEqual(snapshotNames(["data-vol", "vol-1"], id, 255), [
    "data-vol-20260115t103000",
    "vol-1-20260115t103000",
  ]);
  const long = "a".repeat(60);
  const names = snapshotNames([`${long}1`, `${long}2`, `${long}3`], id, 63);
  assert.equal(new Set(names).size, 3);
  for (const name of names) {
    assert.equal(name.length, 63);
    assert.match(name, /^a+(-\d)?-20260115t103000$/);
  }
});

Deno.test("directories that are on none of the disks", () =>
  withScene(async ({ provider, machine }) => {
    const { disks } = await planSnapshots(
      provider,
      machine.host,
      { instance: "db1", disks: ["pgdata"] },
      signal,
    );
    assert.deepEqual(
      await notCovered(machine.host, disks, ["/srv/pg/17/main", "/srv/t b s", "/var/wal"], signal),
      [
        { directory: "/srv/t b s", mountPoint: "/srv/t b s" },
        { directory: "/var/wal", mountPoint: "/" },
      ],
    );
  }));

function timestamp(text: string) {
  const parsed = parseTimestamp(text);
  assert.ok(parsed !== null);
  return parsed;
}

/** A server that starts and stops backups; `changes` break it. */
function serverWith(changes: Partial<BackupServer> = {}): BackupServer {
  const time = timestamp("2026-01-15 10:30:01+00:00");
  const at = { lsn: 0x3000028n, timeline: 1, time };
  return {
    version: 170_002,
    inRecovery: false,
    claim: () => Promise.resolve(true),
    systemIdentifier: () => Promise.resolve("7321456789012345678"),
    missingPrivileges: () => Promise.resolve([]),
    facts: () =>
      Promise.resolve({
        dataDirectory: "/srv/pg/17/main",
        segmentSize: 16 * 1024 ** 2,
        configFile: "/etc/postgresql.conf",
        hbaFile: null,
        identFile: null,
        includedFiles: null,
        tablespaces: [{ name: "fast", oid: 16387, location: "/srv/t b s" }],
        dataChecksums: "on",
        blockSize: 8192,
        segmentBlocks: 131072,
        archiveMode: "on",
        summarizeWal: "off",
        clusterSize: 1,
      }),
    start: () => Promise.resolve(at),
    stop: () => Promise.resolve({ ...at, lsn: 0x3000138n, label: "START WAL LOCATION\n" }),
    switchWal: () => Promise.resolve(),
    createRestorePoint: () => Promise.resolve(),
    ...changes,
  };
}

function take(
  { provider, machine, store, log }: Scene,
  { server = serverWith(), disks = ["pgdata", "tbs"], store: other = store.store, wal = "off" }: {
    readonly wal?: WalChecks["wal"];
    readonly server?: BackupServer;
    readonly disks?: readonly string[];
    readonly store?: ObjectStore;
  } = {},
): Promise<string> {
  return takeSnapshotBackup(server, {
    store: other,
    layout: store.layout,
    provider,
    host: machine.host,
    instance: "db1",
    disks,
    limit: { ms: 20_000, option: "--limit" },
    name: undefined,
    tags: undefined,
    immediateCheckpoint: true,
    archiveTimeout: undefined,
    checks: { wal, walTimeout: 0 },
    signal,
    now: () => new Date(2026, 0, 15, 10, 30, clock++),
    onStarted: () => {},
    onProgress: () => {},
    onNotice: log.info,
    onWarning: log.warning,
  });
}

/** Ids are times: each backup has another. */
let clock = 0;

/** Of the newest backup. */
async function infoOf({ store }: Scene) {
  const keys = (await store.keys()).filter((key) => key.endsWith("/backup.info"));
  return parseBackupInfo(await store.read(keys.at(-1) ?? ""));
}

Deno.test("a backup warns of a tablespace that is on none of its disks", () =>
  withScene(async (scene) => {
    await take(scene, { disks: ["pgdata"] });
    assert.match(
      scene.lines.join("\n"),
      /WARNING \/srv\/t b s lies on \/srv\/t b s, which is on none/,
    );
  }));

Deno.test("WAL of the backup that is not in the archive: a warning, or a failure that leaves no snapshots", () =>
  withScene(async (scene) => {
    await take(scene, { wal: "warn" });
    assert.match(scene.lines.join("\n"), /WARNING The backup needs WAL .*000000010000000000000003/);
    scene.fake.snapshots.clear();
    await assert.rejects(take(scene, { wal: "fail" }), /needs WAL that is not in/);
    assert.equal(scene.fake.snapshots.size, 0);
    await scene.store.addWal("000000010000000000000003.gz");
    await take(scene, { wal: "fail" });
    assert.equal((await infoOf(scene)).status, "DONE");
  }));

Deno.test("failures after the snapshots, at each step: none is left and none is recorded", () =>
  withScene(async (scene) => {
    const boom = (what: string) => () => Promise.reject(new Error(`${what} failed`));
    const breaking = (key: string): ObjectStore => ({
      ...scene.store.store,
      put: (at, bytes, options) =>
        at.endsWith(key)
          ? Promise.reject(new Error("the store is full"))
          : scene.store.store.put(at, bytes, options),
    });
    await assert.rejects(
      take(scene, { server: serverWith({ stop: boom("stop") }) }),
      /stop failed/,
    );
    let info = await infoOf(scene);
    assert.deepEqual([info.status, info.error, info.snapshotsInfo], [
      "FAILED",
      "failure uploading data (stop failed)",
      null,
    ]);
    assert.equal(scene.fake.snapshots.size, 0);
    await assert.rejects(take(scene, { store: breaking("backup_label") }), /the store is full/);
    assert.equal(scene.fake.snapshots.size, 0);
    // A switch of WAL is no reason to fail.
    await take(scene, { server: serverWith({ switchWal: boom("switch") }) });
    assert.equal(scene.fake.snapshots.size, 2);
    assert.match(scene.lines.join("\n"), /WARNING Cannot switch WAL.*switch failed/);
    info = await infoOf(scene);
    assert.equal(info.status, "DONE");
  }));

Deno.test("backup.info that can't be stored: the snapshots stay when it may say DONE, and are named", () =>
  withScene(async (scene) => {
    const { store } = scene.store;
    const full: ObjectStore = {
      ...store,
      put: (at, bytes, options) =>
        at.endsWith("backup.info")
          ? Promise.reject(new Error("the store is gone"))
          : store.put(at, bytes, options),
    };
    await assert.rejects(take(scene, { store: full }), /the store is gone/);
    assert.equal(scene.fake.snapshots.size, 2);
    assert.match(
      scene.lines.join("\n"),
      /WARNING The snapshots of backup \w+ were left: snap-\w+, snap-/,
    );
    // Before that there can be no DONE: they are deleted.
    scene.fake.snapshots.clear();
    const broken = serverWith({ stop: () => Promise.reject(new Error("stop failed")) });
    await assert.rejects(take(scene, { store: full, server: broken }), /stop failed/);
    assert.equal(scene.fake.snapshots.size, 0);
  }));

Deno.test("a snapshot that can't be deleted is recorded alone", () =>
  withScene(async (scene) => {
    const { fake } = scene;
    const stop = () => {
      fake.mishaps.set("DeleteSnapshot", [{ status: 403, code: "UnauthorizedOperation" }]);
      return Promise.reject(new Error("stop failed"));
    };
    await assert.rejects(take(scene, { server: serverWith({ stop }) }), /stop failed/);
    const [left, ...others] = [...fake.snapshots.keys()];
    assert.deepEqual(others, []);
    const { snapshotsInfo } = await infoOf(scene);
    assert.deepEqual(
      snapshotsInfo?.snapshots.map(({ identifiers }) => identifiers.get("snapshot_id")),
      [left],
    );
    assert.equal(snapshotsInfo?.providerInfo.get("account_id"), fake.account);
    assert.match(
      scene.lines.join("\n"),
      /could not be deleted: snap-\w+ .*backup\.info names them/,
    );
    if (snapshotsInfo === null) return;
    await deleteSnapshots(scene.provider, snapshotsInfo, {
      signal,
      onNotice: scene.log.info,
      onWarning: scene.log.warning,
    });
    assert.equal(fake.snapshots.size, 0);
  }));

async function snapshotsOf(scene: Scene): Promise<{ id: string; snapshots: SnapshotsInfo }> {
  const id = await take(scene);
  const { snapshotsInfo } = await infoOf(scene);
  assert.ok(snapshotsInfo !== null);
  return { id, snapshots: snapshotsInfo };
}

Deno.test("restore: any copy of a disk that is mounted where it was will do; the label is whole and private", () =>
  withScene(async (scene) => {
    const { fake, machine, provider, store, log, lines } = scene;
    const { id: backupId, snapshots } = await snapshotsOf(scene);
    const directory = await mkdtemp(join(tmpdir(), "recovery-"));
    try {
      const db2 = fake.addInstance({ name: "db2" });
      const [first = "", second = ""] = [...fake.snapshots.keys()];
      // Of the first snapshot two volumes, of which the first is not mounted.
      fake.addVolume(db2, { device: "/dev/sdj", snapshot: first });
      fake.addVolume(db2, { device: "/dev/sdk", snapshot: first });
      fake.addVolume(db2, { device: "/dev/sdl", snapshot: second });
      const job = {
        store: store.store,
        layout: store.layout,
        backupId,
        snapshots,
        provider,
        host: machine.host,
        instance: "db2",
        recoveryDir: directory,
        log,
        signal,
      };
      machine.mounts = [
        { device: "/dev/sdk", mountPoint: "/srv/pg", options: "rw,noatime" },
        { device: "/dev/sdl", mountPoint: "/srv/t b s", options: "ro" },
        { device: "/dev/sdl", mountPoint: "/srv/t b s" },
        { device: "/dev/sdl", mountPoint: "/elsewhere" },
      ];
      await restoreFromSnapshots(job);
      const label = join(directory, "backup_label");
      assert.equal(await readFile(label, "utf8"), "START WAL LOCATION\n");
      assert.equal((await stat(label)).mode & 0o777, 0o600);
      await restoreFromSnapshots(job);
      await assert.rejects(
        restoreFromSnapshots({ ...job, recoveryDir: label }),
        /backup_label is not a directory/,
      );
      await assert.rejects(
        restoreFromSnapshots({ ...job, backupId: "20260101T000000" }),
        /backup_label.*the backup is not whole/,
      );
      // An old file that does not tell the mount point.
      machine.mounts = machine.mounts.slice(1);
      await assert.rejects(restoreFromSnapshots(job), { kind: "invalid" });
      const untold = snapshots.snapshots.map((record) => ({ ...record, mountPoint: null }));
      await restoreFromSnapshots({ ...job, snapshots: { ...snapshots, snapshots: untold } });
      assert.match(lines.join("\n"), /does not tell where .* was mounted: not checked/);
      const nameless = snapshots.snapshots.map((record) => ({ ...record, identifiers: new Map() }));
      await assert.rejects(
        restoreFromSnapshots({ ...job, snapshots: { ...snapshots, snapshots: nameless } }),
        /does not tell the id of one of the snapshots/,
      );
      await assert.rejects(
        deleteSnapshots(provider, { ...snapshots, snapshots: nameless }, {
          signal,
          onNotice: log.info,
          onWarning: log.warning,
        }),
        /does not tell the id/,
      );
    } finally {
      await rm(directory, { recursive: true });
    }
  }));

Deno.test("a deletion that was refused has not begun", () =>
  withScene(async (scene) => {
    const { snapshots } = await snapshotsOf(scene);
    const kinds: Record<SnapshotErrorKind, boolean> = {
      denied: false,
      invalid: false,
      locked: false,
      "not-found": false,
      failed: true,
      unreachable: true,
    };
    for (const [kind, mayHaveBegun] of Object.entries(kinds)) {
      let begun = false;
      const provider: SnapshotProvider = {
        ...scene.provider,
        delete: () => Promise.reject(new SnapshotError(kind as SnapshotErrorKind, "no")),
      };
      await assert.rejects(
        deleteSnapshots(provider, snapshots, {
          signal,
          onBegun: () => begun = true,
          onNotice: scene.log.info,
          onWarning: scene.log.warning,
        }),
        /^SnapshotError: no$/,
      );
      assert.equal(begun, mayHaveBegun, kind);
    }
  }));

Deno.test("new volumes: what the kernel shows is mounted; outer directories first, words quoted", () =>
  withScene(async (scene) => {
    const { fake, machine, provider, log, lines } = scene;
    const { id, snapshots } = await snapshotsOf(scene);
    fake.addInstance({ name: "db2" });
    await machine.link("sdf", "xvdf");
    await machine.link("sdg", "xvdg");
    const created = await createVolumes(
      { snapshots, provider, host: machine.host, instance: "db2", log, signal },
      "r0115103000",
    );
    assert.deepEqual(
      created.map(({ disk, device, mountPoint }) => [disk.name, device, mountPoint]),
      [
        [`pgdata-${id.toLowerCase()}-r0115103000`, "/dev/sdf", "/srv/pg"],
        [`tbs-${id.toLowerCase()}-r0115103000`, "/dev/sdg", "/srv/t b s"],
      ],
    );
    assert.doesNotMatch(lines.join("\n"), /WARNING/);

    // Names that a cloud takes no longer are cut; those that begin alike stay apart, and are the same each time.
    const records = snapshots.snapshots.map((record, i) => {
      const name = `${"a".repeat(60)}${i}`;
      return { ...record, identifiers: new Map([...record.identifiers, ["snapshot_name", name]]) };
    });
    const named = async (instance: string) => {
      fake.addInstance({ name: instance });
      const made = await createVolumes(
        {
          snapshots: { ...snapshots, snapshots: records },
          provider: { ...provider, maxNameLength: 63 },
          host: machine.host,
          instance,
          log,
          signal,
        },
        "r0115103000",
      );
      return made.map(({ disk }) => disk.name ?? "");
    };
    const names = await named("db3");
    assert.equal(new Set(names).size, 2);
    for (const name of names) assert.match(name, /^a{42}-[0-9a-f]{8}-r0115103000$/);
    assert.deepEqual(await named("db4"), names);
    const [one, two] = created;
    assert.ok(one !== undefined && two !== undefined);
    assert.deepEqual(
      mountCommands([
        { ...one, mountPoint: "/srv/pg/it's", mountOptions: null },
        { ...two, mountPoint: "/srv" },
        { ...two, mountPoint: null },
      ]),
      [
        `# /dev/sdg is made from ${two.snapshot}, whose mount point is not known`,
        "mkdir -p /srv",
        "mount -o rw,relatime /dev/sdg /srv",
        "mkdir -p '/srv/pg/it'\\''s'",
        "mount /dev/sdf '/srv/pg/it'\\''s'",
      ],
    );
  }));
