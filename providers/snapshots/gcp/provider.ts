/** Snapshots of Google's persistent disks, through the REST API: its SDK takes seconds to load. */
import type { Cancellable } from "../../object_store.ts";
import {
  type AttachedDisk,
  type Identifiers,
  SnapshotError,
  type SnapshotProvider,
  type SnapshotRequest,
  type TakeOptions,
} from "../provider.ts";
import { listOf, making, numberAt, placeNotFound, recordOf, textAt, wordsOf } from "../rest.ts";
import { allSettled, lookUntil, progressOf, tooLate } from "../waiting.ts";
import { createGcpDisks } from "./disks.ts";
import { labelsOf } from "./labels.ts";
import { type GcpOptions, type GcpSession, openGcpSession } from "./session.ts";

export interface GcpDisk extends AttachedDisk {
  /** `projects/p/zones/z/disks/d` */
  readonly path: string;
}

export interface GcpInstance {
  readonly id: string;
  /** Without the disk that it boots from. */
  readonly disks: readonly GcpDisk[];
  readonly project: string;
  readonly zone: string;
  /** Names of all devices, the boot disk's too. */
  readonly deviceNames: readonly string[];
  /** Path of the disk that it boots from. */
  readonly bootDisk: string | undefined;
}

/** Google's limit of a resource's name. */
const MAX_NAME = 63;
const GB = 1024 ** 3;

/** @throws {SnapshotError} kind `invalid` for settings that can't be right */
export async function openGcpSnapshots(options: GcpOptions): Promise<SnapshotProvider> {
  const session = await openGcpSession(options);
  const { project } = options;
  const nameOf = (snapshot: Identifiers) => {
    const name = snapshot.get("snapshot_name");
    return typeof name === "string" ? name : null;
  };
  return {
    cloud: "gcp",
    maxNameLength: MAX_NAME,
    info: () => new Map([["project", project]]),
    snapshotId: nameOf,
    async findInstance(name, callOptions) {
      const instance = await findInstance(session, options, name, callOptions);
      return {
        id: name,
        disks: instance.disks,
        takeSnapshots: (requests, take) => takeSnapshots(session, instance, requests, take),
        async createDisks(requests, create) {
          const paths = await createGcpDisks(session, instance, requests, create);
          // It is done: the signal comes too late.
          const { disks } = await findInstance(session, options, name, {});
          return paths.map((made) => {
            const disk = disks.find(({ path }) => inProject(path) === inProject(made));
            if (disk !== undefined) return disk;
            throw new SnapshotError("failed", `Google does not show ${made} on ${name}`);
          });
        },
      };
    },
    checkDeletable: () => Promise.resolve(),
    delete: (snapshot, callOptions) => {
      const owner = snapshot.get("snapshot_project");
      return deleteSnapshot(
        session,
        typeof owner === "string" ? owner : project,
        nameOf(snapshot) ?? "",
        callOptions,
      );
    },
    close: () => session.close(),
  };
}

async function findInstance(
  session: GcpSession,
  { project, zone }: GcpOptions,
  name: string,
  { signal }: Cancellable,
): Promise<GcpInstance> {
  if (zone === undefined) {
    throw new SnapshotError("invalid", "The zone of the instance is not known: give --gcp-zone");
  }
  const path = `projects/${project}/zones/${zone}/instances/${encodeURIComponent(name)}`;
  const found = await session.get({ action: `look for instance ${name}`, signal }, path)
    .catch((error: unknown) => {
      if (!(error instanceof SnapshotError) || error.kind !== "not-found") throw error;
      throw new SnapshotError(
        "not-found",
        `Instance ${name} does not exist in zone ${zone} of project ${project} (${wordsOf(error)})`,
        { cause: error },
      );
    });
  const attached = listOf(found["disks"]).map(recordOf);
  const data = attached.filter((disk) => disk["boot"] !== true && textAt(disk, "source") !== null);
  const boot = attached.find((disk) => disk["boot"] === true);
  const disks = await Promise.all(data.map(async (disk): Promise<GcpDisk> => {
    const diskPath = pathOf(textAt(disk, "source") ?? "");
    const id = lastOf(diskPath);
    const details = await session.get({ action: `look at disk ${id}`, signal }, diskPath);
    const deviceName = textAt(disk, "deviceName") ?? id;
    const snapshot = textAt(details, "sourceSnapshot");
    const size = numberAt(details, "sizeGb");
    return {
      id,
      name: null,
      path: diskPath,
      location: { kind: "links", paths: [`/dev/disk/by-id/google-${deviceName}`] },
      size: size === null ? null : size * GB,
      sourceSnapshot: snapshot === null ? null : lastOf(snapshot),
      identifiers: new Map([["device_name", deviceName]]),
    };
  }));
  const bootSource = boot === undefined ? null : textAt(boot, "source");
  return {
    id: name,
    disks,
    project,
    zone,
    deviceNames: attached.map((disk) => textAt(disk, "deviceName") ?? ""),
    bootDisk: bootSource === null ? undefined : pathOf(bootSource),
  };
}

async function takeSnapshots(
  session: GcpSession,
  instance: GcpInstance,
  requests: readonly SnapshotRequest[],
  options: TakeOptions,
): Promise<void> {
  const { signal, onWarning } = options;
  const { project } = instance;
  const scope = `projects/${project}/global`;
  const labels = labelsOf(options.tags, onWarning);
  const names = requests.map(({ name }) => name);
  const limit = { ms: options.limit.ms, message: tooLate(options.limit, names) };
  const tell = progressOf(names, options.onProgress);
  const begun = await allSettled(requests, async ({ disk, name }) => {
    const source = instance.disks.find(({ id }) => id === disk.id);
    if (source === undefined) throw new SnapshotError("failed", `No disk ${disk.id}`);
    const made = () => options.onCreated(disk, identifiersOf(source, name, project));
    const call = { action: `create snapshot ${name} of disk ${disk.id}`, signal };
    const insert = (labels: Readonly<Record<string, string>> | undefined) =>
      session.begin({ ...call, whole: true }, "POST", `${scope}/snapshots`, {}, {
        name,
        sourceDisk: source.path,
        description: options.description,
        ...(labels === undefined ? {} : { labels }),
      });
    const operation = await making(made, () =>
      insert(labels).catch((error: unknown) => {
        // Barman sets no labels, so that credentials that were made for it may not.
        const denied = error instanceof SnapshotError && error.kind === "denied";
        if (!denied || labels === undefined) throw error;
        onWarning(`${error.message}; trying without labels`);
        return insert(undefined);
      }));
    return { call, name, operation };
  });
  await allSettled(begun, async ({ call, name, operation }) => {
    await session.finish(call, scope, operation, {
      onWarning,
      onProgress: (percent) => tell(name, Math.min(99, percent)),
      limit,
    });
    tell(name, 100);
  });
}

function identifiersOf(disk: GcpDisk, name: string, project: string): Identifiers {
  return new Map([
    ...disk.identifiers,
    ["snapshot_name", name],
    ["snapshot_project", project],
  ]);
}

/** So long a snapshot that is still being made is waited for before it can be deleted, in milliseconds. */
const NOT_READY_MS = 10 * 60_000;

async function deleteSnapshot(
  session: GcpSession,
  project: string,
  name: string,
  { signal }: Cancellable,
): Promise<boolean> {
  const limit = {
    ms: NOT_READY_MS,
    message: `Snapshot ${name} is in use or still being made: try again later`,
  };
  const call = { action: `delete snapshot ${name}`, signal };
  const path = `projects/${project}/global/snapshots/${encodeURIComponent(name)}`;
  const result = await lookUntil<{ readonly found: boolean }>(async () => {
    let accepted = false;
    try {
      const operation = await session.begin(call, "DELETE", path, {});
      accepted = true;
      await session.finish(call, `projects/${project}/global`, operation, {
        onWarning: () => {},
        limit,
      });
      return { found: true };
    } catch (error) {
      if (!(error instanceof SnapshotError)) throw error;
      const isMissing = error.kind === "not-found" || error.code === "RESOURCE_NOT_FOUND";
      // Not the project: then nobody knows of the snapshot.
      if (isMissing && error.message.includes(`snapshots/${name}`)) return { found: false };
      if (isMissing) {
        const remedy = "look at the project, and whose the credentials are";
        throw placeNotFound(error, accepted, remedy);
      }
      if (!/NotReady|InUse|NOT_READY|IN_USE/.test(error.code ?? "")) throw error;
      return undefined;
    }
  }, { pauses: session.pauses, signal, limit });
  return result.found;
}

/** Of a resource's URL what follows the API's version. */
function pathOf(url: string): string {
  return url.replace(/^.*?\/(?=projects\/)/, "");
}

/** Of a disk's path what follows the project, which may be told by its number or its id. */
function inProject(path: string): string {
  return path.replace(/^projects\/[^/]+/, "");
}

/** The last component: names must be equal, not only end alike. */
function lastOf(path: string): string {
  return path.slice(path.lastIndexOf("/") + 1);
}
