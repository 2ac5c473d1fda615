/** A machine's /sys and /dev in a temporary directory, and a findmnt that prints what it is told. */
import { mkdir, mkdtemp, rm, symlink, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { dirname, join } from "node:path";
import type { Host } from "../../../lib/snapshots/host.ts";

export interface FakeMount {
  /** `/dev/nvme1n1` */
  readonly device: string;
  readonly mountPoint: string;
  readonly root?: string;
  readonly options?: string;
}

export interface Machine extends AsyncDisposable {
  readonly host: Host;
  mounts: FakeMount[];
  /** What findmnt was asked for. */
  readonly asked: string[][];
  /** Below /sys. */
  sysFile(path: string, text?: string): Promise<void>;
  /** Below /dev; makes what it points to. */
  link(path: string, device: string): Promise<void>;
}

export async function newMachine(mounts: FakeMount[] = []): Promise<Machine> {
  const root = await mkdtemp(join(tmpdir(), "machine-"));
  const write = async (path: string, text: string) => {
    await mkdir(dirname(path), { recursive: true });
    await writeFile(path, text);
  };
  const machine: Machine = {
    mounts,
    asked: [],
    host: {
      sys: join(root, "sys"),
      dev: join(root, "dev"),
      findmnt(args) {
        machine.asked.push([...args]);
        const of = (name: string) => args[args.indexOf(name) + 1] ?? "";
        const found = args.includes("--target")
          ? [onto(machine.mounts, of("--target"))].filter((mount) => mount !== undefined)
          : machine.mounts.filter(({ device }) => device === of("--source"));
        return Promise.resolve(found.map((mount) => `${line(mount)}\n`).join(""));
      },
    },
    sysFile: (path, text = "") => write(join(root, "sys", path), text),
    async link(path, device) {
      await write(join(root, "dev", device), "");
      const at = join(root, "dev", path);
      await mkdir(dirname(at), { recursive: true });
      await symlink(join(root, "dev", device), at);
    },
    async [Symbol.asyncDispose]() {
      await rm(root, { recursive: true });
    },
  };
  await mkdir(join(root, "sys/block"), { recursive: true });
  await mkdir(join(root, "dev"));
  return machine;
}

/** As `findmnt --raw` prints it. */
function line({ device, mountPoint, root = "/", options = "rw,relatime" }: FakeMount): string {
  const source = root === "/" ? device : `${device}[${root}]`;
  return [mountPoint, root, source, options].map(escaped).join(" ");
}

function escaped(word: string): string {
  return [...new TextEncoder().encode(word)].map((byte) =>
    byte <= 0x20 || byte >= 0x7f || byte === 0x5c
      ? `\\x${byte.toString(16).padStart(2, "0")}`
      : String.fromCharCode(byte)
  ).join("");
}

/** The innermost mount that a path lies on. */
function onto(mounts: readonly FakeMount[], path: string): FakeMount | undefined {
  return mounts
    .filter(({ mountPoint }) =>
      mountPoint === "/" || path === mountPoint || path.startsWith(`${mountPoint}/`)
    )
    .sort((a, b) => b.mountPoint.length - a.mountPoint.length)[0];
}
