/** Brings what was restored to disk, files while what comes next is being read. */
import { closeSync, fsync } from "node:fs";
import { errorCode, fileSystemError } from "./restore_error.ts";

/** Flushes under way at once, when nothing else is. The disk does many as fast as one. */
export const FLUSHES_AT_ONCE = 16;
/** Each keeps one of the runtime's few threads, which decompress and write, too. */
const FLUSHES_MEANWHILE = 1;
/** With more waiting, the disk is what all waits for. */
const MANY_WAITING = 32;

/** Open files that are written: flushed and closed, one after the other and in the end many at once. */
export class FlushQueue {
  readonly #onFailure: (error: unknown) => void;
  readonly #waiting: { readonly descriptor: number; readonly shown: string }[] = [];
  readonly #underWay = new Set<Promise<void>>();
  #ending = false;

  /** @param onFailure told each failure, which names the file */
  constructor(onFailure: (error: unknown) => void) {
    this.#onFailure = onFailure;
  }

  /** Files that are not closed yet. */
  get open(): number {
    return this.#waiting.length + this.#underWay.size;
  }

  /** @param shown the file's path, for messages */
  add(descriptor: number, shown: string): void {
    this.#waiting.push({ descriptor, shown });
    this.#start();
  }

  /** Resolves when one more file is closed; never without any. */
  async next(): Promise<void> {
    await Promise.race(this.#underWay);
  }

  /** Resolves when all files are on disk, or failed to be. @throws the signal's reason */
  async end(signal: AbortSignal): Promise<void> {
    this.#ending = true;
    this.#start();
    while (this.#underWay.size > 0) {
      await this.next();
      signal.throwIfAborted();
    }
  }

  #start(): void {
    const atOnce = this.#ending || this.#waiting.length > MANY_WAITING
      ? FLUSHES_AT_ONCE
      : FLUSHES_MEANWHILE;
    while (this.#underWay.size < atOnce) {
      const file = this.#waiting.shift();
      if (file === undefined) return;
      const task: Promise<void> = flushed(file.descriptor, `Cannot write ${file.shown}`, false)
        .catch(this.#onFailure)
        .finally(() => {
          this.#underWay.delete(task);
          this.#start();
        });
      this.#underWay.add(task);
    }
  }
}

/**
 * Flush an open file or directory to disk, and close it.
 * @param directory some file systems can't flush directories, which is theirs to answer for
 */
export function flushed(descriptor: number, action: string, directory: boolean): Promise<void> {
  return new Promise((resolve, reject) => {
    fsync(descriptor, (error) => {
      const tolerated = directory &&
        ["EINVAL", "ENOTSUP", "EBADF"].includes(errorCode(error) ?? "");
      try {
        // Network file systems tell at last at close that there was no room.
        closeSync(descriptor);
      } catch (closeError) {
        reject(fileSystemError(action, closeError));
        return;
      }
      if (error === null || error === undefined || tolerated) resolve();
      else reject(fileSystemError(action, error));
    });
  });
}
