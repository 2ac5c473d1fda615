/** The disks of this machine: which kernel device a cloud's disk is, and where its file systems are mounted. */
import { execFile } from "node:child_process";
import { readdir, readFile, realpath, stat } from "node:fs/promises";
import { basename, join } from "node:path";
import type { DiskLocation } from "../../providers/snapshots/provider.ts";

/** What is looked at; tests give their own. */
export interface Host {
  /** `/sys` */
  readonly sys: string;
  /** `/dev` */
  readonly dev: string;
  /** @returns what findmnt prints; empty when it finds nothing */
  findmnt(args: readonly string[], signal: AbortSignal): Promise<string>;
}

export interface Mount {
  readonly mountPoint: string;
  /** As findmnt shows them: `rw,noatime`. */
  readonly options: string;
  /** The part of the file system that is mounted there; `/` is all of it. */
  readonly root: string;
  /** What is mounted: the disk itself, a partition, a volume on it. */
  readonly device: string;
}

/** The file systems of this machine can't be looked at. */
export class HostError extends Error {
  override readonly name = "HostError";
}

/** This machine. @param env of the process, for PATH */
export function localHost(env: Readonly<Record<string, string | undefined>>): Host {
  return {
    sys: "/sys",
    dev: "/dev",
    findmnt: (args, signal) => runFindmnt(args, env, signal),
  };
}

/** findmnt reads a file of the kernel's; longer than this it hangs in a file system that does not answer. */
const FINDMNT_TIMEOUT_MS = 30_000;

function runFindmnt(
  args: readonly string[],
  env: Readonly<Record<string, string | undefined>>,
  signal: AbortSignal,
): Promise<string> {
  // Services may have no PATH, or one without the directories of the system.
  const PATH = [env["PATH"], "/usr/bin", "/bin"].filter(Boolean).join(":");
  return new Promise((resolve, reject) => {
    execFile(
      "findmnt",
      [...args],
      // In another language its output would be the same, but not its errors.
      { env: { PATH, LC_ALL: "C" }, timeout: FINDMNT_TIMEOUT_MS, signal, maxBuffer: 1 << 24 },
      (error, stdout, stderr) => {
        if (error === null) return resolve(stdout);
        if (signal.aborted) return reject(signal.reason);
        // 1 and no word: nothing was found.
        if (error.code === 1 && stderr.trim() === "") return resolve("");
        const reason = error.code === "ENOENT"
          ? "there is no such program in PATH; it is part of util-linux"
          : error.killed
          ? `it did not answer within ${FINDMNT_TIMEOUT_MS / 1000} s`
          : stderr.trim().split("\n")[0] || error.message;
        reject(new HostError(`Cannot run findmnt: ${reason}`, { cause: error }));
      },
    );
  });
}

/**
 * Where a disk's file systems are mounted, the best match first: a whole file system before a part of it that is
 * mounted elsewhere too (bind mounts). Looked at are the disk, its partitions, and what lies on them (LVM, LUKS).
 */
export async function mountsOf(
  host: Host,
  location: DiskLocation,
  signal: AbortSignal,
): Promise<Mount[]> {
  const device = await deviceOf(host, location);
  const own = await mountsOfDevice(host, device, signal);
  if (own.length > 0) return own;
  const below = await devicesOn(host, basename(device));
  const mounts: Mount[] = [];
  for (const other of below) mounts.push(...await mountsOfDevice(host, other, signal));
  return mounts;
}

/** The mount that a path lies on; undefined when findmnt can't tell. */
export async function mountOfPath(
  host: Host,
  path: string,
  signal: AbortSignal,
): Promise<Mount | undefined> {
  return parseFindmnt(await host.findmnt([...COLUMNS, "--target", path], signal))[0];
}

/**
 * The kernel's path of a disk: `/dev/nvme1n1`. What can't be found is named as the cloud names it: findmnt may
 * still know it.
 */
export async function deviceOf(host: Host, location: DiskLocation): Promise<string> {
  if (location.kind === "links") {
    for (const path of location.paths) {
      const real = await realpath(inDev(host, path)).catch(absent);
      if (real !== undefined) return `/dev/${basename(real)}`;
    }
    return location.paths[0] ?? "";
  }
  return await ec2Device(host, location);
}

/** Is the disk there by now? After attaching, the kernel needs a moment. */
export async function isPresent(host: Host, location: DiskLocation): Promise<boolean> {
  const path = inDev(host, await deviceOf(host, location));
  return await stat(path).then(() => true, (error: unknown) => {
    if (absent(error) === undefined) return false;
    throw error;
  });
}

/** What to mount of a disk: its only partition, else the disk itself. */
export async function mountableOf(host: Host, location: DiskLocation): Promise<string> {
  const device = await deviceOf(host, location);
  const [first, ...more] = await partitionsOf(host, basename(device));
  return first !== undefined && more.length === 0 ? `/dev/${first}` : device;
}

/**
 * EC2's names (`/dev/sdf`) are wishes: with NVMe the kernel numbers as it likes and the serial number tells the
 * volume; with Xen the disk is called `xvdf`, or `hdf` in paravirtual machines.
 */
async function ec2Device(
  host: Host,
  { device, volumeId }: DiskLocation & { kind: "ec2" },
): Promise<string> {
  const blocks = await readdir(join(host.sys, "block")).catch(absent) ?? [];
  const serial = volumeId.replaceAll("-", "");
  for (const block of blocks.filter((name) => /^nvme\d+n\d+$/.test(name))) {
    const text = await readFile(join(host.sys, "block", block, "device/serial"), "utf8")
      .catch(absent);
    if (text?.trim() === serial) return `/dev/${block}`;
  }
  const name = device.replace(/^\/dev\//, "");
  const twins = name.startsWith("sd")
    ? [name, `xvd${name.slice(2)}`, `hd${name.slice(2)}`]
    : [name];
  const found = twins.find((twin) => blocks.includes(twin));
  return `/dev/${found ?? name}`;
}

const COLUMNS = ["--noheadings", "--raw", "--output", "TARGET,FSROOT,SOURCE,OPTIONS"];

async function mountsOfDevice(host: Host, device: string, signal: AbortSignal): Promise<Mount[]> {
  const mounts = parseFindmnt(await host.findmnt([...COLUMNS, "--source", device], signal));
  return [
    ...mounts.filter(({ root }) => root === "/"),
    ...mounts.filter(({ root }) => root !== "/"),
  ];
}

/** Lines of four words, in which blanks are written `\x20`. */
export function parseFindmnt(text: string): Mount[] {
  return text.split("\n").filter((line) => line !== "").map((line) => {
    const words = line.split(" ");
    const [mountPoint = "", root = "", source = "", options = ""] = words.map(unescaped);
    if (words.length !== 4 || !mountPoint.startsWith("/")) {
      throw new HostError(`Cannot understand what findmnt prints: ${line}`);
    }
    // A bind mount's source has the directory behind it: `/dev/sdf[/srv]`.
    return { mountPoint, root, options, device: source.replace(/\[.*\]$/s, "") };
  });
}

/** Each `\xHH` is a byte, of which several may make a character. */
function unescaped(word: string): string {
  return word.replace(/(?:\\x[0-9a-fA-F]{2})+/g, (escapes) => {
    const bytes = escapes.slice(2).split("\\x").map((hex) => parseInt(hex, 16));
    return new TextDecoder().decode(Uint8Array.from(bytes));
  });
}

/** Partitions, then what is made of the disk and of them, however deep. */
async function devicesOn(host: Host, block: string): Promise<string[]> {
  const partitions = await partitionsOf(host, block);
  const found = new Set<string>(partitions.map((name) => `/dev/${name}`));
  const queue = [join(host.sys, "block", block)];
  queue.push(...partitions.map((name) => join(host.sys, "block", block, name)));
  const seen = new Set<string>();
  for (let at = queue.shift(); at !== undefined; at = queue.shift()) {
    for (const holder of (await readdir(join(at, "holders")).catch(absent) ?? []).sort()) {
      if (seen.has(holder)) continue;
      seen.add(holder);
      const directory = join(host.sys, "block", holder);
      // The name under which it is mounted: /dev/mapper/vg-data.
      const mapped = await readFile(join(directory, "dm/name"), "utf8").catch(absent);
      found.add(mapped === undefined ? `/dev/${holder}` : `/dev/mapper/${mapped.trim()}`);
      queue.push(directory);
    }
  }
  return [...found];
}

/** Names of the partitions of a disk. */
async function partitionsOf(host: Host, block: string): Promise<string[]> {
  const directory = join(host.sys, "block", block);
  const names = (await readdir(directory).catch(absent) ?? []).sort();
  const partitions: string[] = [];
  for (const name of names.filter((it) => it.startsWith(block))) {
    const number = await readFile(join(directory, name, "partition"), "utf8").catch(absent);
    if (number !== undefined) partitions.push(name);
  }
  return partitions;
}

function inDev(host: Host, path: string): string {
  return join(host.dev, path.replace(/^\/dev\//, ""));
}

/** For `catch`: what is not there is undefined. */
function absent(error: unknown): undefined {
  const code = error instanceof Error && "code" in error ? error.code : undefined;
  if (code === "ENOENT" || code === "ENOTDIR" || code === "EINVAL" || code === "EACCES") return;
  throw error;
}
