/** Is the WAL that a backup needs in the archive of its store? Looked at before it says DONE. */
import type { ObjectStore } from "../../providers/object_store.ts";
import type { ServerLayout } from "../layout.ts";
import type { ProgressListener } from "../progress.ts";
import { type MissingWal, spanText, waitForWal, type WalSpan } from "../wal/presence.ts";
import { BackupError } from "./backup_error.ts";

export interface WalChecks {
  /** What becomes of a backup whose WAL is not in this store's archive. */
  readonly wal: "off" | "warn" | "fail";
  /** Seconds to wait for that WAL; 0 for one look. */
  readonly walTimeout: number;
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

/** @returns what is missing; null when nothing is, or when it is not to be looked at. @throws {StoreError} */
export async function awaitWalOfBackup(
  span: WalSpan,
  { store, layout, checks, signal, onProgress, onNotice }: WalCheckOptions,
): Promise<MissingWal | null> {
  if (checks.wal === "off") return null;
  return await waitForWal(store, layout, span, {
    timeoutMs: checks.walTimeout * 1000,
    signal,
    onWaiting({ segments }) {
      onNotice(
        `Waiting up to ${checks.walTimeout} s for the WAL of the backup to be in the archive: ${segments} of ${
          spanText(span, span)
        } not there yet`,
      );
      onProgress({
        activity: "waiting for WAL to be in the archive",
        doneBytes: 0,
        totalBytes: null,
      });
    },
  });
}

/** @throws {BackupError} when the backup is not to say DONE */
export function judgeMissingWal(
  missing: MissingWal | null,
  span: WalSpan,
  { layout, checks, onWarning }: WalCheckOptions,
): void {
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
