/** A session as the backup wants it. */
import { createHash } from "node:crypto";
import type { BackupServer } from "../backup/backup.ts";
import { parseTimestamp } from "../backup/timestamp.ts";
import type { Logger } from "../cli/log.ts";
import { createRestorePoint, startBackup, stopBackup, switchWal } from "./backup_control.ts";
import { missingPrivileges } from "./privileges.ts";
import { readIdentity, readServerFacts, readSystemIdentifier } from "./server_facts.ts";
import type { Session } from "./session.ts";

export interface SessionServer extends BackupServer {
  /** Aborted when the session is lost while the backup needs it: until `stop` has succeeded. */
  readonly lost: AbortSignal;
}

export interface BackupServerOptions {
  /** Milliseconds between queries that keep the session alive while it has nothing to do; 0: none; 60 s when absent. */
  readonly keepAliveMs?: number | undefined;
}

/**
 * The server behind a session. The caller closes the session, and combines `lost` with the signal
 * that it gives to the backup, so that a lost session ends the copy at once.
 */
export async function backupServerOf(
  session: Session,
  log: Logger,
  options: BackupServerOptions = {},
): Promise<SessionServer> {
  const identity = await readIdentity(session);
  let missing: Promise<readonly string[]> | undefined;
  const privileges = () => missing ??= missingPrivileges(session, identity);
  let stopKeepAlive = () => {};
  const losing = new AbortController();
  const onLost = () => losing.abort(session.lost.reason);
  if (session.lost.aborted) onLost();
  session.lost.addEventListener("abort", onLost, { once: true });
  return {
    lost: losing.signal,
    version: identity.version,
    inRecovery: identity.inRecovery,
    claim: (text) => claim(session, text),
    systemIdentifier: () => readSystemIdentifier(session, log),
    missingPrivileges: privileges,
    async facts() {
      const withSize = (await privileges()).length === 0;
      return await readServerFacts(session, identity, log, { withSize });
    },
    async start(label, fast, signal) {
      const { lsn, timeline, time } = await startBackup(session, identity, { label, fast, signal });
      if (options.keepAliveMs !== 0) stopKeepAlive = session.keepAlive(options.keepAliveMs);
      return { lsn, timeline, time: parseTimestamp(time) };
    },
    async stop({ signal, archiveTimeout }) {
      stopKeepAlive();
      const stopped = await stopBackup(session, identity, {
        signal,
        timeoutMs: archiveTimeout === undefined ? undefined : archiveTimeout * 1000,
        // It may never end: a failing archive_command is what keeps backups waiting.
        onWaiting: (waitedMs) =>
          log.warning(
            `Waiting for the server to archive the last WAL of the backup, ${
              Math.round(waitedMs / 60_000)
            } min so far: does archiving work? (pg_stat_archiver, the server's log)`,
          ),
      });
      // The server has ended the backup; that the last parts are still on their way is not its matter.
      session.lost.removeEventListener("abort", onLost);
      const { lsn, timeline, label } = stopped;
      return { lsn, timeline, label, time: parseTimestamp(stopped.time) };
    },
    switchWal: () => switchWal(session, identity),
    createRestorePoint: async (name) => {
      await createRestorePoint(session, name);
    },
  };
}

/** An advisory lock, by a number that the text gives. They are each database's own. */
async function claim(session: Session, text: string): Promise<boolean> {
  const key = createHash("sha256").update(text).digest().readBigInt64BE(0);
  const [row] = await session.query(
    "SELECT pg_catalog.pg_try_advisory_lock($1::text::bigint)::text AS free",
    [String(key)],
  );
  return row?.["free"] === "true";
}
