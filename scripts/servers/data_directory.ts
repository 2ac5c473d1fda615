/** Work on the files of a cluster: copies for standbys, owners, recovery settings. */
import {
  appendFile,
  chmod,
  copyFile,
  lchown,
  lstat,
  mkdir,
  readdir,
  readlink,
  rm,
  symlink,
  writeFile,
} from "node:fs/promises";
import { dirname, join } from "node:path";
import { tmpdir } from "node:os";
import type { ServerUser } from "./postgres_binaries.ts";

export type Settings = Readonly<Record<string, string | number | boolean>>;

/** One line of a configuration file or a `-c` option's value, quoted as PostgreSQL wants it. */
export function settingValue(value: string | number | boolean): string {
  if (typeof value !== "string") return String(value);
  return `'${value.replaceAll("\\", "\\\\").replaceAll("'", "''")}'`;
}

/** Appends settings to `postgresql.conf` or `postgresql.auto.conf`; the last one of a name counts. */
export async function appendSettings(
  dataDirectory: string,
  file: "postgresql.conf" | "postgresql.auto.conf",
  settings: Settings,
): Promise<void> {
  const lines = Object.entries(settings).map(([name, value]) => `${name} = ${settingValue(value)}`);
  if (lines.length > 0) await appendFile(join(dataDirectory, file), `\n${lines.join("\n")}\n`);
}

/** Makes `recovery.signal` or `standby.signal`. */
export async function writeSignalFile(
  dataDirectory: string,
  kind: "recovery" | "standby",
): Promise<void> {
  await writeFile(join(dataDirectory, `${kind}.signal`), "");
}

/** Gives a data directory and its tablespaces to the server's user, with the mode PostgreSQL wants. */
export async function giveToServer(
  dataDirectory: string,
  user: ServerUser | undefined,
): Promise<void> {
  await chmod(dataDirectory, 0o700);
  const tablespaces = await tablespaceLinks(dataDirectory);
  if (user !== undefined) {
    for (const directory of [dataDirectory, ...tablespaces.values()]) {
      await changeOwner(directory, user);
    }
  }
}

async function changeOwner(path: string, user: ServerUser): Promise<void> {
  const entry = await lstat(path);
  if (entry.uid !== user.uid || entry.gid !== user.gid) await lchown(path, user.uid, user.gid);
  if (!entry.isDirectory()) return;
  for (const name of await readdir(path)) await changeOwner(join(path, name), user);
}

/**
 * Lets the server's user enter the directories above a path that lie below the temporary directory
 * (`mkdtemp` makes them for their owner only).
 */
export async function openParents(path: string): Promise<void> {
  const top = tmpdir();
  for (let at = dirname(path); at.startsWith(`${top}/`); at = dirname(at)) {
    const { mode } = await lstat(at);
    if ((mode & 0o011) !== 0o011) await chmod(at, (mode & 0o7777) | 0o011);
  }
}

/** OID → directory, of the links in `pg_tblspc`. */
export async function tablespaceLinks(dataDirectory: string): Promise<Map<string, string>> {
  const links = new Map<string, string>();
  const directory = join(dataDirectory, "pg_tblspc");
  for (const oid of (await readdir(directory)).sort()) {
    const target = await readlink(join(directory, oid)).catch(() => undefined);
    if (target !== undefined) links.set(oid, target);
  }
  return links;
}

/**
 * Copies a data directory between `pg_backup_start` and `pg_backup_stop`; tablespaces go to
 * `tablespaceParent`/OID, and the links with them.
 */
export async function copyDataDirectory(
  from: string,
  to: string,
  tablespaceParent: string,
): Promise<void> {
  await mkdir(to, { recursive: true, mode: 0o700 });
  const links = await tablespaceLinks(from);
  const inside = [...links.values()].filter((target) => target.startsWith(`${from}/`));
  await copyTree(from, to, (path) => {
    const name = path.slice(from.length + 1);
    return !notCopied.test(name) && !inside.includes(path);
  });
  for (const [oid, target] of links) {
    const copy = join(tablespaceParent, oid);
    await mkdir(copy, { recursive: true });
    await chmod(copy, 0o700);
    await copyTree(target, copy, () => true);
    await rm(join(to, "pg_tblspc", oid), { force: true });
    await symlink(copy, join(to, "pg_tblspc", oid));
  }
}

const notCopied =
  /^(postmaster\.(pid|opts)|(standby|recovery)\.signal|(pg_wal|pg_replslot|pg_notify|pg_serial|pg_snapshots|pg_subtrans|pg_stat_tmp|pg_dynshmem)\/.+)$/;

/** Files that vanish meanwhile are fine, the server's WAL knows of it. */
async function copyTree(
  from: string,
  to: string,
  wanted: (path: string) => boolean,
): Promise<void> {
  for (const entry of await readdir(from, { withFileTypes: true })) {
    const source = join(from, entry.name);
    const target = join(to, entry.name);
    if (!wanted(source)) continue;
    try {
      if (entry.isDirectory()) {
        await mkdir(target, { recursive: true, mode: 0o700 });
        await copyTree(source, target, wanted);
      } else if (entry.isSymbolicLink()) {
        const link = await readlink(source);
        if (entry.name === "pg_wal") await mkdir(target, { mode: 0o700 });
        else await symlink(link, target);
      } else if (entry.isFile()) {
        await copyFile(source, target);
      }
    } catch (error) {
      if ((error as NodeJS.ErrnoException).code !== "ENOENT") throw error;
    }
  }
}
