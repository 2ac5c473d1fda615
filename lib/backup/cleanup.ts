/**
 * What processes that died have left: parts of objects that nobody will complete, backups without backup.info, and claims
 * on names of WAL files.
 *
 * Dead is told from live by silence. A backup that is being taken sends parts, and renews its running mark even while it
 * waits for days for the last WAL; so a backup directory of which no object, part or mark is younger than the limit is
 * dead, and so is an upload of which no part is. What the store does not date (blocks on Azure) is dead only when the
 * backup that it belongs to has ended, or has a running mark that tells. Everything is looked at once more just before it is removed.
 */
import {
  isStoreError,
  type ObjectStore,
  type UnfinishedUpload,
} from "../../providers/object_store.ts";
import type { Logger } from "../cli/log.ts";
import type { ServerLayout } from "../layout.ts";
import { loadBackupInfo, UnreadableBackupInfo } from "./catalogue.ts";
import { isDeletionMark } from "./deletion_mark.ts";
import { readKeep } from "./keep.ts";

export interface CleanupContext {
  readonly store: ObjectStore;
  readonly layout: ServerLayout;
  readonly log: Logger;
  readonly signal: AbortSignal;
}

export interface CleanupRequest {
  /** Milliseconds without a sign of life. */
  readonly olderThanMs: number;
  /** Backups whose status is FAILED, too. */
  readonly failed: boolean;
  readonly now: Date;
}

/** Something to remove, or (with a reason) to leave. */
export interface Leftover {
  readonly kind: "upload" | "backup" | "claim";
  /** Key of an upload or of a claim on a WAL file's name; `…/base/ID/` of a backup. */
  readonly key: string;
  /** The backup that it is, or is a part of; null for WAL. */
  readonly backupId: string | null;
  /** Bytes in the store. */
  readonly size: number;
  /** Objects of a backup; 0 for an upload. */
  readonly objects: number;
  /** The last sign of life; null where the store does not tell. */
  readonly lastActivity: Date | null;
  /** Why it is removed, or left. */
  readonly reason: string;
  readonly uploads: readonly UnfinishedUpload[];
}

export interface CleanupPlan {
  readonly remove: readonly Leftover[];
  readonly leave: readonly Leftover[];
}

/**
 * Look for what is left. Nothing is changed.
 * @throws {StoreError}
 */
export async function planCleanup(
  context: CleanupContext,
  request: CleanupRequest,
): Promise<CleanupPlan> {
  const { store, layout, signal } = context;
  const uploads: UnfinishedUpload[] = [];
  for (const prefix of [layout.base, layout.wals]) {
    for await (const upload of store.listUploads(prefix, { signal })) uploads.push(upload);
  }
  const ids = new Set(uploads.flatMap(({ key }) => idOf(layout, key) ?? []));
  for await (const entry of store.list(layout.base, { delimiter: "/", signal })) {
    if (entry.kind === "prefix") ids.add(entry.prefix.slice(layout.base.length, -1));
  }
  const remove: Leftover[] = [];
  const leave: Leftover[] = [];
  const file = (leftover: Leftover, dead: boolean) => (dead ? remove : leave).push(leftover);
  for (const id of [...ids].sort()) {
    const own = uploads.filter(({ key }) => idOf(layout, key) === id);
    for (const { leftover, dead } of await judgeBackup(context, request, id, own)) {
      file(leftover, dead);
    }
  }
  for (const upload of uploads.filter(({ key }) => idOf(layout, key) === null)) {
    const { dead, reason } = judgeAge(upload.lastActivity ?? null, request);
    file({ ...uploadLeftover(upload, null), reason }, dead);
  }
  for await (const entry of store.list(layout.walClaims, { signal })) {
    if (entry.kind !== "object") continue;
    const { key, size, lastModified } = entry;
    const { dead, reason } = judgeAge(lastModified ?? null, request);
    const claim = { kind: "claim", key, backupId: null, size, objects: 1, uploads: [] } as const;
    file({
      ...claim,
      lastActivity: lastModified ?? null,
      reason: `its archiver did not finish, ${reason}`,
    }, dead);
  }
  return { remove, leave };
}

function idOf({ base }: ServerLayout, key: string): string | null {
  if (!key.startsWith(base)) return null;
  const [id = "", ...rest] = key.slice(base.length).split("/");
  return rest.length === 0 ? null : id;
}

interface Judged {
  readonly leftover: Leftover;
  readonly dead: boolean;
}

async function judgeBackup(
  context: CleanupContext,
  request: CleanupRequest,
  id: string,
  uploads: readonly UnfinishedUpload[],
): Promise<Judged[]> {
  const { store, layout, signal } = context;
  const found = await objectsOf(context, id);
  const dates = [...uploads.map(({ lastActivity }) => lastActivity), found.newest];
  const lastActivity = latest(dates);
  const leftover = {
    kind: "backup",
    key: layout.backup(id),
    backupId: id,
    size: found.size + uploads.reduce((sum, { size }) => sum + size, 0),
    objects: found.keys.length,
    lastActivity,
    uploads,
  } as const;
  const { dead, reason } = judgeAge(lastActivity, request);
  if (!found.hasInfo) {
    const dated = uploads.every((upload) => upload.lastActivity !== undefined);
    if (!dated && !found.keys.includes(layout.runningMark(id))) {
      const undated =
        "it has no backup.info, but who sends its blocks, and whether still, is not known; Azure " +
        "drops them after a week without a new one";
      return [{ leftover: { ...leftover, reason: undated }, dead: false }];
    }
    if (await readKeep(store, layout, id, { signal }) !== null) {
      return [{
        leftover: { ...leftover, reason: "it has no backup.info, but is kept" },
        dead: false,
      }];
    }
    const what = found.wasDeleted ? "its deletion did not finish" : "it has no backup.info";
    return [{ leftover: { ...leftover, reason: `${what}, ${reason}` }, dead }];
  }
  if (request.failed && await isFailed(context, id)) {
    const kept = await readKeep(store, layout, id, { signal }) !== null;
    if (!kept) return [{ leftover: { ...leftover, reason: `it FAILED, ${reason}` }, dead }];
  }
  // What is not dated can't be younger than the end of the backup, if the backup itself sent it.
  return uploads.map((upload) => {
    const judged = judgeAge(latest([upload.lastActivity, found.newest]), request);
    return {
      leftover: { ...uploadLeftover(upload, id), reason: `its backup has ended, ${judged.reason}` },
      dead: judged.dead,
    };
  });
}

function uploadLeftover(upload: UnfinishedUpload, backupId: string | null) {
  return {
    kind: "upload",
    key: upload.key,
    backupId,
    size: upload.size,
    objects: 0,
    lastActivity: upload.lastActivity ?? null,
    uploads: [upload],
  } as const;
}

function judgeAge(
  lastActivity: Date | null,
  { olderThanMs, now }: CleanupRequest,
): { readonly dead: boolean; readonly reason: string } {
  if (lastActivity === null) {
    return { dead: false, reason: "and when it was last written to is not known" };
  }
  const age = now.getTime() - lastActivity.getTime();
  return age > olderThanMs
    ? { dead: true, reason: `and nothing has happened for ${durationText(age)}` }
    : { dead: false, reason: `and something happened ${durationText(Math.max(age, 0))} ago` };
}

/** In the largest unit of which there are two: `36 hours`. */
export function durationText(ms: number): string {
  const units: readonly (readonly [name: string, ms: number])[] = [
    ["day", 86_400_000],
    ["hour", 3_600_000],
    ["minute", 60_000],
  ];
  const [name, unit] = units.find(([, size]) => ms >= 2 * size) ?? ["minute", 60_000];
  const count = Math.floor(ms / unit);
  return `${count} ${name}${count === 1 ? "" : "s"}`;
}

interface FoundObjects {
  readonly keys: readonly string[];
  readonly size: number;
  readonly newest: Date | undefined;
  readonly hasInfo: boolean;
  /** A deletion has begun. */
  readonly wasDeleted: boolean;
}

async function objectsOf(
  { store, layout, signal }: CleanupContext,
  id: string,
): Promise<FoundObjects> {
  const keys: string[] = [];
  let size = 0;
  let newest: Date | undefined;
  for await (const entry of store.list(layout.backup(id), { signal })) {
    if (entry.kind !== "object") continue;
    keys.push(entry.key);
    size += entry.size;
    newest = latest([newest, entry.lastModified]) ?? undefined;
  }
  return {
    keys,
    size,
    newest,
    hasInfo: keys.includes(layout.backupInfo(id)),
    wasDeleted: keys.some((key) => isDeletionMark(layout, id, key)),
  };
}

function latest(dates: readonly (Date | undefined)[]): Date | null {
  const known = dates.flatMap((date) => date === undefined ? [] : date.getTime());
  return known.length === 0 ? null : new Date(Math.max(...known));
}

/** One that has snapshots is `backup-delete`'s to delete. */
async function isFailed(
  { store, layout, signal }: CleanupContext,
  id: string,
): Promise<boolean> {
  try {
    const info = await loadBackupInfo(store, layout, id, { signal });
    return info?.status === "FAILED" && info.snapshotsInfo === null;
  } catch (error) {
    if (error instanceof UnreadableBackupInfo && error.permanent) return false;
    throw error;
  }
}

export interface CleanupResult {
  readonly removed: readonly Leftover[];
  /** What turned out to be alive, or could not be removed. */
  readonly left: readonly Leftover[];
  /** Some of it could not be removed. */
  readonly failed: boolean;
}

/**
 * Carry out a plan. Each thing is judged anew just before: what has shown a sign of life stays.
 * @throws {StoreError} when the store can't be asked
 */
export async function executeCleanup(
  context: CleanupContext,
  request: CleanupRequest,
  plan: CleanupPlan,
): Promise<CleanupResult> {
  const removed: Leftover[] = [];
  const left: Leftover[] = [];
  let failed = false;
  for (const leftover of plan.remove) {
    const alive = await signOfLife(context, request, leftover);
    if (alive !== null) {
      left.push({ ...leftover, reason: alive });
      continue;
    }
    const trouble = await removeLeftover(context, leftover);
    if (trouble === null) removed.push(leftover);
    else {
      failed ||= trouble.failed;
      left.push({ ...leftover, reason: trouble.reason });
    }
  }
  return { removed, left, failed };
}

/** @returns what has happened since the plan was made; null when nothing has */
async function signOfLife(
  context: CleanupContext,
  request: CleanupRequest,
  { key, kind, backupId, uploads }: Leftover,
): Promise<string | null> {
  const { store, signal } = context;
  if (kind === "claim") return null;
  const known = new Map(uploads.map((upload) => [upload.id, upload]));
  const now: UnfinishedUpload[] = [];
  for await (const upload of store.listUploads(key, { signal })) {
    if (kind === "backup" || known.has(upload.id)) now.push(upload);
    if (!known.has(upload.id) && kind === "backup") return "an upload has begun";
  }
  if (kind === "backup" && backupId !== null) {
    const judged = await judgeBackup(context, request, backupId, now);
    return judged.find(({ dead }) => !dead)?.leftover.reason ?? null;
  }
  const grown = now.find(({ id, size, lastActivity }) => {
    const before = known.get(id);
    return size !== before?.size || lastActivity?.getTime() !== before.lastActivity?.getTime();
  });
  return grown === undefined ? null : "a part has arrived";
}

async function removeLeftover(
  context: CleanupContext,
  { kind, key, backupId, uploads }: Leftover,
): Promise<{ readonly reason: string; readonly failed: boolean } | null> {
  const { store, layout, signal, log } = context;
  try {
    for (const upload of uploads) {
      const why = await store.removeUpload(upload, { signal });
      if (why !== undefined) return { reason: why, failed: false };
    }
    if (kind === "claim") {
      const [failure] = await store.deleteMany([key], { signal });
      return failure === undefined ? null : { reason: failure.error.message, failed: true };
    }
    if (kind === "upload" || backupId === null) return null;
    const { keys } = await objectsOf(context, backupId);
    // The metadata of a FAILED backup goes last, as with a deletion.
    const info = layout.backupInfo(backupId);
    for (const batch of [keys.filter((key) => key !== info), keys.filter((key) => key === info)]) {
      const [failure] = await store.deleteMany(batch, { signal });
      if (failure !== undefined) return { reason: failure.error.message, failed: true };
    }
    return null;
  } catch (error) {
    if (!isStoreError(error, "denied")) throw error;
    log.debug(error.stack ?? "");
    return { reason: error.message, failed: true };
  }
}
