/** Persistent disks made from snapshots and attached to an instance. */
import type { CreateOptions, DiskRequest } from "../provider.ts";
import { type Call, textAt } from "../rest.ts";
import { allSettled } from "../waiting.ts";
import { labelsOf } from "./labels.ts";
import type { GcpInstance } from "./provider.ts";
import type { GcpSession } from "./session.ts";

/** Making and attaching disks takes seconds, of large ones minutes. */
const LIMIT_MS = 30 * 60_000;
/** After a failure, what was made has so long to be detached and deleted. */
const CLEAR_UP_MS = 2 * 60_000;

/** @returns the paths of the disks */
export async function createGcpDisks(
  session: GcpSession,
  instance: GcpInstance,
  requests: readonly DiskRequest[],
  options: CreateOptions,
): Promise<string[]> {
  const { project, zone } = instance;
  const { signal, onNotice, onWarning } = options;
  const scope = `projects/${project}/zones/${zone}`;
  const instancePath = `${scope}/instances/${encodeURIComponent(instance.id)}`;
  const labels = labelsOf(options.tags, onWarning);
  const type = await typeOfBootDisk(session, instance, options);
  const run = async (
    call: Call,
    method: "POST" | "DELETE",
    path: string,
    request: { readonly query?: Readonly<Record<string, string>>; readonly body?: unknown } = {},
    ms = LIMIT_MS,
  ) => {
    const { query = {}, body } = request;
    const operation = await session.begin({ ...call, whole: true }, method, path, query, body);
    const message = `Cannot ${call.action}: it is not done after ${ms / 60_000} min`;
    await session.finish(call, scope, operation, { onWarning, limit: { ms, message } });
  };
  const clearUp = async (name: string, device: string | undefined) => {
    const signal = AbortSignal.timeout(CLEAR_UP_MS);
    try {
      if (device !== undefined) {
        const call = { action: `detach disk ${name}`, signal };
        const request = { query: { deviceName: device } };
        // Perhaps it was not attached after all; if it is, deleting it will fail and tell.
        await run(call, "POST", `${instancePath}/detachDisk`, request, CLEAR_UP_MS).catch(() => {});
      }
      const call = { action: `delete disk ${name}`, signal };
      await run(call, "DELETE", `${scope}/disks/${name}`, {}, CLEAR_UP_MS);
      onNotice(`Deleted disk ${name} again`);
    } catch (error) {
      const reason = error instanceof Error ? error.message : String(error);
      onWarning(`Disk ${name} may be left, detach and delete it: ${reason}`);
    }
  };
  const begun = new Set<string>();
  const attached = new Map<string, string>();
  try {
    await allSettled(requests, async ({ snapshot, name }) => {
      const source = String(snapshot.get("snapshot_name"));
      const owner = snapshot.get("snapshot_project");
      const holder = typeof owner === "string" ? owner : project;
      begun.add(name);
      const call = { action: `create disk ${name} from snapshot ${source}`, signal };
      await run(call, "POST", `${scope}/disks`, {
        body: {
          name,
          sourceSnapshot: `projects/${holder}/global/snapshots/${source}`,
          ...(type === undefined ? {} : { type }),
          ...(labels === undefined ? {} : { labels }),
        },
      });
      onNotice(`Created disk ${name} in ${zone}`);
    });
    const inUse = new Set(instance.deviceNames);
    return await allSettled(requests, async ({ snapshot, name }) => {
      const recorded = snapshot.get("device_name");
      const device = typeof recorded === "string" && !inUse.has(recorded) ? recorded : name;
      inUse.add(device);
      const source = `${scope}/disks/${name}`;
      const call = { action: `attach disk ${name} to ${instance.id}`, signal };
      attached.set(name, device);
      await run(call, "POST", `${instancePath}/attachDisk`, {
        body: { source, deviceName: device, mode: "READ_WRITE", autoDelete: false },
      });
      onNotice(`Attached disk ${name} to ${instance.id} as ${device}`);
      return source;
    });
  } catch (error) {
    await allSettled([...begun], (name) => clearUp(name, attached.get(name)));
    throw error;
  }
}

/** What an instance boots from it can certainly use, which is not so of every type. @returns its path in the zone */
async function typeOfBootDisk(
  session: GcpSession,
  { bootDisk, project, zone }: GcpInstance,
  { signal }: CreateOptions,
): Promise<string | undefined> {
  if (bootDisk === undefined) return undefined;
  const disk = await session.get({ action: `look at disk ${bootDisk}`, signal }, bootDisk);
  const type = textAt(disk, "type");
  // That of a regional disk is the region's, which disks of a zone don't take.
  return type === null
    ? undefined
    : `projects/${project}/zones/${zone}/diskTypes/${type.slice(type.lastIndexOf("/") + 1)}`;
}
