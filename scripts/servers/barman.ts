/**
 * Barman itself, as a black box beside ours: the newest release from Python packages where they can be had, and
 * Debian's. Tests only.
 */
import { access, mkdir, rename, rm } from "node:fs/promises";
import { join } from "node:path";
import { fileURLToPath } from "node:url";

const ROOT = fileURLToPath(new URL("../..", import.meta.url));
const RELEASE = "barman[cloud,azure,google]>=3.19";
const CODECS = ["python-snappy", "zstandard", "lz4"];

export interface Barmans {
  /** Directory of the newest release's commands; null when it can't be had. */
  readonly newest: string | null;
  /** Directory of the commands of Debian's package; null when not installed. */
  readonly packaged: string | null;
}

export async function ensureBarman(tell: (text: string) => void): Promise<Barmans> {
  const packaged = await exists("/usr/bin/barman-cloud-backup") ? "/usr/bin" : null;
  const directory = join(ROOT, ".cache", "barman");
  const newest = join(directory, "bin");
  if (!(await exists(join(newest, "barman-cloud-backup")))) {
    tell(`installing ${RELEASE} from Python packages`);
    const reason = await install(directory);
    if (reason !== null) {
      tell(`no Barman from Python packages: ${reason}`);
      return { newest: null, packaged };
    }
  }
  return { newest, packaged };
}

/** @returns null when installed, else why not */
async function install(directory: string): Promise<string | null> {
  // A virtual environment can't be moved, so a marker file says that it is whole.
  await rm(directory, { recursive: true, force: true });
  await mkdir(join(directory, ".."), { recursive: true });
  const steps: [string, string[]][] = [
    ["python3", ["-m", "venv", directory]],
    [join(directory, "bin", "pip"), [
      "install",
      "-q",
      "--disable-pip-version-check",
      RELEASE,
      ...CODECS,
    ]],
  ];
  for (const [command, args] of steps) {
    try {
      const { code, stderr, stdout } = await new Deno.Command(command, {
        args,
        stdin: "null",
        signal: AbortSignal.timeout(6 * 60_000),
      }).output();
      if (code !== 0) {
        // Without its commands the directory is installed again next time.
        await rename(directory, `${directory}.broken`).catch(() => undefined);
        await rm(`${directory}.broken`, { recursive: true, force: true });
        const text = new TextDecoder().decode(stderr) + new TextDecoder().decode(stdout);
        return text.trim().split("\n").slice(-2).join(" | ");
      }
    } catch (error) {
      return `${command}: ${error instanceof Error ? error.message : String(error)}`;
    }
  }
  return null;
}

async function exists(path: string): Promise<boolean> {
  return await access(path).then(() => true, () => false);
}
