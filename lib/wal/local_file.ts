/** WAL files on the side of PostgreSQL: read one that must not change, write one that is whole or not there. */
import { constants, readSync } from "node:fs";
import {
  type FileHandle,
  open,
  readdir,
  realpath,
  rename,
  rm,
  stat,
  unlink,
} from "node:fs/promises";
import { basename, dirname, join, resolve } from "node:path";

/** Bytes read at once. */
const CHUNK_SIZE = 256 * 1024;
const LARGE_CHUNK_SIZE = 1024 * 1024;
/** Bytes read in this thread before sockets, timers and signals have their turn. */
const IN_A_TURN = 1024 * 1024;

export interface LocalFile {
  /** Bytes, when it was opened. */
  readonly size: number;
  /** The first bytes: `length`, or what there is. */
  head(length: number): Promise<Uint8Array>;
  /**
   * The content; several readings are independent. Rejects if the file turns out not to have `size` bytes any more.
   * @param reuse `true`: give every chunk in the same memory, for consumers that are done with a chunk when they ask for
   * the next; `here`: the same, read in this thread, for the one file that matters most; memory: put the content there one
   * chunk behind the other, if it has room for all of it
   */
  read(reuse?: Reuse): AsyncGenerator<Uint8Array, void, void>;
  close(): Promise<void>;
}

type Reuse = boolean | "here" | Uint8Array;

/** Open a regular file (or a symbolic link to one) for reading. */
export async function openLocalFile(path: string): Promise<LocalFile> {
  // Without O_NONBLOCK opening a pipe would wait for a writer.
  const handle = await open(path, constants.O_RDONLY | constants.O_NONBLOCK).catch((error) => {
    throw failure("read", path, error);
  });
  try {
    const facts = await handle.stat();
    if (!facts.isFile()) throw new Error(`Cannot read ${path}: it is not a regular file`);
    return {
      size: facts.size,
      head: (length) => readHead(handle, path, Math.min(length, facts.size)),
      read: (reuse = false) => readUnchanged(handle, path, facts.size, reuse),
      close: () => handle.close(),
    };
  } catch (error) {
    await handle.close();
    throw error;
  }
}

async function readHead(handle: FileHandle, path: string, length: number): Promise<Uint8Array> {
  const bytes = new Uint8Array(length);
  const { bytesRead } = await handle.read(bytes, 0, length, 0).catch((error) => {
    throw failure("read", path, error);
  });
  return bytes.subarray(0, bytesRead);
}

async function* readUnchanged(
  handle: FileHandle,
  path: string,
  size: number,
  reuse: Reuse,
): AsyncGenerator<Uint8Array, void, void> {
  const whole = reuse instanceof Uint8Array && reuse.length >= size ? reuse : null;
  const shared = reuse === true || reuse === "here"
    ? new Uint8Array(Math.min(CHUNK_SIZE, size))
    : null;
  const atOnce = whole === null ? CHUNK_SIZE : LARGE_CHUNK_SIZE;
  let position = 0;
  let inTurn = IN_A_TURN;
  while (position < size) {
    const length = Math.min(atOnce, size - position);
    const chunk = whole?.subarray(position, position + length) ?? shared ?? new Uint8Array(length);
    if (reuse === "here" && inTurn >= IN_A_TURN) {
      await new Promise((resolve) => setImmediate(resolve));
      inTurn = 0;
    }
    let bytesRead: number;
    try {
      // The system still has what PostgreSQL has just written: a trip to another thread takes thrice as long as reading it.
      // A mount that hangs does so before, when the file is opened and its header read.
      bytesRead = reuse === "here"
        ? readSync(handle.fd, chunk, 0, length, position)
        : (await handle.read(chunk, 0, length, position)).bytesRead;
      inTurn += bytesRead;
    } catch (error) {
      throw failure("read", path, error);
    }
    if (bytesRead === 0) {
      throw new Error(
        `Cannot read ${path}: it ended after ${position} of ${size} bytes, so it changed while being read`,
      );
    }
    position += bytesRead;
    // Before the last byte, which would make the object complete that it is sent to.
    if (position === size) await requireSize(handle, path, size);
    yield chunk.subarray(0, bytesRead);
  }
  if (size === 0) await requireSize(handle, path, size);
}

async function requireSize(handle: FileHandle, path: string, size: number): Promise<void> {
  const now = (await handle.stat()).size;
  if (now !== size) {
    throw new Error(
      `Cannot read ${path}: it changed from ${size} to ${now} bytes while being read`,
    );
  }
}

export interface WriteOptions {
  readonly signal?: AbortSignal | undefined;
  /** Told about leftovers that could not be removed. */
  readonly onDebug?: ((message: string) => void) | undefined;
}

/**
 * Write a stream to a file durably: under a hidden temporary name in the same directory, then fsync, rename, and fsync
 * of the directory. Whatever fails, the file of that name is as it was before, and nothing else is left behind;
 * only a killed process leaves its temporary file, which a later call for the same destination removes.
 * @returns bytes written
 * @throws what the source throws, the signal's reason, and errors that name the file
 */
export async function writeDurably(
  destination: string,
  source: AsyncIterable<Uint8Array>,
  options: WriteOptions = {},
): Promise<number> {
  const { signal } = options;
  const target = await targetOf(destination);
  const directory = dirname(target);
  await removeLeftovers(target, options);
  const temporary = temporaryName(target);
  // 0640 is cut by the umask, which PostgreSQL sets so that its files are 0600 or, with group access, 0640.
  const handle = await open(temporary, "wx", 0o640).catch((error) => {
    throw failure("write", destination, error);
  });
  let renamed = false;
  try {
    let size = 0;
    try {
      for await (const chunk of source) {
        signal?.throwIfAborted();
        await writeAll(handle, chunk, destination);
        size += chunk.length;
      }
      await handle.sync().catch((error) => {
        throw failure("write", destination, error);
      });
    } finally {
      await handle.close();
    }
    signal?.throwIfAborted();
    await rename(temporary, target).catch((error) => {
      throw failure("write", destination, error);
    });
    renamed = true;
    await syncDirectory(directory);
    return size;
  } finally {
    if (!renamed) await rm(temporary, { force: true });
  }
}

/**
 * Bring a file that is durable to a destination, as `writeDurably` would have: by renaming it, or across file systems by
 * a copy. Of several callers one gets it.
 * @returns false when it was not there (any more); the destination is then as it was
 */
export async function moveDurably(source: string, destination: string): Promise<boolean> {
  const target = await targetOf(destination);
  try {
    await rename(source, target);
  } catch (error) {
    if (codeOf(error) === "ENOENT") return false;
    if (codeOf(error) !== "EXDEV") throw failure("write", destination, error);
    const file = await openLocalFile(source);
    try {
      await writeDurably(destination, file.read(true));
    } finally {
      await file.close();
    }
    await rm(source, { force: true });
    return true;
  }
  await syncDirectory(dirname(target));
  return true;
}

/** The file itself if the destination is a symbolic link; anything that is not a file can't be replaced by one. */
async function targetOf(destination: string): Promise<string> {
  try {
    const target = await realpath(destination);
    if (!(await stat(target)).isFile()) {
      throw new Error(`Cannot write ${destination}: it is there and is not a regular file`);
    }
    return target;
  } catch (error) {
    if (codeOf(error) === "ENOENT") return resolve(destination);
    throw codeOf(error) === undefined ? error : failure("write", destination, error);
  }
}

async function writeAll(handle: FileHandle, chunk: Uint8Array, destination: string): Promise<void> {
  for (let written = 0; written < chunk.length;) {
    const { bytesWritten } = await handle.write(chunk, written, chunk.length - written)
      .catch((error) => {
        throw failure("write", destination, error);
      });
    written += bytesWritten;
  }
}

/** Makes a rename durable. */
async function syncDirectory(directory: string): Promise<void> {
  const handle = await open(directory, constants.O_RDONLY);
  try {
    await handle.sync();
  } catch (error) {
    // Some file systems have no fsync of directories; then there is nothing to wait for.
    if (!["EINVAL", "ENOTSUP", "EISDIR", "EBADF"].includes(codeOf(error) ?? "")) {
      throw failure("make durable", directory, error);
    }
  } finally {
    await handle.close();
  }
}

const TEMPORARY_MARK = "barman-cloud";

/** `.RECOVERYXLOG.1234-9f86d081.barman-cloud`: hidden, unique, and it tells who writes it. */
function temporaryName(target: string): string {
  const random = crypto.getRandomValues(new Uint32Array(1))[0] ?? 0;
  const unique = `${process.pid}-${random.toString(16).padStart(8, "0")}`;
  return join(dirname(target), `${temporaryPrefix(target)}${unique}.${TEMPORARY_MARK}`);
}

function temporaryPrefix(target: string): string {
  // Long names leave room for what is added: names have 255 bytes at most.
  return `.${basename(target).slice(0, 50)}.`;
}

/** A temporary file is left over when nothing was written for this long and its process is not there, … */
const DEAD_AFTER_MS = 60_000;
/** … or for this long, whoever it belongs to: process ids mean nothing across containers. */
const STALE_AFTER_MS = 3600_000;

/** Remove what killed processes left for the same destination, so that it can't fill the disk in time. */
async function removeLeftovers(target: string, options: WriteOptions): Promise<void> {
  const directory = dirname(target);
  const prefix = temporaryPrefix(target);
  const names = await readdir(directory).catch((error) => {
    throw failure("write", target, error);
  });
  for (const name of names) {
    if (!name.startsWith(prefix) || !name.endsWith(`.${TEMPORARY_MARK}`)) continue;
    const [, pid] = /^(\d+)-[0-9a-f]{8}\./.exec(name.slice(prefix.length)) ?? [];
    if (pid === undefined) continue;
    const path = join(directory, name);
    try {
      const age = Date.now() - (await stat(path)).mtimeMs;
      if (age > STALE_AFTER_MS || (age > DEAD_AFTER_MS && !isAlive(Number(pid)))) {
        await unlink(path);
        options.onDebug?.(`Removed ${path}, left over from a killed process`);
      }
    } catch (error) {
      // Not our task at this moment, and another call may have been faster.
      if (codeOf(error) !== "ENOENT") {
        options.onDebug?.(`Cannot remove the leftover ${path}: ${reasonOf(error)}`);
      }
    }
  }
}

/** Our own id counts as dead: whoever had it before us is gone. */
function isAlive(pid: number): boolean {
  if (pid === process.pid) return false;
  try {
    process.kill(pid, 0);
    return true;
  } catch (error) {
    return codeOf(error) !== "ESRCH";
  }
}

function failure(action: string, path: string, error: unknown): Error {
  return new Error(`Cannot ${action} ${path}: ${reasonOf(error)}`, { cause: error });
}

/** `ENOENT: no such file or directory, open '/x'` → `no such file or directory`. */
function reasonOf(error: unknown): string {
  if (!(error instanceof Error)) return String(error);
  return /^[A-Z][A-Z0-9]*: ([^,]+),/.exec(error.message)?.[1] ?? error.message;
}

function codeOf(error: unknown): string | undefined {
  return error instanceof Error && "code" in error && typeof error.code === "string"
    ? error.code
    : undefined;
}
