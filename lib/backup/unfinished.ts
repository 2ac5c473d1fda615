/** What is to be said of a directory below base/ that has no backup.info. */
import type { Cancellable, ObjectStore } from "../../providers/object_store.ts";
import type { ServerLayout } from "../layout.ts";
import { readRunningMark } from "./running_mark.ts";

/** A mark is renewed every ten minutes; some renewals may fail. */
const FRESH_MS = 3600_000;

export interface UnfinishedBackup {
  /** A process is taking it. */
  readonly running: boolean;
  /** One line for people. */
  readonly description: string;
}

/** @throws {StoreError} */
export async function describeUnfinished(
  store: ObjectStore,
  layout: ServerLayout,
  id: string,
  now: Date,
  options: Cancellable,
): Promise<UnfinishedBackup> {
  const mark = await readRunningMark(store, layout, id, now, options);
  if (mark !== null && now.getTime() - mark.renewed.getTime() < FRESH_MS) {
    return { running: true, description: `Backup ${id} is being taken (${mark.description})` };
  }
  const by = mark === null ? "" : ` (it was begun ${mark.description})`;
  return {
    running: false,
    description:
      `Backup ${id} has no backup.info${by}: it is still being taken, or was not finished, or is half ` +
      "deleted; barman-cloud cleanup removes what was left",
  };
}
