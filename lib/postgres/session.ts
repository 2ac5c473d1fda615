/** One session with a PostgreSQL server: opened once, never silently made anew. */
import type { ConnectionHost, ConnectionParameters } from "./conninfo.ts";
import { ConnectionError, QueryError, QueryTimeoutError, SessionLostError } from "./errors.ts";
import { socketPath, TlsFailedError, TlsRefusedError } from "./socket.ts";
import { openWire, type Row, type Wire } from "./wire.ts";

export type { Row } from "./wire.ts";
export { ConnectionError, QueryError, QueryTimeoutError, SessionLostError } from "./errors.ts";

export interface QueryOptions {
  /** Cancels the query on the server; the call rejects with the signal's reason. */
  readonly signal?: AbortSignal | undefined;
  /** Milliseconds from the moment it is sent; no limit when absent. */
  readonly timeoutMs?: number | undefined;
}

export interface Session {
  readonly host: ConnectionHost;
  readonly encrypted: boolean;
  /** Aborted, with a `SessionLostError`, when the session ends before `close`. */
  readonly lost: AbortSignal;
  /**
   * Runs one statement. Queries run one after the other, each in its own transaction.
   *
   * @param values for `$1` …; texts, cast them in the statement (`$2::text::bool`)
   * @throws QueryError what the server says; QueryTimeoutError; SessionLostError
   */
  query(sql: string, values?: readonly (string | null)[], options?: QueryOptions): Promise<Row[]>;
  /**
   * Sends a query each so often while there is no other, so that no firewall forgets the
   * connection. One that is not answered in that time ends the session (`lost`).
   *
   * @returns what stops it, as `close` does
   */
  keepAlive(intervalMs?: number): () => void;
  /** Ends the session, also when a query is under way. */
  close(): Promise<void>;
}

export interface OpenOptions {
  readonly signal?: AbortSignal | undefined;
  /** What the server says beside its answers. */
  readonly onNotice?: ((message: string) => void) | undefined;
}

/** How long the server may take to stop a query that was cancelled, in milliseconds. */
const cancelGraceMs = 5_000;
/** How long the polite end of a session may take, in milliseconds. */
const closeGraceMs = 2_000;
const keepAliveMs = 60_000;

/**
 * Opens a session on the first of the hosts that accepts one and is of the wanted kind
 * (`target_session_attrs`). As libpq does it: a host that can't be reached, or that is starting up,
 * is passed over; one that refuses us ends the search.
 *
 * @throws ConnectionError that names each host tried and why it is none; the signal's reason
 */
export async function openSession(
  parameters: ConnectionParameters,
  options: OpenOptions = {},
): Promise<Session> {
  const failures: string[] = [];
  const preferStandby = parameters.targetSession === "prefer-standby";
  for (const target of preferStandby ? ["standby", "any"] as const : [parameters.targetSession]) {
    failures.length = 0;
    for (const host of parameters.hosts) {
      try {
        const session = sessionOn(host, await openHost(host, parameters, options));
        const mismatch = await mismatchWith(target, session);
        if (mismatch === undefined) return session;
        await session.close();
        failures.push(`${placeOf(host)}: ${mismatch}`);
      } catch (error) {
        options.signal?.throwIfAborted();
        failures.push(`${placeOf(host)}: ${explain(error, host)}`);
        if (error instanceof QueryError && error.sqlState !== cannotConnectNow) break;
      }
    }
  }
  throw new ConnectionError(
    `Cannot connect to PostgreSQL as user ${parameters.user}, database ${parameters.database}: ${
      failures.join("; ")
    }`,
  );
}

/** SQLSTATE of a server that is starting, stopping or recovering. */
const cannotConnectNow = "57P03";

/** With and without TLS, in the order that sslmode says. */
async function openHost(
  host: ConnectionHost,
  parameters: ConnectionParameters,
  options: OpenOptions,
): Promise<Wire> {
  const { mode } = parameters.tls;
  const attempts = host.kind === "socket" || mode === "disable"
    ? [false]
    : mode === "allow"
    ? [false, true]
    : mode === "prefer"
    ? [true, false]
    : [true];
  let failure: unknown;
  for (const [index, useTls] of attempts.entries()) {
    const limit = timeLimit(parameters.connectTimeout, options.signal);
    try {
      return await openWire(host, parameters, useTls, limit.signal, options.onNotice ?? nothing);
    } catch (error) {
      const other = error instanceof TlsRefusedError || error instanceof TlsFailedError ||
        (error instanceof QueryError && error.sqlState.startsWith("28"));
      // What the first attempt says is about what the user wants most.
      if (index === 0 || !(error instanceof TlsRefusedError)) failure = error;
      if (!other) break;
    } finally {
      limit.clear();
    }
  }
  throw failure;
}

function nothing(): void {}

async function mismatchWith(
  target: ConnectionParameters["targetSession"],
  session: Session,
): Promise<string | undefined> {
  if (target === "any") return undefined;
  const [row] = await session.query(
    "SELECT pg_catalog.pg_is_in_recovery()::text AS recovering, " +
      "pg_catalog.current_setting('transaction_read_only') AS readonly",
    [],
    { timeoutMs: 30_000 },
  );
  const standby = row?.["recovering"] === "true";
  const readOnly = row?.["readonly"] === "on";
  if (target === "primary" && standby) return "is a standby";
  if (target === "standby" && !standby) return "is not a standby";
  if (target === "read-write" && readOnly) return "is read-only";
  if (target === "read-only" && !readOnly) return "is not read-only";
  return undefined;
}

function placeOf(host: ConnectionHost): string {
  if (host.kind === "socket") return socketPath(host);
  const name = host.host.includes(":") ? `[${host.host}]` : host.host;
  return `${name}:${host.port}${
    host.address !== undefined && host.address !== host.host ? ` (${host.address})` : ""
  }`;
}

function explain(error: unknown, host: ConnectionHost): string {
  if (!(error instanceof Error)) return String(error);
  const { code } = error as NodeJS.ErrnoException;
  if (code === "ENOENT" && host.kind === "socket") {
    return "there is no such socket (is the server running, and is this its socket directory?)";
  }
  if (code === "ECONNREFUSED") return "connection refused (is the server running there?)";
  if (code === "ENOTFOUND" || code === "EAI_AGAIN") return "the host name cannot be resolved";
  // Several addresses of one name: Node puts the reasons inside.
  if (error instanceof AggregateError) {
    return error.errors.map((one) => explain(one, host)).join(", ");
  }
  return error.message;
}

interface TimeLimit {
  readonly signal: AbortSignal;
  clear(): void;
}

/** The caller's signal and a number of seconds (0 for no limit) in one. */
function timeLimit(seconds: number, signal: AbortSignal | undefined): TimeLimit {
  const controller = new AbortController();
  const onAbort = () => controller.abort(signal?.reason);
  if (signal?.aborted) onAbort();
  signal?.addEventListener("abort", onAbort, { once: true });
  const timer = seconds === 0 ? undefined : setTimeout(() => {
    controller.abort(new ConnectionError(`no answer within ${seconds} s (connect_timeout)`));
  }, seconds * 1000);
  return {
    signal: controller.signal,
    clear() {
      clearTimeout(timer);
      signal?.removeEventListener("abort", onAbort);
    },
  };
}

function sessionOn(host: ConnectionHost, wire: Wire): Session {
  const losing = new AbortController();
  let closing = false;
  let last: Promise<unknown> = Promise.resolve();
  let waiting = 0;
  const keepAlives = new Set<ReturnType<typeof setInterval>>();

  const lose = (reason: string) => {
    if (closing || losing.signal.aborted) return;
    for (const timer of keepAlives) clearInterval(timer);
    losing.abort(new SessionLostError(`The session with PostgreSQL was lost: ${reason}`));
    wire.socket.destroy();
  };
  wire.socket.on("close", () => lose(wire.reason() ?? "the connection was closed"));
  wire.socket.on("error", (error) => lose(wire.reason() ?? error.message));
  if (wire.socket.destroyed) lose(wire.reason() ?? "the connection was closed");

  const run = async (
    sql: string,
    values: readonly (string | null)[],
    { signal, timeoutMs }: QueryOptions,
  ): Promise<Row[]> => {
    signal?.throwIfAborted();
    losing.signal.throwIfAborted();
    if (closing) throw new SessionLostError("The session with PostgreSQL is closed");
    const answer = wire.send(sql, values);
    const stopped = interruption(signal, timeoutMs, losing.signal);
    try {
      return await Promise.race([answer, stopped.promise]);
    } catch (error) {
      losing.signal.throwIfAborted();
      if (closing) throw new SessionLostError("The session with PostgreSQL was closed meanwhile");
      if (stopped.happened()) await abandon(wire, answer, lose);
      else if (!(error instanceof QueryError)) {
        lose(wire.reason() ?? (error instanceof Error ? error.message : String(error)));
        losing.signal.throwIfAborted();
      }
      throw error;
    } finally {
      stopped.clear();
    }
  };

  const session: Session = {
    host,
    encrypted: wire.encrypted,
    lost: losing.signal,
    query(sql, values = [], options = {}) {
      waiting++;
      const result = last.then(() => run(sql, values, options)).finally(() => waiting--);
      last = result.catch(() => undefined);
      return result;
    },
    keepAlive(intervalMs = keepAliveMs) {
      const timer = setInterval(async () => {
        if (waiting > 0 || closing || losing.signal.aborted) return;
        try {
          await session.query("SELECT 1", [], { timeoutMs: intervalMs });
        } catch (error) {
          // A refusal is an answer; a lost session has been told already.
          if (error instanceof QueryTimeoutError) {
            lose(`the server has not answered for ${intervalMs / 1000} s`);
          }
        }
      }, intervalMs);
      keepAlives.add(timer);
      return () => {
        clearInterval(timer);
        keepAlives.delete(timer);
      };
    },
    async close() {
      if (closing) return;
      closing = true;
      for (const timer of keepAlives) clearInterval(timer);
      // Else the server would go on waiting, for the archiver for example, and not see that we are gone.
      if (waiting > 0 && !losing.signal.aborted) await cancelQuietly(wire);
      await wire.end(waiting > 0 || losing.signal.aborted ? 0 : closeGraceMs);
    },
  };
  return session;
}

interface Interruption {
  /** Only ever rejects. */
  readonly promise: Promise<never>;
  happened(): boolean;
  clear(): void;
}

/** The signal, the time limit or the loss of the session, whichever comes first. */
function interruption(
  signal: AbortSignal | undefined,
  timeoutMs: number | undefined,
  lost: AbortSignal,
): Interruption {
  const { promise, reject } = Promise.withResolvers<never>();
  let happened = false;
  const stop = (reason: unknown) => {
    happened = true;
    reject(reason);
  };
  const onAbort = () => stop(signal?.reason);
  const onLost = () => reject(lost.reason);
  signal?.addEventListener("abort", onAbort, { once: true });
  lost.addEventListener("abort", onLost, { once: true });
  const timer = timeoutMs === undefined ? undefined : setTimeout(() => {
    stop(new QueryTimeoutError(`PostgreSQL has not answered within ${timeoutMs / 1000} s`));
  }, timeoutMs);
  return {
    promise,
    happened: () => happened,
    clear() {
      clearTimeout(timer);
      signal?.removeEventListener("abort", onAbort);
      lost.removeEventListener("abort", onLost);
    },
  };
}

/** Cancels the query; a server that does not give it up in time loses the session. */
async function abandon(
  wire: Wire,
  answer: Promise<Row[]>,
  lose: (reason: string) => void,
): Promise<void> {
  let timer: ReturnType<typeof setTimeout> | undefined;
  const late = new Promise<"late">((resolve) => {
    timer = setTimeout(() => resolve("late"), cancelGraceMs);
  });
  const settled = answer.then(() => "settled" as const, () => "settled" as const);
  await cancelQuietly(wire);
  const outcome = await Promise.race([settled, late]);
  clearTimeout(timer);
  if (outcome === "late") lose("the server did not answer a request to cancel a query");
}

/** A request that does not get through changes nothing: the answer, or its absence, tells. */
async function cancelQuietly(wire: Wire): Promise<void> {
  await wire.cancel().catch(() => undefined);
}
