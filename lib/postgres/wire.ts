/** A connection to one host on which authentication has succeeded. */
import type { Socket } from "node:net";
import process from "node:process";
import type { Sql } from "postgres";
import { cancelRequest, fatalMessageIn, watchServer } from "./backend_messages.ts";
import type { ConnectionHost, ConnectionParameters } from "./conninfo.ts";
import { ConnectionError, QueryError, SessionLostError } from "./errors.ts";
import { openSocket, type SocketOptions } from "./socket.ts";

/** Column → value as the server writes it. */
export type Row = Readonly<Record<string, string | null>>;

export interface Wire {
  readonly socket: Socket;
  readonly encrypted: boolean;
  /**
   * Runs one statement; only one at a time.
   *
   * @throws QueryError what the server says; else the connection is no more
   */
  send(sql: string, values: readonly (string | null)[]): Promise<Row[]>;
  /** Why the server ended the session, if it said so. */
  reason(): string | undefined;
  /** Asks the server to cancel what this session is doing. */
  cancel(): Promise<void>;
  /** Ends it, politely for so many milliseconds. */
  end(graceMs: number): Promise<void>;
}

/** How long the request to cancel may take, in milliseconds. */
const cancelTimeoutMs = 3_000;

/**
 * Opens the connection to one host and authenticates.
 *
 * @throws QueryError the server's refusal; TlsRefusedError, TlsFailedError; the system's errors
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
  const watch = watchServer({
    onPasswordAsked() {
      if (host.password !== undefined) return;
      refuse(
        new ConnectionError(
          "the server asks for a password, and none was given (PGPASSWORD, password file, service)",
        ),
      );
    },
    onUnknownAuthentication: (method) =>
      refuse(new ConnectionError(`the server asks for ${method} authentication: not supported`)),
    onNonsense: (reason) =>
      refuse(new ConnectionError(`what answers there is no PostgreSQL server: it sent ${reason}`)),
  });
  let fatal: string | undefined;
  let usable = true;
  socket.on("data", (bytes: Uint8Array) => {
    usable = watch.push(bytes);
    // More may follow: that a backup was given up, for one.
    fatal ??= fatalMessageIn(bytes);
  });
  // The library does not see an end that comes before it has the socket.
  const ended = Promise.withResolvers<never>();
  ended.promise.catch(() => undefined);
  const onEnd = () => ended.reject(new Error("the connection was closed"));
  socket.once("close", onEnd);
  socket.once("error", onEnd);
  signal.addEventListener("abort", onEnd, { once: true });
  const client = await clientOn(socket, host, parameters, onNotice, () => usable);
  try {
    await Promise.race([send(client, "SELECT 1", []), ended.promise]);
  } catch (error) {
    socket.destroy();
    await client.end({ timeout: 0 });
    signal.throwIfAborted();
    if (refusal !== undefined || error instanceof QueryError) throw refusal ?? error;
    throw new ConnectionError(fatal ?? "the server closed the connection");
  } finally {
    signal.removeEventListener("abort", onEnd);
  }
  return {
    socket,
    encrypted: options.tls !== undefined,
    send: (sql, values) => send(client, sql, values),
    reason: () => refusal?.message ?? fatal,
    async cancel() {
      const { key } = watch;
      if (key === undefined) return;
      const second = await openSocket(host, {
        ...options,
        signal: AbortSignal.timeout(cancelTimeoutMs),
      });
      await new Promise<void>((resolve) => {
        second.on("error", () => resolve());
        second.on("close", () => resolve());
        setTimeout(() => second.destroy(), cancelTimeoutMs).unref();
        second.end(cancelRequest(key));
        second.resume();
      });
    },
    async end(graceMs) {
      await client.end({ timeout: graceMs / 1000 });
      socket.destroy();
    },
  };
}

/** The client library, on a connection that is already there and that it cannot replace. */
async function clientOn(
  socket: Socket,
  host: ConnectionHost,
  parameters: ConnectionParameters,
  onNotice: (message: string) => void,
  usable: () => boolean,
): Promise<Sql> {
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
      if (taken || socket.destroyed) {
        throw new SessionLostError("The session with PostgreSQL was lost");
      }
      taken = true;
      return withholding(socket, usable);
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
  return withoutVariable("PGTARGETSESSIONATTRS", () => postgres(options));
}

/** The socket, whose listeners from now on get only data that may be used. */
function withholding(socket: Socket, usable: () => boolean): Socket {
  const on = socket.on.bind(socket);
  return Object.assign(socket, {
    on(event: string, listener: (...args: unknown[]) => void): Socket {
      return on(event, event === "data" ? (bytes) => usable() && listener(bytes) : listener);
    },
  });
}

/** The library would read it, and knows fewer values than libpq; we look at it ourselves. */
function withoutVariable<T>(name: string, work: () => T): T {
  const value = process.env[name];
  delete process.env[name];
  try {
    return work();
  } finally {
    if (value !== undefined) process.env[name] = value;
  }
}

async function send(
  client: Sql,
  sql: string,
  values: readonly (string | null)[],
): Promise<Row[]> {
  try {
    return [...await client.unsafe<Row[]>(sql, [...values])];
  } catch (error) {
    if (error instanceof Error && error.name === "PostgresError" && "code" in error) {
      // A new one: the library's carries the query's parameters.
      throw new QueryError(error.message, String(error.code));
    }
    throw error;
  }
}
