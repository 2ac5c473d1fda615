/**
 * A directory in which a call leaves something for the calls after it. Everything in it can be lost at any time without
 * harm; nobody else may write there, since what lies in it is believed.
 */
import { lstat, mkdir, readdir, rm, stat } from "node:fs/promises";
import { dirname, join } from "node:path";
import type { Logger } from "../cli/log.ts";

/** Not below /tmp, which may be memory: fetched segments are large. */
const DEFAULT_PARENT = "/var/tmp";
/** Milliseconds after which nobody comes for what lies here. */
export const SPOOL_LIFETIME_MS = 3600_000;

/** Where the spool is when nobody says where: one for each user. */
export function defaultSpoolDirectory(): string {
  return join(DEFAULT_PARENT, `barman-cloud-${process.getuid?.() ?? "spool"}`);
}

/**
 * The part of a spool that belongs to one purpose and one archive.
 * @param directory that of the user's choice; the default when absent
 * @param scope everything that tells this use from others
 */
export async function spoolPath(
  directory: string | undefined,
  scope: readonly string[],
): Promise<string> {
  const hash = await sha256(new TextEncoder().encode(JSON.stringify(scope)));
  return join(directory ?? defaultSpoolDirectory(), hash.slice(0, 24));
}

/** In hexadecimal digits. By the web's interface: `node:crypto` takes milliseconds to load. */
export async function sha256(bytes: Uint8Array<ArrayBuffer>): Promise<string> {
  const digest = new Uint8Array(await crypto.subtle.digest("SHA-256", bytes));
  return Array.from(digest, (byte) => byte.toString(16).padStart(2, "0")).join("");
}

/**
 * Make a part of a spool when it is not there.
 * @returns false, after a warning, when it can't be used
 */
export async function openSpool(path: string, log: Logger): Promise<boolean> {
  try {
    await mkdir(path, { recursive: true, mode: 0o700 });
    const reason = await distrust(path);
    if (reason === null) return true;
    log.warning(`Cannot use the spool ${path}: ${reason}; going on without it`);
  } catch (error) {
    log.warning(
      `Cannot use the spool ${path}: ${
        error instanceof Error ? error.message : error
      }; going on without it`,
    );
  }
  return false;
}

/** Could anybody else have put something there that we would believe? @returns why; null when nobody could */
export async function distrust(path: string): Promise<string | null> {
  const uid = process.getuid?.();
  for (const each of [path, dirname(path)]) {
    const facts = await lstat(each);
    if (!facts.isDirectory()) return `${each} is not a directory`;
    if (uid !== undefined && facts.uid !== uid) return `${each} belongs to another user`;
    if ((facts.mode & 0o022) !== 0) {
      return `others may write into ${each} (make it mode 0700, or give another --spool-dir)`;
    }
  }
  return null;
}

/** Remove what nobody came for. */
export async function cleanSpool(path: string, log: Logger): Promise<void> {
  const now = Date.now();
  for (const name of await readdir(path).catch(() => [])) {
    const file = join(path, name);
    try {
      if (now - (await stat(file)).mtimeMs > SPOOL_LIFETIME_MS) await rm(file, { force: true });
    } catch (error) {
      // Another call may have taken it at this moment.
      log.debug(`Cannot clean ${file}: ${error instanceof Error ? error.message : error}`);
    }
  }
}
