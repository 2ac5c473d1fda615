import { type Environment, resolveConnection } from "../../../lib/postgres/conninfo.ts";
import { type OpenOptions, openSession, type Session } from "../../../lib/postgres/session.ts";
import type { Logger } from "../../../lib/cli/log.ts";

/** No files and variables of the user who runs the tests. */
export const nowhere: Environment = { HOME: "/nonexistent", PGSYSCONFDIR: "/nonexistent" };

/** A session that ends with the block. */
export async function sessionOf(
  conninfo: string,
  options: OpenOptions = {},
): Promise<Session & AsyncDisposable> {
  const session = await openSession(resolveConnection(conninfo, nowhere), options);
  return Object.assign(session, { [Symbol.asyncDispose]: () => session.close() });
}

/** A log that keeps its lines. */
export function recordingLog(): Logger & { readonly lines: string[] } {
  const lines: string[] = [];
  const at = (level: string) => (message: string) => void lines.push(`${level}: ${message}`);
  return {
    lines,
    debug: at("DEBUG"),
    info: at("INFO"),
    warning: at("WARNING"),
    error: at("ERROR"),
    critical: at("CRITICAL"),
    shows: () => true,
  };
}

/** Waits for something to become true. */
export async function eventually(
  done: () => boolean | Promise<boolean>,
  what: string,
  timeoutMs = 20_000,
): Promise<void> {
  const deadline = Date.now() + timeoutMs;
  while (!await done()) {
    if (Date.now() > deadline) throw new Error(`Did not happen in ${timeoutMs} ms: ${what}`);
    await new Promise((resolve) => setTimeout(resolve, 50));
  }
}
