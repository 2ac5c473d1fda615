/** The part of `backup-delete` that is for backups made of disk snapshots. */
import { DeletionFailed } from "../backup/delete.ts";
import type { SnapshotsInfo } from "../backup/snapshots_info.ts";
import type { CommandContext } from "../cli/command.ts";
import type { CommonValues } from "../cli/common_options.ts";
import { deleteSnapshots } from "../snapshots/remove.ts";
import { SnapshotError } from "../../providers/snapshots/provider.ts";
import { snapshotsOfInfo } from "./snapshots.ts";

/**
 * @throws {DeletionFailed} for a snapshot that is locked
 * @throws {SnapshotError} {CommandError} for everything else
 */
export async function deleteSnapshotsOf(
  id: string,
  snapshots: SnapshotsInfo,
  { url, onBegun }: { readonly url: string; readonly onBegun: () => void },
  values: CommonValues,
  context: CommandContext,
): Promise<void> {
  const provider = await snapshotsOfInfo(snapshots, { url }, values, context);
  try {
    await deleteSnapshots(provider, snapshots, {
      signal: context.signal,
      onBegun,
      onNotice: (message) => context.log.info(message),
      onWarning: (message) => context.log.warning(message),
    });
  } catch (error) {
    if (!(error instanceof SnapshotError) || error.kind !== "locked") throw error;
    throw new DeletionFailed(`Cannot delete backup ${id}: ${error.message}`, { cause: error });
  } finally {
    provider.close();
  }
}
