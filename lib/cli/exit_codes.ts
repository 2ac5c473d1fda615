/** The one table of exit codes. Barman promises 0, 1, 2, 3 and "any other non-zero is a failure". */
export const EXIT = {
  /** Done. */
  success: 0,
  /** The command ran and the operation failed (or: the WAL is not in the archive). */
  operationFailed: 1,
  /** The store can't be reached: `-t`, check-wal-archive, and transient failures of wal-restore. */
  noConnection: 2,
  /** Bad command line or invalid WAL name. */
  usage: 3,
  /** Any other error. */
  generalError: 4,
  /** Hook mode of backup: an error that Barman must not retry. */
  hookUnrecoverable: 63,
  /** wal-restore with --stop-recovery-on-error: above 125 PostgreSQL stops instead of taking it for the end of WAL. */
  stopRecovery: 126,
  /** 128 + signal number, as shells report it. */
  interrupted: 130,
  terminated: 143,
} as const;

export type ExitCode = (typeof EXIT)[keyof typeof EXIT];

/** An error that already knows its exit code. The message is for the user: one line, no stack. */
export class CommandError extends Error {
  override readonly name = "CommandError";
  readonly exitCode: ExitCode;
  constructor(exitCode: ExitCode, message: string, options?: ErrorOptions) {
    super(message, options);
    this.exitCode = exitCode;
  }
}

/** The reason of the abort signal when the user or the system asked us to stop. */
export class InterruptedError extends Error {
  override readonly name = "InterruptedError";
  readonly signal: "SIGINT" | "SIGTERM";
  constructor(signal: "SIGINT" | "SIGTERM") {
    super(`Stopped by ${signal}`);
    this.signal = signal;
  }
  get exitCode(): ExitCode {
    return this.signal === "SIGINT" ? EXIT.interrupted : EXIT.terminated;
  }
}
