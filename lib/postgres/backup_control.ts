/** Start and end of a (non-exclusive) backup on the server. */
import { type Lsn, parseLsn } from "./lsn.ts";
import type { ServerIdentity } from "./server_facts.ts";
import { QueryError, QueryTimeoutError, type Row, type Session } from "./session.ts";

export interface StartedBackup {
  readonly lsn: Lsn;
  readonly timeline: number;
  /** `now()` of the starting statement: `2026-01-15 10:30:01.123456+01:00`, the fraction if not 0. */
  readonly time: string;
}

export interface StoppedBackup extends StartedBackup {
  /** Text of `backup_label`. */
  readonly label: string;
  /** Text of `tablespace_map`; empty without tablespaces. */
  readonly tablespaceMap: string;
}

export interface StartBackupOptions {
  readonly label: string;
  /** Do the checkpoint at once instead of spreading it. */
  readonly fast: boolean;
  readonly signal?: AbortSignal | undefined;
}

export interface StopBackupOptions {
  /** Bound of the wait for the archiver, in milliseconds; none when absent. */
  readonly timeoutMs?: number | undefined;
  readonly signal?: AbortSignal | undefined;
  /** Called each minute (or `everyMs`) while waiting, with the milliseconds waited so far. */
  readonly onWaiting?: ((waitedMs: number) => void) | undefined;
  readonly everyMs?: number | undefined;
}

/** The last WAL of a backup was not archived in the time allowed. */
export class StopTimeoutError extends Error {
  override readonly name = "StopTimeoutError";
}

/**
 * Starts a backup, which includes a checkpoint. It ends with the session that started it.
 *
 * @throws QueryError the server's refusal; SessionLostError; the signal's reason
 */
export async function startBackup(
  session: Session,
  { version }: ServerIdentity,
  options: StartBackupOptions,
): Promise<StartedBackup> {
  await prepareSession(session, version);
  const start = version >= 150_000
    ? "pg_catalog.pg_backup_start($1::text, $2::text::boolean)"
    : "pg_catalog.pg_start_backup($1::text, $2::text::boolean, false)";
  const [row] = await session.query(
    `SELECT ${start}::text AS lsn, ${nowColumns}`,
    [options.label, String(options.fast)],
    { signal: options.signal },
  );
  // A statement of its own: in one with the start it could be read before the checkpoint.
  return { ...positionIn(row), timeline: await readTimeline(session, false) };
}

/**
 * Ends a backup and waits until its WAL is archived (on a standby only with `archive_mode=always`).
 *
 * @throws StopTimeoutError; QueryError the server's refusal; SessionLostError; the signal's reason
 */
export async function stopBackup(
  session: Session,
  { version, inRecovery }: ServerIdentity,
  options: StopBackupOptions = {},
): Promise<StoppedBackup> {
  if (version >= 140_000) await session.query("RESET idle_session_timeout");
  const stop = version >= 150_000
    ? "pg_catalog.pg_backup_stop(true)"
    : "pg_catalog.pg_stop_backup(false, true)";
  const began = performance.now();
  const timer = setInterval(
    () => options.onWaiting?.(performance.now() - began),
    options.everyMs ?? 60_000,
  );
  try {
    const [row] = await session.query(
      `SELECT lsn::text AS lsn, labelfile, spcmapfile, ${nowColumns} FROM ${stop}`,
      [],
      { signal: options.signal, timeoutMs: options.timeoutMs },
    );
    return {
      ...positionIn(row),
      timeline: await readTimeline(session, inRecovery),
      label: row?.["labelfile"] ?? "",
      tablespaceMap: row?.["spcmapfile"] ?? "",
    };
  } catch (error) {
    if (!(error instanceof QueryTimeoutError)) throw error;
    throw new StopTimeoutError(
      `The last WAL of the backup was not archived within ${
        (options.timeoutMs ?? 0) / 1000
      } s: see the server's log for what archive_command or the archive library says`,
      { cause: error },
    );
  } finally {
    clearInterval(timer);
  }
}

/** Closes the current WAL segment, so that it is archived. Not on a standby. */
export async function switchWal(session: Session, { version }: ServerIdentity): Promise<void> {
  const name = version >= 100_000 ? "pg_switch_wal" : "pg_switch_xlog";
  await session.query(`SELECT pg_catalog.${name}()::text`);
}

/** Not on a standby. */
export async function createRestorePoint(session: Session, name: string): Promise<Lsn> {
  const [row] = await session.query(
    "SELECT pg_catalog.pg_create_restore_point($1::text)::text AS lsn",
    [name],
  );
  return parseLsn(row?.["lsn"] ?? "");
}

/** Limits that a role or database may have set must not end an hours-long backup. */
async function prepareSession(session: Session, version: number): Promise<void> {
  const settings = ["statement_timeout = 0"];
  if (version >= 140_000) settings.push("idle_session_timeout = 0");
  if (version >= 170_000) settings.push("transaction_timeout = 0");
  for (const setting of settings) await session.query(`SET ${setting}`);
  if (version < 140_000) return;
  try {
    // So that the server notices, while it waits for the archiver, when we are gone.
    await session.query("SET client_connection_check_interval = '10s'");
  } catch (error) {
    // Not on every operating system.
    if (!(error instanceof QueryError)) throw error;
  }
}

/** A text that does not depend on DateStyle, and the offset of the session's zone in seconds. */
const nowColumns = `pg_catalog.to_char(pg_catalog.now(), 'YYYY-MM-DD HH24:MI:SS.US') AS wall,
  EXTRACT(timezone FROM pg_catalog.now())::integer::text AS "offset"`;

function positionIn(row: Row | undefined): { lsn: Lsn; time: string } {
  const [wall = "", fraction = ""] = (row?.["wall"] ?? "").split(".");
  const offset = formatOffset(Number(row?.["offset"]));
  return {
    lsn: parseLsn(row?.["lsn"] ?? ""),
    time: `${wall}${/^0*$/.test(fraction) ? "" : `.${fraction}`}${offset}`,
  };
}

/** `+05:30`; with seconds only if there are some (local mean times). */
function formatOffset(seconds: number): string {
  const two = (number: number) => String(number).padStart(2, "0");
  const size = Math.abs(seconds);
  const rest = size % 60 === 0 ? "" : `:${two(size % 60)}`;
  return `${seconds < 0 ? "-" : "+"}${two(Math.floor(size / 3600))}:${
    two(Math.floor(size / 60) % 60)
  }${rest}`;
}

/** Of the last checkpoint; at the end of a backup from a standby, of what it has replayed. */
async function readTimeline(session: Session, replayed: boolean): Promise<number> {
  const [row] = await session.query(
    replayed
      ? `SELECT COALESCE(NULLIF(r.min_recovery_end_timeline, 0), c.timeline_id)::text AS timeline
           FROM pg_catalog.pg_control_recovery() r, pg_catalog.pg_control_checkpoint() c`
      : "SELECT timeline_id::text AS timeline FROM pg_catalog.pg_control_checkpoint()",
  );
  return Number(row?.["timeline"]);
}
