/** The directories that are restored into: looked at before anything is written, then made. */
import { constants, openSync, realpathSync } from "node:fs";
import { mkdir, readdir } from "node:fs/promises";
import { dirname, join, resolve } from "node:path";
import type { RestorePlan } from "./plan.ts";
import { errorCode, fileSystemError, RestoreError } from "./restore_error.ts";
import { flushed } from "./flush_queue.ts";

/** Absolute, with the symbolic links of what exists of it resolved. */
export function resolveDirectory(path: string): string {
  const absolute = resolve(path);
  try {
    return realpathSync(absolute);
  } catch (error) {
    if (errorCode(error) !== "ENOENT" || absolute === "/") {
      throw fileSystemError(`Cannot use directory ${path}`, error);
    }
    return join(resolveDirectory(dirname(absolute)), absolute.slice(dirname(absolute).length));
  }
}

/**
 * Each directory must be empty or not there.
 * @throws {RestoreError} kind `destination`
 */
export async function checkDestinations(plan: RestorePlan): Promise<void> {
  for (const { label, directory } of [plan.pgdata, ...plan.tablespaces]) {
    let entries: string[];
    try {
      entries = await readdir(directory);
    } catch (error) {
      if (errorCode(error) === "ENOENT") continue;
      const action = `Cannot restore ${label} into ${directory}`;
      if (errorCode(error) !== "ENOTDIR") throw fileSystemError(action, error);
      throw new RestoreError("destination", `${action}: it is not a directory`, { cause: error });
    }
    if (entries.length > 0) {
      throw new RestoreError(
        "destination",
        `Cannot restore ${label} into ${directory}: the directory is not empty; ` +
          "empty it or choose another one",
      );
    }
  }
}

/** Make the directories, those above them too, and flush what was made above. */
export async function makeDestinations(plan: RestorePlan): Promise<void> {
  for (const { directory } of [plan.pgdata, ...plan.tablespaces]) {
    try {
      // Those above get the usual mode; this one gets its own when all is in it.
      const first = await mkdir(dirname(directory), { recursive: true });
      await mkdir(directory, { mode: 0o700 }).catch((error) => {
        if (errorCode(error) !== "EEXIST") throw error;
      });
      // From the directory above the target up to the one in which the first new one was made.
      const top = dirname(first ?? directory);
      for (let above = dirname(directory);; above = dirname(above)) {
        await flushDirectory(above);
        if (above === top || above === "/") break;
      }
    } catch (error) {
      if (error instanceof RestoreError) throw error;
      throw fileSystemError(`Cannot make the directory ${directory}`, error);
    }
  }
}

async function flushDirectory(directory: string): Promise<void> {
  let descriptor: number;
  try {
    descriptor = openSync(directory, constants.O_RDONLY | constants.O_DIRECTORY);
  } catch (error) {
    // One that we may pass through but not read: made by others, long ago.
    if (errorCode(error) === "EACCES") return;
    throw error;
  }
  await flushed(descriptor, `Cannot write ${directory}`, true);
}
