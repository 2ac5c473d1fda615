/** From the names of users and groups in an archive to the numbers on this machine. */
import { readFile } from "node:fs/promises";
import { errorCode, fileSystemError } from "./restore_error.ts";

export interface OwnerLookup {
  /** By name where this machine knows it, else the number that the archive has. */
  uid(name: string, number: number): number;
  gid(name: string, number: number): number;
}

/**
 * From /etc/passwd and /etc/group. Users of a directory service are not in there: they get the archive's
 * numbers, which such services make the same everywhere.
 */
export async function systemOwners(): Promise<OwnerLookup> {
  const [users, groups] = await Promise.all([idsOf("/etc/passwd"), idsOf("/etc/group")]);
  return {
    uid: (name, number) => users.get(name) ?? number,
    gid: (name, number) => groups.get(name) ?? number,
  };
}

/** `name:password:number:…`; a minimal container may have no such file. */
async function idsOf(path: string): Promise<Map<string, number>> {
  let text: string;
  try {
    text = await readFile(path, "utf8");
  } catch (error) {
    const code = errorCode(error);
    if (code === "ENOENT" || code === "EACCES") return new Map();
    throw fileSystemError(`Cannot read ${path}`, error);
  }
  const ids = new Map<string, number>();
  for (const line of text.split("\n")) {
    const [name = "", , number = ""] = line.split(":");
    // The first entry of a name counts, as in the C library.
    if (name !== "" && /^\d+$/.test(number) && !ids.has(name)) ids.set(name, Number(number));
  }
  return ids;
}
