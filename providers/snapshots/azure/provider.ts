/** Snapshots of Azure's managed disks, through the REST API. */
import type { Cancellable, Tags } from "../../object_store.ts";
import {
  type AttachedDisk,
  type Identifiers,
  type Instance,
  SnapshotError,
  type SnapshotProvider,
  type SnapshotRequest,
  type TakeOptions,
} from "../provider.ts";
import { listOf, numberAt, recordOf, statusOf, textAt } from "../rest.ts";
import { allSettled, lookUntil } from "../waiting.ts";
import { createAzureDisks } from "./disks.ts";
import { type AzureOptions, type AzureSession, openAzureSession } from "./session.ts";

export interface AzureDisk extends AttachedDisk {
  /** `/subscriptions/…/disks/NAME` */
  readonly resource: string;
  readonly lun: number;
}

export interface AzureInstance extends Instance {
  readonly disks: readonly AzureDisk[];
  /** `/subscriptions/…/virtualMachines/NAME` */
  readonly resource: string;
  readonly location: string;
  readonly zones: readonly string[];
  /** Those in use. */
  readonly luns: readonly number[];
  /** Of the disk that it boots from: `Premium_LRS`. */
  readonly bootDiskType: string | null;
}

/** Azure's limit of a snapshot's name. */
const MAX_NAME = 80;
const GiB = 1024 ** 3;

/** @throws {SnapshotError} kind `invalid` for settings that can't be right */
export async function openAzureSnapshots(options: AzureOptions): Promise<SnapshotProvider> {
  const session = await openAzureSession(options);
  const { subscriptionId, resourceGroup } = options;
  const nameOf = (snapshot: Identifiers) => {
    const name = snapshot.get("snapshot_name");
    return typeof name === "string" ? name : null;
  };
  return {
    cloud: "azure",
    description: session.description,
    maxNameLength: MAX_NAME,
    info: () => new Map([["subscription_id", subscriptionId], ["resource_group", resourceGroup]]),
    snapshotId: nameOf,
    findInstance: (name, callOptions) => findInstance(session, name, callOptions),
    async take(instance, requests, takeOptions) {
      const known = await findInstance(session, instance.id, takeOptions);
      await takeSnapshots(session, known, requests, takeOptions);
    },
    checkDeletable: () => Promise.resolve(),
    delete: (snapshot, callOptions) => deleteSnapshot(session, nameOf(snapshot) ?? "", callOptions),
    async createDisks(instance, requests, createOptions) {
      const known = await findInstance(session, instance.id, createOptions);
      const names = await createAzureDisks(session, options, known, requests, createOptions);
      const now = await findInstance(session, instance.id, createOptions);
      return names.map((name) => {
        const disk = now.disks.find(({ id }) => id.toLowerCase() === name.toLowerCase());
        if (disk !== undefined) return disk;
        throw new SnapshotError("failed", `Azure does not show disk ${name} on ${instance.id}`);
      });
    },
    close: () => session.close(),
  };
}

async function findInstance(
  session: AzureSession,
  name: string,
  { signal }: Cancellable,
): Promise<AzureInstance> {
  const resource = `${session.compute}/virtualMachines/${encodeURIComponent(name)}`;
  const found = await session.get({ action: `look for instance ${name}`, signal }, resource)
    .catch((error: unknown) => {
      if (!(error instanceof SnapshotError) || error.kind !== "not-found") throw error;
      throw new SnapshotError(
        "not-found",
        `Instance ${name} does not exist (${session.description})`,
        { cause: error },
      );
    });
  const storage = recordOf(recordOf(found["properties"])["storageProfile"]);
  const data = listOf(storage["dataDisks"]).map(recordOf);
  const disks = await Promise.all(data.map(async (disk): Promise<AzureDisk | null> => {
    const id = textAt(recordOf(disk["managedDisk"]), "id");
    const lun = numberAt(disk, "lun");
    // Disks that are files in a storage account have no snapshots of this kind.
    if (id === null || lun === null) return null;
    const diskName = lastOf(id);
    const details = await session.get({ action: `look at disk ${diskName}`, signal }, id);
    const properties = recordOf(details["properties"]);
    const size = numberAt(properties, "diskSizeGB");
    return {
      id: textAt(disk, "name") ?? diskName,
      name: null,
      resource: id,
      lun,
      location: {
        kind: "links",
        // Of the Linux agent (SCSI), and of azure-vm-utils (NVMe).
        paths: [`/dev/disk/azure/scsi1/lun${lun}`, `/dev/disk/azure/data/by-lun/${lun}`],
      },
      size: size === null ? null : size * GiB,
      sourceSnapshot: sourceOf(recordOf(properties["creationData"])),
      identifiers: new Map<string, string | number | null>([
        ["location", textAt(details, "location")],
        ["lun", lun],
      ]),
    };
  }));
  const boot = recordOf(recordOf(storage["osDisk"])["managedDisk"]);
  return {
    id: name,
    resource,
    disks: disks.filter((disk) => disk !== null),
    location: textAt(found, "location") ?? "",
    zones: listOf(found["zones"]).map(String),
    luns: data.map((disk) => numberAt(disk, "lun") ?? -1),
    bootDiskType: textAt(boot, "storageAccountType"),
  };
}

/** The name of the snapshot that a disk is a copy of; a copy of another disk has none. */
function sourceOf(creation: ReturnType<typeof recordOf>): string | null {
  if (textAt(creation, "createOption")?.toLowerCase() !== "copy") return null;
  const source = textAt(creation, "sourceResourceId") ?? textAt(creation, "sourceUri") ?? "";
  return /\/snapshots\/[^/]+$/i.test(source) ? lastOf(source) : null;
}

async function takeSnapshots(
  session: AzureSession,
  instance: AzureInstance,
  requests: readonly SnapshotRequest[],
  options: TakeOptions,
): Promise<void> {
  const { signal } = options;
  const tags = azureTags(options.tags, options.onWarning);
  const progress = new Map<string, number | null>(requests.map(({ name }) => [name, null]));
  const tell = () =>
    options.onProgress([...progress].map(([name, percent]) => ({ name, percent })));
  const begun = await allSettled(requests, async ({ disk, name }) => {
    const source = instance.disks.find(({ id }) => id === disk.id);
    if (source === undefined) {
      throw new SnapshotError(
        "failed",
        `Disk ${disk.id} was detached from ${instance.id} meanwhile`,
      );
    }
    signal.throwIfAborted();
    // The name is enough to delete it by, whatever the answer will be.
    options.onCreated(disk, new Map([...source.identifiers, ["snapshot_name", name]]));
    const call = { action: `create snapshot ${name} of disk ${disk.id}` };
    const resource = `${session.compute}/snapshots/${encodeURIComponent(name)}`;
    // Not with the signal: what is under way could not be found and deleted yet.
    const answer = await session.begin(call, "PUT", resource, {
      location: source.identifiers.get("location"),
      ...(tags === undefined ? {} : { tags }),
      properties: {
        incremental: true,
        creationData: { createOption: "Copy", sourceResourceId: source.resource },
      },
    });
    return { call: { ...call, signal }, name, resource, answer };
  });
  await allSettled(begun, async ({ call, name, resource, answer }) => {
    await session.finish(call, answer, (percent) => {
      progress.set(name, Math.min(99, percent));
      tell();
    });
    await lookUntil(async () => {
      const snapshot = await session.get({ ...call, action: `look at snapshot ${name}` }, resource);
      const state = textAt(recordOf(snapshot["properties"]), "provisioningState") ?? "";
      if (/^(failed|canceled)$/i.test(state)) {
        throw new SnapshotError("failed", `Cannot ${call.action}: its state is ${state}`);
      }
      return /^succeeded$/i.test(state) || undefined;
    }, { pauses: session.pauses, signal });
    progress.set(name, 100);
    tell();
  });
}

/** So long a snapshot that is still being made is waited for before it can be deleted, in milliseconds. */
const NOT_READY_MS = 10 * 60_000;

async function deleteSnapshot(
  session: AzureSession,
  name: string,
  { signal }: Cancellable,
): Promise<boolean> {
  const call = { action: `delete snapshot ${name}`, signal };
  const resource = `${session.compute}/snapshots/${encodeURIComponent(name)}`;
  const result = await lookUntil<{ readonly found: boolean }>(async () => {
    try {
      const answer = await session.begin(call, "DELETE", resource);
      await session.finish(call, answer);
      return { found: answer.status !== 204 };
    } catch (error) {
      if (!(error instanceof SnapshotError)) throw error;
      if (error.kind === "not-found") return { found: false };
      const { code = "", message } = error;
      if (/^ScopeLocked$/i.test(code)) {
        throw new SnapshotError("locked", message, { code, cause: error });
      }
      if (statusOf(error) === 409) return undefined;
      throw error;
    }
  }, {
    pauses: session.pauses,
    signal,
    limit: { ms: NOT_READY_MS, message: `Snapshot ${name} is in use: try again later` },
  });
  return result.found;
}

/** Names of tags must not hold some characters. @param onWarning told of what had to be changed */
export function azureTags(
  tags: Tags | undefined,
  onWarning: (message: string) => void,
): Record<string, string> | undefined {
  if (tags === undefined || tags.length === 0) return undefined;
  return Object.fromEntries(tags.map(([key, value]) => {
    const name = key.replace(/[<>%&\\?/]/g, "_");
    if (name !== key) onWarning(`Tag ${key} becomes ${name}: Azure allows no other characters`);
    return [name, value];
  }));
}

/** The last component: names must be equal, not only end alike. */
function lastOf(path: string): string {
  return path.slice(path.lastIndexOf("/") + 1);
}
