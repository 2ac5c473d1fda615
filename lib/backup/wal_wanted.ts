/** Backups that were not there when it was decided which WAL goes. */
import { parseTimeline } from "../wal/segment.ts";
import { loadBackups } from "./catalogue.ts";
import type { DeletionContext } from "./delete.ts";
import { listBase } from "./keep.ts";
import { readRunningMark } from "./running_mark.ts";
import type { WalRule } from "./wal_cleanup.ts";

/**
 * Does a backup that has been completed since, or that is being taken, need WAL that a rule lets go?
 * @param known ids of the backups that the rule was made from
 * @returns who and why, for the log; null when nobody does
 */
export async function whoNeedsWal(
  { store, layout, signal }: Pick<DeletionContext, "store" | "layout" | "signal">,
  rule: WalRule,
  known: ReadonlySet<string>,
  now: Date,
): Promise<string | null> {
  const { ids, complete } = await listBase(store, layout, { signal });
  const others = [...ids].filter((id) => !known.has(id));
  const { backups } = await loadBackups(
    store,
    layout,
    others.filter((id) => complete.has(id)),
    { signal },
  );
  for (const { id, info: { status, beginWal } } of backups) {
    if (status !== "DONE" && status !== "WAITING_FOR_WALS") continue;
    if (needs(beginWal, rule)) return `backup ${id}, which has just been completed, needs it`;
  }
  for (const id of others.filter((id) => !complete.has(id))) {
    const running = await readRunningMark(store, layout, id, now, { signal });
    if (running === null || !needs(running.beginWal, rule)) continue;
    return `backup ${id} is being taken (${running.description}) and will need it`;
  }
  return null;
}

function needs(begin: string | null, { limit, limitTimeline }: WalRule): boolean {
  if (begin === null) return true;
  const name = begin.toUpperCase();
  // Of another timeline: what it needs of the limit's can't be told.
  return parseTimeline(name.slice(0, 8)) !== limitTimeline || name < limit;
}
