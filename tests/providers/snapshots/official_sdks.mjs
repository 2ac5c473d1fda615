/**
 * Microsoft's and Google's own SDKs on our fakes, run by Node.js: `node official_sdks.mjs DIRECTORY FAKES`, where the
 * packages are below DIRECTORY/node_modules and FAKES is JSON. Prints what they saw, as JSON.
 */
import { createRequire } from "node:module";
import { join } from "node:path";
import process from "node:process";

const [directory, text] = process.argv.slice(2);
const require = createRequire(join(directory, "package.json"));
const { arm, compute } = JSON.parse(text);
console.log(JSON.stringify({ azure: await azure(), google: await google() }));

async function azure() {
  const { ComputeManagementClient } = require("@azure/arm-compute");
  const getToken = () =>
    Promise.resolve({ token: arm.token, expiresOnTimestamp: Date.now() + 3_600_000 });
  const client = new ComputeManagementClient({ getToken }, arm.subscription, {});
  // It sends tokens over TLS only: what is for Azure goes to the fake on its last step.
  client.pipeline.addPolicy({
    name: "fake",
    async sendRequest(request, next) {
      const { url } = request;
      request.url = url.replace("https://management.azure.com", arm.endpoint);
      request.allowInsecureConnection = true;
      try {
        return await next(request);
      } finally {
        request.url = url;
      }
    },
  }, { afterPhase: "Sign" });
  const poll = { updateIntervalInMs: 10 };
  const { snapshots, disks, virtualMachines } = client;
  const machine = await virtualMachines.get("pg-rg", "db1");
  const disk = await disks.get("pg-rg", "pgdata");
  const copyOf = (id) => ({
    location: "uksouth",
    tags: { a: "b" },
    creationData: { createOption: "Copy", sourceResourceId: id },
  });
  const snapshot = await snapshots.createOrUpdate("pg-rg", "s1", copyOf(disk.id), poll);
  const made = await disks.createOrUpdate("pg-rg", "new1", copyOf(snapshot.id), poll);
  const dataDisksToAttach = [{ diskId: made.id, lun: 3 }];
  await virtualMachines.attachDetachDataDisks("pg-rg", "db1", { dataDisksToAttach }, poll);
  const { storageProfile } = await virtualMachines.get("pg-rg", "db1");
  await snapshots.delete("pg-rg", "s1", poll);
  const gone = await snapshots.get("pg-rg", "s1").catch((error) => error);
  return {
    disks: machine.storageProfile.dataDisks.map(({ lun, name }) => [lun, name]),
    disk: [disk.name, disk.diskSizeGB],
    snapshot: [snapshot.name, snapshot.provisioningState, snapshot.tags],
    attached: storageProfile.dataDisks.map(({ lun, name }) => [lun, name]),
    gone: [gone.statusCode, gone.code],
  };
}

async function google() {
  const sdk = require("@google-cloud/compute");
  const { OAuth2Client } = require("google-auth-library");
  const authClient = new OAuth2Client();
  authClient.setCredentials({
    access_token: compute.token,
    expiry_date: Date.now() + 3_600_000,
  });
  const { project, zone } = compute;
  const { hostname, port } = new URL(compute.endpoint);
  const options = {
    apiEndpoint: hostname,
    port: Number(port),
    protocol: "http",
    fallback: true,
    authClient,
    projectId: project,
  };
  const instances = new sdk.InstancesClient(options);
  const disks = new sdk.DisksClient(options);
  const snapshots = new sdk.SnapshotsClient(options);
  const inProject = new sdk.GlobalOperationsClient(options);
  const inZone = new sdk.ZoneOperationsClient(options);
  const finished = async ([begun], where) => {
    let operation = begun.latestResponse;
    const client = where === "zone" ? inZone : inProject;
    while (operation.status !== "DONE") {
      const place = where === "zone" ? { project, zone } : { project };
      [operation] = await client.get({ ...place, operation: operation.name });
    }
    return operation.progress;
  };
  const [instance] = await instances.get({ project, zone, instance: "db1" });
  const [disk] = await disks.get({ project, zone, disk: "pgdata" });
  const sourceDisk = `projects/${project}/zones/${zone}/disks/pgdata`;
  const sourceSnapshot = `projects/${project}/global/snapshots/s1`;
  const source = `projects/${project}/zones/${zone}/disks/new1`;
  const at = { project, zone, instance: "db1" };
  const progress = [
    await finished(
      await snapshots.insert({
        project,
        snapshotResource: { name: "s1", sourceDisk, labels: { a: "b" } },
      }),
      "project",
    ),
    await finished(
      await disks.insert({ project, zone, diskResource: { name: "new1", sourceSnapshot } }),
      "zone",
    ),
    await finished(
      await instances.attachDisk({
        ...at,
        attachedDiskResource: { source, deviceName: "dev1" },
      }),
      "zone",
    ),
    await finished(await instances.detachDisk({ ...at, deviceName: "dev1" }), "zone"),
    await finished(await disks.delete({ project, zone, disk: "new1" }), "zone"),
    await finished(await snapshots.delete({ project, snapshot: "s1" }), "project"),
  ];
  const gone = await snapshots.delete({ project, snapshot: "s1" }).catch((error) => error);
  return {
    disks: instance.disks.map(({ deviceName, boot }) => [deviceName, boot]),
    disk: [disk.name, String(disk.sizeGb), disk.status],
    progress,
    gone: gone.code,
  };
}
