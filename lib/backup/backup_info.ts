/**
 * backup.info: the metadata of one base backup, `name=value` lines in Barman's notation. Old and new Barman
 * read what is written here, so fields, order and notation are exactly Barman's.
 */
import {
  formatPythonLiteral,
  isPyDict,
  isPyList,
  MalformedLiteral,
  parsePythonLiteral,
  type PyDict,
  PyTuple,
  type PyValue,
} from "./python_literal.ts";
import {
  formatCtime,
  formatIsoTimestamp,
  formatTimestamp,
  MalformedTimestamp,
  parseTimestamp,
  type Timestamp,
} from "./timestamp.ts";
import { formatSnapshotsInfo, parseSnapshotsInfo, type SnapshotsInfo } from "./snapshots_info.ts";

/** `DONE` and `FAILED` are what backups end with; Barman knows the others too. */
export type BackupStatus =
  | "EMPTY"
  | "STARTED"
  | "FAILED"
  | "WAITING_FOR_WALS"
  | "DONE"
  | "SYNCING";

export interface Tablespace {
  readonly name: string;
  readonly oid: number;
  /** Directory on the server at the time of the backup. */
  readonly location: string;
}

/** One backup.info. Null is Barman's `None`: not known, or not applicable. Sizes and offsets are bytes. */
export interface BackupInfo {
  /** Full text of backup_label. */
  readonly backupLabel: string | null;
  /** `--name`. */
  readonly backupName: string | null;
  readonly beginOffset: number | null;
  readonly beginTime: Timestamp | null;
  /** Segment of the begin LSN. */
  readonly beginWal: string | null;
  /** Begin LSN, `0/1A000028`. */
  readonly beginXlog: string | null;
  readonly childrenBackupIds: readonly string[] | null;
  /** Sum of all tablespaces' sizes. */
  readonly clusterSize: number | null;
  /** Null in cloud backups whatever their archives are; set by a Barman server. */
  readonly compression: string | null;
  readonly configFile: string | null;
  /** A dict; readers must not depend on any key. */
  readonly copyStats: PyDict | null;
  readonly dataChecksums: string | null;
  readonly deduplicatedSize: number | null;
  readonly encryption: string | null;
  readonly endOffset: number | null;
  readonly endTime: Timestamp | null;
  readonly endWal: string | null;
  readonly endXlog: string | null;
  readonly error: string | null;
  readonly hbaFile: string | null;
  readonly identFile: string | null;
  readonly includedFiles: readonly string[] | null;
  readonly mode: string | null;
  readonly parentBackupId: string | null;
  readonly pgdata: string | null;
  /** The literal `cloud` for backups in the object store. */
  readonly serverName: string | null;
  readonly size: number | null;
  readonly snapshotsInfo: SnapshotsInfo | null;
  /** One of `BackupStatus`, or what a newer Barman may have written. */
  readonly status: BackupStatus | (string & Record<never, never>);
  readonly summarizeWal: string | null;
  readonly systemid: string | null;
  readonly tablespaces: readonly Tablespace[] | null;
  readonly timeline: number | null;
  /** Server version number, 170002. */
  readonly version: number | null;
  readonly xlogSegmentSize: number;
  /** Fields that this program does not know; kept for messages, never written. */
  readonly unknownFields: ReadonlyMap<string, string>;
}

/** A backup.info that can't be understood. The message says which field and why. */
export class MalformedBackupInfo extends Error {
  override readonly name = "MalformedBackupInfo";
}

/** What a backup starts with: no field known, status `EMPTY`, segments of 16 MiB. */
export function newBackupInfo(known: Partial<BackupInfo> = {}): BackupInfo {
  return {
    backupLabel: null,
    backupName: null,
    beginOffset: null,
    beginTime: null,
    beginWal: null,
    beginXlog: null,
    childrenBackupIds: null,
    clusterSize: null,
    compression: null,
    configFile: null,
    copyStats: null,
    dataChecksums: null,
    deduplicatedSize: null,
    encryption: null,
    endOffset: null,
    endTime: null,
    endWal: null,
    endXlog: null,
    error: null,
    hbaFile: null,
    identFile: null,
    includedFiles: null,
    mode: null,
    parentBackupId: null,
    pgdata: null,
    serverName: null,
    size: null,
    snapshotsInfo: null,
    status: "EMPTY",
    summarizeWal: null,
    systemid: null,
    tablespaces: null,
    timeline: null,
    version: null,
    xlogSegmentSize: 16777216,
    unknownFields: new Map(),
    ...known,
  };
}

/** Barman's versions differ by a handful. */
const MOST_UNKNOWN_FIELDS = 1000;

/**
 * Read a backup.info of any Barman version. Fields that are missing are null (status `EMPTY`, segment size
 * 16 MiB); of a repeated field the last one counts; unknown ones are set aside instead of ending the
 * command as Barman does.
 * @throws {MalformedBackupInfo}
 */
export function parseBackupInfo(text: string): BackupInfo {
  const known: Partial<Record<FieldKey, unknown>> = {};
  const unknownFields = new Map<string, string>();
  let number = 0;
  // One line at a time: a hostile file is nothing but lines.
  for (let at = 0; at <= text.length;) {
    const lineEnd = text.indexOf("\n", at);
    const line = text.slice(at, lineEnd < 0 ? text.length : lineEnd);
    at += line.length + 1;
    number++;
    if (line.startsWith("#") || strip(line) === "") continue;
    const equals = line.indexOf("=");
    if (equals < 0) {
      throw new MalformedBackupInfo(`Line ${number} is not of the form name=value`);
    }
    const name = strip(line.slice(0, equals));
    const value = strip(line.slice(equals + 1));
    const field = FIELDS_BY_NAME.get(name);
    if (field === undefined) {
      unknownFields.set(name, value);
      if (unknownFields.size > MOST_UNKNOWN_FIELDS) {
        throw new MalformedBackupInfo(`more than ${MOST_UNKNOWN_FIELDS} fields are unknown`);
      }
    } else if (value !== "None") known[field.key] = readField(field, value);
    // Back to null, or to the default: a later `None` replaces an earlier value.
    else delete known[field.key];
  }
  // Each value was read by the reader of its field, which has the field's type.
  return newBackupInfo({ ...(known as Partial<BackupInfo>), unknownFields });
}

/**
 * Write a backup.info as Barman does: all fields in ascending order of their names, null as `None`, except
 * backup_name and snapshots_info, which are left out.
 * @throws {RangeError} a text that would not be read back as one line, such as a path with a line break
 */
export function formatBackupInfo(info: BackupInfo): string {
  let text = "";
  for (const field of FIELDS) {
    const value = field.write(info);
    if (value === null && field.omittedWhenNull) continue;
    if (value !== null && /[\n\r]/.test(value)) {
      throw new RangeError(`Cannot write ${field.name} into backup.info: it holds a line break`);
    }
    text += `${field.name}=${value ?? "None"}\n`;
  }
  return text;
}

/**
 * The object that `--format json` shows, in its order: all fields, then `backup_id`, then the two times in
 * ISO 8601 beside their ctime forms. `backup_label` is its literal notation, as Barman has it.
 */
export function backupInfoToJson(info: BackupInfo, backupId: string): PyDict {
  const object = new Map<PyValue, PyValue>();
  for (const field of FIELDS) {
    const value = field.json(info);
    if (value !== null || !field.omittedWhenNull) object.set(field.name, value);
  }
  object.set("backup_id", backupId);
  if (info.beginTime !== null) object.set("begin_time_iso", formatIsoTimestamp(info.beginTime));
  if (info.endTime !== null) object.set("end_time_iso", formatIsoTimestamp(info.endTime));
  return object;
}

type FieldKey = Exclude<keyof BackupInfo, "unknownFields">;

interface Field {
  readonly name: string;
  readonly key: FieldKey;
  readonly omittedWhenNull: boolean;
  /** From the text of a value that is not `None`. Throws `MalformedBackupInfo` or the literals' and times' errors. */
  readonly read: (text: string) => unknown;
  readonly write: (info: BackupInfo) => string | null;
  readonly json: (info: BackupInfo) => PyValue;
}

/** How values of one type are read, written and shown. */
interface Kind<T> {
  readonly read: (text: string) => T | null;
  readonly write: (value: T) => string;
  readonly json: (value: T) => PyValue;
}

function field<K extends FieldKey>(
  name: string,
  key: K,
  kind: Kind<NonNullable<BackupInfo[K]>>,
  omittedWhenNull = false,
): Field {
  const through = <R>(info: BackupInfo, use: (value: NonNullable<BackupInfo[K]>) => R) => {
    const value = info[key];
    return value === null ? null : use(value as NonNullable<BackupInfo[K]>);
  };
  return {
    name,
    key,
    omittedWhenNull,
    read: kind.read,
    write: (info) => through(info, kind.write),
    json: (info) => through(info, kind.json),
  };
}

const identity = <T>(value: T): T => value;
const STRING: Kind<string> = { read: identity, write: identity, json: identity };
/** The first line of an error is all that Barman stores. */
const ONE_LINE: Kind<string> = {
  ...STRING,
  write: (value) => value.split(/[\n\r]/).map((line) => line.trim()).filter(Boolean).join(" "),
};
const INTEGER: Kind<number> = { read: readInteger, write: String, json: identity };
const TIMESTAMP: Kind<Timestamp> = {
  read: parseTimestamp,
  write: formatTimestamp,
  json: formatCtime,
};
const ID_LIST: Kind<readonly string[]> = {
  read: (text) => text.split(",").map(strip),
  write: (ids) => ids.join(","),
  json: (ids) => ids.join(","),
};
const LABEL: Kind<string> = {
  read: (text) => {
    const value = parsePythonLiteral(text);
    return isFalse(value) ? null : expectString(value);
  },
  write: formatPythonLiteral,
  json: formatPythonLiteral,
};
const STRINGS: Kind<readonly string[]> = {
  read: (text) => {
    const value = parsePythonLiteral(text);
    return isFalse(value) ? null : itemsOf(value).map(expectString);
  },
  write: writeLiteral,
  json: identity,
};
const DICT: Kind<PyDict> = {
  read: (text) => {
    const value = parsePythonLiteral(text);
    if (isFalse(value)) return null;
    if (!isPyDict(value)) throw new MalformedBackupInfo("a dict is expected");
    return value;
  },
  write: writeLiteral,
  json: identity,
};
const TABLESPACES: Kind<readonly Tablespace[]> = {
  read: (text) => {
    const value = parsePythonLiteral(text);
    return isFalse(value) ? null : itemsOf(value).map(readTablespace);
  },
  write: (tablespaces) => writeLiteral(tablespaces.map(tablespaceTuple)),
  json: (tablespaces) => tablespaces.map(tablespaceTuple),
};
const SNAPSHOTS: Kind<SnapshotsInfo> = {
  read: (text) => {
    const value = parsePythonLiteral(text);
    if (isFalse(value)) return null;
    const snapshots = parseSnapshotsInfo(value);
    if (typeof snapshots === "string") throw new MalformedBackupInfo(snapshots);
    return snapshots;
  },
  write: (snapshots) => writeLiteral(formatSnapshotsInfo(snapshots)),
  json: formatSnapshotsInfo,
};

/** In ascending order of names, which is the order of the file. */
const FIELDS: readonly Field[] = [
  field("backup_label", "backupLabel", LABEL),
  field("backup_name", "backupName", STRING, true),
  field("begin_offset", "beginOffset", INTEGER),
  field("begin_time", "beginTime", TIMESTAMP),
  field("begin_wal", "beginWal", STRING),
  field("begin_xlog", "beginXlog", STRING),
  field("children_backup_ids", "childrenBackupIds", ID_LIST),
  field("cluster_size", "clusterSize", INTEGER),
  field("compression", "compression", STRING),
  field("config_file", "configFile", STRING),
  field("copy_stats", "copyStats", DICT),
  field("data_checksums", "dataChecksums", STRING),
  field("deduplicated_size", "deduplicatedSize", INTEGER),
  field("encryption", "encryption", STRING),
  field("end_offset", "endOffset", INTEGER),
  field("end_time", "endTime", TIMESTAMP),
  field("end_wal", "endWal", STRING),
  field("end_xlog", "endXlog", STRING),
  field("error", "error", ONE_LINE),
  field("hba_file", "hbaFile", STRING),
  field("ident_file", "identFile", STRING),
  field("included_files", "includedFiles", STRINGS),
  field("mode", "mode", STRING),
  field("parent_backup_id", "parentBackupId", STRING),
  field("pgdata", "pgdata", STRING),
  field("server_name", "serverName", STRING),
  field("size", "size", INTEGER),
  field("snapshots_info", "snapshotsInfo", SNAPSHOTS, true),
  field("status", "status", STRING),
  field("summarize_wal", "summarizeWal", STRING),
  field("systemid", "systemid", STRING),
  field("tablespaces", "tablespaces", TABLESPACES),
  field("timeline", "timeline", INTEGER),
  field("version", "version", INTEGER),
  field("xlog_segment_size", "xlogSegmentSize", INTEGER),
];

const FIELDS_BY_NAME: ReadonlyMap<string, Field> = new Map(
  FIELDS.map((field) => [field.name, field]),
);

function readField(field: Field, text: string): unknown {
  try {
    return field.read(text);
  } catch (error) {
    if (
      error instanceof MalformedLiteral || error instanceof MalformedTimestamp ||
      error instanceof MalformedBackupInfo
    ) {
      throw new MalformedBackupInfo(`Field ${field.name}: ${error.message}`, { cause: error });
    }
    throw error;
  }
}

/** As Python's `int` reads it. */
function readInteger(text: string): number {
  const value = /^[+-]?\d+(_\d+)*$/.test(text) ? Number(text.replaceAll("_", "")) + 0 : NaN;
  if (!Number.isSafeInteger(value)) {
    throw new MalformedBackupInfo(`'${text.slice(0, 40)}' is not an integer`);
  }
  return value;
}

/** Python writes an empty or false structure as `None`. */
function writeLiteral(value: PyValue): string {
  return isFalse(value) ? "None" : formatPythonLiteral(value);
}

function isFalse(value: PyValue): boolean {
  if (value === null || value === false || value === 0 || value === "") return true;
  if (value instanceof PyTuple) return value.items.length === 0;
  if (isPyList(value)) return value.length === 0;
  return value instanceof Map && value.size === 0;
}

function expectString(value: PyValue): string {
  if (typeof value !== "string") throw new MalformedBackupInfo("a string is expected");
  return value;
}

function itemsOf(value: PyValue): readonly PyValue[] {
  if (value instanceof PyTuple) return value.items;
  if (isPyList(value)) return value;
  throw new MalformedBackupInfo("a list is expected");
}

function readTablespace(value: PyValue): Tablespace {
  const [name, oid, location, ...rest] = itemsOf(value);
  if (
    typeof name !== "string" || typeof oid !== "number" || typeof location !== "string" ||
    rest.length > 0
  ) {
    throw new MalformedBackupInfo("a tablespace is not of the form (name, oid, location)");
  }
  return { name, oid, location };
}

function tablespaceTuple({ name, oid, location }: Tablespace): PyTuple {
  return new PyTuple([name, oid, location]);
}

/** As Python's `str.strip`, which JavaScript's `trim` is not quite. */
function strip(text: string): string {
  return text.replace(LEADING_SPACE, "").replace(TRAILING_SPACE, "");
}

// deno-lint-ignore no-control-regex -- U+001C to U+001F are white space to Python
const LEADING_SPACE = /^[\t-\r\x1c-\x20\x85\xa0\u1680\u2000-\u200a\u2028\u2029\u202f\u205f\u3000]+/;
const TRAILING_SPACE =
  // deno-lint-ignore no-control-regex -- as above; the look-behind keeps it linear
  /(?<![\t-\r\x1c-\x20\x85\xa0\u1680\u2000-\u200a\u2028\u2029\u202f\u205f\u3000])[\t-\r\x1c-\x20\x85\xa0\u1680\u2000-\u200a\u2028\u2029\u202f\u205f\u3000]+$/;
