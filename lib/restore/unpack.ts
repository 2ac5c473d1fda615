/**
 * Makes files of the members of tar archives, below one directory. An archive is not trusted: whatever it holds,
 * nothing outside the directory is written, and links that it makes are never followed.
 *
 * That rests on three things. Every directory on the way to a member was made here or looked at (`lstat`), and a
 * directory is never replaced. Files are only ever created (`O_EXCL`), what is there before is unlinked first. And the
 * directory was empty at the start, so that what is there came from the archives.
 *
 * Calls that make and describe files are synchronous: they take microseconds, and leave no gap in which another archive's
 * member could come between a look and a deed. Contents are written, and everything is flushed, asynchronously, while
 * the next members are read.
 */
import {
  closeSync,
  constants,
  fchmodSync,
  fchownSync,
  futimesSync,
  lchownSync,
  linkSync,
  lstatSync,
  lutimesSync,
  mkdirSync,
  openSync,
  rmdirSync,
  type Stats,
  symlinkSync,
  unlinkSync,
} from "node:fs";
import { displayPath, fsPath } from "../backup/raw_names.ts";
import { mapInParallel } from "../parallel.ts";
import { type TarEntry, TarReader } from "../tar/reader.ts";
import { FileWriter, WriteBuffers } from "./file_writer.ts";
import { flushed, FLUSHES_AT_ONCE, FlushQueue } from "./flush_queue.ts";
import { isBelow, memberPath, parentOf, UnsafeMember } from "./member_path.ts";
import type { OwnerLookup } from "./owners.ts";
import { errorCode, fileSystemError, RestoreError } from "./restore_error.ts";

export interface UnpackTarget {
  /** An existing, empty directory; absolute, without symbolic links. */
  readonly directory: string;
  /** Null leaves all to the user who runs this; only root can do otherwise. */
  readonly owners: OwnerLookup | null;
  /** Relative paths of directories whose content is not wanted. */
  readonly excluded: readonly string[];
  readonly warn: (message: string) => void;
}

/** What a directory gets when all is in it. */
export interface DirectoryFacts {
  /** 0..0o7777 */
  readonly mode: number;
  /** Null: of the user who runs this. */
  readonly owner: Owner | null;
  /** Seconds since 1970; null: as it comes. */
  readonly mtime: number | null;
}

export interface Owner {
  readonly uid: number;
  readonly gid: number;
}

/** What is under way of one archive. */
interface OpenArchive {
  readonly reader: TarReader;
  readonly buffers: WriteBuffers;
  /** Files that were read to their end and are not written to theirs. These do not reject. */
  readonly contents: Set<Promise<void>>;
}

export interface UnpackOptions {
  /** Which archive it is: of files at the top (backup_label) the archive of the highest rank has the last word. */
  readonly rank: number;
  readonly signal: AbortSignal;
}

/** Files being written, waiting or flushed: each is open. */
const MOST_OPEN = 64;
const CREATE = constants.O_WRONLY | constants.O_CREAT | constants.O_EXCL | constants.O_NOFOLLOW;
const OPEN_DIRECTORY = constants.O_RDONLY | constants.O_DIRECTORY | constants.O_NOFOLLOW;
const PRIVATE: DirectoryFacts = { mode: 0o700, owner: null, mtime: null };

/** Several archives may be unpacked at once; `finish` after the last one. */
export class Unpacker {
  readonly #target: UnpackTarget;
  /** Directories known to be real ones, and what they are to become (null: nothing was said). */
  readonly #directories = new Map<string, DirectoryFacts | null>([["", null]]);
  /** Rank of the archive that made a file at the top or in global/. */
  readonly #ranks = new Map<string, number>();
  readonly #flushes = new FlushQueue((error) => this.#failure ??= { error });
  readonly #warned = new Set<string>();
  #failure: { readonly error: unknown } | undefined;

  constructor(target: UnpackTarget) {
    this.#target = target;
  }

  /**
   * Unpack one archive, to the end of the source.
   * @throws {TarError} {RestoreError} what the source throws, the signal's reason
   */
  async unpack(source: AsyncIterable<Uint8Array>, options: UnpackOptions): Promise<void> {
    const reader = new TarReader(source, {
      signal: options.signal,
      onTrailingData: (position) =>
        this.#target.warn(`Ignored what follows the archive's end (at byte ${position})`),
    });
    const archive: OpenArchive = { reader, buffers: new WriteBuffers(), contents: new Set() };
    try {
      for (;;) {
        const entry = await reader.next();
        if (entry === null) break;
        options.signal.throwIfAborted();
        if (this.#failure !== undefined) throw this.#failure.error;
        await this.#member(entry, archive, options.rank);
      }
    } finally {
      await reader.close();
      await Promise.all(archive.contents);
    }
    if (this.#failure !== undefined) throw this.#failure.error;
  }

  /** What the archives said of a directory ("" for the target); undefined when nothing. */
  directoryFacts(path: string): DirectoryFacts | undefined {
    return this.#directories.get(path) ?? undefined;
  }

  /** Make a directory unless it is there, and say what it is to become unless an archive did. */
  addDirectory(path: string, facts: DirectoryFacts): void {
    this.#ensureDirectory(path);
    if (this.#directories.get(path) === null) this.#directories.set(path, facts);
  }

  /** A file of our own making, in place of what may be there. Not left half done when the source fails. */
  async addFile(
    path: string,
    content: AsyncIterable<Uint8Array>,
    { mode, owner, mtime }: DirectoryFacts,
  ): Promise<void> {
    const absolute = this.#absolute(path);
    const shown = displayPath(absolute);
    this.#ensureDirectory(parentOf(path));
    const descriptor = this.#guard(`Cannot create ${shown}`, () => {
      if (statIfThere(absolute) !== undefined) unlinkSync(fsPath(absolute));
      return openSync(fsPath(absolute), CREATE, 0o600);
    });
    const writer = new FileWriter(descriptor, new WriteBuffers());
    try {
      for await (const chunk of content) {
        await this.#guardAsync(`Cannot write ${shown}`, () => writer.write(chunk));
      }
      await this.#guardAsync(`Cannot write ${shown}`, () => writer.end());
      this.#describe(descriptor, shown, mode, owner, mtime);
    } catch (error) {
      await writer.discard();
      closeSync(descriptor);
      unlinkSync(fsPath(absolute));
      throw error;
    }
    this.#flushes.add(descriptor, shown);
  }

  /** A symbolic link of our own making, in place of what may be there. */
  addSymlink(path: string, target: string, owner: Owner | null): void {
    this.#ensureDirectory(parentOf(path));
    const absolute = this.#absolute(path);
    this.#guard(`Cannot make the symbolic link ${displayPath(absolute)}`, () => {
      const there = statIfThere(absolute);
      if (there?.isDirectory() === true) {
        rmdirSync(fsPath(absolute));
        this.#directories.delete(path);
      } else if (there !== undefined) unlinkSync(fsPath(absolute));
      symlinkSync(fsPath(target), fsPath(absolute));
    });
    this.#ownLink(absolute, owner);
  }

  /** Wait until all files are on disk; then the same for directories, with their modes, owners and times. */
  async finish(signal: AbortSignal): Promise<void> {
    await this.#flushes.end(signal);
    if (this.#failure !== undefined) throw this.#failure.error;
    // Deepest first: a mode may forbid to enter, and work inside changes the time.
    const byDepth: string[][] = [];
    for (const path of this.#directories.keys()) {
      const depth = path === "" ? 0 : path.split("/").length;
      (byDepth[depth] ??= []).push(path);
    }
    for (const paths of byDepth.reverse()) {
      if (paths !== undefined) {
        await mapInParallel(paths, FLUSHES_AT_ONCE, async (path) => {
          signal.throwIfAborted();
          await this.#finishDirectory(path);
        });
      }
    }
  }

  async #member(
    entry: TarEntry,
    archive: OpenArchive,
    rank: number,
  ): Promise<void> {
    let path: string;
    let linkPath = "";
    try {
      path = memberPath(entry.name);
      if (entry.type === "hard-link") linkPath = memberPath(entry.linkTarget);
    } catch (error) {
      if (error instanceof UnsafeMember) throw refused(entry, error.message);
      throw error;
    }
    if (this.#target.excluded.some((directory) => isBelow(path, directory))) return;
    if (entry.type === "directory") return this.#directory(path, entry);
    if (path === "") throw refused(entry, "it takes the place of the directory itself");
    if (!this.#claim(path, rank)) return;
    switch (entry.type) {
      case "file":
        return await this.#file(path, entry, archive);
      case "symlink":
        return this.#symlink(path, entry);
      case "hard-link":
        return this.#hardLink(path, linkPath, entry);
      default:
        this.#target.warn(
          `Left out ${displayPath(entry.name)}: it is a ${entry.type.replace("-", " ")}, ` +
            "which PostgreSQL does not need",
        );
    }
  }

  /** @returns false when an archive with more say has made it already */
  #claim(path: string, rank: number): boolean {
    if (path.includes("/") && !path.startsWith("global/")) return true;
    if ((this.#ranks.get(path) ?? rank) > rank) return false;
    this.#ranks.set(path, rank);
    return true;
  }

  #directory(path: string, entry: TarEntry): void {
    this.#ensureDirectory(path, entry);
    this.#directories.set(path, {
      // No set-user-ID on what we make for others.
      mode: entry.mode & 0o3777,
      owner: this.#ownerOf(entry),
      mtime: entry.mtime,
    });
  }

  async #file(path: string, entry: TarEntry, archive: OpenArchive): Promise<void> {
    const absolute = this.#absolute(path);
    const shown = displayPath(absolute);
    this.#ensureDirectory(parentOf(path), entry);
    const descriptor = this.#guard(`Cannot create ${shown}`, () => {
      try {
        return openSync(fsPath(absolute), CREATE, 0o600);
      } catch (error) {
        if (errorCode(error) !== "EEXIST") throw error;
        this.#remove(absolute, entry);
        return openSync(fsPath(absolute), CREATE, 0o600);
      }
    });
    const { reader, buffers, contents } = archive;
    const writer = new FileWriter(descriptor, buffers);
    try {
      for (;;) {
        const chunk = await reader.read();
        if (chunk === null) break;
        await this.#guardAsync(`Cannot write ${shown}`, () => writer.write(chunk));
      }
    } catch (error) {
      await writer.discard();
      closeSync(descriptor);
      throw error;
    }
    const owner = this.#ownerOf(entry);
    const content = this.#guardAsync(`Cannot write ${shown}`, () => writer.end())
      .then(() => this.#describe(descriptor, shown, entry.mode & 0o777, owner, entry.mtime))
      .then(() => this.#flushes.add(descriptor, shown), (error) => {
        this.#failure ??= { error };
        closeSync(descriptor);
      })
      .finally(() => contents.delete(content));
    contents.add(content);
    await this.#fewOpen(archive);
  }

  #symlink(path: string, entry: TarEntry): void {
    const absolute = this.#absolute(path);
    const shown = displayPath(absolute);
    if (entry.linkTarget === "" || entry.linkTarget.includes("\0")) {
      throw refused(entry, "it is a symbolic link to nothing");
    }
    this.#ensureDirectory(parentOf(path), entry);
    this.#guard(`Cannot make the symbolic link ${shown}`, () => {
      this.#remove(absolute, entry);
      symlinkSync(fsPath(entry.linkTarget), fsPath(absolute));
    });
    this.#ownLink(absolute, this.#ownerOf(entry));
    const time = timeOf(entry.mtime);
    this.#try("time", shown, () => lutimesSync(fsPath(absolute), time, time));
  }

  #hardLink(path: string, linkPath: string, entry: TarEntry): void {
    const [absolute, existing] = [this.#absolute(path), this.#absolute(linkPath)];
    // Neither may lead through a link.
    this.#ensureDirectory(parentOf(path), entry);
    this.#requireDirectories(parentOf(linkPath), entry);
    this.#guard(`Cannot make the hard link ${displayPath(absolute)}`, () => {
      if (statIfThere(existing)?.isFile() !== true) {
        throw refused(
          entry,
          `it is a link to ${displayPath(entry.linkTarget)}, which is no file restored before`,
        );
      }
      if (path === linkPath) return;
      this.#remove(absolute, entry);
      linkSync(fsPath(existing), fsPath(absolute));
    });
  }

  #ownLink(absolute: string, owner: Owner | null): void {
    if (owner === null) return;
    const change = () => lchownSync(fsPath(absolute), owner.uid, owner.gid);
    this.#try("owner", displayPath(absolute), change);
  }

  /** What is there gives way, unless it is a directory. */
  #remove(absolute: string, entry: TarEntry): void {
    const there = statIfThere(absolute);
    if (there?.isDirectory() === true) throw refused(entry, "a directory is in its place");
    if (there !== undefined) unlinkSync(fsPath(absolute));
  }

  #ensureDirectory(path: string, entry?: TarEntry): void {
    if (this.#directories.has(path)) return;
    this.#ensureDirectory(parentOf(path), entry);
    const absolute = this.#absolute(path);
    this.#guard(`Cannot make the directory ${displayPath(absolute)}`, () => {
      try {
        mkdirSync(fsPath(absolute), 0o700);
      } catch (error) {
        if (errorCode(error) !== "EEXIST") throw error;
        if (!lstatSync(fsPath(absolute)).isDirectory()) {
          if (entry === undefined) throw error;
          throw refused(entry, `${displayPath(absolute)} is in the way, which is no directory`);
        }
      }
    });
    this.#directories.set(path, null);
  }

  #requireDirectories(path: string, entry: TarEntry): void {
    if (this.#directories.has(path)) return;
    this.#requireDirectories(parentOf(path), entry);
    if (statIfThere(this.#absolute(path))?.isDirectory() !== true) {
      throw refused(
        entry,
        `it is a link to ${displayPath(entry.linkTarget)}, which is no file restored before`,
      );
    }
  }

  #describe(
    descriptor: number,
    shown: string,
    mode: number,
    owner: Owner | null,
    mtime: number | null,
  ): void {
    if (owner !== null) {
      this.#try("owner", shown, () => fchownSync(descriptor, owner.uid, owner.gid));
    }
    this.#try("mode", shown, () => fchmodSync(descriptor, mode));
    if (mtime === null) return;
    const time = timeOf(mtime);
    this.#try("time", shown, () => futimesSync(descriptor, time, time));
  }

  #ownerOf(entry: TarEntry): Owner | null {
    const { owners } = this.#target;
    return owners === null ? null : {
      uid: owners.uid(entry.userName, entry.uid),
      gid: owners.gid(entry.groupName, entry.gid),
    };
  }

  /** Wait until not too many files are open. */
  async #fewOpen({ contents }: Pick<OpenArchive, "contents">): Promise<void> {
    while (contents.size + this.#flushes.open >= MOST_OPEN) {
      await Promise.race([...contents, this.#flushes.next()]);
    }
  }

  async #finishDirectory(path: string): Promise<void> {
    const { mode, owner, mtime } = this.#directories.get(path) ?? PRIVATE;
    const absolute = this.#absolute(path);
    const shown = displayPath(absolute);
    const descriptor = this.#guard(
      `Cannot open ${shown}`,
      () => openSync(fsPath(absolute), OPEN_DIRECTORY),
    );
    try {
      this.#describe(descriptor, shown, mode, owner, mtime);
    } catch (error) {
      closeSync(descriptor);
      throw error;
    }
    await flushed(descriptor, `Cannot write ${shown}`, true);
  }

  #absolute(path: string): string {
    const { directory } = this.#target;
    if (path === "") return directory;
    return directory === "/" ? `/${path}` : `${directory}/${path}`;
  }

  #guard<T>(action: string, call: () => T): T {
    try {
      return call();
    } catch (error) {
      throw error instanceof RestoreError ? error : fileSystemError(action, error);
    }
  }

  async #guardAsync(action: string, call: () => Promise<void> | void): Promise<void> {
    try {
      await call();
    } catch (error) {
      throw fileSystemError(action, error);
    }
  }

  /** Some file systems and containers know no owners or modes: said once of each, the data is what matters. */
  #try(what: "owner" | "mode" | "time", shown: string, call: () => void): void {
    try {
      call();
    } catch (error) {
      const code = errorCode(error) ?? "";
      if (!["EPERM", "EINVAL", "ENOTSUP", "EOPNOTSUPP", "ENOSYS"].includes(code)) {
        throw fileSystemError(`Cannot set the ${what} of ${shown}`, error);
      }
      if (this.#warned.has(what)) return;
      this.#warned.add(what);
      this.#target.warn(
        `The system does not let us set the ${what} of ${shown} (${code}), nor perhaps of others`,
      );
    }
  }
}

/** Times before 1970 are not taken by the runtimes. */
function timeOf(mtime: number): number {
  return Math.max(0, mtime);
}

function statIfThere(absolute: string): Stats | undefined {
  try {
    return lstatSync(fsPath(absolute));
  } catch (error) {
    if (errorCode(error) === "ENOENT") return undefined;
    throw error;
  }
}

function refused(entry: TarEntry, reason: string): RestoreError {
  return new RestoreError("archive", `Refused member ${displayPath(entry.name)}: ${reason}`);
}
