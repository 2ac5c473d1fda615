/** Managed disks made from snapshots and attached to a virtual machine. */
import { type CreateOptions, type DiskRequest, SnapshotError } from "../provider.ts";
import { numberAt, recordOf, textAt } from "../rest.ts";
import { allSettled } from "../waiting.ts";
import { type AzureInstance, azureTags } from "./provider.ts";
import { type AzureOptions, type AzureSession, computeOf, resourceId } from "./session.ts";

/** Where the instance does not tell what it uses itself: every size of machine takes it. */
const DEFAULT_TYPE = "StandardSSD_LRS";
/** Making and attaching disks takes seconds, of some types minutes. */
const LIMIT_MS = 30 * 60_000;
/** Disks of these types are filled in the background. */
const FILLED_LATER = /^(UltraSSD_LRS|PremiumV2_LRS)$/i;
const FILLING_LIMIT_MS = 24 * 60 * 60_000;
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
  const snapshots = computeOf(options.subscriptionId, group);
  const labels = azureTags(tags, onWarning);
  const luns = chooseLuns(instance.luns, requests);
  const resourceOf = (name: string) => resourceId(session.compute, "disks", name);
  const limited = (action: string, ms = LIMIT_MS) => ({
    action,
    limit: { ms, message: `Cannot ${action}: it is not done after ${ms / 60_000} min` },
  });
  const begun: string[] = [];
  try {
    await allSettled(requests, async ({ snapshot, name }) => {
      const source = String(snapshot.get("snapshot_name"));
      const sourceResourceId = resourceId(snapshots, "snapshots", source);
      const needed = await neededType(session, sourceResourceId, { signal, onWarning });
      const type = needed ?? instance.bootDiskType ?? DEFAULT_TYPE;
      // Zone-redundant disks are in all zones.
      const zones = /_ZRS$/i.test(type) ? [] : instance.zones;
      const isFilledLater = FILLED_LATER.test(type);
      if (isFilledLater) {
        onNotice(`Disk ${name} of type ${type} is filled in the background: this takes long`);
      }
      const ms = isFilledLater ? FILLING_LIMIT_MS : LIMIT_MS;
      const call = { ...limited(`create disk ${name} from snapshot ${source}`, ms), signal };
      begun.push(name);
      const answer = await session.begin({ ...call, whole: true }, "PUT", resourceOf(name), {
        location: instance.location,
        ...(zones.length === 0 ? {} : { zones }),
        ...(labels === undefined ? {} : { tags: labels }),
        sku: { name: type },
        properties: { creationData: { createOption: "Copy", sourceResourceId } },
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

/**
 * A snapshot with sectors of 4096 bytes can only become a disk of the types that have such: of that of the disk that
 * it was taken of. One with sectors of 512 bytes can become any.
 * @returns undefined when any will do, or that disk can't be looked at any more
 */
async function neededType(
  session: AzureSession,
  snapshot: string,
  { signal, onWarning }: Pick<CreateOptions, "signal" | "onWarning">,
): Promise<string | undefined> {
  try {
    const action = `look at snapshot ${snapshot}`;
    const { properties } = await session.get({ action, signal }, snapshot);
    const creation = recordOf(recordOf(properties)["creationData"]);
    const disk = textAt(creation, "sourceResourceId");
    if (disk === null || numberAt(creation, "logicalSectorSize") === 512) return undefined;
    const { sku } = await session.get({ action: `look at disk ${disk}`, signal }, disk);
    const type = textAt(recordOf(sku), "name");
    return type !== null && FILLED_LATER.test(type) ? type : undefined;
  } catch (error) {
    if (!(error instanceof SnapshotError)) throw error;
    if (error.kind !== "not-found") {
      onWarning(`Cannot tell what types of disk snapshot ${snapshot} can become: ${error.message}`);
    }
    return undefined;
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
