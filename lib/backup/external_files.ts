/** Configuration files that lie outside of the data directory. */
import { realpath } from "node:fs/promises";
import { basename, isAbsolute } from "node:path";
import { openFile, type OpenMember, type OwnerNames } from "./members.ts";
import { displayPath, fsPath } from "./raw_names.ts";

/** As the server's settings have them; null when a setting is not known or empty. */
export interface ConfigurationFiles {
  readonly configFile: string | null;
  readonly hbaFile: string | null;
  readonly identFile: string | null;
  /** Files that the server read settings from besides. */
  readonly includedFiles: readonly string[] | null;
}

/**
 * Members for the configuration files outside of the data directory, by their base names at the archive's root.
 * What a link leads to is stored, not the link. A missing ident file is fine (most servers do without).
 * @param dataDirectories spellings of the data directory: as set, and with links resolved
 * @throws when another file is missing or can't be read
 */
export async function* externalFiles(
  files: ConfigurationFiles,
  dataDirectories: readonly string[],
  owners: OwnerNames,
): AsyncGenerator<OpenMember> {
  for (const [path, optional] of wanted(files)) {
    if (await isInside(path, dataDirectories)) continue;
    const opened = await openFile(path, basename(path), owners, { followLinks: true });
    if (opened !== undefined) yield opened;
    else if (!optional) {
      throw new Error(`Cannot read configuration file ${displayPath(path)}: it is not there`);
    }
  }
}

/** Included files outside of the data directory: they are not stored, and whoever restores must know. */
export async function includedOutside(
  files: ConfigurationFiles,
  dataDirectories: readonly string[],
): Promise<string[]> {
  const stored = new Set(wanted(files).map(([path]) => path));
  const outside: string[] = [];
  for (const path of files.includedFiles ?? []) {
    if (!stored.has(path) && !await isInside(path, dataDirectories)) outside.push(path);
  }
  return outside;
}

function wanted(files: ConfigurationFiles): (readonly [path: string, optional: boolean])[] {
  const list = [
    [files.configFile, false],
    [files.hbaFile, false],
    [files.identFile, true],
  ] as const;
  return list.flatMap(([path, optional]) =>
    path !== null && isAbsolute(path) ? [[path, optional] as const] : []
  );
}

/** Is the file below one of the directories, by its path or by that of its directory with links resolved? */
async function isInside(path: string, directories: readonly string[]): Promise<boolean> {
  const below = (file: string) => directories.some((directory) => isBelow(file, directory));
  if (below(path)) return true;
  const slash = path.lastIndexOf("/");
  try {
    const directory = await realpath(fsPath(path.slice(0, slash) || "/"));
    return below(`${directory}/${path.slice(slash + 1)}`);
  } catch {
    // Not there or not readable: opening it tells.
    return false;
  }
}

/** Is a path the directory itself or below it? Both without `..`. */
export function isBelow(path: string, directory: string): boolean {
  const base = directory.replace(/\/+$/, "");
  return path === base || path.startsWith(`${base}/`);
}
