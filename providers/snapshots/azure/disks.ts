/** Managed disks made from snapshots and attached to a virtual machine. */
import { type CreateOptions, type DiskRequest, SnapshotError } from "../provider.ts";
import { allSettled } from "../waiting.ts";
import { type AzureInstance, azureTags } from "./provider.ts";
import { type AzureOptions, type AzureSession, computeOf } from "./session.ts";

/** Where the instance does not tell what it uses itself: every size of machine takes it. */
const DEFAULT_TYPE = "StandardSSD_LRS";
const DELETION_MS = 60_000;
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
  const begun: string[] = [];
  let attaching = false;
  try {
    await allSettled(requests, async ({ snapshot, name }) => {
      const source = String(snapshot.get("snapshot_name"));
      const action = `create disk ${name} from snapshot ${source}`;
      signal.throwIfAborted();
      begun.push(name);
      const answer = await session.begin({ action }, "PUT", resourceOf(name), {
        location: instance.location,
        ...(instance.zones.length === 0 ? {} : { zones: instance.zones }),
        ...(labels === undefined ? {} : { tags: labels }),
        sku: { name: instance.bootDiskType ?? DEFAULT_TYPE },
        properties: {
          creationData: { createOption: "Copy", sourceResourceId: `${snapshots}/${source}` },
        },
      });
      await session.finish({ action, signal }, answer);
      onNotice(`Created disk ${name} in ${instance.location}`);
    });
    signal.throwIfAborted();
    const action = `attach ${begun.join(", ")} to ${instance.id}`;
    attaching = true;
    const answer = await session.begin(
      { action },
      "POST",
      `${instance.resource}/attachDetachDataDisks`,
      {
        dataDisksToAttach: requests.map((request) => ({
          diskId: resourceOf(request.name),
          lun: String(luns.get(request)),
        })),
      },
    );
    await session.finish({ action, signal }, answer);
    for (const request of requests) {
      onNotice(`Attached disk ${request.name} to ${instance.id} as LUN ${luns.get(request)}`);
    }
    return requests.map(({ name }) => name);
  } catch (error) {
    if (attaching) {
      onWarning(`Disks are left, perhaps attached: detach and delete ${begun.join(", ")}`);
    } else {
      for (const name of begun) {
        const call = { action: `delete disk ${name}`, signal: AbortSignal.timeout(DELETION_MS) };
        try {
          await session.finish(call, await session.begin(call, "DELETE", resourceOf(name)));
          onNotice(`Deleted disk ${name} again`);
        } catch (problem) {
          const reason = problem instanceof Error ? problem.message : String(problem);
          onWarning(`Disk ${name} may be left, delete it: ${reason}`);
        }
      }
    }
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
