/** Which files a WAL archive holds, by its listing. */
import { type CompressionName, stripSuffix } from "../compression/table.ts";
import type { ServerLayout } from "../layout.ts";
import type { Cancellable, ObjectStore, StoredObject } from "../../providers/object_store.ts";
import { formatTimeline, parseWalName, type WalName } from "./segment.ts";

/** An object of the archive that is a WAL file, compressed or not. */
export interface ArchivedFile {
  readonly object: StoredObject;
  readonly wal: WalName;
  readonly compression: CompressionName | null;
}

/**
 * The WAL files of an archive, in the order of their keys, as the listing comes; objects of other names are left out.
 * By Barman's rule every object below `wals/` counts whose last component, without at most one compression suffix,
 * is the name of a WAL file.
 */
export async function* listArchive(
  store: ObjectStore,
  layout: ServerLayout,
  options: Cancellable & { readonly startAfter?: string | undefined } = {},
): AsyncGenerator<ArchivedFile, void, void> {
  for await (const entry of store.list(layout.wals, options)) {
    if (entry.kind !== "object") continue;
    const { name, compression } = stripSuffix(entry.key.slice(entry.key.lastIndexOf("/") + 1));
    const wal = parseWalName(name);
    if (wal !== null) yield { object: entry, wal, compression };
  }
}

/**
 * The first file in the archive that a new server would collide with: any at all, or any of the given timeline or
 * a later one. Null when the archive is safe to use. Ends at the first hit.
 *
 * With a timeline the listing starts there: the names of the folders and of the history files begin with the timeline
 * in eight digits, upper case, and lower-case digits sort after them, so nothing that matters comes before.
 */
export async function findConflict(
  store: ObjectStore,
  layout: ServerLayout,
  options: Cancellable & { readonly timeline?: number | undefined } = {},
): Promise<ArchivedFile | null> {
  const { signal, timeline = 0 } = options;
  if (timeline >= 2 ** 32) return null;
  const startAfter = timeline === 0 ? undefined : `${layout.wals}${formatTimeline(timeline)}`;
  for await (const file of listArchive(store, layout, { signal, startAfter })) {
    if (file.wal.timeline >= timeline) return file;
  }
  return null;
}
