/** Why a restore was not begun, or failed. Commands turn the kind into an exit code. */
export type RestoreErrorKind =
  /** There is no such backup, or none that a target allows. */
  | "no-backup"
  /** A directory to restore into is not empty, or can't be used. */
  | "destination"
  /** Archives of the backup are not in the store. */
  | "missing-archive"
  /** What was asked for makes no sense, or is not supported. */
  | "invalid"
  /** An archive is damaged, hostile, or not complete. */
  | "archive"
  /** The local file system refused. */
  | "file-system";

export class RestoreError extends Error {
  override readonly name = "RestoreError";
  readonly kind: RestoreErrorKind;
  constructor(kind: RestoreErrorKind, message: string, options?: ErrorOptions) {
    super(message, options);
    this.kind = kind;
  }
}

/** `Cannot write /data/base/5/1249: no space left on device (ENOSPC)`. */
export function fileSystemError(action: string, error: unknown): RestoreError {
  return new RestoreError("file-system", `${action}: ${systemReason(error)}`, { cause: error });
}

/** The code of a failed system call, or undefined. */
export function errorCode(error: unknown): string | undefined {
  if (!(error instanceof Error) || !("code" in error)) return undefined;
  return typeof error.code === "string" ? error.code : undefined;
}

/** In words; the runtimes' own texts end in the name of the call and a path that the action already names. */
function systemReason(error: unknown): string {
  const code = errorCode(error);
  if (code === undefined) return error instanceof Error ? error.message : String(error);
  const words = REASONS[code];
  if (words !== undefined) return `${words} (${code})`;
  const message = error instanceof Error ? error.message : String(error);
  return message.replace(/, \w+( '.*)?$/s, "");
}

const REASONS: Readonly<Record<string, string>> = {
  EACCES: "permission denied",
  EDQUOT: "the disk quota is exhausted",
  EEXIST: "it is there already",
  EFBIG: "the file is too large for the file system",
  EIO: "input/output error",
  EISDIR: "it is a directory",
  ELOOP: "a symbolic link is in the way",
  EMFILE: "too many open files",
  ENAMETOOLONG: "the name is too long",
  ENOENT: "no such file or directory",
  ENOSPC: "no space left on device",
  ENOTDIR: "part of the path is not a directory",
  EPERM: "operation not permitted",
  EROFS: "read-only file system",
};
