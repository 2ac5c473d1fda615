/** Steps that all kinds of backups have in common: what they learn of the server, and what follows the stop. */
import { offsetOf, segmentNameOf } from "../wal/segment.ts";
import { abortable } from "./abortable.ts";
import type { BackupServer, BackupStart, BackupStop, ServerFacts } from "./backup.ts";
import { BackupError, reasonOf } from "./backup_error.ts";
import type { BackupInfo, Tablespace } from "./backup_info.ts";
import { majorVersionOf } from "./hook.ts";
import { PyFloat } from "./python_literal.ts";

/** Non-exclusive backups exist since 9.6. */
const OLDEST_VERSION = 90_600;

/** @throws {BackupError} kind `refused` for a server that is too old */
export function requireVersion(server: BackupServer): void {
  if (server.version >= OLDEST_VERSION) return;
  throw new BackupError(
    "refused",
    `Cannot back up a server of version ${
      majorVersionOf(server.version)
    }: 9.6 is the oldest that can`,
  );
}

/**
 * The server's word on itself, into `learn`.
 * @throws {BackupError} when the role lacks what a backup needs
 */
export async function learnFacts(
  server: BackupServer,
  signal: AbortSignal,
  learn: (known: Partial<BackupInfo>) => void,
): Promise<{ systemid: string | null; facts: ServerFacts; tablespaces: readonly Tablespace[] }> {
  // A server that does not answer must not keep us from stopping; closing the session ends its query.
  const answer = <T>(query: Promise<T>) => abortable(query, signal);
  const systemid = await answer(server.systemIdentifier());
  learn({ systemid });
  // Some of it is needed only at the very end: without it the backup would fail after hours.
  const missing = await answer(server.missingPrivileges());
  if (missing.length > 0) {
    throw new BackupError("failed", `The role lacks what a backup needs: ${missing.join(", ")}`);
  }
  const facts = await answer(server.facts());
  // In-place tablespaces (a developer's setting) have no location of their own: the data directory holds them.
  const tablespaces = facts.tablespaces.filter(({ location }) => location.startsWith("/"));
  learn({
    pgdata: facts.dataDirectory,
    xlogSegmentSize: facts.segmentSize,
    configFile: facts.configFile,
    hbaFile: facts.hbaFile,
    identFile: facts.identFile,
    includedFiles: facts.includedFiles,
    tablespaces: tablespaces.length > 0 ? tablespaces : null,
    dataChecksums: facts.dataChecksums,
    summarizeWal: facts.summarizeWal,
    clusterSize: facts.clusterSize,
  });
  return { systemid, facts, tablespaces };
}

export function started(start: BackupStart, segmentSize: number): Partial<BackupInfo> {
  return {
    timeline: start.timeline,
    beginTime: start.time,
    beginXlog: lsnText(start.lsn),
    beginWal: segmentNameOf(start.lsn, start.timeline, segmentSize),
    beginOffset: offsetOf(start.lsn, segmentSize),
  };
}

export function stopped(stop: BackupStop, segmentSize: number): Partial<BackupInfo> {
  return {
    endTime: stop.time,
    endXlog: lsnText(stop.lsn),
    endWal: segmentNameOf(stop.lsn, stop.timeline, segmentSize),
    endOffset: offsetOf(stop.lsn, segmentSize),
    backupLabel: stop.label,
  };
}

/** Helpful on a primary, and no reason to fail a backup that is whole without them. */
export async function afterStop(
  server: BackupServer,
  id: string,
  signal: AbortSignal,
  onWarning: (message: string) => void,
): Promise<void> {
  if (server.inRecovery) return;
  try {
    await abortable(server.switchWal(), signal);
    await abortable(server.createRestorePoint(`barman_${id}`), signal);
  } catch (error) {
    signal.throwIfAborted();
    onWarning(`Cannot switch WAL and mark the end of the backup in it: ${reasonOf(error)}`);
  }
}

/** With microseconds, as Barman writes them. */
export function seconds(value: number): PyFloat {
  return new PyFloat(Math.round(value * 1e6) / 1e6);
}

/** `0/1A000028`: two hexadecimal halves without padding. */
export function lsnText(lsn: bigint): string {
  const hex = (half: bigint) => half.toString(16).toUpperCase();
  return `${hex(lsn >> 32n)}/${hex(lsn & 0xffffffffn)}`;
}
