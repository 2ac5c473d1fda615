/** Python packages in virtual environments, for servers and tools that tests run beside ours. Tests only. */
import { mkdir, readdir, rename, rm } from "node:fs/promises";
import { homedir } from "node:os";
import { join } from "node:path";

/** New releases want a newer Python than many systems have by default. */
const PYTHONS = ["python3.14", "python3.13", "python3.12", "python3"];

/** Of those on PATH and of pyenv's, the newest that can make virtual environments. */
export async function newestPython(): Promise<{ program: string; version: string } | null> {
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
export async function outputOf(program: string, args: string[]): Promise<string | null> {
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

/**
 * Install packages into a new virtual environment.
 * @returns null when installed, else why not
 */
export async function installPythonPackages(
  python: string,
  directory: string,
  packages: readonly string[],
): Promise<string | null> {
  // A virtual environment can't be moved, so a marker file says that it is whole.
  await rm(directory, { recursive: true, force: true });
  await mkdir(join(directory, ".."), { recursive: true });
  const steps: [string, string[]][] = [
    [python, ["-m", "venv", directory]],
    [join(directory, "bin", "pip"), [
      "install",
      "-q",
      "--disable-pip-version-check",
      ...packages,
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
