/**
 * File names that are not UTF-8. In strings they are carried as `encodeName` describes; system calls get them
 * as bytes.
 */
import { Buffer } from "node:buffer";
import { type Dirent } from "node:fs";
import { readdir, readlink } from "node:fs/promises";
import { decodeName, encodeName, hasEscapedBytes } from "../tar/format.ts";

/** What to give to functions of `node:fs`: the string itself, unless it holds bytes that are not UTF-8. */
export function fsPath(path: string): string | Buffer {
  return hasEscapedBytes(path) ? Buffer.from(encodeName(path)) : path;
}

/** For messages: odd bytes as `\xNN`, and not longer than a path can be. */
export function displayPath(path: string): string {
  const shown = path.length > LONGEST_SHOWN ? `${path.slice(0, LONGEST_SHOWN)}…` : path;
  return shown.replace(
    /[\udc80-\udcff]/gu,
    (char) => `\\x${(char.charCodeAt(0) - 0xdc00).toString(16)}`,
  );
}

const LONGEST_SHOWN = 4096;

/** `kind` is undefined when the file system does not tell; then ask `lstat`. */
export interface DirectoryEntry {
  readonly name: string;
  readonly kind: "file" | "directory" | "symlink" | "special" | undefined;
}

/** The entries of a directory, in the file system's order. */
export async function readDirectory(path: string): Promise<DirectoryEntry[]> {
  const entries = (await readdir(fsPath(path), { withFileTypes: true })).map((entry) => ({
    name: entry.name,
    kind: kindOf(entry),
  }));
  // The runtime replaces bytes that it can't decode; where that may have happened, ask again for bytes.
  if (!entries.some((entry) => entry.name.includes("\ufffd"))) return entries;
  const names = (await readdir(fsPath(path), { encoding: "buffer" })).map(decodeName);
  const known = new Map(entries.map((entry) => [entry.name, entry.kind]));
  // A name that is doubtful still (Deno replaces bytes here too) is left for `lstat` to prove.
  return names.map((name) => ({
    name,
    kind: name.includes("\ufffd") ? undefined : known.get(name),
  }));
}

/** The target of a symlink. */
export async function readLinkTarget(path: string): Promise<string> {
  return decodeName(await readlink(fsPath(path), { encoding: "buffer" }));
}

function kindOf(entry: Dirent): DirectoryEntry["kind"] {
  if (entry.isFile()) return "file";
  if (entry.isDirectory()) return "directory";
  if (entry.isSymbolicLink()) return "symlink";
  const special = entry.isSocket() || entry.isFIFO() || entry.isBlockDevice() ||
    entry.isCharacterDevice();
  return special ? "special" : undefined;
}
