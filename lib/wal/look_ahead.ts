/** Archive a file, and with it those that PostgreSQL will ask for next. */
import { readdir } from "node:fs/promises";
import { basename, dirname, join } from "node:path";
import type { Logger } from "../cli/log.ts";
import { mapInParallel } from "../parallel.ts";
import type { ObjectStore } from "../../providers/object_store.ts";
import { type ArchivedWal, type ArchiveMemory, type ArchivePlan, archiveWal } from "./archive.ts";
import { isNoted, markOf, note } from "./archive_notes.ts";
import type { Verdicts } from "./identity.ts";
import { parseWalName } from "./segment.ts";
import { cleanSpool } from "./spool.ts";

/** Uploads at once; each has at most 32 MiB, a segment that is compressed, and its codec's memory. */
const AT_ONCE = 4;
/** Segments up to this size, bytes, are read into memory that is used again for the next. */
const MAX_REUSED = 16 * 1024 ** 2;
/** Once the file that was asked for is stored, the others get no more time than this, milliseconds. */
const GRACE_MS = 10_000;

export interface AheadOptions {
  readonly signal?: AbortSignal | undefined;
  readonly log: Logger;
  /** Directory for notes; see `openSpool`. */
  readonly spool: string;
  /** Files at most, the one that was asked for included. */
  readonly files: number;
}

/**
 * Archive the file of a plan as `archiveWal` does, and at the same time the segments that
 * `archive_status/*.ready` beside it shows to be next. Of those that the store has confirmed a note is left, so that
 * the call for them has nothing to do. What goes wrong with those is left for their own call.
 * @param planOf the plan for another file in the same directory
 * @throws what `archiveWal` throws for the file itself
 */
export async function archiveAhead(
  store: ObjectStore,
  plan: ArchivePlan,
  planOf: (path: string) => ArchivePlan | null,
  options: AheadOptions,
): Promise<ArchivedWal> {
  const { signal, log, spool, files } = options;
  const verdicts: Verdicts = new Map();
  const stop = new AbortController();
  const own = archiveWal(store, plan, { signal, log, verdicts });
  const free: ArchiveMemory[] = [];
  const others = (async () => {
    await cleanSpool(spool, log);
    const paths = await readyAfter(plan.path, files - 1);
    await mapInParallel(paths, Math.min(AT_ONCE, files) - 1 || 1, async (path) => {
      const next = planOf(path);
      if (next === null || stop.signal.aborted) return;
      const stopped = signal === undefined ? stop.signal : AbortSignal.any([signal, stop.signal]);
      const memory = free.pop() ?? newMemory();
      const known = { ...options, signal: stopped, verdicts, memory };
      // What broke off may still be reading into its memory.
      if (await archiveOther(store, next, known)) free.push(memory);
    });
  })().catch((error) => {
    log.info(`Cannot look ahead: ${error instanceof Error ? error.message : error}`);
  });
  try {
    const done = await own;
    const timer = setTimeout(() => stop.abort(new Error("There is no more time")), GRACE_MS);
    await others;
    clearTimeout(timer);
    return done;
  } catch (error) {
    // The others are of the same store and cluster: what stopped this one would stop them.
    stop.abort(error);
    await others;
    throw error;
  }
}

/** Only what is used of it becomes real memory. */
function newMemory(): ArchiveMemory {
  // One byte more than a file that does not get smaller, by which the end of it is seen.
  return { file: new Uint8Array(MAX_REUSED), object: new Uint8Array(MAX_REUSED + 1) };
}

async function archiveOther(
  store: ObjectStore,
  plan: ArchivePlan,
  options: AheadOptions & { readonly verdicts: Verdicts; readonly memory: ArchiveMemory },
): Promise<boolean> {
  const { spool, log } = options;
  const name = basename(plan.path);
  try {
    if (await isNoted(spool, plan.path)) return true;
    const before = await markOf(plan.path);
    const { key } = await archiveWal(store, plan, options);
    // The note is about what was read: a file that was replaced meanwhile gets none.
    if (await markOf(plan.path) === before) await note(spool, name, before);
    log.info(`Archived ${plan.path} ahead as ${key}`);
    return true;
  } catch (error) {
    log.info(
      `Did not archive ${plan.path} ahead: ${error instanceof Error ? error.message : error}`,
    );
    return false;
  }
}

/**
 * Paths of the segments that are ready to be archived after a file, in the order in which PostgreSQL asks for them.
 * Other files (history files come first, and are small) are left to their own calls.
 */
export async function readyAfter(path: string, count: number): Promise<readonly string[]> {
  if (count <= 0) return [];
  const directory = dirname(path);
  const own = basename(path);
  let names: string[];
  try {
    names = await readdir(join(directory, "archive_status"));
  } catch (error) {
    // A file that is archived by hand from elsewhere has no such directory beside it.
    if (error instanceof Error && "code" in error && error.code === "ENOENT") return [];
    throw error;
  }
  return names.filter((name) => name.endsWith(".ready"))
    .map((name) => name.slice(0, -".ready".length))
    .filter((name) => name > own && parseWalName(name)?.kind === "segment")
    .sort().slice(0, count).map((name) => join(directory, name));
}
