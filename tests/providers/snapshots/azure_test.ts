/** Snapshots of Azure's managed disks, on a fake written from Microsoft's REST reference. */
import assert from "node:assert/strict";
import { TokenError } from "../../../providers/azure/token.ts";
import { openAzureSnapshots } from "../../../providers/snapshots/azure/provider.ts";
import { openSnapshotProvider } from "../../../providers/snapshots/open.ts";
import type { AttachedDisk, SnapshotProvider } from "../../../providers/snapshots/provider.ts";
import {
  type ArmFake,
  type FakeResource,
  startArmFake,
  SUBSCRIPTION,
  TOKEN,
} from "../../../scripts/servers/arm_fake.ts";
import { PAUSES, recorder } from "./recorder.ts";

const never = { signal: undefined };

interface Opened extends Disposable {
  readonly provider: SnapshotProvider;
  readonly retries: string[];
}

async function open(
  fake: ArmFake,
  more: {
    readonly resourceGroup?: string;
    readonly snapshotResourceGroup?: string;
    readonly subscriptionId?: string;
    readonly env?: Readonly<Record<string, string>>;
  } = {},
): Promise<Opened> {
  const { env = {}, ...azure } = more;
  const retries: string[] = [];
  const provider = await openSnapshotProvider("azure", {
    env: { ...fake.env, ...env },
    pauses: PAUSES,
    onNotice: (message) => retries.push(message),
    azure: {
      credential: undefined,
      subscriptionId: SUBSCRIPTION,
      resourceGroup: "pg-rg",
      storeUrl: "https://account.blob.core.windows.net/container",
      ...azure,
    },
  });
  return { provider, retries, [Symbol.dispose]: () => provider.close() };
}

/** The identity library looks at the environment of the process. */
async function withFake(body: (fake: ArmFake) => Promise<void>): Promise<void> {
  await using fake = await startArmFake();
  const names = ["IDENTITY_ENDPOINT", "IDENTITY_HEADER"];
  const before = names.map((name) => Deno.env.get(name));
  for (const name of names) Deno.env.set(name, fake.env[name] ?? "");
  try {
    await body(fake);
  } finally {
    names.forEach((name, i) => {
      const value = before[i];
      if (value === undefined) Deno.env.delete(name);
      else Deno.env.set(name, value);
    });
  }
}

function database(fake: ArmFake): FakeResource {
  const machine = fake.addMachine("pg-rg", "db1");
  fake.addDisk(machine, "pgdata", 10);
  fake.addDisk(machine, "data", 11, { diskSizeGB: 4 });
  return machine;
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

Deno.test("Azure: a machine and its data disks", () =>
  withFake(async (fake) => {
    const machine = database(fake);
    const snapshot =
      `/subscriptions/${SUBSCRIPTION}/resourceGroups/x/providers/Microsoft.Compute/` +
      "snapshots/pgdata-20260101t000000";
    fake.addDisk(machine, "copy", 3, {
      creationData: { createOption: "copy", sourceResourceId: snapshot },
    });
    fake.addDisk(machine, "copy2", 4, {
      creationData: {
        createOption: "Copy",
        sourceResourceId: snapshot.replace("snapshots/", "disks/"),
      },
    });
    using opened = await open(fake);
    const { disks } = await opened.provider.findInstance("db1", never);
    assert.deepEqual(
      disks.map(({ id, size, location, sourceSnapshot, identifiers }) => [
        id,
        size,
        location.kind === "links" ? location.paths[0] : "",
        sourceSnapshot,
        [...identifiers],
      ]),
      [
        ["pgdata", 100 * 1024 ** 3, 10, null],
        ["data", 4 * 1024 ** 3, 11, null],
        ["copy", 100 * 1024 ** 3, 3, "pgdata-20260101t000000"],
        // Made from a disk, not from a snapshot.
        ["copy2", 100 * 1024 ** 3, 4, null],
      ].map(([id, size, lun, source]) => [
        id,
        size,
        `/dev/disk/azure/scsi1/lun${lun}`,
        source,
        [["location", "uksouth"], ["lun", lun]],
      ]),
    );
    await rejects(opened.provider.findInstance("db2", never), "not-found", /db2.*pg-rg/);
    using wrong = await open(fake, { subscriptionId: "nobodys" });
    await rejects(
      wrong.provider.findInstance("db1", never),
      "not-found",
      /db1 does not exist.*SubscriptionNotFound, The subscription 'nobodys'/,
    );
    await rejects(
      opened.provider.findInstance("../disks/pgdata", never),
      "invalid",
      /"\.\.\/disks\/pgdata".*without slashes/,
    );
  }));

for (
  const [name, behaviour] of Object.entries({
    "Azure-AsyncOperation": { looks: 3, retryAfter: "1" },
    "Location only": { looks: 3, onlyLocation: true },
    "no header": { noHeaders: true },
    "throttled": { throttled: 2 },
  })
) {
  Deno.test(`Azure: snapshots are taken (${name})`, () =>
    withFake(async (fake) => {
      database(fake);
      fake.behaviour.set("PUT snapshots", behaviour);
      using opened = await open(fake);
      const instance = await opened.provider.findInstance("db1", never);
      const told = recorder({ tags: [["team", "db"], ["a/b", "c"]] });
      await instance.takeSnapshots(requestsFor(instance.disks), told.options);
      assert.deepEqual(
        [...fake.snapshots.values()].map(({ name, location, tags, properties }) => [
          name,
          location,
          tags,
          properties["incremental"],
          properties["creationData"],
        ]),
        ["pgdata", "data"].map((disk) => [
          `${disk}-20260115t103000`,
          "uksouth",
          { team: "db", a_b: "c" },
          true,
          {
            createOption: "Copy",
            sourceResourceId: fake.disks.get(
              `/subscriptions/${SUBSCRIPTION}/resourcegroups/pg-rg/providers/microsoft.compute/disks/${disk}`,
            )?.id,
          },
        ]),
      );
      assert.deepEqual([...told.created].map(([id, map]) => [id, [...map]]), [
        ["pgdata", [["location", "uksouth"], ["lun", 10], [
          "snapshot_name",
          "pgdata-20260115t103000",
        ]]],
        ["data", [["location", "uksouth"], ["lun", 11], ["snapshot_name", "data-20260115t103000"]]],
      ]);
      assert.deepEqual([...opened.provider.info()], [
        ["subscription_id", SUBSCRIPTION],
        ["resource_group", "pg-rg"],
      ]);
      assert.match(told.warnings.join(), /Tag a\/b becomes a_b/);
      assert.match(told.progress.at(-1) ?? "", /100.*100/);
      if (name === "Azure-AsyncOperation") assert.match(told.progress.join(" "), /t103000 33/);
      if (name === "throttled") assert.equal(opened.retries.length, 2);
    }));
}

Deno.test("Azure: both are begun before the first is over", () =>
  withFake(async (fake) => {
    database(fake);
    fake.behaviour.set("PUT snapshots", { looks: 3 });
    using opened = await open(fake);
    const instance = await opened.provider.findInstance("db1", never);
    const before = fake.calls.length;
    await instance.takeSnapshots(requestsFor(instance.disks), recorder().options);
    assert.deepEqual(fake.calls.slice(before).map(({ method }) => method), [
      "PUT",
      "PUT",
      "GET",
      "GET",
    ]);
  }));

Deno.test("Azure: a snapshot that is copied in the background is waited for", () =>
  withFake(async (fake) => {
    database(fake);
    fake.behaviour.set("PUT snapshots", { completion: [10, 55, 100] });
    using opened = await open(fake);
    const instance = await opened.provider.findInstance("db1", never);
    const told = recorder();
    await instance.takeSnapshots(requestsFor(instance.disks.slice(0, 1)), told.options);
    assert.deepEqual(
      told.progress.map((line) => line.split(" ")[1]),
      [
        "100",
        "10",
        "55",
        "99",
        "100",
      ].map((percent, i) => i === 0 ? "99" : percent),
    );
  }));

Deno.test("Azure: failures of operations, refusals, time-outs", () =>
  withFake(async (fake) => {
    database(fake);
    using opened = await open(fake);
    const instance = await opened.provider.findInstance("db1", never);
    const take = async (told = recorder()) => {
      await instance.takeSnapshots(requestsFor(instance.disks), told.options);
    };
    const failure = { code: "ResourceQuotaExceeded", message: "Too many\nsnapshots." };
    fake.behaviour.set("PUT snapshots", { failure });
    const failing = recorder();
    await rejects(
      take(failing),
      "failed",
      /create snapshot .*Failed, ResourceQuotaExceeded, Too many snapshots/,
    );
    assert.equal(failing.created.size, 2);
    fake.behaviour.set("PUT snapshots", { failure, onlyLocation: true });
    await rejects(take(), "failed", /HTTP 409, ResourceQuotaExceeded/);
    fake.behaviour.set("PUT snapshots", {
      refusal: { status: 403, code: "AuthorizationFailed", message: "The client may not" },
    });
    const denied = recorder();
    await rejects(take(denied), "denied", /access denied.*AuthorizationFailed/);
    // What was refused was not made, and need not be deleted.
    assert.equal(denied.created.size, 0);
    fake.behaviour.set("PUT snapshots", { looks: 10_000 });
    await rejects(
      take(recorder({ limit: { ms: 50, option: "--the-option" } })),
      "failed",
      /not complete within 0\.05 s \(--the-option\): pgdata-20260115t103000, data-/,
    );
    fake.behaviour.set("PUT snapshots", { lost: 2 });
    await take();
    fake.behaviour.set("PUT snapshots", { lost: 100 });
    const lost = recorder();
    await rejects(take(lost), "unreachable", /connection was cut/);
    assert.equal(lost.created.size, 2);
  }));

Deno.test("Azure: the signal loses sight of nothing", () =>
  withFake(async (fake) => {
    database(fake);
    fake.behaviour.set("PUT snapshots", { looks: 10_000 });
    using opened = await open(fake);
    const instance = await opened.provider.findInstance("db1", never);
    const controller = new AbortController();
    const told = recorder({
      signal: controller.signal,
      onCreated: () => controller.abort(new Error("stopped by the test")),
    });
    await assert.rejects(
      instance.takeSnapshots(requestsFor(instance.disks), told.options),
      /stopped by the test/,
    );
    assert.equal(told.created.size, fake.snapshots.size);
    assert.equal(fake.snapshots.size, 2);
  }));

Deno.test("Azure: deleting", () =>
  withFake(async (fake) => {
    database(fake);
    using opened = await open(fake);
    const instance = await opened.provider.findInstance("db1", never);
    const told = recorder();
    await instance.takeSnapshots(requestsFor(instance.disks), told.options);
    const [first = new Map(), second = new Map()] = told.created.values();
    fake.behaviour.set("DELETE snapshots", { looks: 2, onlyLocation: true });
    assert.equal(await opened.provider.delete(first, never), true);
    assert.equal(await opened.provider.delete(first, never), false);
    assert.equal(fake.snapshots.size, 1);
    fake.behaviour.set("DELETE snapshots", {
      refusal: { status: 409, code: "ScopeLocked", message: "There is a lock" },
    });
    await rejects(opened.provider.delete(second, never), "locked", /ScopeLocked/);
    // Busy: until it is free.
    const busy = { status: 409, code: "OperationNotAllowed", message: "being created" };
    fake.behaviour.set("DELETE snapshots", { refusal: busy });
    setTimeout(() => fake.behaviour.delete("DELETE snapshots"), 30);
    assert.equal(await opened.provider.delete(second, never), true);
    assert.equal(fake.snapshots.size, 0);
  }));

Deno.test("Azure: deleting from a subscription or a resource group that is not there is no success", () =>
  withFake(async (fake) => {
    database(fake);
    using opened = await open(fake);
    const snapshot = new Map([["snapshot_name", "pgdata-20260115t103000"]]);
    assert.equal(await opened.provider.delete(snapshot, never), false);
    const codes = [["ResourceNotFound", true], ["NotFound", true], ["InvalidType", false]] as const;
    for (const [code, isGone] of codes) {
      const refusal = { status: 404, code, message: "As the test wants it" };
      fake.behaviour.set("DELETE snapshots", { refusal });
      const deleting = opened.provider.delete(snapshot, never);
      if (isGone) {
        assert.equal(await deleting, false);
        continue;
      }
      const words = /delete snapshot pgdata-.*InvalidType, As the test.*; look at the subscription/;
      await rejects(deleting, "not-found", words);
    }
    fake.behaviour.clear();
    using otherGroup = await open(fake, { resourceGroup: "gone-rg" });
    await rejects(
      otherGroup.provider.delete(snapshot, never),
      "not-found",
      /ResourceGroupNotFound, Resource group 'gone-rg' could not be found/,
    );
    using otherSubscription = await open(fake, { subscriptionId: "nobodys" });
    await rejects(
      otherSubscription.provider.delete(snapshot, never),
      "not-found",
      /SubscriptionNotFound/,
    );
    await rejects(
      opened.provider.delete(new Map([["snapshot_name", "../disks/pgdata"]]), never),
      "invalid",
      /without slashes/,
    );
    assert.equal(fake.disks.size, 2);
    // It was accepted, and nobody tells how it went on: it has begun.
    const instance = await opened.provider.findInstance("db1", never);
    const told = recorder();
    await instance.takeSnapshots(requestsFor(instance.disks), told.options);
    const [taken = new Map()] = told.created.values();
    fake.behaviour.set("DELETE snapshots", { forgotten: true });
    await rejects(opened.provider.delete(taken, never), "failed", /OperationNotFound.*; look at/);
  }));

Deno.test("Azure: names that a URL has to encode, in paths and in bodies", () =>
  withFake(async (fake) => {
    const machine = fake.addMachine("größe (1)", "db1");
    fake.addDisk(machine, "pgdata", 10);
    using opened = await open(fake, { resourceGroup: "größe (1)" });
    const instance = await opened.provider.findInstance("db1", never);
    const told = recorder();
    await instance.takeSnapshots(requestsFor(instance.disks), told.options);
    const requests = [...told.created.values()].map((snapshot) => ({ snapshot, name: "new-0" }));
    const disks = await instance.createDisks(requests, told.options);
    assert.deepEqual(disks.map(({ id }) => id), ["new-0"]);
    for (const snapshot of told.created.values()) {
      assert.equal(await opened.provider.delete(snapshot, never), true);
    }
  }));

Deno.test("Azure: zone-redundant disks are in no zone", () =>
  withFake(async (fake) => {
    const machine = fake.addMachine("pg-rg", "db1", { zones: ["2"], bootDiskType: "Premium_ZRS" });
    fake.addDisk(machine, "pgdata", 10);
    using opened = await open(fake);
    const instance = await opened.provider.findInstance("db1", never);
    const told = recorder();
    await instance.takeSnapshots(requestsFor(instance.disks), told.options);
    const requests = [...told.created.values()].map((snapshot) => ({ snapshot, name: "new-0" }));
    await instance.createDisks(requests, told.options);
    const made = [...fake.disks.values()].find(({ name }) => name === "new-0");
    assert.deepEqual([made?.sku, made?.zones], [{ name: "Premium_ZRS" }, undefined]);
  }));

Deno.test("Azure: what only some types of disks can hold becomes one of these, however long it takes", () =>
  withFake(async (fake) => {
    const machine = fake.addMachine("pg-rg", "db1", { zones: ["2"] });
    const creationData = { createOption: "Empty", logicalSectorSize: 512 };
    const small = fake.addDisk(machine, "small", 1, { creationData });
    const ultra = fake.addDisk(machine, "ultra", 2);
    small.sku = { name: "PremiumV2_LRS" };
    ultra.sku = { name: "UltraSSD_LRS" };
    using opened = await open(fake);
    const instance = await opened.provider.findInstance("db1", never);
    const told = recorder();
    await instance.takeSnapshots(requestsFor(instance.disks), told.options);
    const [ofSmall = new Map(), ofUltra = new Map()] = told.created.values();
    const create = async (snapshot: typeof ofSmall, name: string) => {
      const now = await opened.provider.findInstance("db1", never);
      await now.createDisks([{ snapshot, name }], told.options);
      return [...fake.disks.values()].find((disk) => disk.name === name)?.sku?.["name"];
    };
    assert.equal(await create(ofSmall, "new-small"), "Premium_LRS");
    fake.behaviour.set("PUT disks", { completion: [10, 50, 100] });
    // Each look at the clock is 20 minutes after the last one.
    const { now } = performance;
    let minutes = 0;
    performance.now = () => (minutes += 20) * 60_000;
    try {
      assert.equal(await create(ofUltra, "new-ultra"), "UltraSSD_LRS");
    } finally {
      performance.now = now;
    }
    assert.match(told.notices.join(), /new-ultra of type UltraSSD_LRS is filled in the background/);
    // The original may not be looked at, or is gone, so that nobody knows what it was.
    const refusal = { status: 403, code: "AuthorizationFailed", message: "no" };
    fake.behaviour.set("GET disks", { refusal });
    await rejects(
      instance.createDisks([{ snapshot: ofUltra, name: "new-blind" }], told.options),
      "failed",
      /disk new-blind .*sector size of 4096/,
    );
    assert.match(
      told.warnings.join(),
      /Cannot tell what types of disk snapshot .* can become: .*AuthorizationFailed/,
    );
    fake.behaviour.clear();
    fake.disks.delete(ultra.id.toLowerCase());
    await rejects(
      instance.createDisks([{ snapshot: ofUltra, name: "new-again" }], told.options),
      "failed",
      /disk new-again .*sector size of 4096/,
    );
  }));

Deno.test("Azure: disks from snapshots of another resource group, at their LUNs or free ones", () =>
  withFake(async (fake) => {
    database(fake);
    using opened = await open(fake);
    const source = await opened.provider.findInstance("db1", never);
    const told = recorder();
    await source.takeSnapshots(requestsFor(source.disks), told.options);
    const target = fake.addMachine("other-rg", "db2", { zones: ["2"] });
    fake.addDisk(target, "used", 10);
    using other = await open(fake, { resourceGroup: "other-rg", snapshotResourceGroup: "pg-rg" });
    const instance = await other.provider.findInstance("db2", never);
    const requests = [...told.created.values()].map((snapshot, i) => ({
      snapshot,
      name: `new-${i}`,
    }));
    const disks = await instance.createDisks(requests, told.options);
    assert.deepEqual(
      disks.map(({ id, sourceSnapshot, identifiers }) => [
        id,
        sourceSnapshot,
        identifiers.get("lun"),
      ]),
      [["new-0", "pgdata-20260115t103000", 0], ["new-1", "data-20260115t103000", 11]],
    );
    const made = [...fake.disks.values()].filter(({ name }) => name.startsWith("new-"));
    assert.deepEqual(made.map(({ zones, location, sku }) => [zones, location, sku]), [
      [["2"], "uksouth", { name: "Premium_LRS" }],
      [["2"], "uksouth", { name: "Premium_LRS" }],
    ]);
    assert.ok(made.every(({ id }) => id.includes("/other-rg/")));

    const again = requests.map(({ snapshot }, i) => ({ snapshot, name: `again-${i}` }));
    const count = fake.disks.size;
    fake.behaviour.set("POST attachDetachDataDisks", {
      refusal: { status: 409, code: "OperationNotAllowed", message: "The maximum number" },
    });
    const now = await other.provider.findInstance("db2", never);
    await rejects(now.createDisks(again, told.options), "failed", /attach again-0, again-1 to db2/);
    assert.equal(fake.disks.size, count);
    fake.behaviour.set("DELETE disks", {
      refusal: { status: 403, code: "AuthorizationFailed", message: "The client may not" },
    });
    await rejects(now.createDisks(again, told.options), "failed", /attach/);
    assert.equal(told.warnings.filter((text) => /Disk again-\d may be left/.test(text)).length, 2);
  }));

Deno.test("Azure: clouds, endpoints and tokens", () =>
  withFake(async (fake) => {
    database(fake);
    const scopes: unknown[] = [];
    const options = {
      env: fake.env,
      credential: undefined,
      subscriptionId: SUBSCRIPTION,
      resourceGroup: "PG-RG",
      storeUrl: "https://account.blob.core.chinacloudapi.cn/container",
      pauses: PAUSES,
    };
    const china = await openAzureSnapshots({
      ...options,
      tokens: {
        getToken(scope) {
          scopes.push(scope);
          return Promise.resolve({ token: TOKEN, expiresOnTimestamp: Date.now() + 3_600_000 });
        },
      },
    });
    await china.findInstance("DB1", never);
    china.close();
    assert.deepEqual([...new Set(scopes)], ["https://management.chinacloudapi.cn/.default"]);
    const getToken = () => Promise.reject(new TokenError("nobody is logged in", false));
    const nobody = await openAzureSnapshots({ ...options, tokens: { getToken } });
    await rejects(
      nobody.findInstance("DB1", never),
      "denied",
      /no access token: nobody is logged in/,
    );
    nobody.close();
    await rejects(
      open(fake, { env: { AZURE_RESOURCE_MANAGER_ENDPOINT: "localhost" } }),
      "invalid",
      /AZURE_RESOURCE_MANAGER_ENDPOINT/,
    );
  }));
