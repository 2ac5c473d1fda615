/**
 * Barman itself, as a black box beside ours: the newest release from Python packages where they can be had, and
 * Debian's. Tests only.
 */
import { access, mkdir, readdir, rename, rm } from "node:fs/promises";
import { homedir } from "node:os";
import { join } from "node:path";
import { fileURLToPath } from "node:url";

const ROOT = fileURLToPath(new URL("../..", import.meta.url));
const RELEASE = "barman[cloud,azure,google]>=3.19";
/** The newest releases of Barman want a newer Python than many systems have by default. */
const PYTHONS = ["python3.14", "python3.13", "python3.12", "python3"];
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
    const reason = await install(python.program, directory);
    if (reason !== null) {
      tell(`no Barman from Python packages: ${reason}`);
      return { newest: null, packaged };
    }
  }
  return { newest, packaged };
}

/** Of those on PATH and of pyenv's, the newest that can make virtual environments. */
async function newestPython(): Promise<{ program: string; version: string } | null> {
  const pyenv = join(Deno.env.get("PYENV_ROOT") ?? join(homedir(), ".pyenv"), "versions");
  const versions = await readdir(pyenv).catch(() => []);
  const programs = [...PYTHONS, ...versions.map((name) => join(pyenv, name, "bin", "python3"))];
  const script = "import sys, venv, ensurepip; print('%d.%d' % sys.version_info[:2])";
  const minor = (version: string) => Number(version.split(".")[1]);
  let newest: { program: string; version: string } | null = null;
  for (const program of programs) {
    const version = await outputOf(program, ["-c", script]);
    if (version === null) continue;
    if (newest === null || minor(version) > minor(newest.version)) newest = { program, version };
  }
  return newest;
}

/** @returns null when there is no such program or it fails */
async function outputOf(program: string, args: string[]): Promise<string | null> {
  const signal = AbortSignal.timeout(30_000);
  try {
    const command = new Deno.Command(program, { args, stdin: "null", stderr: "null", signal });
    const { code, stdout } = await command.output();
    return code === 0 ? new TextDecoder().decode(stdout).trim() : null;
  } catch (error) {
    if (error instanceof Deno.errors.NotFound) return null;
    throw error;
  }
}

/** @returns null when installed, else why not */
async function install(python: string, directory: string): Promise<string | null> {
  // A virtual environment can't be moved, so a marker file says that it is whole.
  await rm(directory, { recursive: true, force: true });
  await mkdir(join(directory, ".."), { recursive: true });
  const steps: [string, string[]][] = [
    [python, ["-m", "venv", directory]],
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
