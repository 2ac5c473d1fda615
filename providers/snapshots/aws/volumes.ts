/** EBS volumes made from snapshots and attached to an instance. */
import {
  AttachVolumeCommand,
  CreateVolumeCommand,
  DeleteVolumeCommand,
  DescribeVolumesCommand,
  DetachVolumeCommand,
  type Volume,
} from "@aws-sdk/client-ec2";
import { randomUUID } from "node:crypto";
import {
  type AttachedDisk,
  type CreateOptions,
  type DiskRequest,
  SnapshotError,
} from "../provider.ts";
import { allSettled, lookUntil } from "../waiting.ts";
import { type AwsInstance, diskOf } from "./instance.ts";
import type { Ec2Session } from "./session.ts";

/** In every region. A snapshot does not tell of what type its volume was; the type can be changed afterwards. */
const VOLUME_TYPE = "gp3";
/** Making and attaching a volume takes seconds. */
const LIMIT_MS = 10 * 60_000;
/** After a failure, what was made has so long to be detached and deleted. */
const CLEAR_UP_MS = 2 * 60_000;

export async function createVolumes(
  session: Ec2Session,
  instance: AwsInstance,
  requests: readonly DiskRequest[],
  options: CreateOptions,
): Promise<AttachedDisk[]> {
  const { zone } = instance;
  const { signal, onNotice } = options;
  if (zone === undefined) {
    throw new SnapshotError("failed", `EC2 does not tell the zone of instance ${instance.id}`);
  }
  const devices = chooseDevices(instance.devices, requests);
  const made: string[] = [];
  const attached = new Set<string>();
  try {
    const volumes = await allSettled(requests, async (request) => {
      const { VolumeId: id = "" } = await createVolume(session, request, zone, options);
      made.push(id);
      onNotice(`Created volume ${id} (${request.name}) in ${zone}`);
      await waitFor(session, id, isAvailable, signal);
      return { id, device: devices.get(request) ?? "" };
    });
    return await allSettled(volumes, async ({ id, device }) => {
      await session.call(
        { action: `attach volume ${id} to ${instance.id} as ${device}`, once: true, signal },
        (client) => {
          attached.add(id);
          return client.send(
            new AttachVolumeCommand({ InstanceId: instance.id, VolumeId: id, Device: device }),
          );
        },
      );
      const volume = await waitFor(session, id, isAttached, signal);
      onNotice(`Attached volume ${id} to ${instance.id} as ${device}`);
      const disk = diskOf(volume, device);
      if (disk === undefined) throw new SnapshotError("failed", `EC2 does not describe ${id}`);
      return disk;
    });
  } catch (error) {
    await allSettled(made, (id) => clearUp(session, id, attached.has(id), options));
    throw error;
  }
}

async function createVolume(
  session: Ec2Session,
  { snapshot, name }: DiskRequest,
  zone: string,
  { tags, signal }: CreateOptions,
): Promise<Volume> {
  signal.throwIfAborted();
  const id = String(snapshot.get("snapshot_id"));
  const more = (tags ?? []).filter(([Key]) => Key !== "Name");
  const command = new CreateVolumeCommand({
    AvailabilityZone: zone,
    SnapshotId: id,
    VolumeType: VOLUME_TYPE,
    // By this EC2 knows a request that it has got before.
    ClientToken: randomUUID(),
    TagSpecifications: [{
      ResourceType: "volume",
      Tags: [{ Key: "Name", Value: name }, ...more.map(([Key, Value]) => ({ Key, Value }))],
    }],
  });
  // Not with the signal: nobody would know of the volume.
  return await session.call(
    { action: `create a volume from snapshot ${id}` },
    (client) => client.send(command),
  );
}

const isAvailable = ({ State }: Volume) => State === "available";
const isAttached = ({ Attachments = [] }: Volume) =>
  Attachments.some(({ State }) => State === "attached");

/** By a filter, which has no error for a volume that is not known everywhere yet. */
function waitFor(
  session: Ec2Session,
  id: string,
  isDone: (volume: Volume) => boolean,
  signal: AbortSignal,
): Promise<Volume> {
  return lookUntil<Volume>(async () => {
    const { Volumes = [] } = await session.call(
      { action: `look at volume ${id}`, signal },
      (client, options) =>
        client.send(
          new DescribeVolumesCommand({ Filters: [{ Name: "volume-id", Values: [id] }] }),
          options,
        ),
    );
    const [volume] = Volumes;
    if (volume?.State === "error") {
      throw new SnapshotError("failed", `EC2 could not make volume ${id}: its state is "error"`);
    }
    return volume !== undefined && isDone(volume) ? volume : undefined;
  }, {
    pauses: session.pauses,
    signal,
    limit: { ms: LIMIT_MS, message: `Volume ${id} is not ready after ${LIMIT_MS / 60_000} min` },
  });
}

/**
 * The recorded name where it is free, else the next one that EC2 recommends for data volumes, then others that it
 * takes (https://docs.aws.amazon.com/ebs/latest/userguide/device_naming.html).
 */
function chooseDevices(
  inUse: readonly string[],
  requests: readonly DiskRequest[],
): Map<DiskRequest, string> {
  const taken = new Set(inUse.map(deviceKey));
  const isFree = (name: string) => !taken.has(deviceKey(name));
  const names = [
    ...[..."fghijklmnop"].map((letter) => `/dev/sd${letter}`),
    ...["b", "c", "d"].flatMap((first) =>
      [..."abcdefghijklmnopqrstuvwxyz"].map((second) => `/dev/xvd${first}${second}`)
    ),
  ];
  const chosen = new Map<DiskRequest, string>();
  const take = (request: DiskRequest, name: string | undefined) => {
    if (name === undefined) return;
    taken.add(deviceKey(name));
    chosen.set(request, name);
  };
  for (const request of requests) {
    const recorded = request.snapshot.get("device_name");
    if (typeof recorded === "string" && isFree(recorded)) take(request, recorded);
  }
  for (const request of requests) {
    if (!chosen.has(request)) take(request, names.find(isFree));
  }
  return chosen;
}

/** The same for all spellings of one device: `/dev/sdf`, `/dev/xvdf` and `xvdf` are one on Xen. */
function deviceKey(name: string): string {
  return name.replace(/^(\/dev\/)?(sd|xvd)/, "");
}

/** Never throws. */
async function clearUp(
  session: Ec2Session,
  id: string,
  isAttached: boolean,
  { onNotice, onWarning }: CreateOptions,
): Promise<void> {
  const signal = AbortSignal.timeout(CLEAR_UP_MS);
  try {
    if (isAttached) await detach(session, id, signal);
    await session.call(
      { action: `delete volume ${id}`, signal },
      (client, options) => client.send(new DeleteVolumeCommand({ VolumeId: id }), options),
    );
    onNotice(`Deleted volume ${id} again`);
  } catch (error) {
    const reason = error instanceof Error ? error.message : String(error);
    onWarning(`Volume ${id} is left, detach and delete it: ${reason}`);
  }
}

async function detach(session: Ec2Session, id: string, signal: AbortSignal): Promise<void> {
  try {
    await session.call(
      { action: `detach volume ${id}`, signal },
      (client, options) => client.send(new DetachVolumeCommand({ VolumeId: id }), options),
    );
  } catch (error) {
    // It was not attached after all.
    if (!(error instanceof SnapshotError) || error.code !== "IncorrectState") throw error;
  }
  await waitFor(session, id, isAvailable, signal);
}
