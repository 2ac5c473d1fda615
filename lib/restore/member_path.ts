/** Where a member of an archive belongs below the directory that is restored. */

/** A member that would leave the directory. */
export class UnsafeMember extends Error {
  override readonly name = "UnsafeMember";
}

/** `PATH_MAX` of Linux, the largest in use. Bytes, so characters are no more. */
const LONGEST_PATH = 4096;

/**
 * The path of a member relative to the target, without `.` and empty components; "" for the target itself.
 * @param name as in the archive: `.`, `./PG_VERSION`, `base/5/1249`
 * @throws {UnsafeMember} absolute paths, `..` anywhere (even where it would stay inside), NUL, and what is longer than
 * any path that a system takes
 */
export function memberPath(name: string): string {
  if (name.startsWith("/")) throw new UnsafeMember("its path is absolute");
  if (name.length > LONGEST_PATH) throw new UnsafeMember("its path is too long for any system");
  if (name.includes("\0")) throw new UnsafeMember("its path holds a NUL");
  // Nearly all names are plain already.
  if (!/(^|\/)\.{0,2}(\/|$)/.test(name)) return name;
  const components = name.split("/").filter((part) => part !== "" && part !== ".");
  if (components.includes("..")) throw new UnsafeMember("its path leads upwards (..)");
  return components.join("/");
}

/** The path without its last component; "" at the top. */
export function parentOf(path: string): string {
  const slash = path.lastIndexOf("/");
  return slash < 0 ? "" : path.slice(0, slash);
}

/** Is `path` below `directory` (not the same)? Both normalised, relative or both absolute. */
export function isBelow(path: string, directory: string): boolean {
  if (directory === "" || directory === "/") return path !== directory;
  return path.length > directory.length + 1 && path.startsWith(directory) &&
    path[directory.length] === "/";
}
