/** Fetch a segment, and with it those that recovery will ask for next. */
import { rm, stat } from "node:fs/promises";
import { join } from "node:path";
import type { Logger } from "../cli/log.ts";
import type { ServerLayout } from "../layout.ts";
import { mapInParallel } from "../parallel.ts";
import { type Cancellable, isStoreError, type ObjectStore } from "../../providers/object_store.ts";
import { HEADER_SIZE, headerMismatch, parseWalHeader } from "./header.ts";
import { moveDurably, openLocalFile } from "./local_file.ts";
import type { Candidate, RestoreRequest, RestoreResult } from "./restore.ts";
import { hashDirectory, parseWalName, type WalName } from "./segment.ts";
import { cleanSpool, distrust, SPOOL_LIFETIME_MS } from "./spool.ts";

/** Downloads at once. */
const AT_ONCE = 4;
/** Once the file that was asked for is there, the others get no more time than this, milliseconds. */
const GRACE_MS = 10_000;

export interface PrefetchOptions extends Cancellable {
  readonly log: Logger;
  /** Directory for what is fetched ahead; see `openSpool`. */
  readonly spool: string;
  /** Files at most, the one that was asked for included. */
  readonly files: number;
}

/**
 * Take a segment that was fetched before to its destination.
 * @returns false when it is not there, or not sure to be that segment
 */
export async function takeFetched(
  spool: string,
  name: string,
  destination: string,
): Promise<boolean> {
  const path = join(spool, name);
  const facts = await stat(path).catch(() => null);
  if (facts === null || Date.now() - facts.mtimeMs > SPOOL_LIFETIME_MS) return false;
  if (await distrust(spool) !== null) return false;
  if (!await isSegment(path, name)) {
    await rm(path, { force: true });
    return false;
  }
  return await moveDurably(path, destination);
}

/** A whole segment of that name, by its size and header. */
async function isSegment(path: string, name: string): Promise<boolean> {
  const wal = parseWalName(name);
  if (wal?.kind !== "segment") return false;
  const file = await openLocalFile(path);
  try {
    const header = parseWalHeader(await file.head(HEADER_SIZE));
    return header !== null && headerMismatch(header, wal, file.size, null) === null;
  } finally {
    await file.close();
  }
}

/**
 * Restore a segment as `restoreWal` does, and at the same time bring those that follow it in the archive into the spool,
 * one listing for all. What goes wrong with those is left for their own call.
 * @throws what `restoreWal` throws for the segment itself
 */
export async function restoreAhead(
  store: ObjectStore,
  layout: ServerLayout,
  request: RestoreRequest,
  options: PrefetchOptions,
): Promise<RestoreResult> {
  const { signal, log } = options;
  const { restoreWal } = await import("./restore.ts");
  const stop = new AbortController();
  const stopped = signal === undefined ? stop.signal : AbortSignal.any([signal, stop.signal]);
  const own = restoreWal(store, layout, request, { signal, log });
  const others = fetchNext(store, layout, request, { ...options, signal: stopped }).catch(
    (error) => log.info(`Cannot fetch ahead: ${error instanceof Error ? error.message : error}`),
  );
  try {
    const result = await own;
    // Where this one is not, those after it are of no use yet.
    if (result.kind === "not-found") stop.abort(new Error("There is nothing to fetch ahead"));
    const timer = setTimeout(() => stop.abort(new Error("There is no more time")), GRACE_MS);
    await others;
    clearTimeout(timer);
    return result;
  } catch (error) {
    stop.abort(error);
    await others;
    throw error;
  }
}

async function fetchNext(
  store: ObjectStore,
  layout: ServerLayout,
  { wal }: RestoreRequest,
  options: PrefetchOptions,
): Promise<void> {
  const { signal, log, spool, files } = options;
  await cleanSpool(spool, log);
  const next = await segmentsAfter(store, layout, wal, files - 1, options);
  const { download } = await import("./restore.ts");
  await mapInParallel(next, Math.min(AT_ONCE, files) - 1 || 1, async ({ name, candidate }) => {
    const destination = join(spool, name);
    if (signal?.aborted || await isThere(destination)) return;
    try {
      await download(store, candidate, destination, { signal, log });
    } catch (error) {
      log.info(`Did not fetch ${name} ahead: ${error instanceof Error ? error.message : error}`);
      // A full disk or a store that fails will not be better for the next one.
      if (!isStoreError(error, "not-found")) throw error;
    }
  });
}

async function isThere(path: string): Promise<boolean> {
  return await stat(path).then(() => true, () => false);
}

interface NextSegment {
  readonly name: string;
  /** The object that `restoreWal` would choose. */
  readonly candidate: Candidate;
}

/** The complete segments after one in the same folder of the archive: 255 at most with segments of 16 MiB. */
async function segmentsAfter(
  store: ObjectStore,
  layout: ServerLayout,
  wal: WalName,
  count: number,
  { signal }: Cancellable,
): Promise<readonly NextSegment[]> {
  const directory = hashDirectory(wal);
  if (directory === null || count <= 0) return [];
  const { stripSuffix } = await import("../compression/table.ts");
  const { chooseCandidates } = await import("./restore.ts");
  const folder = `${layout.wals}${directory}/`;
  const keys = new Map<string, string[]>();
  // Behind everything that begins with the name itself.
  for await (
    const entry of store.list(folder, { startAfter: `${layout.wal(wal.name)}~`, signal })
  ) {
    if (entry.kind !== "object") continue;
    const { name } = stripSuffix(entry.key.slice(folder.length));
    if (parseWalName(name)?.kind !== "segment") continue;
    // All keys of the last segment are seen when the one after it comes.
    if (keys.size === count && !keys.has(name)) break;
    keys.set(name, [...keys.get(name) ?? [], entry.key]);
  }
  return [...keys].flatMap(([name, found]) => {
    const next = parseWalName(name);
    const [candidate] = next === null ? [] : chooseCandidates(found, folder, next, false);
    return candidate === undefined ? [] : [{ name, candidate }];
  });
}
