/**
 * Why there is no backup. `failed`: it was attempted, or a part of it, and did not work. `refused`: it can't be
 * taken this way at all, whatever is tried again.
 */
export class BackupError extends Error {
  override readonly name = "BackupError";
  readonly kind: "failed" | "refused";

  /** @param message one line for the user, without secrets */
  constructor(kind: "failed" | "refused", message: string, options?: ErrorOptions) {
    super(message, options);
    this.kind = kind;
  }
}

/** What went wrong, in one line; the error's class where it says nothing. */
export function reasonOf(error: unknown): string {
  if (!(error instanceof Error)) return String(error);
  const [line = ""] = error.message.trim().split("\n");
  return line === "" ? error.name : line;
}
