/** Snapshots of Google's persistent disks, on a fake written from Google's reference. */
import assert from "node:assert/strict";
import { mkdtemp, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { labelsOf } from "../../../providers/snapshots/gcp/labels.ts";
import { openSnapshotProvider } from "../../../providers/snapshots/open.ts";
import type { AttachedDisk, SnapshotProvider } from "../../../providers/snapshots/provider.ts";
import { type ComputeFake, startComputeFake } from "../../../scripts/servers/compute_fake.ts";
import { PAUSES, recorder } from "./recorder.ts";

const never = { signal: undefined };

type Open = (
  more?: { project?: string; zone?: string | undefined; env?: Record<string, string> },
) => Promise<SnapshotProvider>;

async function withFake(body: (fake: ComputeFake, open: Open) => Promise<void>): Promise<void> {
  await using fake = await startComputeFake();
  const directory = await mkdtemp(join(tmpdir(), "gcp-snapshots-"));
  const file = join(directory, "key.json");
  await writeFile(file, fake.credentials);
  const opened: SnapshotProvider[] = [];
  try {
    await body(fake, async ({ env = {}, ...more } = {}) => {
      const provider = await openSnapshotProvider("gcp", {
        env: {
          GOOGLE_APPLICATION_CREDENTIALS: file,
          CLOUDSDK_API_ENDPOINT_OVERRIDES_COMPUTE: `${fake.endpoint}/`,
          ...env,
        },
        pauses: PAUSES,
        gcp: { project: fake.project, zone: fake.zone, ...more },
      });
      opened.push(provider);
      return provider;
    });
  } finally {
    for (const provider of opened) provider.close();
    await rm(directory, { recursive: true });
  }
}

function requestsFor(disks: readonly AttachedDisk[]) {
  return disks.map((disk) => ({ disk, name: `${disk.id}-20260115t103000` }));
}

async function rejects(promise: Promise<unknown>, kind: string, message: RegExp): Promise<void> {
  await assert.rejects(promise, (error: Error & { kind?: string }) => {
    assert.equal(error.name, "SnapshotError", error.stack ?? "");
    assert.match(error.message, message);
    assert.equal(error.kind, kind, error.message);
    return true;
  });
}

Deno.test("Google: an instance and its disks, also where names end alike", () =>
  withFake(async (fake, open) => {
    const db = fake.addInstance("db1");
    fake.addDisk(db, "pgdata");
    fake.addDisk(db, "data", "data-20260101t000000");
    const provider = await open();
    const { disks } = await provider.findInstance("db1", never);
    assert.deepEqual(
      disks.map(({ id, size, location, sourceSnapshot, identifiers }) => [
        id,
        size,
        location.kind === "links" ? location.paths : [],
        sourceSnapshot,
        [...identifiers],
      ]),
      [["pgdata", null], ["data", "data-20260101t000000"]].map(([name, source]) => [
        name,
        200 * 1024 ** 3,
        [`/dev/disk/by-id/google-device-of-${name}`],
        source,
        [["device_name", `device-of-${name}`]],
      ]),
    );
    await rejects(
      provider.findInstance("db2", never),
      "not-found",
      /db2.*europe-west1-b.*my-project/,
    );
    const elsewhere = await open({ zone: "us-east1-a" });
    await rejects(elsewhere.findInstance("db1", never), "not-found", /us-east1-a/);
    const stranger = await open({ project: "nobodys" });
    await rejects(
      stranger.findInstance("db1", never),
      "not-found",
      /db1 does not exist.*The resource 'projects\/nobodys' was not found/,
    );
    const nowhere = await open({ zone: undefined });
    await rejects(nowhere.findInstance("db1", never), "invalid", /--gcp-zone/);
  }));

Deno.test("Google: snapshots are begun together, labelled, waited for, and told", () =>
  withFake(async (fake, open) => {
    const db = fake.addInstance("db1");
    fake.addDisk(db, "pgdata");
    fake.addDisk(db, "data");
    fake.behaviour.set("POST snapshots", {
      looks: 4,
      lost: 2,
      warning: { code: "DISK_SIZE_LARGER_THAN_IMAGE_SIZE", message: "As a test" },
    });
    const provider = await open();
    const instance = await provider.findInstance("db1", never);
    const told = recorder({ tags: [["Team", "DB a"], ["9", ""]] });
    await instance.takeSnapshots(requestsFor(instance.disks), told.options);
    assert.deepEqual(
      [...fake.snapshots.values()],
      ["pgdata", "data"].map((disk) => ({
        name: `${disk}-20260115t103000`,
        sourceDisk: disk,
        description: told.options.description,
        labels: { team: "db_a", t9: "" },
        isReady: true,
      })),
    );
    assert.deepEqual(
      [...told.created].map(([id, map]) => [id, [...map]]),
      ["pgdata", "data"].map(
        (disk) => [disk, [
          ["device_name", `device-of-${disk}`],
          ["snapshot_name", `${disk}-20260115t103000`],
          ["snapshot_project", "my-project"],
        ]],
      ),
    );
    assert.deepEqual([...provider.info()], [["project", "my-project"]]);
    assert.match(told.progress.join(" "), /t103000 25.*t103000 50.*t103000 75/);
    assert.match(told.progress.at(-1) ?? "", /100.*100/);
    assert.match(told.warnings.join("\n"), /DISK_SIZE_LARGER_THAN_IMAGE_SIZE: As a test/);
    assert.match(told.warnings.join("\n"), /Tag Team=DB a becomes label team=db_a/);
  }));

Deno.test("Google: without the right to set labels there are none", () =>
  withFake(async (fake, open) => {
    fake.addDisk(fake.addInstance("db1"), "data");
    fake.behaviour.set("POST snapshots", { noLabels: true });
    const instance = await (await open()).findInstance("db1", never);
    const told = recorder({ tags: [["team", "db"]] });
    await instance.takeSnapshots(requestsFor(instance.disks), told.options);
    assert.deepEqual([...fake.snapshots.values()].map(({ labels }) => labels), [{}]);
    assert.match(told.warnings.join(), /compute\.snapshots\.setLabels.*trying without labels/);
  }));

Deno.test("Google: failures of operations, refusals, time-outs, the signal", () =>
  withFake(async (fake, open) => {
    const db = fake.addInstance("db1");
    fake.addDisk(db, "pgdata");
    fake.addDisk(db, "data");
    const instance = await (await open()).findInstance("db1", never);
    const take = async (told = recorder()) => {
      fake.snapshots.clear();
      await instance.takeSnapshots(requestsFor(instance.disks), told.options);
    };
    fake.behaviour.set("POST snapshots", {
      failure: { code: "QUOTA_EXCEEDED", message: "Quota 'SNAPSHOTS' exceeded" },
    });
    const failing = recorder();
    await rejects(take(failing), "failed", /create snapshot pgdata-.*QUOTA_EXCEEDED: Quota/);
    assert.equal(failing.created.size, 2);
    fake.behaviour.set("POST snapshots", { refusal: { status: 403, reason: "forbidden" } });
    const denied = recorder();
    await rejects(take(denied), "denied", /access denied \(HTTP 403, forbidden/);
    assert.equal(denied.created.size, 0);
    const refusals = [
      [{ status: 403, reason: "quotaExceeded" }, /: a quota is used up \(HTTP 403, quotaExceeded/],
      [{ status: 403, reason: "accessNotConfigured" }, /: the API is not enabled \(HTTP 403, acc/],
      [{ status: 403, reason: "SERVICE_DISABLED", inDetails: true }, /not enabled \(.*SERVICE_DIS/],
    ] as const;
    for (const [refusal, message] of refusals) {
      fake.behaviour.set("POST snapshots", { refusal });
      const refused = recorder({ tags: [["team", "db"]] });
      await rejects(take(refused), "failed", message);
      // No other try without labels.
      assert.deepEqual(refused.warnings, []);
    }
    for (const inDetails of [false, true]) {
      const reason = inDetails ? "RATE_LIMIT_EXCEEDED" : "rateLimitExceeded";
      fake.behaviour.set("POST snapshots", { refusal: { status: 403, reason, inDetails } });
      setTimeout(() => fake.behaviour.delete("POST snapshots"), 5);
      await take();
    }
    fake.behaviour.set("POST snapshots", { looks: 10_000 });
    await rejects(
      take(recorder({ limit: { ms: 50, option: "--the-option" } })),
      "failed",
      /not complete within 0\.05 s \(--the-option\)/,
    );
    fake.behaviour.set("POST snapshots", { lost: 100 });
    const lost = recorder();
    await rejects(take(lost), "unreachable", /connection was cut/);
    assert.equal(lost.created.size, 2);
    fake.behaviour.set("POST snapshots", { looks: 10_000 });
    const controller = new AbortController();
    const stopped = recorder({
      signal: controller.signal,
      onCreated: () => controller.abort(new Error("stopped by the test")),
    });
    await assert.rejects(take(stopped), /stopped by the test/);
    assert.equal(stopped.created.size, 2);
    assert.equal(fake.snapshots.size, 2);
    // One that is there already is somebody else's.
    fake.behaviour.delete("POST snapshots");
    const exists = recorder();
    await rejects(
      instance.takeSnapshots(requestsFor(instance.disks), exists.options),
      "failed",
      /alreadyExists/,
    );
    assert.equal(exists.created.size, 0);
  }));

Deno.test("Google: deleting works, without a zone too", () =>
  withFake(async (fake, open) => {
    const db = fake.addInstance("db1");
    fake.addDisk(db, "pgdata");
    fake.addDisk(db, "data");
    const instance = await (await open()).findInstance("db1", never);
    const told = recorder();
    await instance.takeSnapshots(requestsFor(instance.disks), told.options);
    const [first = new Map(), second = new Map()] = told.created.values();
    const provider = await open({ zone: undefined });
    fake.behaviour.set("DELETE snapshots", { looks: 2, lost: 1 });
    assert.equal(await provider.delete(first, never), true);
    assert.equal(await provider.delete(first, never), false);
    const elsewhere = new Map([...second, ["snapshot_project", "nobodys"]]);
    await rejects(
      provider.delete(elsewhere, never),
      "not-found",
      /delete snapshot data-.*The resource 'projects\/nobodys' was not found.*; look at the project/,
    );
    // It was accepted, and nobody tells how it went on: it has begun.
    fake.behaviour.set("DELETE snapshots", { forgotten: true });
    await rejects(provider.delete(second, never), "failed", /operations\/.*; look at the project/);
    fake.behaviour.set("DELETE snapshots", { refusal: { status: 403, reason: "forbidden" } });
    await rejects(provider.delete(second, never), "denied", /delete snapshot data-/);
    // Still being made: until it is ready.
    fake.behaviour.delete("DELETE snapshots");
    const [left] = fake.snapshots.values();
    assert.ok(left !== undefined);
    left.isReady = false;
    setTimeout(() => {
      left.isReady = true;
    }, 30);
    assert.equal(await provider.delete(second, never), true);
    assert.equal(fake.snapshots.size, 0);
  }));

Deno.test("Google: disks from snapshots, and none left when it fails", () =>
  withFake(async (fake, open) => {
    const db = fake.addInstance("db1");
    fake.addDisk(db, "pgdata");
    fake.addDisk(db, "data");
    const provider = await open();
    const source = await provider.findInstance("db1", never);
    const told = recorder();
    await source.takeSnapshots(requestsFor(source.disks), told.options);
    const target = fake.addInstance("db2");
    target.disks.push({ deviceName: "device-of-data", disk: "db2-scratch", boot: false });
    fake.disks.set("db2-scratch", {
      name: "db2-scratch",
      zone: fake.zone,
      sizeGb: "1",
      type: "pd-ssd",
      sourceSnapshot: undefined,
      labels: {},
    });
    const instance = await provider.findInstance("db2", never);
    const requests = [...told.created.values()].map((snapshot, i) => ({
      snapshot,
      name: `new-${i}`,
    }));
    const disks = await instance.createDisks(requests, told.options);
    assert.deepEqual(
      disks.map(({ id, sourceSnapshot, identifiers }) => [
        id,
        sourceSnapshot,
        identifiers.get("device_name"),
      ]),
      [
        ["new-0", "pgdata-20260115t103000", "device-of-pgdata"],
        // The recorded name is in use.
        ["new-1", "data-20260115t103000", "new-1"],
      ],
    );
    assert.equal(fake.disks.get("new-0")?.type, "pd-balanced");

    const count = fake.disks.size;
    const again = requests.map(({ snapshot }, i) => ({ snapshot, name: `again-${i}` }));
    fake.behaviour.set("POST attachDisk", {
      failure: { code: "LIMIT_EXCEEDED", message: "Too many disks" },
    });
    const now = await provider.findInstance("db2", never);
    await rejects(
      now.createDisks(again, told.options),
      "failed",
      /attach disk again-0.*LIMIT_EXCE/,
    );
    assert.equal(fake.disks.size, count);
    // The signal comes while they are being attached: detached, where they are, and deleted again.
    fake.behaviour.set("POST attachDisk", { looks: 3 });
    const controller = new AbortController();
    const options = { ...told.options, signal: controller.signal };
    const creating = now.createDisks(again, options);
    const attaching = () =>
      fake.calls.some(({ path, body }) =>
        path.endsWith("/attachDisk") && JSON.stringify(body).includes("again-1")
      );
    fake.calls.length = 0;
    while (!attaching()) await new Promise((resolve) => setTimeout(resolve, 1));
    controller.abort(new Error("stopped by the test"));
    await assert.rejects(creating, /stopped by the test/);
    assert.equal(fake.disks.size, count);
    assert.equal(target.disks.length, 4);
    fake.behaviour.set("POST disks", { refusal: { status: 403, reason: "forbidden" } });
    await rejects(now.createDisks(again, told.options), "denied", /create disk again-0/);
  }));

Deno.test("Google: disks where the boot disk is the region's, and the project is told by its number", () =>
  withFake(async (fake, open) => {
    const db = fake.addInstance("db1");
    fake.addDisk(db, "pgdata");
    const boot = fake.disks.get("db1");
    assert.ok(boot !== undefined);
    boot.region = "europe-west1";
    const provider = await open({ project: fake.projectNumber });
    const instance = await provider.findInstance("db1", never);
    const told = recorder();
    await instance.takeSnapshots(requestsFor(instance.disks), told.options);
    const requests = [...told.created.values()].map((snapshot) => ({ snapshot, name: "new-0" }));
    const disks = await instance.createDisks(requests, told.options);
    assert.deepEqual(disks.map(({ id }) => id), ["new-0"]);
    assert.equal(fake.disks.get("new-0")?.type, "pd-balanced");
  }));

Deno.test("Google: labels take less than tags", () => {
  const warnings: string[] = [];
  const labels = labelsOf(
    [["Env", "Prod.1"], ["_x", "ok"], ["größe", "ü-1"], ["k".repeat(70), "v".repeat(70)]],
    (message) => warnings.push(message),
  );
  assert.deepEqual(labels, {
    env: "prod_1",
    t_x: "ok",
    "größe": "ü-1",
    ["k".repeat(63)]: "v".repeat(63),
  });
  assert.equal(warnings.length, 3);
  assert.equal(labelsOf(undefined, () => {}), undefined);
});

Deno.test("Google: endpoints and credentials", () =>
  withFake(async (_fake, open) => {
    await rejects(
      open({ env: { CLOUDSDK_API_ENDPOINT_OVERRIDES_COMPUTE: "localhost" } }),
      "invalid",
      /CLOUDSDK_API_ENDPOINT_OVERRIDES_COMPUTE/,
    );
    const without = await open({ env: { GOOGLE_APPLICATION_CREDENTIALS: "/nowhere/key.json" } });
    await rejects(without.findInstance("db1", never), "denied", /\/nowhere\/key\.json/);
  }));
