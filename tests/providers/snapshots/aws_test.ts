/** EBS snapshots through the real SDK: on our fake, which has everything, and what moto has on moto too. */
import assert from "node:assert/strict";
import {
  AttachVolumeCommand,
  CreateVolumeCommand,
  DescribeSnapshotsCommand,
  DescribeVolumesCommand,
  EC2Client,
  RunInstancesCommand,
} from "@aws-sdk/client-ec2";
import { openSnapshotProvider } from "../../../providers/snapshots/open.ts";
import type { SnapshotLock } from "../../../providers/snapshots/aws/take.ts";
import type { AttachedDisk, SnapshotProvider } from "../../../providers/snapshots/provider.ts";
import {
  type Ec2Fake,
  type FakeInstance,
  startEc2Fake,
} from "../../../scripts/servers/ec2_fake.ts";
import { ensureMoto, startMoto } from "../../../scripts/servers/moto.ts";
import { skipUnless } from "../../skips.ts";
import { PAUSES, recorder } from "./recorder.ts";

const KEYS = { AWS_ACCESS_KEY_ID: "test", AWS_SECRET_ACCESS_KEY: "test", HOME: "/nowhere" };
const never = { signal: undefined };

interface Opened extends Disposable {
  readonly provider: SnapshotProvider;
  readonly retries: string[];
}

async function open(
  { endpoint }: { readonly endpoint: string },
  { lock, region = "eu-west-1", env = {} }: {
    readonly lock?: SnapshotLock;
    readonly region?: string | undefined;
    readonly env?: Readonly<Record<string, string>>;
  } = {},
): Promise<Opened> {
  const retries: string[] = [];
  const provider = await openSnapshotProvider("aws", {
    env: { ...KEYS, AWS_ENDPOINT_URL_EC2: endpoint, ...env },
    pauses: PAUSES,
    onNotice: (message) => retries.push(message),
    aws: { profile: undefined, region, lock },
  });
  return { provider, retries, [Symbol.dispose]: () => provider.close() };
}

/** An instance with the volumes data (/dev/sdf), wal (/dev/sdg) and one more that is not backed up. */
function database(fake: Ec2Fake): FakeInstance {
  const instance = fake.addInstance({ name: "db1" });
  fake.addVolume(instance, { id: "vol-0aaaaaaaaaaaaaaa1", device: "/dev/sdf", size: 100 });
  fake.addVolume(instance, {
    id: "vol-0aaaaaaaaaaaaaaa2",
    device: "/dev/sdg",
    tags: new Map([["Name", "wal"]]),
  });
  fake.addVolume(instance, { id: "vol-0aaaaaaaaaaaaaaa3", device: "/dev/sdh" });
  return instance;
}

function requestsFor(disks: readonly AttachedDisk[], ...ids: string[]) {
  return ids.map((end) => {
    const disk = disks.find(({ id }) => id.endsWith(end));
    assert.ok(disk !== undefined, `No disk ${end}`);
    return { disk, name: `${disk.name ?? disk.id}-20260115t103000` };
  });
}

/** Snapshots of `database`'s data and wal, and what asks for disks of them. */
async function snapshotsOfDb1({ provider }: Opened) {
  const instance = await provider.findInstance("db1", never);
  const told = recorder();
  await instance.takeSnapshots(requestsFor(instance.disks, "1", "2"), told.options);
  const snapshots = [...told.created.values()];
  const requests = snapshots.map((snapshot, i) => ({ snapshot, name: `new-${i}` }));
  return { instance, told, requests };
}

function actions(fake: Ec2Fake): string[] {
  return fake.calls.map(({ action }) => action);
}

async function rejects(promise: Promise<unknown>, kind: string, message: RegExp): Promise<void> {
  await assert.rejects(promise, (error: Error & { kind?: string }) => {
    assert.equal(error.name, "SnapshotError");
    assert.equal(error.kind, kind, error.message);
    assert.match(error.message, message);
    return true;
  });
}

Deno.test("an instance is found by id and by name, with its volumes but the root one", async () => {
  await using fake = await startEc2Fake();
  const { id } = database(fake);
  fake.addInstance({ name: "db1", state: "terminated" });
  using opened = await open(fake);
  for (const argument of [id, "db1"]) {
    const instance = await opened.provider.findInstance(argument, never);
    assert.equal(instance.id, id);
    assert.deepEqual(
      instance.disks.map(({ id, name, size, location, sourceSnapshot }) => [
        id,
        name,
        size,
        location,
        sourceSnapshot,
      ]),
      [
        ["vol-0aaaaaaaaaaaaaaa1", null, 100 * 1024 ** 3, "/dev/sdf"],
        ["vol-0aaaaaaaaaaaaaaa2", "wal", 8 * 1024 ** 3, "/dev/sdg"],
        ["vol-0aaaaaaaaaaaaaaa3", null, 8 * 1024 ** 3, "/dev/sdh"],
      ].map(([volumeId, name, size, device]) => [
        volumeId,
        name,
        size,
        { kind: "ec2", device, volumeId },
        null,
      ]),
    );
  }
  await rejects(opened.provider.findInstance("nowhere", never), "not-found", /nowhere.*eu-west-1/);
  // Like an id, but none of EC2's: a name.
  await rejects(opened.provider.findInstance("i-am-a-name", never), "not-found", /i-am-a-name/);
  fake.addInstance({ name: "db1" });
  await rejects(opened.provider.findInstance("db1", never), "invalid", /2 instances.*give the id/);
});

Deno.test("an instance's name is taken as it is, though EC2's filters know wildcards", async () => {
  await using fake = await startEc2Fake();
  fake.addInstance({ name: "db1" });
  const names = ["db*", "db?", "db\\*"];
  const ids = names.map((name) => fake.addInstance({ name }).id);
  using opened = await open(fake);
  for (const [i, name] of names.entries()) {
    assert.equal((await opened.provider.findInstance(name, never)).id, ids[i]);
  }
  await rejects(opened.provider.findInstance("*1", never), "not-found", /\*1/);
});

Deno.test("instances and volumes on many pages are all seen", async () => {
  await using fake = await startEc2Fake();
  fake.pageSize = 2;
  for (let n = 0; n < 5; n++) fake.addInstance({ name: "other" });
  const instance = fake.addInstance({ name: "db1" });
  for (const letter of "fghijkl") fake.addVolume(instance, { device: `/dev/sd${letter}` });
  using opened = await open(fake);
  const { disks } = await opened.provider.findInstance("db1", never);
  assert.equal(disks.length, 7);
  assert.equal(actions(fake).filter((action) => action === "DescribeVolumes").length, 4);
  await rejects(opened.provider.findInstance("other", never), "invalid", /5 instances/);
});

Deno.test("several volumes: one call for all, each named and tagged, none but those asked for", async () => {
  await using fake = await startEc2Fake();
  database(fake);
  fake.looksUntilComplete = 3;
  using opened = await open(fake);
  const instance = await opened.provider.findInstance("db1", never);
  const told = recorder({ tags: [["team", "a&b"], ["Name", "mine"]] });
  await instance.takeSnapshots(requestsFor(instance.disks, "1", "2"), told.options);

  assert.equal(actions(fake).filter((action) => action === "CreateSnapshots").length, 1);
  assert.ok(!actions(fake).includes("CreateSnapshot"));
  const made = [...fake.snapshots.values()];
  assert.deepEqual(
    made.map(({ volume, description, tags }) => [volume, description, Object.fromEntries(tags)]),
    [["vol-0aaaaaaaaaaaaaaa1", "vol-0aaaaaaaaaaaaaaa1"], ["vol-0aaaaaaaaaaaaaaa2", "wal"]].map(
      ([volume, name]) => [volume, told.options.description, {
        team: "a&b",
        Name: `${name}-20260115t103000`,
      }],
    ),
  );
  assert.equal(new Set(made.map(({ started }) => started)).size, 1);
  assert.deepEqual(
    [...told.created.values()].map((map) => [...map]),
    made.map(({ id }, i) => [
      ["device_name", i === 0 ? "/dev/sdf" : "/dev/sdg"],
      ["snapshot_id", id],
      ["snapshot_name", i === 0 ? "vol-0aaaaaaaaaaaaaaa1-20260115t103000" : "wal-20260115t103000"],
      ["snapshot_lock_mode", null],
    ]),
  );
  assert.deepEqual([...opened.provider.info()], [["account_id", "123456789012"], [
    "region",
    "eu-west-1",
  ]]);
  assert.deepEqual(told.progress.map((line) => line.match(/(?<= )(\d+|null)/g)), [
    ["33", "33"],
    ["66", "66"],
    ["100", "100"],
  ]);
  assert.deepEqual(told.warnings, []);
});

Deno.test("one volume, and many that would have to be left out: a call for each", async () => {
  await using fake = await startEc2Fake();
  const db = database(fake);
  using opened = await open(fake);
  const instance = await opened.provider.findInstance("db1", never);
  await instance.takeSnapshots(requestsFor(instance.disks, "2"), recorder().options);
  assert.ok(!actions(fake).includes("CreateSnapshots"));
  assert.deepEqual(Object.fromEntries([...fake.snapshots.values()][0]?.tags ?? []), {
    Name: "wal-20260115t103000",
  });
  for (let n = 0; n < 41; n++) fake.addVolume(db, { device: `/dev/xvdb${n}` });
  const larger = await opened.provider.findInstance("db1", never);
  await larger.takeSnapshots(requestsFor(larger.disks, "a1", "a2"), recorder().options);
  assert.ok(!actions(fake).includes("CreateSnapshots"));
  assert.equal(fake.snapshots.size, 3);
});

Deno.test("credentials that may not use CreateSnapshots: one by one, and it is said", async () => {
  await using fake = await startEc2Fake();
  database(fake);
  fake.denied.add("CreateSnapshots");
  using opened = await open(fake);
  const instance = await opened.provider.findInstance("db1", never);
  const told = recorder();
  await instance.takeSnapshots(requestsFor(instance.disks, "1", "2"), told.options);
  assert.equal(fake.snapshots.size, 2);
  assert.match(told.notices.join(), /one point are not possible here.*CreateSnapshots/);
});

Deno.test("one of two that is refused: the other is told, though its answer was lost", async () => {
  await using fake = await startEc2Fake();
  database(fake);
  fake.denied.add("CreateSnapshots");
  fake.mishaps.set("CreateSnapshot", [{ status: 400, code: "SnapshotLimitExceeded" }, "lost"]);
  using opened = await open(fake);
  const instance = await opened.provider.findInstance("db1", never);
  const told = recorder();
  await rejects(
    instance.takeSnapshots(requestsFor(instance.disks, "1", "2"), told.options),
    "failed",
    /Cannot create a snapshot of volume vol-\w+ .*SnapshotLimitExceeded/,
  );
  assert.deepEqual(
    [...told.created.values()].map((identifiers) => identifiers.get("snapshot_id")),
    [...fake.snapshots.keys()],
  );
  assert.equal(told.created.size, 1);
});

Deno.test("without the right to tag afterwards, snapshots of one call have no name of their own", async () => {
  await using fake = await startEc2Fake();
  database(fake);
  fake.denied.add("CreateTags");
  using opened = await open(fake);
  const instance = await opened.provider.findInstance("db1", never);
  const told = recorder({ tags: [["a", "b"]] });
  await instance.takeSnapshots(requestsFor(instance.disks, "1", "2"), told.options);
  assert.equal(told.created.size, 2);
  assert.equal(told.warnings.length, 2);
  assert.match(told.warnings.join(), /Cannot name snapshot snap-.*UnauthorizedOperation/);
});

Deno.test("what was just made may not be known everywhere yet", async () => {
  await using fake = await startEc2Fake();
  database(fake);
  fake.youngFor = 2;
  using opened = await open(fake, { lock: { mode: "governance", duration: 1 } });
  const instance = await opened.provider.findInstance("db1", never);
  await instance.takeSnapshots(requestsFor(instance.disks, "1", "2"), recorder().options);
  assert.deepEqual([...fake.snapshots.values()].map(({ tags }) => tags.get("Name")), [
    "vol-0aaaaaaaaaaaaaaa1-20260115t103000",
    "wal-20260115t103000",
  ]);
});

Deno.test("a volume attached between the look and the snapshots: its snapshot is deleted", async () => {
  await using fake = await startEc2Fake();
  const db = database(fake);
  using opened = await open(fake);
  const instance = await opened.provider.findInstance("db1", never);
  fake.addVolume(db, { device: "/dev/sdz" });
  await instance.takeSnapshots(requestsFor(instance.disks, "1", "2"), recorder().options);
  assert.deepEqual([...fake.snapshots.values()].map(({ volume }) => volume), [
    "vol-0aaaaaaaaaaaaaaa1",
    "vol-0aaaaaaaaaaaaaaa2",
  ]);
});

Deno.test("a volume that was detached meanwhile: the snapshots of the others are told before it fails", async () => {
  await using fake = await startEc2Fake();
  database(fake);
  using opened = await open(fake);
  const instance = await opened.provider.findInstance("db1", never);
  const volume = fake.volumes.get("vol-0aaaaaaaaaaaaaaa2");
  assert.ok(volume !== undefined);
  volume.attachment = undefined;
  const told = recorder();
  await rejects(
    instance.takeSnapshots(requestsFor(instance.disks, "1", "2"), told.options),
    "failed",
    /no snapshot of vol-0aaaaaaaaaaaaaaa2.*detached/,
  );
  assert.deepEqual([...told.created.keys()], ["vol-0aaaaaaaaaaaaaaa1"]);
});

Deno.test("locks: every option arrives, and none that was not given", async () => {
  const cases: [SnapshotLock, Record<string, string | undefined>][] = [
    [{ mode: "governance", duration: 7 }, { mode: "governance", duration: "7" }],
    [{ mode: "compliance", duration: 36_500, coolOffPeriod: 72 }, {
      mode: "compliance",
      duration: "36500",
      coolOff: "72",
    }],
    [{ mode: "compliance", expirationDate: new Date("2031-02-03T04:05:06.700Z") }, {
      mode: "compliance",
      expires: "2031-02-03T04:05:06.700Z",
    }],
  ];
  for (const [lock, expected] of cases) {
    await using fake = await startEc2Fake();
    database(fake);
    using opened = await open(fake, { lock });
    const instance = await opened.provider.findInstance("db1", never);
    const told = recorder();
    await instance.takeSnapshots(requestsFor(instance.disks, "1", "2"), told.options);
    for (const snapshot of fake.snapshots.values()) {
      assert.deepEqual(snapshot.lock, {
        duration: undefined,
        coolOff: undefined,
        expires: undefined,
        ...expected,
      });
      // Before it is complete, as Barman does.
      const at = (action: string) => actions(fake).indexOf(action);
      assert.ok(at("LockSnapshot") < at("DescribeSnapshots"));
    }
    for (const identifiers of told.created.values()) {
      assert.equal(identifiers.get("snapshot_lock_mode"), lock.mode);
    }
    // All of them are looked at before one is deleted.
    const all = [...told.created.values()];
    await rejects(opened.provider.checkDeletable(all, never), "locked", /snap-.*, snap-/);
    await rejects(opened.provider.delete(all[0] ?? new Map(), never), "locked", /SnapshotLocked/);
    fake.denied.add("DescribeLockedSnapshots");
    await opened.provider.checkDeletable(all, never);
  }
});

Deno.test("a lock whose answer was lost holds, though EC2 refuses to set it again", async () => {
  const expirationDate = new Date("2031-02-03T04:05:06.700Z");
  for (const lock of [{ duration: 7 }, { expirationDate }]) {
    await using fake = await startEc2Fake();
    database(fake);
    fake.mishaps.set("LockSnapshot", ["lost"]);
    using opened = await open(fake, { lock: { mode: "compliance", ...lock } });
    const instance = await opened.provider.findInstance("db1", never);
    const take = async (told = recorder()) => {
      await instance.takeSnapshots(requestsFor(instance.disks, "1"), told.options);
    };
    const told = recorder();
    await take(told);
    assert.match(told.notices.join(), /Locked snapshot snap-\w+: compliance/);
    // Another lock than the one that was asked for is none; nor is one that nobody may look at.
    fake.mishaps.set("LockSnapshot", [{ status: 400, code: "InvalidParameterValue" }]);
    await rejects(take(), "failed", /Cannot lock snapshot .*InvalidParameterValue/);
    fake.mishaps.set("LockSnapshot", ["lost"]);
    fake.hooks.set("LockSnapshot", () => {
      for (const snapshot of fake.snapshots.values()) {
        if (snapshot.lock !== undefined) snapshot.lock = { ...snapshot.lock, ...LONGER };
      }
      return Promise.resolve();
    });
    await rejects(take(), "failed", /Cannot lock snapshot .*can only be made longer/);
    fake.hooks.clear();
    fake.mishaps.set("LockSnapshot", ["lost"]);
    fake.denied.add("DescribeLockedSnapshots");
    await rejects(take(), "failed", /Cannot lock snapshot .*can only be made longer/);
  }
});

const LONGER = { duration: "36000", expires: "2099-01-01T00:00:00.000Z" };

Deno.test("a lock that is refused: the snapshots were told", async () => {
  await using fake = await startEc2Fake();
  database(fake);
  fake.denied.add("LockSnapshot");
  using opened = await open(fake, { lock: { mode: "governance", duration: 1 } });
  const instance = await opened.provider.findInstance("db1", never);
  const told = recorder();
  await rejects(
    instance.takeSnapshots(requestsFor(instance.disks, "1", "2"), told.options),
    "denied",
    /Cannot lock snapshot snap-.*UnauthorizedOperation/,
  );
  assert.equal(told.created.size, 2);
});

Deno.test("a snapshot that fails, one that is deleted meanwhile, and one that takes too long", async () => {
  await using fake = await startEc2Fake();
  database(fake);
  using opened = await open(fake);
  const instance = await opened.provider.findInstance("db1", never);
  fake.broken.add("vol-0aaaaaaaaaaaaaaa2");
  await rejects(
    instance.takeSnapshots(requestsFor(instance.disks, "1", "2"), recorder().options),
    "failed",
    /Snapshot snap-\w+ of volume vol-0aaaaaaaaaaaaaaa2 failed: Client\.InternalError/,
  );
  fake.broken.clear();
  fake.looksUntilComplete = 1000;
  const late = recorder({ limit: { ms: 40, option: "--the-option" } });
  await rejects(
    instance.takeSnapshots(requestsFor(instance.disks, "1", "2"), late.options),
    "failed",
    /not complete within 0\.04 s \(--the-option\): snap-\w+, snap-/,
  );
  const watched = recorder();
  const options = {
    ...watched.options,
    onProgress: () => fake.snapshots.clear(),
  };
  fake.calls.length = 0;
  await rejects(
    instance.takeSnapshots(requestsFor(instance.disks, "1", "2"), options),
    "failed",
    /was deleted meanwhile/,
  );
  assert.equal(actions(fake).filter((action) => action === "DescribeSnapshots").length, 4);
});

Deno.test("a snapshot that some of EC2's answers leave out is not gone", async () => {
  await using fake = await startEc2Fake();
  database(fake);
  fake.looksUntilComplete = 5;
  using opened = await open(fake);
  const instance = await opened.provider.findInstance("db1", never);
  const hidden: (typeof fake.snapshots)[] = [];
  let looks = 0;
  const options = {
    ...recorder().options,
    onProgress() {
      looks++;
      // Of the looks after the first and the fourth, two each.
      if (looks === 1 || looks === 4) {
        hidden.push(new Map(fake.snapshots));
        fake.snapshots.clear();
      }
      if (looks === 3 || looks === 6) {
        for (const [id, snapshot] of hidden.pop() ?? []) fake.snapshots.set(id, snapshot);
      }
    },
  };
  await instance.takeSnapshots(requestsFor(instance.disks, "1", "2"), options);
  assert.equal(looks, 5 + 4);
});

Deno.test("the signal: no snapshot is lost sight of", async () => {
  await using fake = await startEc2Fake();
  database(fake);
  fake.looksUntilComplete = 1000;
  using opened = await open(fake);
  const instance = await opened.provider.findInstance("db1", never);
  const controller = new AbortController();
  const told = recorder({
    signal: controller.signal,
    // Comes while the call that makes them is under way for one, and answered for the other.
    onCreated: () => controller.abort(new Error("stopped by the test")),
  });
  await assert.rejects(
    instance.takeSnapshots(requestsFor(instance.disks, "1", "2"), told.options),
    /stopped by the test/,
  );
  assert.equal(told.created.size, fake.snapshots.size);
  assert.equal(fake.snapshots.size, 2);
  const before = fake.calls.length;
  await assert.rejects(
    instance.takeSnapshots(requestsFor(instance.disks, "1", "2"), told.options),
    /stopped by the test/,
  );
  assert.equal(fake.calls.length, before);
});

Deno.test("an answer that is lost: the snapshots are found by their description, none is made twice", async () => {
  await using fake = await startEc2Fake();
  database(fake);
  fake.mishaps.set("CreateSnapshots", ["lost"]);
  fake.mishaps.set("CreateSnapshot", ["lost"]);
  using opened = await open(fake);
  const instance = await opened.provider.findInstance("db1", never);
  for (const volumes of [["1", "2"], ["1"]]) {
    fake.snapshots.clear();
    const told = recorder();
    await rejects(
      instance.takeSnapshots(requestsFor(instance.disks, ...volumes), told.options),
      "unreachable",
      /Cannot create .*connection was cut/,
    );
    assert.equal(fake.snapshots.size, volumes.length);
    assert.equal(told.created.size, volumes.length);
  }
});

Deno.test("an answer that is lost: a description that looks like a pattern finds no other backup's", async () => {
  await using fake = await startEc2Fake();
  database(fake);
  using opened = await open(fake);
  const instance = await opened.provider.findInstance("db1", never);
  await instance.takeSnapshots(requestsFor(instance.disks, "1"), recorder().options);
  const [other] = fake.snapshots.keys();
  fake.mishaps.set("CreateSnapshot", ["lost"]);
  const ids: unknown[] = [];
  const told = recorder({
    description: "Barman backup m* 20260115T103000",
    onCreated: (_, identifiers) => ids.push(identifiers.get("snapshot_id")),
  });
  await rejects(
    instance.takeSnapshots(requestsFor(instance.disks, "1"), told.options),
    "unreachable",
    /connection was cut/,
  );
  assert.deepEqual(ids, [...fake.snapshots.keys()].filter((id) => id !== other));
});

Deno.test("throttling is waited for; denied, and busy servers where it may have been done, are not", async () => {
  await using fake = await startEc2Fake();
  database(fake);
  using opened = await open(fake);
  const instance = await opened.provider.findInstance("db1", never);
  fake.mishaps.set("CreateSnapshot", [
    { status: 503, code: "RequestLimitExceeded" },
    { status: 400, code: "SnapshotCreationPerVolumeRateExceeded" },
  ]);
  fake.mishaps.set("DescribeSnapshots", [{ status: 500, code: "InternalError" }, "lost"]);
  await instance.takeSnapshots(requestsFor(instance.disks, "1"), recorder().options);
  assert.equal(fake.snapshots.size, 1);
  assert.equal(opened.retries.length, 4);
  fake.mishaps.set("CreateSnapshot", [{ status: 503, code: "Unavailable" }]);
  await rejects(
    instance.takeSnapshots(requestsFor(instance.disks, "1"), recorder().options),
    "unreachable",
    /Unavailable/,
  );
  fake.denied.add("DescribeInstances");
  await rejects(opened.provider.findInstance("db1", never), "denied", /UnauthorizedOperation.*may/);
});

Deno.test("deleting: what is not there is fine, what is in use is not", async () => {
  await using fake = await startEc2Fake();
  database(fake);
  using opened = await open(fake);
  const instance = await opened.provider.findInstance("db1", never);
  const told = recorder();
  await instance.takeSnapshots(requestsFor(instance.disks, "1"), told.options);
  const [snapshot = new Map()] = told.created.values();
  fake.mishaps.set("DeleteSnapshot", [{ status: 400, code: "InvalidSnapshot.InUse" }]);
  await rejects(opened.provider.delete(snapshot, never), "failed", /InvalidSnapshot\.InUse/);
  const refusals = [
    ["failed", "OperationNotPermitted", "Its block storage is busy"],
    ["locked", "OperationNotPermitted", "The snapshot is locked until 2031-01-01"],
    ["locked", "SnapshotInLockedState", "It can't be deleted"],
    ["denied", "UnauthorizedOperation", "You may not delete what is locked"],
  ] as const;
  for (const [kind, code, message] of refusals) {
    fake.mishaps.set("DeleteSnapshot", [{ status: 400, code, message }]);
    await rejects(opened.provider.delete(snapshot, never), kind, new RegExp(`${code}: ${message}`));
  }
  // The answer is lost: the second attempt finds it gone.
  fake.mishaps.set("DeleteSnapshot", ["lost"]);
  assert.equal(await opened.provider.delete(snapshot, never), false);
  assert.equal(fake.snapshots.size, 0);
});

Deno.test("volumes from snapshots: named, in the zone, attached where they were or at free names", async () => {
  await using fake = await startEc2Fake();
  database(fake);
  using opened = await open(fake);
  const { told, requests } = await snapshotsOfDb1(opened);
  const target = fake.addInstance({ name: "db2", zone: "eu-west-1b" });
  fake.addVolume(target, { device: "/dev/sdf" });
  fake.youngFor = 2;
  fake.mishaps.set("CreateVolume", ["lost"]);
  const instance = await opened.provider.findInstance("db2", never);
  const disks = await instance.createDisks(requests, told.options);
  const made = [...fake.volumes.values()].filter(({ snapshot }) => snapshot !== "");
  assert.equal(made.length, 2);
  assert.deepEqual(
    disks.map(({ name, sourceSnapshot, location }) => [
      name,
      sourceSnapshot,
      location.kind === "ec2" ? location.device : "",
    ]),
    [
      // /dev/sdf is in use.
      ["new-0", told.created.get("vol-0aaaaaaaaaaaaaaa1")?.get("snapshot_id"), "/dev/sdh"],
      ["new-1", told.created.get("vol-0aaaaaaaaaaaaaaa2")?.get("snapshot_id"), "/dev/sdg"],
    ],
  );
  assert.deepEqual(made.map(({ zone }) => zone), ["eu-west-1b", "eu-west-1b"]);
});

Deno.test("volumes: a device that is in use under another spelling of its name is not free", async () => {
  await using fake = await startEc2Fake();
  database(fake);
  using opened = await open(fake);
  const { told, requests } = await snapshotsOfDb1(opened);
  const target = fake.addInstance({ name: "db2" });
  for (const device of ["/dev/xvdf", "/dev/sdh", "xvdi"]) fake.addVolume(target, { device });
  const instance = await opened.provider.findInstance("db2", never);
  const devices = ["/dev/sdf", "/dev/xvdg"];
  const placed = requests.map(({ snapshot, name }, i) => ({
    snapshot: new Map([...snapshot, ["device_name", devices[i] ?? null]]),
    name,
  }));
  const disks = await instance.createDisks(placed, told.options);
  assert.deepEqual(
    disks.map(({ location }) => location.kind === "ec2" ? location.device : ""),
    ["/dev/sdj", "/dev/xvdg"],
  );
});

Deno.test("volumes: what fails leaves nothing, attached or not", async () => {
  await using fake = await startEc2Fake();
  database(fake);
  using opened = await open(fake);
  const { instance, told, requests } = await snapshotsOfDb1(opened);
  const count = fake.volumes.size;
  fake.mishaps.set("AttachVolume", [{ status: 400, code: "AttachmentLimitExceeded" }]);
  await rejects(
    instance.createDisks(requests, told.options),
    "failed",
    /Cannot attach volume .*AttachmentLimitExceeded/,
  );
  assert.equal(fake.volumes.size, count);
  assert.deepEqual(told.warnings, []);
  // The answer is lost: it is attached, and detached again.
  fake.mishaps.set("AttachVolume", ["lost"]);
  await rejects(instance.createDisks(requests, told.options), "unreachable", /Cannot attach/);
  assert.equal(fake.volumes.size, count);
  // One that can't be deleted is named.
  fake.mishaps.set("AttachVolume", [{ status: 400, code: "AttachmentLimitExceeded" }]);
  fake.denied.add("DeleteVolume");
  await rejects(instance.createDisks(requests, told.options), "failed", /AttachmentLimitExceeded/);
  assert.equal(told.warnings.length, 2);
  assert.match(told.warnings.join(), /Volume vol-\w+ is left, detach and delete it/);
});

Deno.test("settings: region, endpoint, credentials and profile", async () => {
  await using fake = await startEc2Fake();
  database(fake);
  {
    using opened = await open(fake, { region: undefined, env: { AWS_REGION: "eu-west-1" } });
    await opened.provider.findInstance("db1", never);
  }
  const open_ = (env: Readonly<Record<string, string>>, profile?: string) =>
    openSnapshotProvider("aws", {
      env: { HOME: "/nowhere", AWS_EC2_METADATA_DISABLED: "true", ...env },
      pauses: PAUSES,
      aws: { profile, region: env["REGION"] },
    });
  await rejects(open_({ ...KEYS }), "invalid", /--aws-region/);
  await rejects(
    open_({ ...KEYS, REGION: "eu-west-1", AWS_ENDPOINT_URL_EC2: "localhost" }),
    "invalid",
    /AWS_ENDPOINT_URL_EC2.*http:/,
  );
  await assert.rejects(open_({ REGION: "eu-west-1" }, "nobody"), /profile "nobody"/);
  const wrong = await open_({ ...KEYS, REGION: "us-east-1", AWS_ENDPOINT_URL_EC2: fake.endpoint });
  await rejects(wrong.findInstance("db1", never), "denied", /AuthFailure/);
  wrong.close();
  const nowhere = await open_({
    ...KEYS,
    REGION: "eu-west-1",
    AWS_ENDPOINT_URL_EC2: "http://127.0.0.1:1",
    AWS_MAX_ATTEMPTS: "2",
  });
  await rejects(nowhere.findInstance("db1", never), "unreachable", /connection refused/);
  nowhere.close();
});

const moto = await ensureMoto((text) => console.log(text));
Deno.test({
  name: "on moto: found, taken, told, made into volumes, deleted",
  ignore: skipUnless(
    "path" in moto,
    `EBS snapshots on moto's EC2 (${"missing" in moto ? moto.missing : ""}); our fake stood in`,
    "deno task test where Python packages can be had",
  ),
  async fn() {
    assert.ok("path" in moto);
    await using server = await startMoto(moto.path);
    const ec2 = new EC2Client({
      endpoint: server.endpoint,
      region: "eu-west-1",
      credentials: { accessKeyId: "test", secretAccessKey: "test" },
    });
    try {
      const { Instances: [machine] = [] } = await ec2.send(
        new RunInstancesCommand({
          ImageId: "ami-12c6146b",
          MinCount: 1,
          MaxCount: 1,
          TagSpecifications: [{
            ResourceType: "instance",
            Tags: [{ Key: "Name", Value: "db1" }],
          }],
        }),
      );
      const InstanceId = machine?.InstanceId;
      const AvailabilityZone = machine?.Placement?.AvailabilityZone;
      assert.ok(InstanceId !== undefined && AvailabilityZone !== undefined);
      for (const [name, Device] of [["data", "/dev/sdf"], ["wal", "/dev/sdg"]] as const) {
        const { VolumeId } = await ec2.send(
          new CreateVolumeCommand({
            AvailabilityZone,
            Size: 10,
            TagSpecifications: [{ ResourceType: "volume", Tags: [{ Key: "Name", Value: name }] }],
          }),
        );
        await ec2.send(new AttachVolumeCommand({ InstanceId, VolumeId, Device }));
      }
      using opened = await open(server);
      const instance = await opened.provider.findInstance("db1", never);
      assert.deepEqual(instance.disks.map(({ name }) => name), ["data", "wal"]);
      const told = recorder({ tags: [["team", "x"]] });
      const requests = instance.disks.map((disk) => ({
        disk,
        name: `${disk.name}-20260115t103000`,
      }));
      await instance.takeSnapshots(requests, told.options);
      const ids = [...told.created.values()].map((map) => String(map.get("snapshot_id")));
      const { Snapshots = [] } = await ec2.send(
        new DescribeSnapshotsCommand({ SnapshotIds: ids }),
      );
      assert.deepEqual(
        Snapshots.map(({ Tags = [] }) => Tags.find(({ Key }) => Key === "Name")?.Value).sort(),
        ["data-20260115t103000", "wal-20260115t103000"],
      );
      assert.ok(Snapshots.every(({ State }) => State === "completed"));
      const disks = await instance.createDisks(
        [...told.created.values()].map((snapshot, i) => ({ snapshot, name: `new-${i}` })),
        told.options,
      );
      const { Volumes = [] } = await ec2.send(
        new DescribeVolumesCommand({ VolumeIds: disks.map(({ id }) => id) }),
      );
      assert.deepEqual(Volumes.map(({ SnapshotId }) => SnapshotId).sort(), [...ids].sort());
      for (const snapshot of told.created.values()) {
        assert.equal(await opened.provider.delete(snapshot, never), true);
        assert.equal(await opened.provider.delete(snapshot, never), false);
      }
    } finally {
      ec2.destroy();
    }
  },
});
