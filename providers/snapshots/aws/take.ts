/** Snapshots of EBS volumes: of several volumes at one point in time where EC2 lets us. */
import {
  CreateSnapshotCommand,
  CreateSnapshotsCommand,
  CreateTagsCommand,
  DeleteSnapshotCommand,
  DescribeLockedSnapshotsCommand,
  DescribeSnapshotsCommand,
  type LockedSnapshotsInfo,
  LockSnapshotCommand,
  type Snapshot,
  type SnapshotInfo,
  type Tag,
} from "@aws-sdk/client-ec2";
import type { Tags } from "../../object_store.ts";
import {
  type AttachedDisk,
  SnapshotError,
  type SnapshotProgress,
  type SnapshotRequest,
  type TakeOptions,
} from "../provider.ts";
import { allSettled, lookUntil, tooLate } from "../waiting.ts";
import type { AwsInstance } from "./instance.ts";
import { type Ec2Session, literally } from "./session.ts";

export interface SnapshotLock {
  readonly mode: "governance" | "compliance";
  /** Days. */
  readonly duration?: number | undefined;
  /** Hours. */
  readonly coolOffPeriod?: number | undefined;
  readonly expirationDate?: Date | undefined;
}

export interface TakeContext {
  readonly session: Ec2Session;
  readonly lock: SnapshotLock | undefined;
  readonly onOwner: (account: string) => void;
}

interface Made {
  readonly request: SnapshotRequest;
  readonly id: string;
}

/** Most volumes that CreateSnapshots can be told to leave out. */
const MAX_EXCLUDED = 40;
/** EC2 may forget for a moment: only so many looks in a row tell that a snapshot that was seen is gone. */
const LOOKS_UNTIL_GONE = 3;
/** What is done after a failure has so long. */
const CLEAR_UP_MS = 30_000;

export async function takeSnapshots(
  context: TakeContext,
  instance: AwsInstance,
  requests: readonly SnapshotRequest[],
  options: TakeOptions,
): Promise<void> {
  const made = await createAll(context, instance, requests, options);
  if (context.lock !== undefined) {
    await allSettled(made, ({ id }) => lockSnapshot(context, id, options));
  }
  await waitForAll(context, made, options);
}

async function createAll(
  context: TakeContext,
  instance: AwsInstance,
  requests: readonly SnapshotRequest[],
  options: TakeOptions,
): Promise<Made[]> {
  const excluded = instance.disks.map(({ id }) => id)
    .filter((id) => requests.every(({ disk }) => disk.id !== id));
  let isLost = false;
  // An answer that was lost may have been a success.
  const watched = <T>(answer: Promise<T>) =>
    answer.catch((error: unknown) => {
      isLost ||= error instanceof SnapshotError && error.kind === "unreachable";
      throw error;
    });
  try {
    if (requests.length > 1 && excluded.length <= MAX_EXCLUDED) {
      const together = await watched(
        createTogether(context, instance, requests, excluded, options),
      );
      if (together !== undefined) return together;
    }
    return await allSettled(requests, async (request) => {
      const made = await watched(createOne(context, request, options));
      known(context, request, made, options);
      return { request, id: made.SnapshotId ?? "" };
    });
  } catch (error) {
    if (isLost) await findLost(context, requests, options);
    throw error;
  }
}

/**
 * One call for all, whose snapshots are of one moment ("crash-consistent").
 * @returns undefined where that is not possible here
 */
async function createTogether(
  context: TakeContext,
  instance: AwsInstance,
  requests: readonly SnapshotRequest[],
  excluded: readonly string[],
  options: TakeOptions,
): Promise<Made[] | undefined> {
  const tags = tagList(options);
  let snapshots: SnapshotInfo[];
  try {
    const answer = await context.session.call(
      {
        action: `create snapshots of the volumes of ${instance.id}`,
        once: true,
        signal: options.signal,
      },
      (client) =>
        client.send(
          new CreateSnapshotsCommand({
            InstanceSpecification: {
              InstanceId: instance.id,
              ExcludeBootVolume: true,
              ...(excluded.length === 0 ? {} : { ExcludeDataVolumeIds: [...excluded] }),
            },
            Description: options.description,
            ...(tags.length === 0
              ? {}
              : { TagSpecifications: [{ ResourceType: "snapshot", Tags: tags }] }),
          }),
        ),
    );
    snapshots = answer.Snapshots ?? [];
  } catch (error) {
    if (!(error instanceof SnapshotError) || !notAllowed(error)) throw error;
    options.onNotice(
      `Snapshots of several volumes at one point are not possible here (${error.message}): they are started ` +
        "one by one, all at once",
    );
    return undefined;
  }
  const made: Made[] = [];
  const strangers: string[] = [];
  for (const snapshot of snapshots) {
    const request = requests.find(({ disk }) => disk.id === snapshot.VolumeId);
    if (request === undefined) strangers.push(snapshot.SnapshotId ?? "");
    else {
      known(context, request, snapshot, options);
      made.push({ request, id: snapshot.SnapshotId ?? "" });
    }
  }
  for (const id of strangers) await deleteStranger(context, id, options);
  const missing = requests.filter((request) => made.every((it) => it.request !== request));
  if (missing.length > 0) {
    const names = missing.map(({ disk }) => disk.id).join(", ");
    throw new SnapshotError(
      "failed",
      `EC2 made no snapshot of ${names}: was it detached from ${instance.id} meanwhile?`,
    );
  }
  await allSettled(made, ({ request, id }) => nameSnapshot(context, id, request.name, options));
  return requests.flatMap((request) => made.filter((it) => it.request === request));
}

/** One set of tags goes to all snapshots of the call, but each has a name of its own. */
async function nameSnapshot(
  { session }: TakeContext,
  id: string,
  name: string,
  { signal, onWarning }: TakeOptions,
): Promise<void> {
  try {
    await session.call(
      { action: `name snapshot ${id} ${name}`, young: true, signal },
      (client, options) =>
        client.send(
          new CreateTagsCommand({ Resources: [id], Tags: [{ Key: "Name", Value: name }] }),
          options,
        ),
    );
  } catch (error) {
    // Policies may allow tags only in the call that makes the snapshot. It is whole without a name.
    if (!(error instanceof SnapshotError) || error.kind !== "denied") throw error;
    onWarning(error.message);
  }
}

/** A volume was attached between our look at the instance and the snapshots of it. */
async function deleteStranger(
  { session }: TakeContext,
  id: string,
  { onNotice, onWarning }: TakeOptions,
): Promise<void> {
  const signal = AbortSignal.timeout(CLEAR_UP_MS);
  try {
    await session.call(
      { action: `delete snapshot ${id}`, young: true, signal },
      (client, options) => client.send(new DeleteSnapshotCommand({ SnapshotId: id }), options),
    );
    onNotice(`Deleted snapshot ${id} of a volume that was attached meanwhile`);
  } catch (error) {
    const reason = error instanceof Error ? error.message : String(error);
    onWarning(`EC2 also made a snapshot of a volume that was attached meanwhile: ${reason}`);
  }
}

/** The call is not granted, or not known to an EC2 that is not Amazon's. */
function notAllowed({ code = "" }: SnapshotError): boolean {
  return /^(UnauthorizedOperation|AccessDenied.*|UnsupportedOperation|InvalidAction|NotImplemented.*|OperationNotPermitted)$/
    .test(code);
}

function createOne(
  { session }: TakeContext,
  { disk, name }: SnapshotRequest,
  options: TakeOptions,
): Promise<Snapshot> {
  return session.call(
    { action: `create a snapshot of volume ${disk.id}`, once: true, signal: options.signal },
    (client) =>
      client.send(
        new CreateSnapshotCommand({
          VolumeId: disk.id,
          Description: options.description,
          TagSpecifications: [{
            ResourceType: "snapshot",
            Tags: [{ Key: "Name", Value: name }, ...tagList(options)],
          }],
        }),
      ),
  );
}

/** `Name` is the snapshot's own. */
function tagList({ tags }: { readonly tags: Tags | undefined }): Tag[] {
  return (tags ?? []).filter(([Key]) => Key !== "Name").map(([Key, Value]) => ({ Key, Value }));
}

function known(
  { lock, onOwner }: TakeContext,
  { disk, name }: SnapshotRequest,
  snapshot: Snapshot | SnapshotInfo,
  { onCreated }: Pick<TakeOptions, "onCreated">,
): void {
  if (snapshot.OwnerId !== undefined) onOwner(snapshot.OwnerId);
  onCreated(disk, identifiersOf(disk, snapshot.SnapshotId ?? "", name, lock));
}

function identifiersOf(
  disk: AttachedDisk,
  id: string,
  name: string,
  lock: SnapshotLock | undefined,
) {
  return new Map<string, string | null>([
    ["device_name", String(disk.identifiers.get("device_name"))],
    ["snapshot_id", id],
    ["snapshot_name", name],
    ["snapshot_lock_mode", lock?.mode ?? null],
  ]);
}

/** The description names the backup, so that what carries it can only be ours. */
async function findLost(
  context: TakeContext,
  requests: readonly SnapshotRequest[],
  options: TakeOptions,
): Promise<void> {
  const signal = AbortSignal.timeout(CLEAR_UP_MS);
  try {
    const { Snapshots = [] } = await context.session.call(
      { action: "look for snapshots whose answer was lost", signal },
      (client, sendOptions) =>
        client.send(
          new DescribeSnapshotsCommand({
            OwnerIds: ["self"],
            Filters: [
              { Name: "description", Values: [literally(options.description)] },
              { Name: "volume-id", Values: requests.map(({ disk }) => disk.id) },
            ],
          }),
          sendOptions,
        ),
    );
    for (const snapshot of Snapshots) {
      const request = requests.find(({ disk }) => disk.id === snapshot.VolumeId);
      if (request !== undefined) known(context, request, snapshot, options);
    }
    // New ones may take a while to be seen.
    if (Snapshots.length < requests.length) warnOfLost("", options);
  } catch (error) {
    warnOfLost(`: ${error instanceof Error ? error.message : error}`, options);
  }
}

function warnOfLost(reason: string, { onWarning, description }: TakeOptions): void {
  onWarning(
    "Snapshots may have been made that we don't know of; look for those with the description " +
      `"${description}"${reason}`,
  );
}

async function lockSnapshot(
  { session, lock }: TakeContext,
  id: string,
  { signal, onNotice }: TakeOptions,
): Promise<void> {
  if (lock === undefined) return;
  const answer = await session.call(
    { action: `lock snapshot ${id}`, young: true, signal },
    (client, options) =>
      client.send(
        new LockSnapshotCommand({
          SnapshotId: id,
          LockMode: lock.mode,
          ...(lock.duration === undefined ? {} : { LockDuration: lock.duration }),
          ...(lock.coolOffPeriod === undefined ? {} : { CoolOffPeriod: lock.coolOffPeriod }),
          ...(lock.expirationDate === undefined ? {} : { ExpirationDate: lock.expirationDate }),
        }),
        options,
      ),
  ).catch(async (error: unknown) => {
    if (!(error instanceof SnapshotError) || error.kind === "denied") throw error;
    const held = await findLock(session, id, lock, signal);
    if (held === undefined) throw error;
    return held;
  });
  onNotice(
    `Locked snapshot ${id}: ${answer.LockState ?? lock.mode}` +
      (answer.LockExpiresOn === undefined ? "" : ` until ${answer.LockExpiresOn.toISOString()}`),
  );
}

/**
 * Of a lock whose answer was lost, a repeat may be refused: those of mode compliance can't be set twice.
 * @returns undefined when there is none as it is wanted, or EC2 does not tell
 */
async function findLock(
  session: Ec2Session,
  id: string,
  lock: SnapshotLock,
  signal: AbortSignal,
): Promise<LockedSnapshotsInfo | undefined> {
  let found: LockedSnapshotsInfo[];
  try {
    const answer = await session.call(
      { action: `look for a lock on ${id}`, signal },
      (client, options) =>
        client.send(new DescribeLockedSnapshotsCommand({ SnapshotIds: [id] }), options),
    );
    found = answer.Snapshots ?? [];
  } catch (error) {
    if (!(error instanceof SnapshotError)) throw error;
    return undefined;
  }
  const { mode, duration, expirationDate } = lock;
  return found.find(({ SnapshotId, LockState = "", LockDuration, LockExpiresOn }) =>
    SnapshotId === id &&
    // Also `compliance-cooloff`.
    LockState.startsWith(mode) &&
    (duration === undefined || LockDuration === duration) &&
    (expirationDate === undefined || LockExpiresOn?.getTime() === expirationDate.getTime())
  );
}

async function waitForAll(
  { session }: TakeContext,
  made: readonly Made[],
  { signal, onProgress, limit }: TakeOptions,
): Promise<void> {
  const ids = made.map(({ id }) => id);
  /** Of those that were seen: how often in a row they then were not. */
  const absences = new Map<string, number>();
  const look = async (): Promise<true | undefined> => {
    const snapshots = await describeSnapshots(session, ids, signal);
    const progress = made.map(({ request, id }): SnapshotProgress => {
      const snapshot = snapshots.find(({ SnapshotId }) => SnapshotId === id);
      const what = `Snapshot ${id} of volume ${request.disk.id}`;
      const before = absences.get(id);
      if (snapshot !== undefined) absences.set(id, 0);
      // EC2 may need a moment to know a new one everywhere.
      else if (before !== undefined) absences.set(id, before + 1);
      if (absences.get(id) === LOOKS_UNTIL_GONE) {
        throw new SnapshotError("failed", `${what} was deleted meanwhile`);
      }
      if (snapshot?.State === "error") {
        const reason = snapshot.StateMessage || "EC2 gives no reason";
        throw new SnapshotError("failed", `${what} failed: ${reason}`);
      }
      if (snapshot?.State === "completed") return { name: request.name, percent: 100 };
      const percent = /^(\d+)%$/.exec(snapshot?.Progress ?? "")?.[1];
      // 99: all of it is there when the state says so.
      return {
        name: request.name,
        percent: percent === undefined ? null : Math.min(99, Number(percent)),
      };
    });
    onProgress(progress);
    return progress.every(({ percent }) => percent === 100) || undefined;
  };
  await lookUntil(look, {
    pauses: session.pauses,
    signal,
    limit: { ms: limit.ms, message: tooLate(limit, ids) },
  });
}

/** By a filter, which has no error for those that are not known yet. */
async function describeSnapshots(
  session: Ec2Session,
  ids: readonly string[],
  signal: AbortSignal,
): Promise<Snapshot[]> {
  const { Snapshots = [] } = await session.call(
    { action: `look at snapshots ${ids.join(", ")}`, signal },
    (client, options) =>
      client.send(
        new DescribeSnapshotsCommand({
          OwnerIds: ["self"],
          Filters: [{ Name: "snapshot-id", Values: [...ids] }],
        }),
        options,
      ),
  );
  return Snapshots;
}
