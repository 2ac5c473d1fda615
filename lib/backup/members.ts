/** From files to members of an archive: opened, with what the archive says of them, ready to be read. */
import { Buffer } from "node:buffer";
import { constants, type Stats } from "node:fs";
import { readFile } from "node:fs/promises";
import { userInfo } from "node:os";
import type { TarMember } from "../tar/writer.ts";
import { OpenedFile } from "./opened_file.ts";
import { displayPath } from "./raw_names.ts";
import { unreadable, type WalkEntry } from "./walk.ts";

/** A member whose content is at hand. `size` of the member is what is stored, whatever the file does later. */
export interface OpenMember {
  readonly member: TarMember;
  readonly content: MemberContent;
}

export type MemberContent =
  | { readonly kind: "none" }
  /** All of it: `member.size` bytes; of the file at `path`, where it is one. */
  | { readonly kind: "bytes"; readonly bytes: Uint8Array; readonly path?: string | undefined }
  /** To be read from the file's start, and closed by whoever takes it. */
  | { readonly kind: "opened"; readonly file: OpenedFile; readonly path: string };

/** Gives user and group names of ids; an empty name when there is none. */
export interface OwnerNames {
  user(uid: number): string;
  group(gid: number): string;
}

/** Files up to this size are read when they are opened. Bytes. */
const SMALL_FILE = 128 * 1024;
/** Files opened ahead of the one that is being stored: hides the latency of the disk for small files. */
const OPENED_AHEAD = 8;

/**
 * Open the files of a walk, a few ahead of the one in use, in order. Files that are gone are left out. A member's
 * bytes are good until the next one is asked for.
 * @throws errors of the file system other than "not there", naming the file
 */
export async function* openMembers(
  entries: AsyncIterable<WalkEntry>,
  owners: OwnerNames,
): AsyncGenerator<OpenMember> {
  interface Opening {
    readonly member: Promise<OpenMember | undefined>;
    readonly buffer: Uint8Array;
  }
  const underWay: Opening[] = [];
  // Contents of small files go into a few buffers in turn: hundreds of thousands of them would be garbage.
  const free: Uint8Array[] = [];
  const begin = (entry: WalkEntry): void => {
    const buffer = free.pop() ?? new Uint8Array(SMALL_FILE);
    const member = openMember(entry, owners, buffer);
    // A failure is seen when its turn comes.
    member.catch(() => undefined);
    underWay.push({ member, buffer });
  };
  try {
    for await (const entry of entries) {
      begin(entry);
      if (underWay.length <= OPENED_AHEAD) continue;
      const next = underWay.shift();
      const member = await next?.member;
      if (member !== undefined) yield member;
      if (next !== undefined) free.push(next.buffer);
    }
    for (let next = underWay.shift(); next !== undefined; next = underWay.shift()) {
      const member = await next.member;
      if (member !== undefined) yield member;
    }
  } finally {
    for (const settled of await Promise.allSettled(underWay.map(({ member }) => member))) {
      if (settled.status === "fulfilled" && settled.value?.content.kind === "opened") {
        settled.value.content.file.close();
      }
    }
  }
}

/** The member of one entry; undefined when the file is gone. */
async function openMember(
  entry: WalkEntry,
  owners: OwnerNames,
  buffer: Uint8Array,
): Promise<OpenMember | undefined> {
  switch (entry.kind) {
    case "directory":
      return {
        member: { ...metadata(entry.stats, owners), type: "directory", name: entry.path, size: 0 },
        content: { kind: "none" },
      };
    case "symlink":
      return {
        member: {
          ...metadata(entry.stats, owners),
          type: "symlink",
          name: memberName(entry.path),
          linkTarget: entry.target,
          size: 0,
        },
        content: { kind: "none" },
      };
    case "file":
      return await openFile(entry.absolute, memberName(entry.path), owners, { buffer });
  }
}

/**
 * Open a regular file as a member.
 * @returns undefined when the file is not there
 */
export async function openFile(
  absolute: string,
  name: string,
  owners: OwnerNames,
  options: {
    /** Store what a link leads to; else a link is an error. */
    readonly followLinks?: boolean;
    /** Where the bytes of a small file are put, if they fit. */
    readonly buffer?: Uint8Array;
  } = {},
): Promise<OpenMember | undefined> {
  const { O_RDONLY, O_NOFOLLOW, O_NONBLOCK } = constants;
  let file: OpenedFile;
  try {
    // Should the file have become a FIFO since the directory was read, opening it must not wait for a writer.
    file = new OpenedFile(
      absolute,
      O_RDONLY | O_NONBLOCK | (options.followLinks ? 0 : O_NOFOLLOW),
    );
  } catch (error) {
    const code = error instanceof Error && "code" in error ? error.code : undefined;
    if (code === "ENOENT" && !absolute.includes("\ufffd")) return undefined;
    throw unreadable(absolute, error);
  }
  let keep = false;
  try {
    const stats = file.stat();
    if (!stats.isFile()) throw new Error("it is not a regular file");
    const { size } = stats;
    const member: TarMember = { ...metadata(stats, owners), type: "file", name, size };
    if (size > SMALL_FILE) {
      keep = true;
      return { member, content: { kind: "opened", file, path: absolute } };
    }
    const bytes = options.buffer?.subarray(0, size) ?? new Uint8Array(size);
    bytes.fill(0, await file.read(bytes, 0, size, 0));
    return { member, content: { kind: "bytes", bytes, path: absolute } };
  } catch (error) {
    throw unreadable(absolute, error);
  } finally {
    if (!keep) file.close();
  }
}

/** A member made of a text, owned as `owner` is. */
export function textMember(
  name: string,
  text: string,
  mode: number,
  owner: Stats,
  owners: OwnerNames,
): OpenMember {
  const bytes = new TextEncoder().encode(text);
  return {
    member: {
      ...metadata(owner, owners),
      type: "file",
      name,
      size: bytes.length,
      mode,
      mtime: 0n,
    },
    content: { kind: "bytes", bytes },
  };
}

/** As Barman names members: `./NAME` at the root, `DIRECTORY/NAME` below. */
function memberName(path: string): string {
  return path.includes("/") ? path : `./${path}`;
}

function metadata(
  stats: Stats,
  owners: OwnerNames,
): Pick<TarMember, "mode" | "uid" | "gid" | "userName" | "groupName" | "mtime"> {
  const { uid, gid, mode, mtimeMs } = stats;
  return {
    mode: mode & 0o7777,
    uid,
    gid,
    userName: owners.user(uid),
    groupName: owners.group(gid),
    // Microseconds, as Barman stores them.
    mtime: BigInt(Math.round(mtimeMs * 1000)) * 1000n,
  };
}

/** Names from `/etc/passwd` and `/etc/group`, and our own from the system. */
export async function systemOwnerNames(): Promise<OwnerNames> {
  const users = await namesIn("/etc/passwd");
  const groups = await namesIn("/etc/group");
  try {
    const self = userInfo();
    if (!users.has(self.uid)) users.set(self.uid, self.username);
  } catch {
    // A container may run under an id that has no name: the number is stored.
  }
  return { user: (uid) => users.get(uid) ?? "", group: (gid) => groups.get(gid) ?? "" };
}

/** Names by number of a file with lines `NAME:…:NUMBER:…`; none if it can't be read (minimal containers). */
async function namesIn(path: string): Promise<Map<number, string>> {
  const names = new Map<number, string>();
  let text: string;
  try {
    text = await readFile(path, "utf8");
  } catch {
    return names;
  }
  for (const line of text.split("\n")) {
    const [name = "", , id = ""] = line.split(":");
    // The first line of a number counts, as for the system's own look-up.
    if (name !== "" && /^\d+$/.test(id) && !names.has(Number(id))) names.set(Number(id), name);
  }
  return names;
}

/**
 * Read `global/pg_control`. The server rewrites it in place, so a read may see half of a write: it is read until
 * two reads are the same.
 */
export async function openControlFile(absolute: string, owners: OwnerNames): Promise<OpenMember> {
  let latest: { opened: OpenMember; bytes: Uint8Array } | undefined;
  for (let attempt = 0; attempt < 20; attempt++) {
    const opened = await openFile(absolute, "global/pg_control", owners);
    if (opened === undefined) {
      throw new Error(`Cannot read ${displayPath(absolute)}: it is not there`);
    }
    const { content } = opened;
    if (content.kind !== "bytes") {
      if (content.kind === "opened") content.file.close();
      throw new Error(`Cannot read ${displayPath(absolute)}: it is too large for a control file`);
    }
    const stable = latest !== undefined && Buffer.compare(latest.bytes, content.bytes) === 0;
    latest = { opened, bytes: content.bytes };
    if (stable) break;
  }
  if (latest === undefined) throw new Error(`Cannot read ${displayPath(absolute)}`);
  return latest.opened;
}
