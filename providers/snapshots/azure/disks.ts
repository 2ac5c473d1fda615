/** Managed disks made from snapshots and attached to a virtual machine. */
import { type CreateOptions, type DiskRequest, SnapshotError } from "../provider.ts";
import { allSettled } from "../waiting.ts";
import { type AzureInstance, azureTags } from "./provider.ts";
import { type AzureOptions, type AzureSession, computeOf } from "./session.ts";

/** Where the instance does not tell what it uses itself: every size of machine takes it. */
const DEFAULT_TYPE = "StandardSSD_LRS";
/** Making and attaching disks takes seconds, of some types minutes. */
const LIMIT_MS = 30 * 60_000;
/** After a failure, what was made has so long to be deleted. */
const CLEAR_UP_MS = 2 * 60_000;
/** Azure's machines have at most so many data disks. */
const MAX_LUNS = 64;

/** @returns the names of the disks */
export async function createAzureDisks(
  session: AzureSession,
  options: AzureOptions,
  instance: AzureInstance,
  requests: readonly DiskRequest[],
  { signal, onNotice, onWarning, tags }: CreateOptions,
): Promise<string[]> {
  const group = options.snapshotResourceGroup ?? options.resourceGroup;
  const snapshots = `${computeOf(options.subscriptionId, group)}/snapshots`;
  const labels = azureTags(tags, onWarning);
  const luns = chooseLuns(instance.luns, requests);
  const resourceOf = (name: string) => `${session.compute}/disks/${encodeURIComponent(name)}`;
  const limited = (action: string, ms = LIMIT_MS) => ({
    action,
    limit: { ms, message: `Cannot ${action}: it is not done after ${ms / 60_000} min` },
  });
  const begun: string[] = [];
  try {
    await allSettled(requests, async ({ snapshot, name }) => {
      const source = String(snapshot.get("snapshot_name"));
      const call = { ...limited(`create disk ${name} from snapshot ${source}`), signal };
      begun.push(name);
      const answer = await session.begin({ ...call, whole: true }, "PUT", resourceOf(name), {
        location: instance.location,
        ...(instance.zones.length === 0 ? {} : { zones: instance.zones }),
        ...(labels === undefined ? {} : { tags: labels }),
        sku: { name: instance.bootDiskType ?? DEFAULT_TYPE },
        properties: {
          creationData: { createOption: "Copy", sourceResourceId: `${snapshots}/${source}` },
        },
      });
      await session.finishPut(call, resourceOf(name), answer);
      onNotice(`Created disk ${name} in ${instance.location}`);
    });
    const call = { ...limited(`attach ${begun.join(", ")} to ${instance.id}`), signal };
    const resource = `${instance.resource}/attachDetachDataDisks`;
    const answer = await session.begin({ ...call, whole: true }, "POST", resource, {
      dataDisksToAttach: requests.map((request) => ({
        diskId: resourceOf(request.name),
        lun: luns.get(request),
      })),
    });
    await session.finish(call, answer);
    for (const request of requests) {
      onNotice(`Attached disk ${request.name} to ${instance.id} as LUN ${luns.get(request)}`);
    }
    return requests.map(({ name }) => name);
  } catch (error) {
    await allSettled(begun, async (name) => {
      const call = {
        ...limited(`delete disk ${name}`, CLEAR_UP_MS),
        signal: AbortSignal.timeout(CLEAR_UP_MS),
      };
      try {
        await session.finish(call, await session.begin(call, "DELETE", resourceOf(name)));
        onNotice(`Deleted disk ${name} again`);
      } catch (problem) {
        // Azure does not delete one that is attached after all.
        const reason = problem instanceof Error ? problem.message : String(problem);
        onWarning(`Disk ${name} may be left, detach and delete it: ${reason}`);
      }
    });
    throw error;
  }
}

/** The recorded one where it is free, else the lowest. */
function chooseLuns(
  inUse: readonly number[],
  requests: readonly DiskRequest[],
): Map<DiskRequest, number> {
  const taken = new Set(inUse);
  const chosen = new Map<DiskRequest, number>();
  const take = (request: DiskRequest, lun: number) => {
    taken.add(lun);
    chosen.set(request, lun);
  };
  for (const request of requests) {
    const lun = request.snapshot.get("lun");
    if (typeof lun === "number" && !taken.has(lun)) take(request, lun);
  }
  for (const request of requests) {
    if (chosen.has(request)) continue;
    const lun = Array.from({ length: MAX_LUNS }, (_, i) => i).find((it) => !taken.has(it));
    if (lun === undefined) throw new SnapshotError("invalid", "The instance has no free LUN");
    take(request, lun);
  }
  return chosen;
}
