/** A byte connection to a server: Unix socket or TCP, plain or with TLS, up to the startup message. */
import { Buffer } from "node:buffer";
import { readFileSync, statSync } from "node:fs";
import { connect, isIP, type Socket } from "node:net";
import process from "node:process";
import type { ConnectionHost, TlsParameters } from "./conninfo.ts";

/** The server speaks no TLS although it was asked for. */
export class TlsRefusedError extends Error {
  override readonly name = "TlsRefusedError";
}

/** The server speaks TLS, but no agreement was reached: certificates, versions. */
export class TlsFailedError extends Error {
  override readonly name = "TlsFailedError";
}

export interface SocketOptions {
  /** Absent for a plain connection; not looked at for Unix sockets. */
  readonly tls: TlsParameters | undefined;
  readonly keepAlive: boolean;
  /** Seconds without traffic before TCP asks whether the server is still there. */
  readonly keepAliveIdle: number | undefined;
  /** Bounds the whole; the call rejects with its reason. */
  readonly signal: AbortSignal;
}

/**
 * Opens the connection.
 *
 * @throws TlsRefusedError, TlsFailedError, or the system's error (`ECONNREFUSED`, `ENOENT` …)
 */
export async function openSocket(host: ConnectionHost, options: SocketOptions): Promise<Socket> {
  const { signal } = options;
  signal.throwIfAborted();
  const socket = host.kind === "socket"
    ? connect({ path: socketPath(host) })
    : connect({ host: host.address ?? host.host, port: host.port });
  try {
    await event(socket, "connect", signal);
    if (host.kind === "socket") return socket;
    socket.setNoDelay(true);
    if (options.keepAlive) socket.setKeepAlive(true, (options.keepAliveIdle ?? 60) * 1000);
    return options.tls === undefined ? socket : await secure(socket, host, options.tls, signal);
  } catch (error) {
    socket.destroy();
    throw error;
  }
}

/** The socket's file. */
export function socketPath(host: ConnectionHost): string {
  return `${host.host.replace(/\/+$/, "")}/.s.PGSQL.${host.port}`;
}

const sslRequest = new Uint8Array([0, 0, 0, 8, 0x04, 0xd2, 0x16, 0x2f]);

async function secure(
  socket: Socket,
  host: ConnectionHost,
  parameters: TlsParameters,
  signal: AbortSignal,
): Promise<Socket> {
  if (!parameters.direct) await askForTls(socket, signal);
  const { checkServerIdentity, connect: connectTls } = await import("node:tls");
  const name = host.host;
  const verifies = parameters.mode === "verify-ca" || parameters.mode === "verify-full";
  const secured = connectTls({
    socket,
    host: name,
    ...(isIP(name) !== 0 || !parameters.sni ? {} : { servername: name }),
    rejectUnauthorized: verifies,
    checkServerIdentity: parameters.mode === "verify-full"
      ? (_, certificate) => checkServerIdentity(name, certificate)
      : () => undefined,
    ...certificates(parameters, verifies),
    ...(parameters.direct ? { ALPNProtocols: ["postgresql"] } : {}),
    ...(parameters.minVersion === undefined ? {} : { minVersion: parameters.minVersion }),
    ...(parameters.maxVersion === undefined ? {} : { maxVersion: parameters.maxVersion }),
  });
  try {
    await event(secured, "secureConnect", signal);
    return secured;
  } catch (error) {
    secured.destroy();
    if (signal.aborted) throw error;
    throw new TlsFailedError(
      `TLS with the server failed: ${error instanceof Error ? error.message : error}`,
      { cause: error },
    );
  }
}

/** One byte must come back, and nothing after it: that would not be protected by TLS. */
async function askForTls(socket: Socket, signal: AbortSignal): Promise<void> {
  const answer = event(socket, "data", signal);
  socket.write(sslRequest);
  const bytes = await answer;
  if (!(bytes instanceof Uint8Array) || bytes.length !== 1) {
    throw new TlsFailedError("The server answered the request for TLS with more than one byte");
  }
  if (bytes[0] === 0x53) return;
  throw new TlsRefusedError(
    bytes[0] === 0x4e
      ? "The server does not support TLS, but sslmode asks for it"
      : "The server does not understand the request for TLS",
  );
}

interface Certificates {
  readonly ca?: Buffer;
  readonly cert?: Buffer;
  readonly key?: Buffer;
  readonly passphrase?: string;
}

function certificates(parameters: TlsParameters, verifies: boolean): Certificates {
  const { rootCertificate, certificate, key, keyPassword } = parameters;
  const own = certificate !== undefined && key !== undefined;
  if (own) refuseOpenKey(key);
  return {
    ...(verifies && rootCertificate !== undefined && rootCertificate !== "system"
      ? { ca: readCertificate("root certificate", rootCertificate) }
      : {}),
    ...(own
      ? { cert: readCertificate("certificate", certificate), key: readCertificate("key", key) }
      : {}),
    ...(own && keyPassword !== undefined ? { passphrase: keyPassword } : {}),
  };
}

function readCertificate(what: string, path: string): Buffer {
  try {
    return readFileSync(path);
  } catch (error) {
    throw new TlsFailedError(
      `Cannot read the ${what} ${path}: ${error instanceof Error ? error.message : error}`,
    );
  }
}

/** libpq's rule: nobody else may read it; if root owns it, its group may. */
function refuseOpenKey(path: string): void {
  const file = statSync(path, { throwIfNoEntry: false });
  if (file === undefined || process.getuid === undefined) return;
  const forbidden = file.uid === 0 && process.getuid() !== 0 ? 0o037 : 0o077;
  if ((file.mode & forbidden) !== 0) {
    throw new TlsFailedError(
      `The private key ${path} is open to other users: give it mode 0600 (or 0640 when root owns it)`,
    );
  }
}

/** The next event of this name, or an error when the connection fails or the signal comes first. */
function event(socket: Socket, name: string, signal: AbortSignal): Promise<unknown> {
  return new Promise((resolve, reject) => {
    const settle = () => {
      socket.off(name, onEvent);
      socket.off("error", onError);
      socket.off("close", onClose);
      signal.removeEventListener("abort", onAbort);
    };
    const onEvent = (value: unknown) => {
      settle();
      resolve(value);
    };
    const onError = (error: unknown) => {
      settle();
      // The closing may still tell of an error that nobody waits for any more.
      socket.on("error", () => {});
      reject(error);
    };
    const onClose = () => onError(new Error("the server closed the connection"));
    const onAbort = () => onError(signal.reason);
    socket.once(name, onEvent);
    socket.once("error", onError);
    socket.once("close", onClose);
    signal.addEventListener("abort", onAbort, { once: true });
  });
}
