/** Which objects below a backup's directory are its tar archives. */
import type { StoredObject } from "../../providers/object_store.ts";
import { type CompressionName, COMPRESSIONS } from "../compression/table.ts";
import type { BackupInfo } from "./backup_info.ts";

/** One tar archive. */
export interface Archive {
  readonly object: StoredObject;
  /** Null for a plain tar. */
  readonly compression: CompressionName | null;
}

/** The archives of PGDATA, or of one tablespace. */
export interface ArchiveSet {
  /** `data`, or the tablespace's oid. */
  readonly name: string;
  /** The unnumbered one; null when it is not there. */
  readonly main: Archive | null;
  /** `_0001` and so on, in listing order. */
  readonly additional: readonly Archive[];
}

export interface BackupArchives {
  /** `data` first, then the tablespaces as backup.info names them. */
  readonly sets: readonly ArchiveSet[];
  /** Keys that have an archive's name and an extension that is none we know. */
  readonly unknown: readonly string[];
}

/**
 * Sort out a listing of `base/ID/`. What follows `data` or an oid decides: `.` begins the extension of the
 * main archive, `_` the number of an additional one (Barman's rule).
 * @param directory the listed prefix, `…/base/ID/`
 */
export function backupArchives(
  directory: string,
  objects: readonly StoredObject[],
  info: Pick<BackupInfo, "tablespaces">,
): BackupArchives {
  const names = ["data", ...new Set((info.tablespaces ?? []).map(({ oid }) => String(oid)))];
  const found = new Map(
    names.map((name) => [name, { main: null as Archive | null, additional: [] as Archive[] }]),
  );
  const unknown: string[] = [];
  for (const object of objects) {
    const file = object.key.slice(directory.length);
    const [, name = "", separator] = /^(data|\d+)([._])/.exec(file) ?? [];
    const set = found.get(name);
    if (set === undefined) continue;
    const dot = file.indexOf(".");
    const compression = EXTENSIONS.get(dot < 0 ? "" : file.slice(dot + 1));
    if (compression === undefined) unknown.push(object.key);
    else if (separator === ".") set.main = { object, compression };
    else set.additional.push({ object, compression });
  }
  return { sets: [...found].map(([name, set]) => ({ name, ...set })), unknown };
}

/** All archives in the order in which Barman deletes them: data, then the tablespaces by oid. */
export function allArchives({ sets }: BackupArchives): Archive[] {
  const oid = ({ name }: ArchiveSet) => name === "data" ? -1 : Number(name);
  return [...sets].sort((a, b) => oid(a) - oid(b)).flatMap(({ main, additional }) =>
    main === null ? additional : [main, ...additional]
  );
}

const EXTENSIONS: ReadonlyMap<string, CompressionName | null> = new Map([
  ["tar", null] as [string, CompressionName | null],
  ...Object.values(COMPRESSIONS).map(({ tarExtension, name }) =>
    [tarExtension, name] as [string, CompressionName | null]
  ),
]);
