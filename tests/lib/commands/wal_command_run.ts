/** Runs a command in this process as `runCommand` does, and keeps what it prints. */
import type { Command, CommandContext } from "../../../lib/cli/command.ts";
import { parseCommandLine } from "../../../lib/cli/parser.ts";
import { report } from "../../../lib/cli/run.ts";
import { recordingLogger } from "../wal/stores.ts";

export interface CommandResult {
  readonly code: number;
  readonly stdout: string;
  /** Usage errors. */
  readonly stderr: string;
  /** `LEVEL: message` */
  readonly log: readonly string[];
}

export async function runIn(
  command: Command,
  words: readonly string[],
  options: { readonly env?: CommandContext["env"]; readonly signal?: AbortSignal } = {},
): Promise<CommandResult> {
  const program = `barman-cloud-${command.name}`;
  const parsed = parseCommandLine(command, words, program, 80);
  if (parsed.kind === "exit") {
    return { code: parsed.code, stdout: parsed.stdout, stderr: parsed.stderr, log: [] };
  }
  const log = recordingLogger();
  let stdout = "";
  const context: CommandContext = {
    program,
    words,
    env: options.env ?? {},
    log,
    signal: options.signal ?? new AbortController().signal,
    stdout: (text) => stdout += text,
    stderr: () => {},
    stderrIsTerminal: false,
    now: () => new Date(),
  };
  let code: number;
  try {
    code = await command.run(parsed.values, context);
  } catch (error) {
    code = report(error, log);
  }
  return { code, stdout, stderr: "", log: log.lines };
}
