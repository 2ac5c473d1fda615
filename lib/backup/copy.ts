/** The copy of a cluster's files into archives: tablespaces first, then the data directory. */
import { Buffer } from "node:buffer";
import type { Stats } from "node:fs";
import { lstat, readFile, realpath, stat } from "node:fs/promises";
import { endianness } from "node:os";
import type { ProgressListener } from "../progress.ts";
import { type ArchiveSettings, writeArchives } from "./archive_writer.ts";
import { dataExclusions, tablespaceExclusions } from "./exclusions.ts";
import { isBelow } from "./external_files.ts";
import { inspectionOf, type InspectionOptions } from "./inspection.ts";
import {
  openControlFile,
  type OpenMember,
  openMembers,
  type OwnerNames,
  systemOwnerNames,
} from "./members.ts";
import { displayPath, fsPath } from "./raw_names.ts";
import type { PartUploader } from "./upload.ts";
import { unlessGone, unreadable, walk } from "./walk.ts";

/** Where the files of a cluster are. */
export interface ClusterFiles {
  /** Absolute; may be a link. */
  readonly dataDirectory: string;
  readonly tablespaces: readonly { readonly oid: number; readonly directory: string }[];
  /** Of tablespaces' version directories: `15`, or `9.6`. */
  readonly majorVersion: string;
  /** Keep backup_label and its like, which are this backup's own (a copy made by Barman). */
  readonly keepLabel: boolean;
}

export interface CopyOptions extends ArchiveSettings {
  /** Key of an archive: `data` or a tablespace's oid, number from 0. */
  readonly keyOf: (name: string, index: number) => string;
  readonly uploader: PartUploader;
  /** Bytes expected, for progress. */
  readonly totalBytes: number | null;
  readonly onProgress: ProgressListener;
  /** Told the bytes of each file that was read. */
  readonly onFile?: ((bytes: number) => void) | undefined;
  /** What is worth a log line. */
  readonly onNotice: (message: string) => void;
  /** Who looks at what is stored, if anybody. */
  readonly inspection?: InspectionOptions | undefined;
}

/** What the members that end the data archive need to know. */
export interface CopiedData {
  /** The data directory with links resolved, and as it was given. */
  readonly dataDirectories: readonly string[];
  /** Of the data directory. */
  readonly owner: Stats;
  readonly owners: OwnerNames;
}

/**
 * Copy all files of a cluster. Resolves when all bytes are with the uploader; the caller lets it finish.
 * @param last members after all others. Begun when everything before was read.
 */
export async function copyCluster(
  files: ClusterFiles,
  last: (data: CopiedData) => AsyncIterable<OpenMember>,
  options: CopyOptions,
): Promise<void> {
  const { uploader, keyOf, onNotice, totalBytes } = options;
  const { signal } = uploader;
  const root = await resolved(files.dataDirectory);
  const owners = await systemOwnerNames();
  let doneBytes = 0;
  const store = async (name: string, activity: string, members: AsyncIterable<OpenMember>) => {
    options.onProgress({ activity, doneBytes, totalBytes });
    const onContent = (bytes: number) => {
      doneBytes += bytes;
      options.onFile?.(bytes);
      options.onProgress({ activity, doneBytes, totalBytes });
    };
    const key = (index: number) => keyOf(name, index);
    const { inspection } = options;
    const directory = name === "data" ? "" : `pg_tblspc/${name}/`;
    const inspect = inspection === undefined
      ? undefined
      : (open: OpenMember) => inspectionOf(open, directory, inspection);
    await writeArchives(name, members, key, options, { onContent, onNotice, inspect }, uploader);
  };
  const onSkipped = (message: string) => onNotice(`Not stored: ${message}`);

  const leaveOut: string[] = [];
  for (const { oid, directory } of files.tablespaces) {
    leaveOut.push(`pg_tblspc/${oid}`);
    const location = await tablespaceRoot(root, oid, directory);
    if (location === undefined) {
      onNotice(`Tablespace ${oid} is not there any more: its archive is empty`);
      await store(String(oid), `tablespace ${oid}`, none());
      continue;
    }
    if (isBelow(location, root)) leaveOut.push(location.slice(root.length + 1));
    const exclusions = tablespaceExclusions(files.majorVersion);
    const entries = walk(location, { exclusions, includeRoot: false, signal, onSkipped });
    await store(String(oid), `tablespace ${oid}`, openMembers(entries, owners));
  }

  const exclusions = dataExclusions(leaveOut, { keepLabel: files.keepLabel });
  const owner = await stat(fsPath(root));
  const dataMembers = async function* (): AsyncGenerator<OpenMember> {
    yield* openMembers(walk(root, { exclusions, includeRoot: true, signal, onSkipped }), owners);
    // After all other files: on a standby it says how far WAL must be replayed to fit all of them.
    yield await openControlFile(`${root}/global/pg_control`, owners);
    yield* last({ dataDirectories: [root, files.dataDirectory], owner, owners });
  };
  await store("data", "copying data", dataMembers());
}

/**
 * The system identifier in a data directory's control file, or undefined when it can't be read (the copy will
 * tell why).
 */
export async function systemIdentifierOf(dataDirectory: string): Promise<string | undefined> {
  let bytes: Buffer;
  try {
    bytes = await readFile(fsPath(`${dataDirectory}/global/pg_control`));
  } catch {
    return undefined;
  }
  if (bytes.length < 8) return undefined;
  // The file is in the byte order of the machine that the server runs on, which is this one.
  return String(endianness() === "LE" ? bytes.readBigUInt64LE(0) : bytes.readBigUInt64BE(0));
}

async function resolved(path: string): Promise<string> {
  try {
    return await realpath(fsPath(path));
  } catch (error) {
    throw unreadable(path, error);
  }
}

/**
 * The tablespace's location with links resolved; undefined when the tablespace was dropped.
 * @throws when only its files are missing
 */
async function tablespaceRoot(
  dataDirectory: string,
  oid: number,
  directory: string,
): Promise<string | undefined> {
  const location = await unlessGone(() => realpath(fsPath(directory)), directory);
  if (location !== undefined) return location;
  const link = `${dataDirectory}/pg_tblspc/${oid}`;
  const stillUsed = await unlessGone(() => lstat(fsPath(link)), link);
  if (stillUsed !== undefined) {
    throw new Error(`Cannot read tablespace ${oid}: ${displayPath(directory)} is not there`);
  }
  return undefined;
}

async function* none(): AsyncGenerator<OpenMember> {}
