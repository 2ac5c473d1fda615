/**
 * File names that are not UTF-8. In strings they are carried as `encodeName` describes; system calls get them
 * as bytes.
 */
import { Buffer } from "node:buffer";
import { readdir, readlink } from "node:fs/promises";
import { collectGarbage } from "./garbage.ts";
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

/**
 * The names in a directory, in the file system's order, to go through once. A database may have hundreds of thousands of
 * files in one directory: the runtimes take three times the memory for names with their kinds, and an array of strings
 * takes ten times what is in them.
 */
export async function readDirectory(path: string): Promise<Iterable<string>> {
  let names: readonly string[] = await namesIn(path);
  if (names.length < MANY) return names;
  const joined = names.join("/");
  names = [];
  collectGarbage();
  return partsOf(joined);
}

/** What so many names take is nothing beside the rest. */
const MANY = 10_000;

function* partsOf(joined: string): Generator<string> {
  for (let at = 0; at < joined.length;) {
    const slash = joined.indexOf("/", at);
    const end = slash < 0 ? joined.length : slash;
    yield joined.slice(at, end);
    at = end + 1;
  }
}

async function namesIn(path: string): Promise<string[]> {
  const names = await readdir(fsPath(path));
  // The runtime replaces bytes that it can't decode; where that may have happened, ask again for bytes. (Deno replaces
  // them here too; what is not there by such a name is told, not left out.)
  if (!names.some((name) => name.includes("\ufffd"))) return names;
  return (await readdir(fsPath(path), { encoding: "buffer" })).map(decodeName);
}

/** The target of a symlink. */
export async function readLinkTarget(path: string): Promise<string> {
  return decodeName(await readlink(fsPath(path), { encoding: "buffer" }));
}
