/** What a restored data directory needs besides the files of its archives. */
import {
  constants,
  fchownSync,
  fstatSync,
  lstatSync,
  openSync,
  renameSync,
  type Stats,
  statSync,
  writeFileSync,
} from "node:fs";
import { join } from "node:path";
import type { BackupInfo } from "../backup/backup_info.ts";
import type { Logger } from "../cli/log.ts";
import type { RestorePlan } from "./plan.ts";
import { errorCode, fileSystemError, RestoreError } from "./restore_error.ts";
import { flushed } from "./flush_queue.ts";
import type { DirectoryFacts, Owner, Unpacker } from "./unpack.ts";

export interface Metadata {
  readonly info: BackupInfo;
  readonly log: Logger;
}

/**
 * Links to the tablespaces, an empty pg_wal, the label's owner; and a look at whether the files without which nothing
 * works are there. Directories are flushed by `Unpacker.finish` afterwards.
 * @throws {RestoreError} kind `archive`: the archives were whole and yet did not hold a data directory
 */
export async function completePgdata(
  plan: RestorePlan,
  unpacker: Unpacker,
  job: Metadata,
): Promise<void> {
  const directory = plan.pgdata.directory;
  requireFile(plan, "global/pg_control");
  const facts = directoryFactsLike(unpacker);
  await completeLabel(plan, job, facts.owner);
  setTablespaceMapAside(directory, job);
  unpacker.addDirectory("pg_tblspc", facts);
  for (const { oid, link } of plan.tablespaces) {
    if (link !== null) unpacker.addSymlink(`pg_tblspc/${oid}`, link, facts.owner);
  }
  const wal = join(directory, plan.walDirectory);
  const there = statIfThere(wal);
  if (there === undefined) unpacker.addDirectory(plan.walDirectory, facts);
  else if (there.isSymbolicLink() && !leadsToDirectory(wal)) {
    job.log.warning(
      `${wal} is a symbolic link that leads nowhere: make the directory it points to, or replace it by one, ` +
        "before the server is started",
    );
  }
}

/** Mode and owner for directories that no archive describes: those of PGDATA. */
export function directoryFactsLike(pgdata: Unpacker): DirectoryFacts {
  const facts = pgdata.directoryFacts("");
  // PostgreSQL knows two modes: private, and readable by the group.
  const mode = facts !== undefined && (facts.mode & 0o050) !== 0 ? 0o750 : 0o700;
  return { mode, owner: facts?.owner ?? null, mtime: null };
}

/**
 * Without its label the server would take a restored directory for a crashed one and come up corrupt. Barman stores it as
 * a file of root, which the server may read but not change.
 */
async function completeLabel(
  plan: RestorePlan,
  { info, log }: Metadata,
  owner: Owner | null,
): Promise<void> {
  const path = join(plan.pgdata.directory, "backup_label");
  const there = statIfThere(path);
  if (there === undefined && info.backupLabel === null) {
    log.warning(
      `Backup ${plan.backupId} holds no backup_label: unless the server was stopped while it was taken, ` +
        "a server started from it is corrupt",
    );
    return;
  }
  if (there !== undefined && (owner === null || there.uid !== 0 || owner.uid === 0)) return;
  if (there !== undefined && !there.isFile()) return;
  const action = `Cannot complete ${path}`;
  let descriptor: number;
  try {
    const flags = there === undefined
      ? constants.O_WRONLY | constants.O_CREAT | constants.O_EXCL
      : constants.O_RDONLY;
    descriptor = openSync(path, flags | constants.O_NOFOLLOW, 0o600);
    if (there === undefined) {
      writeFileSync(descriptor, info.backupLabel ?? "");
      log.warning(`The archives hold no backup_label: made it from backup.info`);
    }
    if (owner !== null && fstatSync(descriptor).uid !== owner.uid) {
      fchownSync(descriptor, owner.uid, owner.gid);
    }
  } catch (error) {
    throw fileSystemError(action, error);
  }
  await flushed(descriptor, action, false);
}

/**
 * A tablespace_map that happened to lie in PGDATA would make the server replace our links by the old ones.
 * Renamed as the server does after reading it.
 */
function setTablespaceMapAside(directory: string, { log }: Pick<Metadata, "log">): void {
  const path = join(directory, "tablespace_map");
  if (statIfThere(path) === undefined) return;
  try {
    renameSync(path, `${path}.old`);
  } catch (error) {
    throw fileSystemError(`Cannot rename ${path}`, error);
  }
  log.warning(
    `Renamed ${path} to tablespace_map.old: the backup's metadata says where tablespaces are`,
  );
}

function requireFile(plan: RestorePlan, file: string): void {
  const there = statIfThere(join(plan.pgdata.directory, file));
  if (there?.isFile() === true && there.size > 0) return;
  throw new RestoreError(
    "archive",
    `The archives of backup ${plan.backupId} hold no ${file}: the backup is not complete and can't be used`,
  );
}

function statIfThere(path: string): Stats | undefined {
  try {
    return lstatSync(path);
  } catch (error) {
    if (errorCode(error) === "ENOENT" || errorCode(error) === "ENOTDIR") return undefined;
    throw fileSystemError(`Cannot look at ${path}`, error);
  }
}

function leadsToDirectory(path: string): boolean {
  try {
    return statSync(path).isDirectory();
  } catch (error) {
    if (errorCode(error) === "ENOENT" || errorCode(error) === "ELOOP") return false;
    throw fileSystemError(`Cannot look at ${path}`, error);
  }
}
