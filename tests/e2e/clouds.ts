/** Clouds whose disks backups are made of: an object store and the API of its disks, for the executable. */
import { BlobServiceClient } from "@azure/storage-blob";
import { chmod, mkdtemp, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { startArmFake } from "../../scripts/servers/arm_fake.ts";
import { startAzuriteForTests } from "../../scripts/servers/azurite.ts";
import { startComputeFake } from "../../scripts/servers/compute_fake.ts";
import { type Ec2Fake, startEc2Fake } from "../../scripts/servers/ec2_fake.ts";
import { startGcsFakeForTests } from "../../scripts/servers/fake_gcs_server.ts";
import { haveS3, newStore, type TestStore } from "./stores.ts";

/** The database host is the instance `db1`, whose disks `pgdata` and `tbs` are backed up; `db2` is to recover. */
export interface Cloud extends AsyncDisposable {
  readonly name: "AWS" | "Azure" | "Google";
  readonly store: TestStore;
  /** Of `backup`, but for the disks and the instance. */
  readonly backupOptions: readonly string[];
  /** Of `restore`. */
  readonly restoreOptions: readonly string[];
  /** What findmnt is asked for: of the disks on db1. */
  readonly devices: { readonly pgdata: string; readonly tbs: string };
  /** Names of the snapshots that there are. */
  snapshots(): string[];
  /** Tags or labels of a snapshot. */
  tagsOf(snapshot: string): Record<string, string>;
  /** Snapshots are never complete from now on, or at once. */
  stall(stalled: boolean): void;
  /** Snapshots can't be deleted from now on, or can. */
  forbidDeletion(forbidden: boolean): void;
  /** The provider_info and, for each disk, the provider dictionary of backup.info, in Python's notation. */
  expected(snapshot: string, disk: "pgdata" | "tbs"): string;
  readonly expectedInfo: string;
  /** By snapshot, the device of the disk on db2 that was made from it. */
  deviceOn(target: string, snapshot: string): string;
}

export async function newAws(): Promise<Cloud & { readonly fake: Ec2Fake }> {
  const fake = await startEc2Fake();
  const store = await newStore("s3");
  const db1 = fake.addInstance({ name: "db1" });
  fake.addVolume(db1, { device: "/dev/sdf", tags: new Map([["Name", "pgdata"]]) });
  const tbs = fake.addVolume(db1, { device: "/dev/sdg", tags: new Map([["Name", "tbs"]]) });
  fake.addVolume(db1, { device: "/dev/sdh" });
  const db2 = fake.addInstance({ name: "db2" });
  const named = (snapshot: string) => {
    const found = [...fake.snapshots.values()].find(({ tags }) => tags.get("Name") === snapshot);
    if (found === undefined) throw new Error(`No snapshot ${snapshot}`);
    return found;
  };
  return {
    fake,
    name: "AWS",
    store: { ...store, env: { ...store.env, AWS_ENDPOINT_URL_EC2: fake.endpoint } },
    backupOptions: ["--aws-region", fake.region],
    restoreOptions: [],
    devices: { pgdata: "/dev/sdf", tbs: "/dev/sdg" },
    snapshots: () => [...fake.snapshots.values()].map(({ tags }) => tags.get("Name") ?? "").sort(),
    tagsOf: (snapshot) => {
      const { Name: _, ...tags } = Object.fromEntries(named(snapshot).tags);
      return tags;
    },
    stall: (stalled) => {
      fake.looksUntilComplete = stalled ? 1_000_000 : 1;
    },
    forbidDeletion(forbidden) {
      if (forbidden) fake.denied.add("DeleteSnapshot");
      else fake.denied.delete("DeleteSnapshot");
    },
    expectedInfo: `{'account_id': '${fake.account}', 'region': '${fake.region}'}`,
    expected: (snapshot, disk) =>
      `{'device_name': '${disk === "pgdata" ? "/dev/sdf" : "/dev/sdg"}', 'snapshot_id': '${
        named(snapshot).id
      }', 'snapshot_name': '${snapshot}', 'snapshot_lock_mode': None}`,
    deviceOn(_target, snapshot) {
      const { id } = named(snapshot);
      const made = [...fake.volumes.values()].find((volume) => volume.snapshot === id);
      if (made?.attachment?.instance !== db2.id) throw new Error(`No volume of ${snapshot} on db2`);
      return made.attachment.device;
    },
    async [Symbol.asyncDispose]() {
      void tbs;
      await store[Symbol.asyncDispose]();
      await fake[Symbol.asyncDispose]();
    },
  };
}

/** @returns null where there is no Azurite; what would enable it has then been said */
export async function newAzure(): Promise<Cloud | null> {
  const azurite = await startAzuriteForTests();
  if (azurite === null) return null;
  const fake = await startArmFake();
  const container = await azurite.newContainer();
  const blobs = BlobServiceClient.fromConnectionString(azurite.connectionString)
    .getContainerClient(container);
  const db1 = fake.addMachine("pg-rg", "db1");
  fake.addDisk(db1, "pgdata", 10);
  fake.addDisk(db1, "tbs", 11);
  fake.addMachine("pg-rg", "db2");
  const { AZURE_STORAGE_CONNECTION_STRING = "" } = azurite.env;
  return {
    name: "Azure",
    store: storeOf(
      "azure",
      `${azurite.url}/${container}/p`,
      [
        "--cloud-provider",
        "azure-blob-storage",
      ],
      { ...fake.env, AZURE_STORAGE_CONNECTION_STRING },
      {
        async paths() {
          const found: string[] = [];
          for await (const { name } of blobs.listBlobsFlat()) found.push(name.slice("p/".length));
          return found.sort();
        },
        read: (path) => blobs.getBlobClient(`p/${path}`).downloadToBuffer(),
      },
    ),
    backupOptions: [
      ...["--azure-subscription-id", fake.subscription, "--azure-resource-group", "pg-rg"],
    ],
    restoreOptions: ["--azure-resource-group", "pg-rg"],
    devices: { pgdata: "/dev/disk/azure/scsi1/lun10", tbs: "/dev/disk/azure/scsi1/lun11" },
    snapshots: () => [...fake.snapshots.values()].map(({ name }) => name).sort(),
    tagsOf: (snapshot) =>
      [...fake.snapshots.values()].find(({ name }) => name === snapshot)?.tags ?? {},
    stall: (stalled) => {
      fake.behaviour.set("PUT snapshots", { looks: stalled ? 1_000_000 : 1 });
    },
    forbidDeletion(forbidden) {
      const refusal = { status: 403, code: "AuthorizationFailed", message: "You may not" };
      fake.behaviour.set("DELETE snapshots", forbidden ? { refusal } : {});
    },
    expectedInfo: `{'subscription_id': '${fake.subscription}', 'resource_group': 'pg-rg'}`,
    expected: (snapshot, disk) =>
      `{'location': 'uksouth', 'lun': ${
        disk === "pgdata" ? 10 : 11
      }, 'snapshot_name': '${snapshot}'}`,
    deviceOn(target, snapshot) {
      const machine = [...fake.machines.values()].find(({ name }) => name === target);
      const storage = machine?.properties["storageProfile"] as {
        dataDisks: { lun: number; name: string }[];
      };
      const disk = storage.dataDisks.find(({ name }) => name.startsWith(snapshot));
      if (disk === undefined) throw new Error(`No disk of ${snapshot} on ${target}`);
      return `/dev/disk/azure/scsi1/lun${disk.lun}`;
    },
    async [Symbol.asyncDispose]() {
      await fake[Symbol.asyncDispose]();
      await azurite.stop();
    },
  };
}

export async function newGoogle(): Promise<Cloud> {
  const gcs = await startGcsFakeForTests();
  const fake = await startComputeFake();
  const bucket = await gcs.newBucket();
  const directory = await mkdtemp(join(tmpdir(), "google-"));
  await chmod(directory, 0o755);
  const credentials = join(directory, "key.json");
  await writeFile(credentials, fake.credentials, { mode: 0o644 });
  const db1 = fake.addInstance("db1");
  // First, and its name ends alike.
  fake.addDisk(db1, "not-pgdata");
  fake.addDisk(db1, "pgdata");
  fake.addDisk(db1, "tbs");
  const db2 = fake.addInstance("db2");
  const objects = `${gcs.endpoint}/storage/v1/b/${bucket}/o`;
  return {
    name: "Google",
    store: storeOf("google", `gs://${bucket}/p`, ["--cloud-provider", "google-cloud-storage"], {
      ...gcs.env,
      GOOGLE_APPLICATION_CREDENTIALS: credentials,
      CLOUDSDK_API_ENDPOINT_OVERRIDES_COMPUTE: fake.endpoint,
    }, {
      async paths() {
        const { items = [] } = await (await fetch(objects)).json() as {
          items?: { name: string }[];
        };
        return items.map(({ name }) => name.slice("p/".length)).sort();
      },
      async read(path) {
        const answer = await fetch(`${objects}/${encodeURIComponent(`p/${path}`)}?alt=media`);
        if (!answer.ok) throw new Error(`No ${path}: ${await answer.text()}`);
        return new Uint8Array(await answer.arrayBuffer());
      },
    }),
    // The old spellings.
    backupOptions: ["--snapshot-gcp-project", fake.project, "--snapshot-zone", fake.zone],
    restoreOptions: ["--snapshot-recovery-zone", fake.zone],
    devices: {
      pgdata: "/dev/disk/by-id/google-device-of-pgdata",
      tbs: "/dev/disk/by-id/google-device-of-tbs",
    },
    snapshots: () => [...fake.snapshots.keys()].sort(),
    tagsOf: (snapshot) => fake.snapshots.get(snapshot)?.labels ?? {},
    stall: (stalled) => {
      fake.behaviour.set("POST snapshots", { looks: stalled ? 1_000_000 : 1 });
      if (!stalled) return;
      // What is not ready can't be deleted; Google would come to an end of it.
      const settle = setInterval(() => {
        for (const snapshot of fake.snapshots.values()) snapshot.isReady = true;
      }, 500);
      timers.push(settle);
    },
    forbidDeletion(forbidden) {
      const refusal = { status: 403, reason: "forbidden" };
      fake.behaviour.set("DELETE snapshots", forbidden ? { refusal } : {});
    },
    expectedInfo: `{'project': '${fake.project}'}`,
    expected: (snapshot, disk) =>
      `{'device_name': 'device-of-${disk}', 'snapshot_name': '${snapshot}', 'snapshot_project': '${fake.project}'}`,
    deviceOn(_target, snapshot) {
      const found = db2.disks.find(({ disk }) => fake.disks.get(disk)?.sourceSnapshot === snapshot);
      if (found === undefined) throw new Error(`No disk of ${snapshot} on db2`);
      return `/dev/disk/by-id/google-${found.deviceName}`;
    },
    async [Symbol.asyncDispose]() {
      timers.splice(0).forEach(clearInterval);
      await fake[Symbol.asyncDispose]();
      await gcs.stop();
      await rm(directory, { recursive: true });
    },
  };
}

const timers: ReturnType<typeof setInterval>[] = [];

function storeOf(
  kind: "azure" | "google",
  url: string,
  options: readonly string[],
  env: Readonly<Record<string, string>>,
  reading: Pick<TestStore, "paths" | "read">,
): TestStore {
  const never = () => Promise.reject(new Error(`Not needed on ${kind}`));
  return {
    kind,
    url,
    options,
    env,
    endpoint: undefined,
    ...reading,
    write: never,
    remove: never,
    leftovers: never,
    [Symbol.asyncDispose]: () => Promise.resolve(),
  };
}

/** Register a test for each cloud; without a server for its store it is ignored, which was said loudly. */
export function testOnClouds(name: string, body: (cloud: Cloud) => Promise<void>): void {
  Deno.test({
    name: `${name} (AWS)`,
    ignore: !haveS3,
    async fn() {
      await using cloud = await newAws();
      await body(cloud);
    },
  });
  Deno.test(`${name} (Azure)`, async () => {
    const opened = await newAzure();
    if (opened === null) return;
    await using cloud = opened;
    await body(cloud);
  });
  Deno.test(`${name} (Google)`, async () => {
    await using cloud = await newGoogle();
    await body(cloud);
  });
}
