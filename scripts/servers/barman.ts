/**
 * Barman itself, as a black box beside ours: the newest release from Python packages where they can be had, and
 * Debian's. Tests only.
 */
import { access } from "node:fs/promises";
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import { installPythonPackages, newestPython, outputOf } from "./python_packages.ts";

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
  const python = await newestPython();
  if (python === null) {
    tell("no Barman from Python packages: there is no python3 with venv");
    return { newest: null, packaged };
  }
  // By the version of Python: with a newer one there may be a newer Barman.
  const directory = join(ROOT, ".cache", `barman-python${python.version}`);
  const newest = join(directory, "bin");
  if (!(await exists(join(newest, "barman-cloud-backup")))) {
    tell(`installing ${RELEASE} from Python packages`);
    const reason = await installPythonPackages(python.program, directory, [RELEASE, ...CODECS]);
    if (reason !== null) {
      tell(`no Barman from Python packages: ${reason}`);
      return { newest: null, packaged };
    }
  }
  return { newest, packaged };
}

/** What the commands in a directory say that they are. */
export async function versionOf(directory: string): Promise<string> {
  return await outputOf(join(directory, "barman-cloud-backup"), ["--version"]) ??
    "a Barman that does not run";
}

async function exists(path: string): Promise<boolean> {
  return await access(path).then(() => true, () => false);
}
