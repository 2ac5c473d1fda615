/** Persistent disks made from snapshots and attached to an instance. */
import type { CreateOptions, DiskRequest } from "../provider.ts";
import { textAt } from "../rest.ts";
import { allSettled } from "../waiting.ts";
import { labelsOf } from "./labels.ts";
import type { GcpInstance } from "./provider.ts";
import type { GcpSession } from "./session.ts";

const DELETION_MS = 60_000;

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
  const labels = labelsOf(options.tags, onWarning);
  const type = await typeOfBootDisk(session, instance, options);
  const begun = new Set<string>();
  const attached = new Set<string>();
  const run = async (action: string, path: string, body: unknown) => {
    signal.throwIfAborted();
    const operation = await session.begin({ action }, "POST", path, {}, body);
    await session.finish({ action, signal }, scope, operation, { onWarning });
  };
  try {
    await allSettled(requests, async ({ snapshot, name }) => {
      const source = String(snapshot.get("snapshot_name"));
      const owner = snapshot.get("snapshot_project");
      begun.add(name);
      await run(`create disk ${name} from snapshot ${source}`, `${scope}/disks`, {
        name,
        sourceSnapshot: `projects/${
          typeof owner === "string" ? owner : project
        }/global/snapshots/${source}`,
        ...(type === undefined ? {} : { type }),
        ...(labels === undefined ? {} : { labels }),
      });
      onNotice(`Created disk ${name} in ${zone}`);
    });
    const inUse = new Set(instance.deviceNames);
    return await allSettled(requests, async ({ snapshot, name }) => {
      const recorded = snapshot.get("device_name");
      const device = typeof recorded === "string" && !inUse.has(recorded) ? recorded : name;
      inUse.add(device);
      const path = `${scope}/disks/${name}`;
      await run(
        `attach disk ${name} to ${instance.id}`,
        `${scope}/instances/${encodeURIComponent(instance.id)}/attachDisk`,
        { source: path, deviceName: device, mode: "READ_WRITE", autoDelete: false },
      );
      attached.add(name);
      onNotice(`Attached disk ${name} to ${instance.id} as ${device}`);
      return path;
    });
  } catch (error) {
    for (const name of begun) {
      if (attached.has(name)) {
        onWarning(`Disk ${name} was attached already and is left as it is: detach and delete it`);
      } else await deleteDisk(session, scope, name, options);
    }
    throw error;
  }
}

/** What an instance boots from it can certainly use, which is not so of every type. */
async function typeOfBootDisk(
  session: GcpSession,
  { bootDisk }: GcpInstance,
  { signal }: CreateOptions,
): Promise<string | undefined> {
  if (bootDisk === undefined) return undefined;
  const disk = await session.get({ action: `look at disk ${bootDisk}`, signal }, bootDisk);
  return textAt(disk, "type")?.replace(/^.*?\/(?=projects\/)/, "");
}

async function deleteDisk(
  session: GcpSession,
  scope: string,
  name: string,
  { onNotice, onWarning }: CreateOptions,
): Promise<void> {
  const call = { action: `delete disk ${name}`, signal: AbortSignal.timeout(DELETION_MS) };
  try {
    const operation = await session.begin(call, "DELETE", `${scope}/disks/${name}`, {});
    await session.finish(call, scope, operation, { onWarning });
    onNotice(`Deleted disk ${name} again`);
  } catch (error) {
    const reason = error instanceof Error ? error.message : String(error);
    onWarning(`Disk ${name} may be left, delete it: ${reason}`);
  }
}
