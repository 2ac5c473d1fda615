/** What a backup's metadata tells of the server. */
import type { Logger } from "../cli/log.ts";
import { QueryError, type Row, type Session } from "./session.ts";

/** What decides how we talk to a server. */
export interface ServerIdentity {
  /** `server_version_num`: 170002. */
  readonly version: number;
  /** As in the names of tablespaces' version directories: `17`, `9.6`. */
  readonly majorVersion: string;
  readonly inRecovery: boolean;
}

export interface Tablespace {
  readonly name: string;
  readonly oid: number;
  readonly location: string;
}

/** Null is what the server would not tell. */
export interface ServerFacts {
  readonly dataDirectory: string;
  /** Of WAL, in bytes. */
  readonly segmentSize: number;
  /** Of data pages, in bytes. */
  readonly blockSize: number | null;
  /** Data pages of one file of a relation. */
  readonly segmentBlocks: number | null;
  readonly configFile: string | null;
  readonly hbaFile: string | null;
  readonly identFile: string | null;
  /** Files that settings come from, other than `configFile`, sorted; null when there are none. */
  readonly includedFiles: readonly string[] | null;
  /** Those outside the data directory's own two, in the server's order. */
  readonly tablespaces: readonly Tablespace[];
  /** `on` or `off` */
  readonly dataChecksums: string | null;
  /** `on` or `off`; null before PostgreSQL 17. */
  readonly summarizeWal: string | null;
  /** Bytes of all tablespaces. */
  readonly clusterSize: number | null;
  /** `off`, `on` or `always` */
  readonly archiveMode: string | null;
  /** `minimal`, `replica` or `logical` */
  readonly walLevel: string | null;
}

/** Version and role of the server. */
export async function readIdentity(session: Session): Promise<ServerIdentity> {
  const [row] = await session.query(
    `SELECT pg_catalog.current_setting('server_version_num') AS number,
            pg_catalog.version() AS version,
            pg_catalog.pg_is_in_recovery()::text AS recovering`,
  );
  const version = Number(row?.["number"]);
  return {
    version,
    majorVersion: majorVersionIn(row?.["version"] ?? "") ?? majorVersionOfNumber(version),
    inRecovery: row?.["recovering"] === "true",
  };
}

/** As text, since it needs all 64 bits; null when the server would not tell. */
export async function readSystemIdentifier(session: Session, log: Logger): Promise<string | null> {
  const sql = "SELECT system_identifier::text AS value FROM pg_catalog.pg_control_system()";
  return valueOf(await ask(session, log, "the system identifier", sql));
}

/**
 * Reads the facts. A query that fails gives null and a DEBUG line, since the backup is good without
 * it; without the data directory or the tablespaces it would not be.
 *
 * @param options.withSize sum up the sizes too, which needs privileges and some time
 * @throws QueryError when the server does not tell where its data is
 */
export async function readServerFacts(
  session: Session,
  identity: ServerIdentity,
  log: Logger,
  options: { readonly withSize: boolean },
): Promise<ServerFacts> {
  const setting = async (name: string): Promise<string | null> =>
    valueOf(
      await ask(
        session,
        log,
        `the setting ${name}`,
        "SELECT pg_catalog.current_setting($1::text) AS value",
        [name],
      ),
    );
  const dataDirectory = await readDataDirectory(session);
  const tablespaces = await readTablespaces(session);
  const configFile = await setting("config_file");
  const blockSize = await setting("block_size");
  const segmentBlocks = valueOf(
    await ask(
      session,
      log,
      "the setting segment_size",
      "SELECT setting AS value FROM pg_catalog.pg_settings WHERE name = 'segment_size'",
    ),
  );
  return {
    dataDirectory,
    segmentSize: await readSegmentSize(session),
    blockSize: blockSize === null ? null : Number(blockSize),
    segmentBlocks: segmentBlocks === null ? null : Number(segmentBlocks),
    configFile,
    hbaFile: await setting("hba_file"),
    identFile: await setting("ident_file"),
    includedFiles: await readIncludedFiles(session, log, configFile),
    tablespaces,
    dataChecksums: await setting("data_checksums"),
    summarizeWal: identity.version >= 170_000 ? await setting("summarize_wal") : null,
    clusterSize: options.withSize ? await readClusterSize(session, log) : null,
    archiveMode: await setting("archive_mode"),
    walLevel: await setting("wal_level"),
  };
}

/**
 * The second word of `version()` without its last component: `15.18` → `15`, `9.6.24` → `9.6`,
 * `17beta1` → `17`; one component less for EnterpriseDB. Undefined when it is none.
 */
export function majorVersionIn(version: string): string | undefined {
  const [product, number] = version.split(" ");
  const components = /^([0-9]+(?:\.[0-9]+)*)/.exec(number ?? "")?.[1]?.split(".");
  if (components === undefined) return undefined;
  const dropped = product === "EnterpriseDB" ? 2 : 1;
  const rest = components.slice(0, Math.max(1, components.length - dropped));
  return rest.join(".");
}

function majorVersionOfNumber(version: number): string {
  const major = Math.floor(version / 10_000);
  return major >= 10 ? String(major) : `${major}.${Math.floor(version / 100) % 100}`;
}

async function readDataDirectory(session: Session): Promise<string> {
  try {
    const sql = "SELECT pg_catalog.current_setting('data_directory') AS value";
    const directory = valueOf(await session.query(sql));
    if (directory !== null && directory !== "") return directory;
  } catch (error) {
    if (!(error instanceof QueryError)) throw error;
    throw new QueryError(
      `Cannot tell the server's data directory: ${error.message} ` +
        "(GRANT pg_read_all_settings, or pg_monitor, to the role)",
      error.sqlState,
      { cause: error },
    );
  }
  throw new QueryError("Cannot tell the server's data directory: data_directory is empty", "XX000");
}

/** Those made "in place" (a developer's option) are directories of the data directory. */
async function readTablespaces(session: Session): Promise<Tablespace[]> {
  const rows = await session.query(
    `SELECT spcname, oid::text AS oid, pg_catalog.pg_tablespace_location(oid) AS location
       FROM pg_catalog.pg_tablespace
      WHERE pg_catalog.pg_tablespace_location(oid) LIKE '/%'`,
  );
  return rows.map((row) => ({
    name: row["spcname"] ?? "",
    oid: Number(row["oid"]),
    location: row["location"] ?? "",
  }));
}

async function readSegmentSize(session: Session): Promise<number> {
  const [row] = await session.query(
    "SELECT setting, unit FROM pg_catalog.pg_settings WHERE name = 'wal_segment_size'",
  );
  const size = Number(row?.["setting"]) * bytesOfUnit(row?.["unit"] ?? "");
  if (!Number.isSafeInteger(size) || size <= 0) {
    throw new QueryError("Cannot tell the server's WAL segment size", "XX000");
  }
  return size;
}

/** `B`, `8kB`, `MB`: before PostgreSQL 11 the size is told in WAL blocks. */
function bytesOfUnit(unit: string): number {
  const match = /^([0-9]*)(B|kB|MB)$/.exec(unit);
  const factors: Record<string, number> = { B: 1, kB: 1024, MB: 1024 ** 2 };
  return match === null ? Number.NaN : Number(match[1] || 1) * (factors[match[2] ?? ""] ?? NaN);
}

async function readIncludedFiles(
  session: Session,
  log: Logger,
  configFile: string | null,
): Promise<string[] | null> {
  const rows = await ask(
    session,
    log,
    "the configuration files",
    "SELECT DISTINCT sourcefile FROM pg_catalog.pg_settings WHERE sourcefile IS NOT NULL",
  );
  const files = (rows ?? [])
    .map((row) => row["sourcefile"] ?? "")
    .filter((file) => file !== "" && file !== configFile)
    .sort();
  return files.length > 0 ? files : null;
}

async function readClusterSize(session: Session, log: Logger): Promise<number | null> {
  const size = valueOf(
    await ask(
      session,
      log,
      "the size of the cluster",
      `SELECT pg_catalog.sum(pg_catalog.pg_tablespace_size(oid))::text AS value
         FROM pg_catalog.pg_tablespace`,
    ),
  );
  return size === null ? null : Number(size);
}

/** Undefined when the server refuses; a session that is lost is another matter. */
async function ask(
  session: Session,
  log: Logger,
  what: string,
  sql: string,
  values: readonly string[] = [],
): Promise<Row[] | undefined> {
  try {
    return await session.query(sql, values);
  } catch (error) {
    if (!(error instanceof QueryError)) throw error;
    log.debug(`PostgreSQL does not tell ${what}: ${error.message}`);
    return undefined;
  }
}

function valueOf(rows: readonly Row[] | undefined): string | null {
  return rows?.[0]?.["value"] ?? null;
}
