/** Snapshots of Azure's managed disks, through the REST API. */
import type { Cancellable, Tags } from "../../object_store.ts";
import {
  type AttachedDisk,
  type Identifiers,
  SnapshotError,
  type SnapshotProvider,
  type SnapshotRequest,
  type TakeOptions,
} from "../provider.ts";
import {
  listOf,
  making,
  numberAt,
  placeNotFound,
  recordOf,
  statusOf,
  textAt,
  wordsOf,
} from "../rest.ts";
import { allSettled, lookUntil, progressOf, tooLate } from "../waiting.ts";
import { createAzureDisks } from "./disks.ts";
import { type AzureOptions, type AzureSession, openAzureSession, resourceId } from "./session.ts";

export interface AzureDisk extends AttachedDisk {
  /** `/subscriptions/…/disks/NAME` */
  readonly resource: string;
  readonly lun: number;
}

export interface AzureInstance {
  readonly id: string;
  /** Without the disk that it boots from. */
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
    maxNameLength: MAX_NAME,
    info: () => new Map([["subscription_id", subscriptionId], ["resource_group", resourceGroup]]),
    snapshotId: nameOf,
    async findInstance(name, callOptions) {
      const instance = await findInstance(session, name, callOptions);
      return {
        id: name,
        disks: instance.disks,
        takeSnapshots: (requests, take) => takeSnapshots(session, instance, requests, take),
        async createDisks(requests, create) {
          const names = await createAzureDisks(session, options, instance, requests, create);
          // It is done: the signal comes too late.
          const { disks } = await findInstance(session, name, {});
          return names.map((made) => {
            const disk = disks.find(({ id }) => id.toLowerCase() === made.toLowerCase());
            if (disk !== undefined) return disk;
            throw new SnapshotError("failed", `Azure does not show disk ${made} on ${name}`);
          });
        },
      };
    },
    checkDeletable: () => Promise.resolve(),
    delete: (snapshot, callOptions) => deleteSnapshot(session, nameOf(snapshot) ?? "", callOptions),
    close: () => session.close(),
  };
}

async function findInstance(
  session: AzureSession,
  name: string,
  { signal }: Cancellable,
): Promise<AzureInstance> {
  const resource = resourceId(session.compute, "virtualMachines", name);
  const found = await session.get({ action: `look for instance ${name}`, signal }, resource)
    .catch((error: unknown) => {
      if (!(error instanceof SnapshotError) || error.kind !== "not-found") throw error;
      throw new SnapshotError(
        "not-found",
        `Instance ${name} does not exist in ${session.where} (${wordsOf(error)})`,
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
  const names = requests.map(({ name }) => name);
  const limit = { ms: options.limit.ms, message: tooLate(options.limit, names) };
  const tell = progressOf(names, options.onProgress);
  const begun = await allSettled(requests, async ({ disk, name }) => {
    const source = instance.disks.find(({ id }) => id === disk.id);
    if (source === undefined) throw new SnapshotError("failed", `No disk ${disk.id}`);
    const made = () => options.onCreated(disk, identifiersOf(source, name));
    const call = { action: `create snapshot ${name} of disk ${disk.id}`, signal, limit };
    const resource = resourceId(session.compute, "snapshots", name);
    const answer = await making(
      made,
      () =>
        session.begin({ ...call, whole: true }, "PUT", resource, {
          location: source.identifiers.get("location"),
          ...(tags === undefined ? {} : { tags }),
          properties: {
            incremental: true,
            creationData: { createOption: "Copy", sourceResourceId: source.resource },
          },
        }),
    );
    return { call, name, resource, answer };
  });
  await allSettled(begun, async ({ call, name, resource, answer }) => {
    const watch = (percent: number) => tell(name, Math.min(99, percent));
    await session.finishPut(call, resource, answer, watch);
    tell(name, 100);
  });
}

function identifiersOf(disk: AzureDisk, name: string): Identifiers {
  return new Map([...disk.identifiers, ["snapshot_name", name]]);
}

/** So long a snapshot that is still being made is waited for before it can be deleted, in milliseconds. */
const NOT_READY_MS = 10 * 60_000;

async function deleteSnapshot(
  session: AzureSession,
  name: string,
  { signal }: Cancellable,
): Promise<boolean> {
  const limit = { ms: NOT_READY_MS, message: `Snapshot ${name} is in use: try again later` };
  const call = { action: `delete snapshot ${name}`, signal, limit };
  const resource = resourceId(session.compute, "snapshots", name);
  const result = await lookUntil<{ readonly found: boolean }>(async () => {
    let accepted = false;
    try {
      const answer = await session.begin(call, "DELETE", resource);
      accepted = true;
      await session.finish(call, answer);
      return { found: answer.status !== 204 };
    } catch (error) {
      if (!(error instanceof SnapshotError)) throw error;
      const { code = "", message } = error;
      // Not of the subscription or the resource group: then nobody knows of the snapshot.
      if (/^(Resource)?NotFound$/i.test(code)) return { found: false };
      if (/^ScopeLocked$/i.test(code)) {
        throw new SnapshotError("locked", message, { code, cause: error });
      }
      if (statusOf(error) === 409) return undefined;
      if (error.kind !== "not-found") throw error;
      const remedy = "look at the subscription, the resource group, and whose the credentials are";
      throw placeNotFound(error, accepted, remedy);
    }
  }, { pauses: session.pauses, signal, limit });
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
