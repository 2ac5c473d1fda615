/** Ids of backups: the local time of their start, `20260115T103000`. Everything sorts by them. */
import { setTimeout as timer } from "node:timers/promises";
import { isStoreError, type ObjectStore } from "../../providers/object_store.ts";
import type { ServerLayout } from "../layout.ts";
import { BackupError } from "./backup_error.ts";

export interface NewBackupIdOptions {
  readonly now: () => Date;
  readonly signal: AbortSignal;
  readonly onNotice: (message: string) => void;
  /** Whether nobody else is about to use this id, as far as can be told; asked for an id that the store has not. */
  readonly isFree?: ((id: string) => Promise<boolean>) | undefined;
}

/** Up to this many seconds it is waited for the clock to pass the newest id. */
const SHORT_WAIT = 2;
/** Up to this many seconds the clock may be behind the newest id: an hour of daylight saving time, and some. */
const PLAUSIBLE = 2 * 3600;

/**
 * An id that is not in use and greater than all others of the server. Normally the time; when the newest id is not
 * before it (two starts in one second, the end of daylight saving time) it waits a moment, or takes the second
 * after the newest.
 * @throws {BackupError} kind `refused` when the newest id is so far ahead that a clock must be wrong
 * @throws {StoreError} when the backups can't be listed; being denied to list is no obstacle
 */
export async function newBackupId(
  store: ObjectStore,
  layout: ServerLayout,
  options: NewBackupIdOptions,
): Promise<string> {
  for (;;) {
    const id = backupIdOf(options.now());
    const newest = await newestFrom(store, layout, id, options);
    if (newest === undefined) {
      if (await options.isFree?.(id) ?? true) return id;
      await sleep(1000, options.signal);
      continue;
    }
    const ahead = secondsOf(newest) - secondsOf(id);
    if (ahead > PLAUSIBLE) {
      throw new BackupError(
        "refused",
        `Cannot start backup ${id}: there is a backup ${newest}, which is later; check the clocks of ` +
          `this machine and of those that took backups of ${layout.server}, or delete that backup`,
      );
    }
    if (ahead > SHORT_WAIT) {
      const next = idOfSeconds(secondsOf(newest) + 1);
      options.onNotice(`The clock is behind backup ${newest}: this backup is called ${next}`);
      return next;
    }
    await sleep((ahead + 1) * 1000, options.signal);
  }
}

/** Local time as an id. */
export function backupIdOf(time: Date): string {
  const pad = (number: number, length = 2) => String(number).padStart(length, "0");
  return `${pad(time.getFullYear(), 4)}${pad(time.getMonth() + 1)}${pad(time.getDate())}T` +
    `${pad(time.getHours())}${pad(time.getMinutes())}${pad(time.getSeconds())}`;
}

/** The greatest id that is not before `id`; undefined when there is none. */
async function newestFrom(
  store: ObjectStore,
  layout: ServerLayout,
  id: string,
  { signal, onNotice }: NewBackupIdOptions,
): Promise<string | undefined> {
  let newest: string | undefined;
  const startAfter = `${layout.base}${id}`;
  try {
    for await (const entry of store.list(layout.base, { delimiter: "/", startAfter, signal })) {
      if (entry.kind !== "prefix") continue;
      const name = entry.prefix.slice(layout.base.length, -1);
      // Stores may give the group that `startAfter` itself is in, or one just before it.
      if (/^\d{8}T\d{6}$/.test(name) && name >= id) newest = name;
    }
  } catch (error) {
    // Credentials that may only write are enough for a backup.
    if (!isStoreError(error, "denied")) throw error;
    onNotice(`Cannot look for backup ${id} before it starts: ${error.message}`);
    return undefined;
  }
  return newest;
}

/** Seconds on a scale of local time without zone, for differences between ids. */
function secondsOf(id: string): number {
  const part = (start: number, length: number) => Number(id.slice(start, start + length));
  const days = Date.UTC(part(0, 4), part(4, 2) - 1, part(6, 2));
  return days / 1000 + part(9, 2) * 3600 + part(11, 2) * 60 + part(13, 2);
}

function idOfSeconds(seconds: number): string {
  return new Date(seconds * 1000).toISOString().replace(/[-:]|\..*/g, "");
}

async function sleep(ms: number, signal: AbortSignal): Promise<void> {
  try {
    await timer(ms, undefined, { signal });
  } catch (error) {
    signal.throwIfAborted();
    throw error;
  }
}
