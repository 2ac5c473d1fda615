/**
 * How deletions and keeps of one backup get along without a lock server, by the order of what they do:
 *
 * - a deletion writes a mark of its own beside the backup, then looks for a keep annotation, then deletes;
 * - a keep writes its annotation, then looks for marks, then for backup.info.
 *
 * Whatever the interleaving, at least one of the two sees the other. A deletion that sees a keep takes its mark away and
 * refuses; it looks before it deletes anything, so it never stops in the middle for a keep. A keep that sees a mark waits
 * for it to go, and then looks whether the backup is there. So a keep that succeeds is never lost. (Stores have been
 * strongly consistent for years; without that nothing would help.)
 *
 * A killed deletion leaves its mark. It does not stand in the way for long: after an hour (a deletion that is at work
 * renews it far more often) a keep looks whether all archives that the mark counted are still there, and if so the mark
 * means nothing any more. If not, the backup is half deleted, and deleting it again finishes that. Marks go with the
 * backup. Barman does not know any of this; a keep of Barman's that is there before the deletion begins is seen.
 */
import { hostname } from "node:os";
import {
  type Cancellable,
  isStoreError,
  type ObjectStore,
  type StoredObject,
} from "../../providers/object_store.ts";
import type { Logger } from "../cli/log.ts";
import type { ServerLayout } from "../layout.ts";
import { NotText, readText } from "./small_object.ts";

/** A mark that was not renewed for so long, milliseconds, belongs to a process that died. */
export const DELETION_MARK_LIFETIME_MS = 3600_000;
/** A deletion that goes on for longer, milliseconds, renews its mark, and looks again. */
const RENEW_AFTER_MS = 10 * 60_000;
const MAX_SIZE = 64 * 1024;

export interface DeletionMark {
  readonly key: string;
  /** Before the next step: renew the mark if it is no longer young. @returns true when it was */
  renew(): Promise<boolean>;
  /** Nothing was deleted and nothing will be. Never rejects; tells what could not be done. */
  withdraw(): Promise<void>;
}

export interface DeletionMarkContext {
  readonly store: ObjectStore;
  readonly layout: ServerLayout;
  readonly log: Logger;
  readonly signal: AbortSignal;
}

/**
 * Tell everybody that a backup is about to be deleted.
 * @param archives how many objects the backup's archives are; null for disk snapshots, which can't be counted later
 * @returns null when nothing may be deleted anyway; null, with a warning, when it is not allowed to write the mark: then
 * a keep at the same moment may be lost
 */
export async function markDeletion(
  { store, layout, log, signal }: DeletionMarkContext,
  id: string,
  archives: number | null,
): Promise<DeletionMark | null> {
  const key = layout.deletionMark(id, crypto.randomUUID());
  const write = async (state: "deleting" | "withdrawn", limit: AbortSignal) => {
    const text = JSON.stringify(
      {
        about: "Written by barman-cloud backup-delete: this backup is being deleted",
        state,
        archives,
        host: hostname(),
        pid: process.pid,
      },
      null,
      2,
    );
    await store.put(key, new TextEncoder().encode(`${text}\n`), { signal: limit });
  };
  try {
    // Who may not delete will leave the backup as it is; a mark could not be taken away any more.
    const [refusal] = await store.deleteMany([key], { signal });
    if (refusal !== undefined && isStoreError(refusal.error, "denied")) return null;
    await write("deleting", signal);
  } catch (error) {
    if (!isStoreError(error, "denied")) throw error;
    log.warning(
      `Backup ${id} is deleted without telling others first, so that a keep at the same moment may be lost: ` +
        error.message,
    );
    return null;
  }
  let written = performance.now();
  return {
    key,
    async renew() {
      if (performance.now() - written < RENEW_AFTER_MS) return false;
      await write("deleting", signal);
      written = performance.now();
      return true;
    },
    async withdraw() {
      const limit = AbortSignal.timeout(30_000);
      try {
        const [failure] = await store.deleteMany([key], { signal: limit });
        // Who may not delete can still take the words back.
        if (failure !== undefined) await write("withdrawn", limit);
      } catch (error) {
        const reason = error instanceof Error ? error.message : String(error);
        log.warning(
          `Cannot take back ${key}; delete it when backup ${id} is to be kept: ${reason}`,
        );
      }
    },
  };
}

/** Marks of deletions of a backup, in no particular order. */
export async function listDeletionMarks(
  store: ObjectStore,
  layout: ServerLayout,
  id: string,
  options: Cancellable,
): Promise<StoredObject[]> {
  const marks: StoredObject[] = [];
  for await (const entry of store.list(`${layout.backup(id)}deletion-`, options)) {
    if (entry.kind === "object" && isDeletionMark(layout, id, entry.key)) marks.push(entry);
  }
  return marks;
}

export function isDeletionMark(layout: ServerLayout, id: string, key: string): boolean {
  return /^deletion-[0-9a-f-]{36}\.json$/.test(key.slice(layout.backup(id).length));
}

/** How many archives the backup had when the deletion began; null when the deletion was withdrawn. */
export async function archivesOfMark(
  store: ObjectStore,
  key: string,
  options: Cancellable,
): Promise<number | null> {
  let json: unknown;
  try {
    json = JSON.parse(await readText(store, key, MAX_SIZE, options));
  } catch (error) {
    if (isStoreError(error, "not-found")) return null;
    // Whatever it is, the backup has not that many.
    if (error instanceof SyntaxError || error instanceof NotText) return Infinity;
    throw error;
  }
  const record: Readonly<Record<string, unknown>> = typeof json === "object" && json !== null
    ? { ...json }
    : {};
  if (record["state"] === "withdrawn") return null;
  return typeof record["archives"] === "number" ? record["archives"] : Infinity;
}
