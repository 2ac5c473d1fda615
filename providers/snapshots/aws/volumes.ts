/** EBS volumes made from snapshots and attached to an instance. */
import {
  AttachVolumeCommand,
  CreateVolumeCommand,
  DeleteVolumeCommand,
  DescribeVolumesCommand,
  type Volume,
} from "@aws-sdk/client-ec2";
import {
  type AttachedDisk,
  type CreateOptions,
  type DiskRequest,
  SnapshotError,
} from "../provider.ts";
import { allSettled, lookUntil } from "../waiting.ts";
import { type AwsInstance, diskOf } from "./instance.ts";
import type { Ec2Session } from "./session.ts";

/** In every region, and never slower than what it replaces. */
const VOLUME_TYPE = "gp3";
/** Making and attaching a volume takes seconds. */
const LIMIT_MS = 10 * 60_000;
const DELETION_MS = 60_000;

export async function createVolumes(
  session: Ec2Session,
  instance: AwsInstance,
  requests: readonly DiskRequest[],
  options: CreateOptions,
): Promise<AttachedDisk[]> {
  const { zone } = instance;
  if (zone === undefined) {
    throw new SnapshotError("failed", `EC2 does not tell the zone of instance ${instance.id}`);
  }
  const devices = chooseDevices(instance.devices, requests);
  const made = new Map<DiskRequest, string>();
  const attached = new Set<string>();
  try {
    await allSettled(requests, async (request) => {
      const { VolumeId: id = "" } = await createVolume(session, request, zone, options);
      made.set(request, id);
      options.onNotice(`Created volume ${id} (${request.name}) in ${zone}`);
      await waitFor(session, id, "available", options);
    });
    return await allSettled(requests, async (request) => {
      const id = made.get(request) ?? "";
      const device = devices.get(request) ?? "";
      options.signal.throwIfAborted();
      await session.call(
        { action: `attach volume ${id} to ${instance.id} as ${device}`, once: true },
        (client) =>
          client.send(
            new AttachVolumeCommand({ InstanceId: instance.id, VolumeId: id, Device: device }),
          ),
      );
      attached.add(id);
      const volume = await waitFor(session, id, "attached", options);
      options.onNotice(`Attached volume ${id} to ${instance.id} as ${device}`);
      const disk = diskOf(volume, device);
      if (disk === undefined) throw new SnapshotError("failed", `EC2 does not describe ${id}`);
      return disk;
    });
  } catch (error) {
    await clearUp(session, [...made.values()], attached, options);
    throw error;
  }
}

function createVolume(
  session: Ec2Session,
  { snapshot, name }: DiskRequest,
  zone: string,
  { tags }: CreateOptions,
): Promise<Volume> {
  const id = String(snapshot.get("snapshot_id"));
  const all = [
    { Key: "Name", Value: name },
    ...(tags ?? []).map(([Key, Value]) => ({ Key, Value })),
  ];
  return session.call(
    { action: `create a volume from snapshot ${id}`, once: true },
    (client) =>
      client.send(
        new CreateVolumeCommand({
          AvailabilityZone: zone,
          SnapshotId: id,
          VolumeType: VOLUME_TYPE,
          TagSpecifications: [{ ResourceType: "volume", Tags: all }],
        }),
      ),
  );
}

function waitFor(
  session: Ec2Session,
  id: string,
  state: "available" | "attached",
  { signal }: CreateOptions,
): Promise<Volume> {
  return lookUntil<Volume>(async () => {
    const { Volumes = [] } = await session.call(
      { action: `look at volume ${id}`, signal },
      (client, options) => client.send(new DescribeVolumesCommand({ VolumeIds: [id] }), options),
    );
    const [volume] = Volumes;
    if (volume?.State === "error") {
      throw new SnapshotError("failed", `EC2 could not make volume ${id}: its state is "error"`);
    }
    if (volume === undefined) return undefined;
    const done = state === "available"
      ? volume.State === "available"
      : volume.Attachments?.some(({ State }) => State === "attached");
    return done === true ? volume : undefined;
  }, {
    pauses: session.pauses,
    signal,
    limit: { ms: LIMIT_MS, message: `Volume ${id} is not ${state} after ${LIMIT_MS / 60_000} min` },
  });
}

/** The recorded name where it is free, else the next one that EC2 recommends for data volumes. */
function chooseDevices(
  inUse: readonly string[],
  requests: readonly DiskRequest[],
): Map<DiskRequest, string> {
  const taken = new Set(inUse);
  const letters = [..."fghijklmnopabcdeqrstuvwxyz"];
  const names = [
    ...letters.slice(0, 11).map((letter) => `/dev/sd${letter}`),
    ...letters.flatMap((letter) => letters.map((second) => `/dev/xvd${second}${letter}`)),
  ];
  const chosen = new Map<DiskRequest, string>();
  const take = (request: DiskRequest, name: string | undefined) => {
    if (name === undefined) return;
    taken.add(name);
    chosen.set(request, name);
  };
  for (const request of requests) {
    const recorded = request.snapshot.get("device_name");
    if (typeof recorded === "string" && !taken.has(recorded)) take(request, recorded);
  }
  for (const request of requests) {
    if (!chosen.has(request)) take(request, names.find((name) => !taken.has(name)));
  }
  return chosen;
}

async function clearUp(
  session: Ec2Session,
  ids: readonly string[],
  attached: ReadonlySet<string>,
  { onNotice, onWarning }: CreateOptions,
): Promise<void> {
  const signal = AbortSignal.timeout(DELETION_MS);
  for (const id of ids) {
    if (attached.has(id)) {
      onWarning(`Volume ${id} was attached already and is left as it is: detach and delete it`);
      continue;
    }
    try {
      await session.call(
        { action: `delete volume ${id}`, signal },
        (client, options) => client.send(new DeleteVolumeCommand({ VolumeId: id }), options),
      );
      onNotice(`Deleted volume ${id} again`);
    } catch (error) {
      const reason = error instanceof Error ? error.message : String(error);
      onWarning(`Volume ${id} is left, delete it: ${reason}`);
    }
  }
}
