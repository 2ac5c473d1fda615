/** The beginning of a backup of any kind: its id, the mark that it is running, and what is known of it by and by. */
import type { ObjectStore, Tags } from "../../providers/object_store.ts";
import type { ServerLayout } from "../layout.ts";
import type { ProgressListener } from "../progress.ts";
import type { BackupServer } from "./backup.ts";
import { reasonOf } from "./backup_error.ts";
import { newBackupId } from "./backup_id.ts";
import { type BackupInfo, formatBackupInfo, newBackupInfo } from "./backup_info.ts";
import { markRunning } from "./running_mark.ts";
import type { WalChecks } from "./wal_of_backup.ts";

/** What backups of all kinds are told. */
export interface CommonBackupOptions {
  readonly store: ObjectStore;
  readonly layout: ServerLayout;
  /** `--name` */
  readonly name: string | undefined;
  readonly tags: Tags | undefined;
  readonly immediateCheckpoint: boolean;
  /** Seconds to wait for the last WAL to be archived; undefined for no limit. */
  readonly archiveTimeout: number | undefined;
  readonly checks: WalChecks;
  readonly signal: AbortSignal;
  readonly now: () => Date;
  readonly onStarted: (id: string) => void;
  readonly onProgress: ProgressListener;
  /** What is worth an INFO line. */
  readonly onNotice: (message: string) => void;
  /** What the user should know even when all goes well. */
  readonly onWarning: (message: string) => void;
  /** Takes secrets out of what is stored as the error of a backup that failed. */
  readonly redact?: ((text: string) => string) | undefined;
}

export interface BegunBackup {
  readonly id: string;
  /** Add to what `backup.info` will say. */
  learn(known: Partial<BackupInfo>): void;
  /** @throws {StoreError} */
  storeInfo(signal: AbortSignal): Promise<void>;
  /**
   * After a failure: the same within ten seconds, whatever the signal says. What can't be stored is warned about.
   * @returns whether it is stored
   */
  storeLastWords(): Promise<boolean>;
  /** It runs no longer. Never rejects. */
  end(): Promise<void>;
}

/** `backup.info` of a backup that failed is tried for so long, in milliseconds. */
const LAST_WORDS_MS = 10_000;

/**
 * Find an id that nobody has, and mark it as that of a running backup.
 * @param serverName as `backup.info` has it
 * @throws {StoreError} {BackupError}
 */
export async function beginBackup(
  server: BackupServer,
  serverName: string,
  options: CommonBackupOptions,
): Promise<BegunBackup> {
  const { store, layout, tags, onWarning } = options;
  const id = await newBackupId(store, layout, {
    ...options,
    // Two backups that start in the same second see nothing of each other in the store yet.
    isFree: (free) => server.claim(`${store.description} ${layout.backup(free)}`),
  });
  const mark = await markRunning(store, layout, id, { ...options, exclusive: true });
  options.onStarted(id);
  let info = newBackupInfo({
    serverName,
    backupName: options.name ?? null,
    version: server.version,
  });
  const storeInfo = (signal: AbortSignal) =>
    store.put(layout.backupInfo(id), new TextEncoder().encode(formatBackupInfo(info)), {
      tags,
      signal,
    });
  return {
    id,
    learn(known) {
      info = { ...info, ...known };
      if (known.beginWal) mark.beginsAt(known.beginWal);
    },
    storeInfo,
    async storeLastWords() {
      try {
        await storeInfo(AbortSignal.timeout(LAST_WORDS_MS));
        return true;
      } catch (problem) {
        onWarning(`Cannot store backup.info of the failed backup: ${reasonOf(problem)}`);
        return false;
      }
    },
    end: () => mark.end(),
  };
}

/** What `backup.info` says of a backup that failed. */
export function failed(
  action: "uploading data" | "verifying data" | "uploading backup.info file",
  reason: string,
  { redact = (text) => text }: Pick<CommonBackupOptions, "redact">,
): Pick<BackupInfo, "status" | "error"> {
  return { status: "FAILED", error: redact(`failure ${action} (${reason})`) };
}
