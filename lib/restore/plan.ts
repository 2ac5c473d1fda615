/** What a restore will do, worked out before anything is written. */
import { isAbsolute, join, relative } from "node:path";
import type { Archive, ArchiveSet, BackupArchives } from "../backup/archives.ts";
import type { BackupInfo, Tablespace } from "../backup/backup_info.ts";
import type { RecordedArchive } from "../backup/record.ts";
import { isBelow } from "./member_path.ts";
import { RestoreError } from "./restore_error.ts";

export interface RestorePlan {
  readonly backupId: string;
  readonly pgdata: RestoreRoot;
  readonly tablespaces: readonly TablespaceRoot[];
  /** Sum of the archives as they are stored. */
  readonly totalBytes: number;
  readonly walDirectory: "pg_wal" | "pg_xlog";
  /** How archives were sent, by key, where that was recorded. */
  readonly recorded?: ReadonlyMap<string, RecordedArchive> | undefined;
  /** Key of the manifest of files, where the backup has one: it is put into PGDATA. */
  readonly manifest?: string | undefined;
  /** Things that the user should know before it starts, one line each. */
  readonly warnings: readonly string[];
}

/** One directory that archives are unpacked into. */
export interface RestoreRoot {
  /** For messages: `PGDATA`, `tablespace ts1`. */
  readonly label: string;
  /** Absolute, symbolic links resolved. */
  readonly directory: string;
  /** In order: of a member that several have, the last one counts. */
  readonly archives: readonly Archive[];
  /** Relative paths of directories whose content another archive brings. */
  readonly excluded: readonly string[];
}

export interface TablespaceRoot extends RestoreRoot {
  readonly oid: number;
  /** What the symbolic link `pg_tblspc/OID` says; null for a tablespace that lies there itself. */
  readonly link: string | null;
}

export interface RestoreRequest {
  readonly backupId: string;
  readonly info: BackupInfo;
  readonly archives: BackupArchives;
  readonly destination: string;
  /** In the order given; the last of a name counts. */
  readonly tablespaceRules: readonly TablespaceRule[];
  /** Makes a path absolute and resolves the symbolic links of what exists of it. */
  readonly resolve: (path: string) => string;
}

export interface TablespaceRule {
  readonly name: string;
  readonly location: string;
}

/**
 * Decide where each archive goes.
 * @throws {RestoreError} kind `missing-archive`: archives that should be there are not; kind `destination`: two
 *   things in one directory
 */
export function restorePlan(request: RestoreRequest): RestorePlan {
  const { backupId, info, archives } = request;
  const warnings: string[] = archives.unknown.map((key) =>
    `Left out ${key}: its name says that it is an archive of this backup, but not in which format`
  );
  const destination = request.resolve(request.destination);
  const rules = new Map(request.tablespaceRules.map(({ name, location }) => [name, location]));
  for (const name of rules.keys()) {
    if (!info.tablespaces?.some((tablespace) => tablespace.name === name)) {
      warnings.push(`Backup ${backupId} has no tablespace ${name}: its --tablespace has no effect`);
    }
  }
  const tablespaces = (info.tablespaces ?? []).map((tablespace) =>
    tablespaceRoot(request, destination, tablespace, rules.get(tablespace.name))
  );
  for (const tablespace of info.tablespaces ?? []) {
    const moved = leftBehind(info, tablespace, destination, rules);
    if (moved !== null) warnings.push(moved);
  }
  const pgdata: RestoreRoot = {
    label: "PGDATA",
    directory: destination,
    archives: archivesOf(request, "data"),
    excluded: insidePgdata(info, destination, tablespaces),
  };
  refuseSharedDirectories([pgdata, ...tablespaces]);
  return {
    backupId,
    pgdata,
    tablespaces,
    totalBytes: [pgdata, ...tablespaces].flatMap((root) => root.archives)
      .reduce((sum, { object }) => sum + object.size, 0),
    walDirectory: info.version !== null && info.version < 100000 ? "pg_xlog" : "pg_wal",
    warnings,
  };
}

/** One line for each archive: what a dry run would print, and what is logged. */
export function describePlan(plan: RestorePlan): string[] {
  return [plan.pgdata, ...plan.tablespaces].flatMap(({ label, directory, archives }) =>
    archives.map(({ object }) =>
      `${label}: ${object.key} (${object.size} bytes) goes to ${directory}`
    )
  );
}

function tablespaceRoot(
  request: RestoreRequest,
  destination: string,
  { name, oid, location }: Tablespace,
  rule: string | undefined,
): TablespaceRoot {
  const root = {
    label: `tablespace ${name}`,
    archives: archivesOf(request, String(oid), name),
    excluded: [],
    oid,
  };
  if (rule !== undefined) {
    const directory = request.resolve(rule);
    return { ...root, directory, link: directory };
  }
  // With allow_in_place_tablespaces it is a directory in PGDATA and the server tells a relative path.
  if (!isAbsolute(location)) {
    return { ...root, directory: join(destination, "pg_tblspc", String(oid)), link: null };
  }
  return { ...root, directory: request.resolve(location), link: location };
}

/** The archives of one name, in order of their numbers, none missing. */
function archivesOf(request: RestoreRequest, name: string, tablespace?: string): Archive[] {
  const { backupId, archives } = request;
  const of = tablespace === undefined ? "PGDATA" : `tablespace ${tablespace}`;
  const set: ArchiveSet | undefined = archives.sets.find((candidate) => candidate.name === name);
  if (set === undefined || set.main === null) {
    throw new RestoreError(
      "missing-archive",
      `Backup ${backupId} has no archive ${name}.tar[.*] of ${of} in the store: it can't be restored`,
    );
  }
  const numbered = set.additional.map((archive) => ({ archive, number: numberOf(archive, name) }))
    .sort((a, b) => a.number - b.number);
  for (const [index, { number }] of numbered.entries()) {
    if (Number.isFinite(number) && number !== index + 1) {
      const missing = `${name}_${String(index + 1).padStart(4, "0")}.tar[.*]`;
      throw new RestoreError(
        "missing-archive",
        `Backup ${backupId} has no archive ${missing} of ${of} in the store, but later ones: ` +
          "it can't be restored",
      );
    }
  }
  return [set.main, ...numbered.map(({ archive }) => archive)];
}

/** Listing order is not that of the numbers once they have five digits. */
function numberOf({ object }: Archive, name: string): number {
  const file = object.key.slice(object.key.lastIndexOf("/") + 1);
  const digits = /^_(\d+)\./.exec(file.slice(name.length))?.[1];
  return digits === undefined ? Infinity : Number(digits);
}

/**
 * Tablespaces inside PGDATA have archives of their own, and Barman's writer stores most of their files once more
 * with PGDATA's.
 */
function insidePgdata(
  info: BackupInfo,
  destination: string,
  tablespaces: readonly TablespaceRoot[],
): string[] {
  const original = (info.tablespaces ?? [])
    .filter(({ location }) => info.pgdata !== null && isBelow(location, info.pgdata))
    .map(({ location }) => relative(info.pgdata ?? "", location));
  const now = tablespaces.filter(({ directory }) => isBelow(directory, destination))
    .map(({ directory }) => relative(destination, directory));
  return [...new Set([...original, ...now])];
}

function leftBehind(
  info: BackupInfo,
  { name, location }: Tablespace,
  destination: string,
  rules: ReadonlyMap<string, string>,
): string | null {
  if (rules.has(name) || info.pgdata === null || info.pgdata === destination) return null;
  if (!isBelow(location, info.pgdata)) return null;
  const moved = join(destination, relative(info.pgdata, location));
  return `Tablespace ${name} was inside the old data directory and is restored there, to ${location}; ` +
    `to move it along use --tablespace ${name}:${moved}`;
}

function refuseSharedDirectories(roots: readonly RestoreRoot[]): void {
  const seen = new Map<string, string>();
  for (const { label, directory } of roots) {
    const other = seen.get(directory);
    if (other !== undefined) {
      throw new RestoreError(
        "destination",
        `Cannot restore both ${other} and ${label} into ${directory}: each needs a directory of its own`,
      );
    }
    seen.set(directory, label);
  }
}
