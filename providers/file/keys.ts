/** Which keys a directory can hold, and the names in it that are not objects. */
import { randomBytes } from "node:crypto";
import { Buffer } from "node:buffer";
import { StoreError } from "../object_store.ts";

/** Bytes of a file name on every file system that PostgreSQL runs on. */
const MAX_NAME_BYTES = 255;

/** Files being written, and locks. Listings leave them out and keys can't have such a component. */
const RESERVED_NAME = /^\.barman-cloud\..*\.(tmp|lock)$/s;

export function isReservedName(name: string): boolean {
  return RESERVED_NAME.test(name);
}

/** A file that is being written, or was when its writer died. */
export function isTemporaryName(name: string): boolean {
  return isReservedName(name) && name.endsWith(".tmp");
}

/** A name for a file that is being written. Its length does not depend on the key's. */
export function temporaryName(): string {
  return `.barman-cloud.${randomBytes(8).toString("hex")}.tmp`;
}

/**
 * The path of a key's file below the root directory.
 *
 * Only the text of the key is looked at: a symbolic link inside the root is the administrator's
 * choice and is followed (for instance to put `base/` on another disk).
 * @throws {StoreError} kind `invalid` for a key that would leave the root or can't be a file's name.
 */
export function pathOfKey(root: string, key: string): string {
  for (const name of key.split("/")) {
    const why = whyNotAName(name);
    if (why !== undefined) {
      throw new StoreError(
        "invalid",
        `Cannot use key ${JSON.stringify(key)} in directory ${root}: ${why}`,
        { key },
      );
    }
  }
  return `${root}/${key}`;
}

/** Whether a key could be stored at all; nothing is listed below other prefixes. */
export function isPossibleDirectory(prefix: string): boolean {
  return prefix.split("/").every((name) => whyNotAName(name) === undefined);
}

function whyNotAName(name: string): string | undefined {
  if (name === "") return "a part of it between slashes is empty";
  if (name === "." || name === "..") return `"${name}" is not allowed in a key`;
  if (name.includes("\0")) return "a file's name can't hold a NUL byte";
  if (!name.isWellFormed()) return "it is not valid Unicode";
  if (name.length * 3 > MAX_NAME_BYTES && Buffer.byteLength(name) > MAX_NAME_BYTES) {
    return `a part of it is longer than ${MAX_NAME_BYTES} bytes`;
  }
  if (isReservedName(name)) return `the name "${name}" is reserved for files being written`;
  return undefined;
}
