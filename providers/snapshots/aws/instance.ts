/** Instances of EC2 and their volumes. */
import {
  DescribeInstancesCommand,
  DescribeVolumesCommand,
  type Filter,
  type Instance as Ec2Instance,
  type Volume,
} from "@aws-sdk/client-ec2";
import type { Cancellable } from "../../object_store.ts";
import { type AttachedDisk, SnapshotError } from "../provider.ts";
import { type Ec2Session, literally } from "./session.ts";

export interface AwsInstance {
  readonly id: string;
  readonly zone: string | undefined;
  /** All volumes but the root one. */
  readonly disks: readonly AttachedDisk[];
  /** Names of the devices in use, the root device's too: `/dev/sdf`. */
  readonly devices: readonly string[];
}

const STATES = ["pending", "running", "shutting-down", "stopping", "stopped"];
const GiB = 1024 ** 3;

/**
 * By id, or by the tag `Name`.
 * @throws {SnapshotError} kind `not-found`; kind `invalid` when several have that name
 */
export async function findInstance(
  session: Ec2Session,
  argument: string,
  options: Cancellable,
): Promise<AwsInstance> {
  const isId = /^i-([0-9a-f]{8}|[0-9a-f]{17})$/.test(argument);
  const found = await describeInstances(session, argument, [
    { Name: isId ? "instance-id" : "tag:Name", Values: [literally(argument)] },
    { Name: "instance-state-name", Values: STATES },
  ], options);
  const [instance, ...more] = found;
  if (instance?.InstanceId === undefined) {
    throw new SnapshotError(
      "not-found",
      `Instance ${argument} does not exist in ${session.region}, neither as an id nor as a tag Name`,
    );
  }
  if (more.length > 0) {
    const ids = found.map(({ InstanceId }) => InstanceId).join(", ");
    throw new SnapshotError(
      "invalid",
      `${found.length} instances are named ${argument}: ${ids}; give the id of one of them`,
    );
  }
  const id = instance.InstanceId;
  const attached = await describeVolumes(session, id, options);
  const disks: AttachedDisk[] = [];
  const devices: string[] = [];
  for (const volume of attached) {
    const attachment = volume.Attachments?.find(({ InstanceId }) => InstanceId === id);
    const device = deviceName(instance, volume) ?? attachment?.Device;
    if (device !== undefined) devices.push(device);
    if (device === undefined || device === instance.RootDeviceName) continue;
    const disk = diskOf(volume, device);
    if (disk !== undefined) disks.push(disk);
  }
  return {
    id,
    disks,
    devices,
    zone: instance.Placement?.AvailabilityZone,
  };
}

export function diskOf(volume: Volume, device: string): AttachedDisk | undefined {
  const { VolumeId: id, Size, SnapshotId, Tags } = volume;
  if (id === undefined) return undefined;
  return {
    id,
    name: Tags?.find(({ Key }) => Key === "Name")?.Value ?? null,
    location: { kind: "ec2", device, volumeId: id },
    size: Size === undefined ? null : Size * GiB,
    sourceSnapshot: SnapshotId || null,
    identifiers: new Map([["device_name", device]]),
  };
}

/** As in the instance's block-device mapping, which is what Barman records. */
function deviceName(instance: Ec2Instance, volume: Volume): string | undefined {
  return instance.BlockDeviceMappings?.find(({ Ebs }) => Ebs?.VolumeId === volume.VolumeId)
    ?.DeviceName;
}

async function describeInstances(
  session: Ec2Session,
  argument: string,
  filters: Filter[],
  { signal }: Cancellable,
): Promise<Ec2Instance[]> {
  const found: Ec2Instance[] = [];
  let token: string | undefined;
  do {
    const page = await session.call(
      { action: `look for instance ${argument}`, signal },
      (client, options) =>
        client.send(
          new DescribeInstancesCommand({ Filters: filters, NextToken: token }),
          options,
        ),
    );
    for (const { Instances = [] } of page.Reservations ?? []) found.push(...Instances);
    token = page.NextToken || undefined;
  } while (token !== undefined);
  return found;
}

async function describeVolumes(
  session: Ec2Session,
  instance: string,
  { signal }: Cancellable,
): Promise<Volume[]> {
  const found: Volume[] = [];
  let token: string | undefined;
  do {
    const page = await session.call(
      { action: `look for the volumes of ${instance}`, signal },
      (client, options) =>
        client.send(
          new DescribeVolumesCommand({
            Filters: [{ Name: "attachment.instance-id", Values: [instance] }],
            NextToken: token,
          }),
          options,
        ),
    );
    found.push(...page.Volumes ?? []);
    token = page.NextToken || undefined;
  } while (token !== undefined);
  return found;
}
