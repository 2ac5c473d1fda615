/** Deletes the snapshots of backups. */
import { reasonOf } from "../backup/backup_error.ts";
import type { SnapshotsInfo } from "../backup/snapshots_info.ts";
import {
  type Identifiers,
  SnapshotError,
  type SnapshotErrorKind,
  type SnapshotProvider,
} from "../../providers/snapshots/provider.ts";

/** A snapshot that could not be deleted. */
export interface Left {
  readonly snapshot: Identifiers;
  readonly name: string;
  readonly reason: string;
}

/** With these nothing has begun. */
const REFUSALS: readonly SnapshotErrorKind[] = ["denied", "invalid", "locked", "not-found"];

/** Delete what a failed backup has made, all at once. @returns what is left */
export async function removeSnapshots(
  provider: SnapshotProvider,
  snapshots: readonly Identifiers[],
  signal: AbortSignal,
): Promise<Left[]> {
  const left: Left[] = [];
  await Promise.all(snapshots.map(async (snapshot) => {
    try {
      await provider.delete(snapshot, { signal });
    } catch (error) {
      const reason = signal.aborted ? "the cloud did not answer in time" : reasonOf(error);
      left.push({ snapshot, name: provider.snapshotId(snapshot) ?? "", reason });
    }
  }));
  return left;
}

/**
 * Delete the snapshots of a backup. It is looked first whether all of them may be deleted; those that are not
 * there are warned about.
 * @throws {SnapshotError}
 */
export async function deleteSnapshots(
  provider: SnapshotProvider,
  info: SnapshotsInfo,
  { signal, onBegun, onNotice, onWarning }: {
    readonly signal: AbortSignal;
    /** Called when one is gone, or may be. */
    readonly onBegun?: (() => void) | undefined;
    readonly onNotice: (message: string) => void;
    readonly onWarning: (message: string) => void;
  },
): Promise<void> {
  const snapshots = identifiersOf(info);
  for (const snapshot of snapshots) {
    if (provider.snapshotId(snapshot) !== null) continue;
    throw new SnapshotError(
      "invalid",
      "Cannot delete the snapshots: backup.info does not tell the id of one of them",
    );
  }
  await provider.checkDeletable(snapshots, { signal });
  for (const snapshot of snapshots) {
    const name = provider.snapshotId(snapshot);
    const deleted = await provider.delete(snapshot, { signal }).catch((error) => {
      // Of an answer that did not come nothing is known.
      const refused = error instanceof SnapshotError && REFUSALS.includes(error.kind);
      if (!refused) onBegun?.();
      throw error;
    });
    onBegun?.();
    if (deleted) onNotice(`Deleted snapshot ${name}`);
    else onWarning(`Snapshot ${name} was not there any more`);
  }
}

/** As providers take them; backup.info may hold values of other types, which mean nothing to them. */
export function identifiersOf(info: SnapshotsInfo): Identifiers[] {
  return info.snapshots.map(({ identifiers }) =>
    new Map(
      [...identifiers].map(([name, value]) => [
        name,
        typeof value === "string" || typeof value === "number" ? value : null,
      ]),
    )
  );
}
