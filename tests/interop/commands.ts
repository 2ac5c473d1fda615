/** The nine commands of ours and of Barman's, run the same way, with nothing of Barman's opened. */
import { spawnSync } from "node:child_process";
import { existsSync } from "node:fs";
import { join } from "node:path";
import { executablePath, type RunOptions, runProgram, type RunResult } from "../e2e/executable.ts";
import { skipUnless } from "../skips.ts";
import { startBarmanServer } from "./barman_server.ts";

export const COMMANDS = [
  "backup",
  "backup-delete",
  "backup-keep",
  "backup-list",
  "backup-show",
  "check-wal-archive",
  "restore",
  "wal-archive",
  "wal-restore",
] as const;
export type CommandName = (typeof COMMANDS)[number];

export interface Tool {
  readonly name: "ours" | "barman" | "old barman";
  /** `[3, 20]` */
  readonly version: readonly [number, number];
  run(
    command: CommandName,
    words: readonly string[],
    options?: RunOptions,
  ): Promise<RunResult>;
}

/** Barman's start-up alone takes a second, more on a busy machine. */
const timeout = 120_000;

export const OURS: Tool = {
  name: "ours",
  version: [99, 0],
  async run(command, words, options = {}) {
    // By its name, so that usage messages begin alike.
    return await runProgram(await executablePath(), words, {
      timeout,
      ...options,
      argv0: `barman-cloud-${command}`,
    });
  },
};

/** The newest Barman that could be had; null without one. */
export const NEWEST: Tool | null = await quick(barman("barman", Deno.env.get("BARMAN_NEWEST")));
/** Debian's Barman 3.4; null without it. */
export const PACKAGED: Tool | null = barman("old barman", Deno.env.get("BARMAN_PACKAGED"));

/** What `Deno.test({ ignore })` takes; tells how to get the Barman that is missing. */
export function skipWithout(tool: Tool | null, which: "newest" | "packaged"): boolean {
  return which === "newest"
    ? skipUnless(
      tool !== null,
      "Comparison with the newest Barman",
      "deno task test where Python packages can be had (or set BARMAN_NEWEST to the directory of its commands)",
    )
    : skipUnless(
      tool !== null,
      "Comparison with Debian's Barman 3.4",
      "apt-get install -y --no-install-recommends barman-cli-cloud (and run deno task test, or set BARMAN_PACKAGED)",
    );
}

export function isAtLeast(tool: Tool | null, major: number, minor: number): boolean {
  if (tool === null) return false;
  const [itsMajor, itsMinor] = tool.version;
  return itsMajor > major || (itsMajor === major && itsMinor >= minor);
}

function barman(name: "barman" | "old barman", directory: string | undefined): Tool | null {
  if (directory === undefined || directory === "") return null;
  const program = (command: CommandName) => join(directory, `barman-cloud-${command}`);
  if (!existsSync(program("backup"))) return null;
  const told = spawnSync(program("backup"), ["--version"], { encoding: "utf8" });
  const [, major, minor] = /(\d+)\.(\d+)/.exec(told.stdout) ?? [];
  if (told.status !== 0 || major === undefined || minor === undefined) {
    throw new Error(`${program("backup")} does not tell its version: ${told.stderr}`);
  }
  return {
    name,
    version: [Number(major), Number(minor)],
    async run(command, words, options = {}) {
      const result = await runProgram(program(command), words, {
        timeout,
        ...options,
        // Nothing of the tests may stay beside the programs.
        env: { PYTHONDONTWRITEBYTECODE: "1", PATH: "/usr/bin:/bin", ...options.env },
      });
      return withoutSource(result);
    },
  };
}

/** Python's tracebacks quote the program; what Barman does is looked at from outside only. */
function withoutSource(result: RunResult): RunResult {
  const stderr = result.stderr.replaceAll(
    /^( +File ".*", line \d+, in .*)\n(?: {4,}.*\n)*/gm,
    "$1\n",
  );
  return { ...result, stderr };
}

/** A virtual environment's commands can be loaded once for all runs; backups, with their many processes, are not. */
async function quick(tool: Tool | null): Promise<Tool | null> {
  const python = join(Deno.env.get("BARMAN_NEWEST") ?? "", "python3");
  if (tool === null || !existsSync(python)) return tool;
  const server = await startBarmanServer(python);
  return {
    ...tool,
    async run(command, words, options = {}) {
      if (command === "backup") return await tool.run(command, words, options);
      const result = await server(`barman-cloud-${command}`, words, {
        timeout,
        ...options,
        env: { PATH: "/usr/bin:/bin", ...options.env },
      });
      return withoutSource(result);
    },
  };
}
