/** One session with a PostgreSQL server: opened once, never silently made anew. */
import type { Socket } from "node:net";
import { cancelRequest, errorMessageIn, watchStartup } from "./backend_messages.ts";
import type { ConnectionHost, ConnectionParameters } from "./conninfo.ts";
import { ConnectionError, QueryError, QueryTimeoutError, SessionLostError } from "./errors.ts";
import { openSocket, type SocketOptions } from "./socket.ts";

export { ConnectionError, QueryError, QueryTimeoutError, SessionLostError } from "./errors.ts";

/** Column → value as the server writes it. */
export type Row = Readonly<Record<string, string | null>>;

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
   * @returns what stops it
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

interface Wire {
  readonly socket: Socket;
  readonly client: Client;
  readonly encrypted: boolean;
  /** Why the server ended the session, if it said so. */
  reason(): string | undefined;
  cancel(): Promise<void>;
}

type Client = import("postgres").Sql;

/**
 * A session on a host that authentication succeeded on, for {@linkcode openSession}.
 *
 * @internal
 */
export function sessionOn(host: ConnectionHost, wire: Wire): Session {
  const losing = new AbortController();
  let closing = false;
  let last: Promise<unknown> = Promise.resolve();
  let waiting = 0;

  const lose = (reason: string) => {
    if (closing || losing.signal.aborted) return;
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
    const answer = send(wire.client, sql, values);
    const stopped = interruption(signal, timeoutMs, losing.signal);
    try {
      return await Promise.race([answer, stopped.promise]);
    } catch (error) {
      losing.signal.throwIfAborted();
      if (error === stopped.error()) {
        // The session stays in order only if the server has answered before the next query.
        await abandon(wire, answer, lose);
      } else if (isClosed(error)) {
        lose(wire.reason() ?? "the connection was closed");
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
      return () => clearInterval(timer);
    },
    async close() {
      if (closing) return;
      closing = true;
      await closeWire(wire, waiting > 0);
    },
  };
  return session;
}

/**
 * Opens the connection to one host and authenticates.
 *
 * @throws QueryError the server's refusal; TlsRefusedError, TlsFailedError; the system's errors
 * @internal
 */
export async function openWire(
  host: ConnectionHost,
  parameters: ConnectionParameters,
  useTls: boolean,
  signal: AbortSignal,
  onNotice: (message: string) => void,
): Promise<Wire> {
  const options: SocketOptions = {
    tls: useTls && host.kind === "tcp" ? parameters.tls : undefined,
    keepAlive: parameters.keepAlive,
    keepAliveIdle: parameters.keepAliveIdle,
    signal,
  };
  const socket = await openSocket(host, options);
  let refusal: Error | undefined;
  const refuse = (error: Error) => {
    refusal = error;
    socket.destroy();
  };
  const startup = watchStartup(
    () => {
      if (host.password === undefined) {
        refuse(
          new ConnectionError(
            "the server asks for a password, and none was given (PGPASSWORD, password file, service)",
          ),
        );
      }
    },
    (method) =>
      refuse(new ConnectionError(`the server asks for ${method} authentication: not supported`)),
  );
  let lastBytes: Uint8Array | undefined;
  socket.on("data", (bytes: Uint8Array) => {
    startup.push(bytes);
    lastBytes = bytes;
  });
  const onAbort = () => socket.destroy();
  signal.addEventListener("abort", onAbort, { once: true });
  const client = await clientOn(socket, host, parameters, onNotice);
  try {
    await send(client, "SELECT 1", []);
  } catch (error) {
    socket.destroy();
    await client.end({ timeout: 0 });
    signal.throwIfAborted();
    throw refusal ?? (isClosed(error)
      ? new ConnectionError(errorMessageIn(lastBytes) ?? "the server closed the connection")
      : error);
  } finally {
    signal.removeEventListener("abort", onAbort);
  }
  return {
    socket,
    client,
    encrypted: options.tls !== undefined,
    reason: () => errorMessageIn(lastBytes),
    async cancel() {
      const { key } = startup;
      if (key === undefined) return;
      const second = await openSocket(host, {
        ...options,
        signal: AbortSignal.timeout(cancelGraceMs),
      });
      await new Promise<void>((resolve) => {
        second.on("error", () => resolve());
        second.on("close", () => resolve());
        second.end(cancelRequest(key));
        second.resume();
      });
    },
  };
}

/** The client library, on a connection that is already there and that it cannot replace. */
async function clientOn(
  socket: Socket,
  host: ConnectionHost,
  parameters: ConnectionParameters,
  onNotice: (message: string) => void,
): Promise<Client> {
  const { default: postgres } = await import("postgres");
  let taken = false;
  const text = {
    to: 25,
    from: [16, 17, 20, 21, 23, 26, 114, 700, 701, 1082, 1114, 1184, 3802],
    serialize: String,
    parse: (value: string) => value,
  };
  const options = {
    host: host.host,
    port: host.port,
    username: parameters.user,
    database: parameters.database,
    // A function, since an empty password would make the library look for another one.
    password: () => host.password ?? "",
    connection: {
      application_name: parameters.applicationName ?? "barman_cloud_backup",
      ...parameters.runtime,
    },
    socket: () => {
      if (taken) throw new SessionLostError("The session with PostgreSQL was lost");
      taken = true;
      return socket;
    },
    // All said, or the library would take it from variables of the environment.
    max: 1,
    ssl: false as const,
    sslnegotiation: null,
    idle_timeout: 0,
    connect_timeout: 0,
    max_lifetime: 0,
    max_pipeline: 1,
    backoff: false,
    keep_alive: 0,
    prepare: false,
    debug: false,
    fetch_types: false,
    types: { text },
    onnotice: (notice: { message?: string }) => onNotice(notice.message ?? ""),
  };
  return withoutTargetSession(() => postgres(options as unknown as Parameters<typeof postgres>[0]));
}
