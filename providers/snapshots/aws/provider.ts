/** Snapshots of EBS volumes through the AWS SDK. This file and the SDK are loaded only when they are needed. */
import { DeleteSnapshotCommand, DescribeLockedSnapshotsCommand } from "@aws-sdk/client-ec2";
import { type Identifiers, SnapshotError, type SnapshotProvider } from "../provider.ts";
import { findInstance } from "./instance.ts";
import { type AwsOptions, openEc2Session } from "./session.ts";
import { type SnapshotLock, takeSnapshots } from "./take.ts";
import { createVolumes } from "./volumes.ts";

export interface AwsSnapshotOptions extends AwsOptions {
  readonly lock?: SnapshotLock | undefined;
}

/** EC2's limit of a tag's value. */
const MAX_NAME = 255;

/** @throws {SnapshotError} kind `invalid` without a region; {StoreError} for a profile that is not there */
export async function openAwsSnapshots(options: AwsSnapshotOptions): Promise<SnapshotProvider> {
  const session = await openEc2Session(options);
  let account: string | null = null;
  const idOf = (snapshot: Identifiers) => {
    const id = snapshot.get("snapshot_id");
    return typeof id === "string" ? id : null;
  };
  const context = {
    session,
    lock: options.lock,
    onOwner: (owner: string) => {
      account = owner;
    },
  };
  return {
    cloud: "aws",
    maxNameLength: MAX_NAME,
    info: () => new Map([["account_id", account], ["region", session.region]]),
    snapshotId: idOf,
    async findInstance(name, callOptions) {
      const instance = await findInstance(session, name, callOptions);
      return {
        id: instance.id,
        disks: instance.disks,
        takeSnapshots: (requests, take) => takeSnapshots(context, instance, requests, take),
        createDisks: (requests, create) => createVolumes(session, instance, requests, create),
      };
    },
    async checkDeletable(snapshots, { signal }) {
      const locked = snapshots.filter((snapshot) => snapshot.get("snapshot_lock_mode") !== null);
      const ids = locked.map(idOf).filter((id) => id !== null);
      if (ids.length === 0) return;
      let found;
      try {
        found = await session.call(
          { action: `look for locks on ${ids.join(", ")}`, signal },
          (client, sendOptions) =>
            client.send(new DescribeLockedSnapshotsCommand({ SnapshotIds: ids }), sendOptions),
        );
      } catch (error) {
        signal?.throwIfAborted();
        // Who may delete need not be allowed to look; the deletion itself will tell.
        if (error instanceof SnapshotError && error.kind !== "unreachable") return;
        throw error;
      }
      const holding = (found.Snapshots ?? []).filter(({ LockState }) => LockState !== "expired");
      const [first] = holding;
      if (first === undefined) return;
      const all = holding.map(({ SnapshotId, LockState, LockExpiresOn }) =>
        `${SnapshotId} (${LockState}${
          LockExpiresOn === undefined ? "" : ` until ${LockExpiresOn.toISOString()}`
        })`
      );
      throw new SnapshotError("locked", `Cannot delete locked snapshots: ${all.join(", ")}`);
    },
    async delete(snapshot, { signal }) {
      const id = idOf(snapshot) ?? "";
      try {
        await session.call(
          { action: `delete snapshot ${id}`, signal },
          (client, sendOptions) =>
            client.send(new DeleteSnapshotCommand({ SnapshotId: id }), sendOptions),
        );
        return true;
      } catch (error) {
        if (!(error instanceof SnapshotError)) throw error;
        if (error.kind === "not-found") return false;
        if (!speaksOfLock(error)) throw error;
        const { code, message } = error;
        throw new SnapshotError("locked", message, { code, cause: error });
      }
    },
    close: () => session.close(),
  };
}

/** EC2's reference does not tell the code of this refusal. */
function speaksOfLock({ kind, code = "", cause }: SnapshotError): boolean {
  // Ours names the endpoint, which may be called anything.
  const message = cause instanceof Error ? cause.message : "";
  return kind === "failed" && (/lock/i.test(code) || /\block/i.test(message));
}
