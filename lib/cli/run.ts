/** From the words of the command line to an exit code. */
import { writeSync } from "node:fs";
import { basename } from "node:path";
import type { Command, CommandContext } from "./command.ts";
import { type CommandEntry, COMMANDS } from "./commands.ts";
import { CommandError, EXIT, type ExitCode, InterruptedError } from "./exit_codes.ts";
import { createLogger, type Logger, thresholdOf } from "./log.ts";
import type { ParseResult } from "./parser.ts";
import { printable } from "./printable.ts";
import { quickParse } from "./quick_parse.ts";
import { redactor } from "./redact.ts";
import { COMPATIBILITY_VERSION } from "./version.ts";

export interface Invocation {
  /** argv[0]: the path or name that the executable was called by. */
  readonly invokedAs: string;
  /** The words after it. */
  readonly words: readonly string[];
  readonly env: Readonly<Record<string, string | undefined>>;
}

const PROGRAM = "barman-cloud";

/** Run the command that the name or the first word chooses. Never throws. */
export async function run(invocation: Invocation): Promise<ExitCode> {
  try {
    return await runChosen(invocation);
  } catch (error) {
    // Left to the runtime the code would be 1, which for wal-restore means "not in the archive".
    const message = error instanceof Error ? error.message : String(error);
    writeAll(2, `${PROGRAM}: error: ${printable(redactor(invocation.env)(message))}\n`);
    return EXIT.generalError;
  }
}

async function runChosen(invocation: Invocation): Promise<ExitCode> {
  const { entry, program, words } = choose(invocation);
  if (entry === undefined) return withoutCommand(words, invocation.env);
  // Callers ask for the version often; answered here, before the parser is loaded, it takes half the time.
  if (words[0] === "-V" || words[0] === "--version") {
    writeAll(1, `${PROGRAM}-${entry.name} ${COMPATIBILITY_VERSION}\n`);
    return EXIT.success;
  }
  // What a call before has prepared needs no parser either.
  if (entry.name.startsWith("wal-")) {
    const { answerFromSpool } = await import("../commands/from_spool.ts");
    if (await answerFromSpool(entry.name, words, invocation.env)) return EXIT.success;
  }
  const { command } = await entry.load();
  return await runCommand(command, program, words, invocation.env);
}

/** `barman-cloud-wal-archive …` by its own name, else `barman-cloud wal-archive …`. */
function choose(
  { invokedAs, words }: Invocation,
): { entry: CommandEntry | undefined; program: string; words: readonly string[] } {
  const find = (name: string) => COMMANDS.find((entry) => entry.name === name);
  const called = basename(invokedAs).replace(/\.exe$/i, "");
  if (called.startsWith(`${PROGRAM}-`)) {
    const entry = find(called.slice(PROGRAM.length + 1));
    if (entry !== undefined) return { entry, program: called, words };
  }
  const [first = "", ...rest] = words;
  // The full names work as words too: `barman-cloud barman-cloud-backup` is what a wrapper may pass on.
  const entry = find(first.startsWith(`${PROGRAM}-`) ? first.slice(PROGRAM.length + 1) : first);
  return entry === undefined
    ? { entry, program: PROGRAM, words }
    : { entry, program: `${PROGRAM} ${entry.name}`, words: rest };
}

function withoutCommand(words: readonly string[], env: Invocation["env"]): ExitCode {
  const [first] = words;
  switch (first) {
    case "-V":
    case "--version":
      writeAll(1, `${PROGRAM} ${COMPATIBILITY_VERSION}\n`);
      return EXIT.success;
    case "--help":
    case "help":
      writeAll(1, overview());
      return EXIT.success;
    case undefined:
      writeAll(2, overview());
      return EXIT.usage;
    default:
      writeAll(
        2,
        `usage: ${PROGRAM} COMMAND …\n${PROGRAM}: error: there is no command ` +
          `'${printable(redactor(env)(first))}' ` +
          `(${COMMANDS.map((entry) => entry.name).join(", ")})\n`,
      );
      return EXIT.usage;
  }
}

function overview(): string {
  const width = Math.max(...COMMANDS.map((entry) => entry.name.length));
  return [
    `usage: ${PROGRAM} COMMAND …`,
    "",
    "Back up PostgreSQL to object storage or a directory, and bring it back.",
    "",
    "commands:",
    ...COMMANDS.map((entry) => `  ${entry.name.padEnd(width)}  ${entry.summary}`),
    "",
    `${PROGRAM} COMMAND --help tells the options of a command and gives examples.`,
    `Each of Barman's nine also runs under its own name: ${PROGRAM} links DIR makes those.`,
    "",
  ].join("\n");
}

/** Parse the words and run one command; the errors it throws become a log line and an exit code. */
export async function runCommand(
  command: Command,
  program: string,
  words: readonly string[],
  env: Readonly<Record<string, string | undefined>>,
): Promise<ExitCode> {
  const parsed = await parse(command, words, program, env);
  if (parsed.kind === "exit") {
    writeAll(1, parsed.stdout);
    // It repeats words of the command line.
    writeAll(2, printable(redactor(env)(parsed.stderr), true));
    return parsed.code;
  }
  const log = createLogger({
    threshold: thresholdOf(
      counter(parsed.values["verbose"]),
      counter(parsed.values["quiet"]),
    ),
    write: (text) => writeAll(2, text),
    redact: redactor(env),
    now: () => new Date(),
    pid: process.pid,
  });
  const controller = new AbortController();
  const uninstall = installSignalHandlers(controller, log);
  const uncaught = installErrorHandlers(controller, log);
  const context: CommandContext = {
    program,
    words,
    env,
    log,
    signal: controller.signal,
    stdout: (text) => writeAll(1, text),
    stderr: (text) => writeAll(2, text),
    get stderrIsTerminal() {
      return process.stderr.isTTY === true;
    },
    now: () => new Date(),
  };
  try {
    const code = await command.run(parsed.values, context);
    return uncaught.happened() ? EXIT.generalError : code;
  } catch (error) {
    const code = report(error, log);
    return uncaught.happened() ? EXIT.generalError : code;
  } finally {
    uninstall();
    uncaught.uninstall();
  }
}

async function parse(
  command: Command,
  words: readonly string[],
  program: string,
  env: Readonly<Record<string, string | undefined>>,
): Promise<ParseResult> {
  const values = quickParse(command, words);
  if (values !== undefined) return { kind: "values", values };
  const { parseCommandLine } = await import("./parser.ts");
  return parseCommandLine(command, words, program, helpWidth(words, env));
}

/** One line for the user, and the exit code; a stack trace only with -vv. */
export function report(error: unknown, log: Logger): ExitCode {
  if (error instanceof InterruptedError) {
    log.error(error.message);
    return error.exitCode;
  }
  const { message, stack } = error instanceof Error
    ? error
    : { message: String(error), stack: undefined };
  log.error(message.split("\n").map((line) => line.trim()).filter(Boolean).join(" "));
  if (stack !== undefined) log.debug(stack);
  return error instanceof CommandError ? error.exitCode : EXIT.generalError;
}

/** The first signal asks everything to stop in order; a second one ends the process at once. */
function installSignalHandlers(controller: AbortController, log: Logger): () => void {
  const handlers = (["SIGINT", "SIGTERM"] as const).map((signal) => {
    const handler = () => {
      const reason = new InterruptedError(signal);
      if (controller.signal.aborted) process.exit(reason.exitCode);
      log.warning(`Received ${signal}, stopping (send it again to stop at once)`);
      controller.abort(reason);
    };
    process.on(signal, handler);
    return () => process.off(signal, handler);
  });
  return () => handlers.forEach((uninstall) => uninstall());
}

/** How long a command may take to stop in order after an error that nobody caught, in milliseconds. */
const STOP_MS = 30_000;

/**
 * An error that nobody caught is a mistake of ours, and must not look like an answer: the runtime would exit with 1.
 * The command is stopped as by a signal, so that a backup still says that it failed; the exit code is 4.
 */
function installErrorHandlers(
  controller: AbortController,
  log: Logger,
): { happened(): boolean; uninstall(): void } {
  let deadline: ReturnType<typeof setTimeout> | undefined;
  const handler = (error: unknown) => {
    log.critical(
      `Internal error, please report it: ${error instanceof Error ? error.message : error}`,
    );
    if (error instanceof Error && error.stack !== undefined) log.debug(error.stack);
    if (deadline !== undefined) return;
    deadline = setTimeout(() => process.exit(EXIT.generalError), STOP_MS);
    controller.abort(new CommandError(EXIT.generalError, "Stopped by an internal error"));
  };
  const events = ["uncaughtException", "unhandledRejection"] as const;
  for (const event of events) process.on(event, handler);
  return {
    happened: () => deadline !== undefined,
    uninstall() {
      clearTimeout(deadline);
      for (const event of events) process.off(event, handler);
    },
  };
}

function counter(value: unknown): number {
  return typeof value === "number" ? value : 0;
}

/** COLUMNS, else the terminal's width when help is wanted (asking costs start-up time), else 80. */
function helpWidth(
  words: readonly string[],
  env: Readonly<Record<string, string | undefined>>,
): number {
  const columns = Number(env["COLUMNS"]);
  if (Number.isInteger(columns) && columns > 0) return columns;
  const wanted = words.some((word) => word.startsWith("--h"));
  return (wanted ? process.stdout.columns : undefined) ?? 80;
}

/** How long log lines wait for a reader who does not read, in milliseconds. */
const STDERR_WAIT_MS = 10_000;
const POLL_MS = 5;

/**
 * Write all of a text before going on, whatever kind of file stands behind the descriptor. What can't be logged is
 * lost: a full disk under the log must not keep archive_command from freeing space.
 * @throws {Error} output (descriptor 1) that can't be written
 */
export function writeAll(descriptor: 1 | 2, text: string): void {
  let rest: Uint8Array = new TextEncoder().encode(text);
  let waited = 0;
  while (rest.length > 0) {
    try {
      rest = rest.subarray(writeSync(descriptor, rest));
    } catch (error) {
      const code = error instanceof Error && "code" in error ? error.code : undefined;
      // A pipe that another process made non-blocking is full: wait a little for the reader.
      if (code === "EAGAIN" && (descriptor === 1 || waited < STDERR_WAIT_MS)) {
        Atomics.wait(new Int32Array(new SharedArrayBuffer(4)), 0, 0, POLL_MS);
        waited += POLL_MS;
        continue;
      }
      // Nobody reads any more (`… | head`), or the descriptor was closed: nothing to tell anyone.
      if (descriptor === 2 || code === "EPIPE" || code === "EBADF") return;
      const reason = error instanceof Error ? error.message : String(error);
      throw new Error(`Cannot write the output: ${reason}`, { cause: error });
    }
  }
}
