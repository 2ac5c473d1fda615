import { StoreError, type StoreErrorKind } from "../object_store.ts";

interface Meaning {
  readonly kind: StoreErrorKind;
  readonly reason: string;
}

/** What the operating system's errors mean for a store. */
const MEANINGS: Readonly<Record<string, Meaning>> = {
  ENOENT: { kind: "not-found", reason: "there is no such file" },
  EACCES: {
    kind: "denied",
    reason: "permission denied; check the owner and mode of the directory",
  },
  EPERM: { kind: "denied", reason: "the operating system does not permit it" },
  EROFS: { kind: "denied", reason: "the file system is mounted read-only" },
  ENOSPC: { kind: "other", reason: "no space is left on the file system; free some or enlarge it" },
  EDQUOT: { kind: "other", reason: "the disk quota is used up; free some space or raise it" },
  EFBIG: { kind: "other", reason: "the file system does not allow files of that size" },
  EIO: { kind: "other", reason: "input/output error; check the disk" },
  ENAMETOOLONG: { kind: "invalid", reason: "the path is too long" },
  ELOOP: { kind: "invalid", reason: "the path has too many symbolic links" },
  ENOTDIR: { kind: "invalid", reason: "a part of the path is a file, not a directory" },
  EISDIR: { kind: "invalid", reason: "it is a directory" },
  ENOTEMPTY: { kind: "invalid", reason: "it is a directory" },
  EMFILE: { kind: "unavailable", reason: "too many open files; raise the limit (ulimit -n)" },
  ENFILE: { kind: "unavailable", reason: "the system has too many open files" },
  EBUSY: { kind: "unavailable", reason: "the file system is busy" },
  EAGAIN: { kind: "unavailable", reason: "the file system is busy" },
  ESTALE: { kind: "unreachable", reason: "the file server no longer knows the file" },
  ETIMEDOUT: { kind: "unreachable", reason: "the file server does not answer" },
  EHOSTDOWN: { kind: "unreachable", reason: "the file server is down" },
  ENOTCONN: { kind: "unreachable", reason: "the file system is not connected" },
};

/**
 * Turn an error of a file call into a `StoreError`; one that is a `StoreError` already stays.
 * @param action what was attempted on what: `Cannot write x in directory /y`
 */
export function fileError(action: string, key: string | undefined, error: unknown): StoreError {
  if (error instanceof StoreError) return error;
  const code = codeOf(error);
  const meaning = code === undefined ? undefined : MEANINGS[code];
  const reason = meaning?.reason ?? (error instanceof Error ? error.message : String(error));
  return new StoreError(meaning?.kind ?? "other", `${action}: ${reason}`, {
    key,
    code,
    cause: error,
  });
}

/** The operating system's name of an error (`ENOENT`), if it has one. */
export function codeOf(error: unknown): string | undefined {
  if (typeof error !== "object" || error === null || !("code" in error)) return undefined;
  return typeof error.code === "string" ? error.code : undefined;
}

export function hasCode(error: unknown, ...codes: string[]): boolean {
  const code = codeOf(error);
  return code !== undefined && codes.includes(code);
}
