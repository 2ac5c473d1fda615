/**
 * Notes in a spool: which files the archive holds already. A note is believed only for the very file that was archived:
 * same name, device, inode, size, times of content and of inode to the nanosecond, and the same beginning. A spool left
 * by a former cluster, a recycled segment or a restored snapshot does not match; without a match the file is archived
 * again, which is always right.
 */
import { open, readFile, rename, rm, writeFile } from "node:fs/promises";
import { basename, join } from "node:path";
import { distrust, sha256, SPOOL_LIFETIME_MS } from "./spool.ts";

/** Tells one content of one file from every other. */
export type FileMark = string;

/** Bytes of the beginning that are part of the mark: the first page, which names cluster and position. */
const BEGINNING = 8192;

/** The mark of a file as it is now. */
export async function markOf(path: string): Promise<FileMark> {
  const file = await open(path, "r");
  try {
    const { dev, ino, size, mtimeNs, ctimeNs } = await file.stat({ bigint: true });
    const beginning = new Uint8Array(BEGINNING);
    const { bytesRead } = await file.read(beginning, 0, BEGINNING, 0);
    const hash = await sha256(beginning.subarray(0, bytesRead));
    return [basename(path), dev, ino, size, mtimeNs, ctimeNs, hash].join(" ");
  } finally {
    await file.close();
  }
}

/**
 * Note that the archive holds the file with this mark. Written under another name and renamed, so a note is whole or not
 * there; it need not survive a crash of the machine, so it is not synced.
 */
export async function note(spool: string, name: string, mark: FileMark): Promise<void> {
  const temporary = join(spool, `${name}.${crypto.randomUUID()}.tmp`);
  try {
    await writeFile(temporary, contentOf(mark, Date.now()), { mode: 0o600, flag: "wx" });
    await rename(temporary, join(spool, name));
  } catch (error) {
    await rm(temporary, { force: true });
    throw error;
  }
}

/** Is there a note for exactly this file? It stays there, since PostgreSQL may ask again after a crash. */
export async function isNoted(spool: string, path: string): Promise<boolean> {
  let text: string;
  try {
    text = await readFile(join(spool, basename(path)), "utf8");
  } catch (error) {
    if (error instanceof Error && "code" in error && error.code === "ENOENT") return false;
    throw error;
  }
  const [time = "", mark = "", end] = text.split("\n");
  const age = Date.now() - Number(time);
  // Half a note, or one from the future or the past.
  if (end !== END || !(age > -60_000 && age < SPOOL_LIFETIME_MS)) return false;
  return mark === await markOf(path) && await distrust(spool) === null;
}

const END = "archived";

function contentOf(mark: FileMark, now: number): string {
  return `${now}\n${mark}\n${END}\n`;
}
