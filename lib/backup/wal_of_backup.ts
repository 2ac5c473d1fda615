/** Is the WAL that a backup needs in the archive of its store? Looked at before it says DONE. */
import { isStoreError, type ObjectStore } from "../../providers/object_store.ts";
import type { ServerLayout } from "../layout.ts";
import type { ProgressListener } from "../progress.ts";
import { type MissingWal, spanOf, spanText, waitForWal, type WalSpan } from "../wal/presence.ts";
import type { BackupServer, BackupStart, ServerFacts } from "./backup.ts";
import { BackupError } from "./backup_error.ts";

export interface WalChecks {
  /** What becomes of a backup whose WAL is not in this store's archive. */
  readonly wal: "off" | "warn" | "fail";
  /** Seconds to wait for that WAL, 0 for one look; when absent, as long as its coming is likely. */
  readonly walTimeout?: number | undefined;
}

interface WalCheckOptions {
  readonly store: ObjectStore;
  readonly layout: ServerLayout;
  readonly checks: WalChecks;
  readonly signal: AbortSignal;
  readonly onProgress: ProgressListener;
  readonly onNotice: (message: string) => void;
  readonly onWarning: (message: string) => void;
}

/** What a backup needs, and what is to be expected of it. */
export interface NeededWal {
  readonly span: WalSpan;
  /** The standby's primary was replaced meanwhile: the WAL ends on another timeline than it began on. */
  readonly switched: boolean;
  /** Seconds after which nobody should expect it any more. */
  readonly usualTimeout: number;
}

export function neededWal(
  server: Pick<BackupServer, "inRecovery">,
  { segmentSize, archiveMode }: Pick<ServerFacts, "segmentSize" | "archiveMode">,
  start: Pick<BackupStart, "lsn" | "timeline">,
  stop: Pick<BackupStart, "lsn" | "timeline">,
): NeededWal {
  // A standby archives nothing: the last segment comes when its primary closes it. A primary that archives has said that
  // it is done: what is not here went elsewhere or comes at once. One that does not has nothing to wait for.
  const usualTimeout = server.inRecovery ? 60 : archiveMode === "off" ? 0 : 5;
  return {
    span: spanOf(start.lsn, stop.lsn, start.timeline, segmentSize),
    switched: stop.timeline !== start.timeline,
    usualTimeout,
  };
}

/** @returns null when nobody looked, or who looks is not let in @throws {StoreError} */
export async function awaitWalOfBackup(
  { span, switched, usualTimeout }: NeededWal,
  { store, layout, checks, signal, onProgress, onNotice, onWarning }: WalCheckOptions,
): Promise<{ readonly missing: MissingWal | null } | null> {
  if (checks.wal === "off") return null;
  if (switched) {
    onNotice("Not looked for in the archive: WAL over a change of timeline");
    return null;
  }
  const timeout = checks.walTimeout ?? usualTimeout;
  const onWaiting = ({ segments }: MissingWal) => {
    onNotice(
      `Waiting up to ${timeout} s for the WAL of the backup to be in the archive: ${segments} of ${
        spanText(span, span)
      } not there yet`,
    );
    const activity = "waiting for WAL to be in the archive";
    onProgress({ activity, doneBytes: 0, totalBytes: null });
  };
  try {
    const timeoutMs = timeout * 1000;
    return { missing: await waitForWal(store, layout, span, { timeoutMs, signal, onWaiting }) };
  } catch (error) {
    // Who may write but not look: the server's word has to do, as it always did.
    if (!isStoreError(error, "denied") || checks.wal === "fail") throw error;
    onWarning(`Cannot tell whether the WAL of the backup is in the archive: ${error.message}`);
    return null;
  }
}

/**
 * @param looked what `awaitWalOfBackup` gave
 * @throws {BackupError} when the backup is not to say DONE
 */
export function judgeMissingWal(
  looked: { readonly missing: MissingWal | null } | null,
  { span }: NeededWal,
  { layout, checks, onWarning }: WalCheckOptions,
): void {
  const missing = looked?.missing ?? null;
  if (missing === null) return;
  const [first] = missing.ranges.items;
  const message = `The backup needs WAL that is not in ${layout.wals}: ${
    first === undefined ? "" : spanText(span, first)
  }${missing.ranges.total > 1 ? " and more" : ""}`;
  if (checks.wal === "fail") {
    throw new BackupError("failed", `${message}; see --wal-timeout and whether archiving works`);
  }
  onWarning(
    `${message}; it can be restored only when that WAL is archived there, or if it is archived elsewhere ` +
      "(--missing-wal ignore)",
  );
}
