/**
 * A small object beside the archives of a backup that is being taken; Barman looks past it. It is written anew every few
 * minutes, so its age tells a backup that is being taken from one whose process was killed, and it tells where the WAL
 * begins that the backup will need: whoever deletes WAL meanwhile leaves that alone. Once there is a backup.info it
 * means nothing, so it does no harm where it may not be deleted.
 */
import { hostname } from "node:os";
import {
  type Cancellable,
  isStoreError,
  type ObjectStore,
  type Tags,
} from "../../providers/object_store.ts";
import type { ServerLayout } from "../layout.ts";
import { BackupError, reasonOf } from "./backup_error.ts";
import { NotText, readText } from "./small_object.ts";

/** How often it is written, milliseconds. */
const RENEWAL_MS = 10 * 60_000;
/** How long writing or removing it may take, milliseconds. */
const LIMIT_MS = 10_000;
/** A backup whose mark is older than this, milliseconds, is not being taken any more. Many renewals may fail before. */
export const RUNNING_MARK_LIFETIME_MS = 24 * 3600_000;

export interface RunningMark {
  /** The first segment that the backup needs is known. Never rejects. */
  beginsAt(segment: string): void;
  /** The backup is complete or given up. Never rejects. */
  end(): Promise<void>;
}

export interface RunningMarkOptions {
  readonly tags: Tags | undefined;
  readonly signal: AbortSignal;
  readonly onNotice: (message: string) => void;
  /** False for a backup that may have been begun before under the same id: Barman tries its hooks again. */
  readonly exclusive: boolean;
}

/**
 * Tell everybody that a backup is being taken, until `end`.
 * @throws {BackupError} kind `refused` when another process takes a backup of this id
 * @throws {StoreError} when nothing can be written: the backup would fail, too
 */
export async function markRunning(
  store: ObjectStore,
  layout: ServerLayout,
  id: string,
  { tags, signal, onNotice, exclusive }: RunningMarkOptions,
): Promise<RunningMark> {
  const key = layout.runningMark(id);
  const began = new Date().toISOString();
  const token = crypto.randomUUID();
  let beginWal: string | null = null;
  let ended = false;
  const write = (options: Cancellable & { readonly createOnly?: boolean }) => {
    const text = JSON.stringify(
      {
        about: "Written by barman-cloud while it takes this backup",
        began,
        host: hostname(),
        pid: process.pid,
        beginWal,
        token,
      },
      null,
      2,
    );
    return store.put(key, new TextEncoder().encode(`${text}\n`), { tags, ...options });
  };
  try {
    await write({ signal, createOnly: exclusive });
  } catch (error) {
    if (!isStoreError(error, "exists")) throw error;
    // The answer to our own writing may have been lost.
    if (await isOurs(store, key, token, { signal })) return run();
    throw new BackupError(
      "refused",
      `Cannot start backup ${id}: another process is taking a backup of this id (${key}); try again in a second`,
      { cause: error },
    );
  }
  return run();

  function run(): RunningMark {
    // One after the other, so that an older text never replaces a newer one.
    let last: Promise<void> = Promise.resolve();
    const renew = () => {
      last = last.then(async () => {
        if (ended) return;
        try {
          await write({ signal: AbortSignal.timeout(LIMIT_MS) });
        } catch (error) {
          onNotice(`Cannot renew ${key}: ${reasonOf(error)}`);
        }
      });
    };
    const timer = setInterval(renew, RENEWAL_MS);
    return {
      beginsAt(segment) {
        beginWal = segment;
        renew();
      },
      async end() {
        ended = true;
        clearInterval(timer);
        await last;
        try {
          const [failure] = await store.deleteMany([key], {
            signal: AbortSignal.timeout(LIMIT_MS),
          });
          if (failure !== undefined) throw failure.error;
        } catch (error) {
          onNotice(`Cannot remove ${key}, which does no harm: ${reasonOf(error)}`);
        }
      },
    };
  }
}

async function isOurs(
  store: ObjectStore,
  key: string,
  token: string,
  options: Cancellable,
): Promise<boolean> {
  try {
    return (await readText(store, key, MAX_SIZE, options)).includes(token);
  } catch (error) {
    if (isStoreError(error, "not-found") || error instanceof NotText) return false;
    throw error;
  }
}

/** What the mark of a backup tells. */
export interface RunningBackup {
  /** Text for people: `on HOST, process PID, since TIME`. */
  readonly description: string;
  /** The first segment that it needs, in upper case; null when that is not known (yet). */
  readonly beginWal: string | null;
  /** When the mark was last written. */
  readonly renewed: Date;
}

/** @returns null when there is no mark, or it is so old that nobody takes the backup any more */
export async function readRunningMark(
  store: ObjectStore,
  layout: ServerLayout,
  id: string,
  now: Date,
  options: Cancellable = {},
): Promise<RunningBackup | null> {
  const key = layout.runningMark(id);
  try {
    const { lastModified: renewed = now } = await store.head(key, options);
    if (now.getTime() - renewed.getTime() > RUNNING_MARK_LIFETIME_MS) return null;
    return { ...parseMark(await readText(store, key, MAX_SIZE, options)), renewed };
  } catch (error) {
    if (isStoreError(error, "not-found")) return null;
    if (error instanceof NotText) return { ...parseMark(""), renewed: now };
    throw error;
  }
}

const MAX_SIZE = 64 * 1024;

/** What can't be understood protects all the same. */
function parseMark(text: string): Pick<RunningBackup, "description" | "beginWal"> {
  let json: unknown = null;
  try {
    json = JSON.parse(text);
  } catch {
    // Then nothing is known but that it is there.
  }
  const record: Readonly<Record<string, unknown>> =
    typeof json === "object" && json !== null && !Array.isArray(json) ? { ...json } : {};
  const { host, pid, began, beginWal } = record;
  const known = [
    typeof host === "string" ? `on ${host}` : "",
    typeof pid === "number" ? `process ${pid}` : "",
    typeof began === "string" ? `since ${began}` : "",
  ].filter((part) => part !== "");
  const isSegment = typeof beginWal === "string" && /^[0-9A-F]{24}$/i.test(beginWal);
  return {
    description: known.length === 0 ? "by whom is not known" : known.join(", "),
    beginWal: isSegment ? beginWal.toUpperCase() : null,
  };
}
