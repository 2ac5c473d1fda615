/** Runs a command on words as its users type them, without a process. */
import { parseCommandLine } from "../../../lib/cli/parser.ts";
import type { Command } from "../../../lib/cli/command.ts";
import { report } from "../../../lib/cli/run.ts";
import { recordingLogger } from "../backup/temporary_store.ts";

export interface Outcome {
  readonly code: number;
  readonly stdout: string;
  /** Log lines as `LEVEL message`. */
  readonly log: readonly string[];
}

export async function runWords(command: Command, ...words: string[]): Promise<Outcome> {
  const parsed = parseCommandLine(command, words, `barman-cloud-${command.name}`, 80);
  if (parsed.kind === "exit") return { code: parsed.code, stdout: parsed.stdout, log: [] };
  const log = recordingLogger();
  let stdout = "";
  let code: number;
  try {
    code = await command.run(parsed.values, {
      program: `barman-cloud-${command.name}`,
      env: {},
      log,
      signal: new AbortController().signal,
      stdout: (text) => stdout += text,
      stderr: () => {},
      stderrIsTerminal: false,
      now: () => new Date("2026-02-01T00:00:00Z"),
    });
  } catch (error) {
    code = report(error, log);
  }
  return { code, stdout, log: log.lines };
}
