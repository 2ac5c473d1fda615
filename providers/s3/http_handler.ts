/**
 * The way of the SDK's requests to the network: over `node:http` and `node:https`.
 *
 * Why not `fetch`, which was a little faster: it takes neither a certificate authority nor a proxy in
 * a way that Deno and Bun share, tells no connect time-out from silence, hides why a connection
 * failed, and unpacks bodies that have a Content-Encoding. Why not the SDK's own handler: it hands a
 * body to the socket in one piece (twice the memory), counts a slow reader as a silent store, and can
 * miss a refusal that comes while the body is still being sent. Bun's `node:http` keeps to Node's here
 * (sockets, agents, errors); tests/providers/s3/ run the same cases in both.
 */
import { Buffer } from "node:buffer";
import http from "node:http";
import https from "node:https";
import type { Socket } from "node:net";
import type { ObjectContent } from "../object_store.ts";
import { authorizationOf, type ProxyChoice, proxyUnreachable, TunnelAgent } from "./proxy.ts";

export interface HttpHandlerOptions {
  /** Milliseconds until a connection (TLS included) must be there. */
  readonly connectTimeout: number;
  /** Milliseconds that the other side may be silent, or take nothing of what we send. */
  readonly readTimeout: number;
  /** PEM certificates of the only authorities to trust; the runtime's own when absent. */
  readonly ca?: string | undefined;
  /** The proxy for a URL, if any. */
  readonly proxyFor: ProxyChoice;
  /**
   * Whether connections are kept for later requests; true when absent. A kept one may be closed by the other side
   * just when a request is sent, which then has to be sent again (Deno's node:http does so by itself).
   */
  readonly keepAlive?: boolean | undefined;
}

/** What is used of the SDK's requests. */
export interface HttpRequest {
  readonly method: string;
  /** `http:` or `https:` */
  readonly protocol: string;
  readonly hostname: string;
  readonly port?: number | undefined;
  /** Encoded. */
  readonly path: string;
  readonly query?: Readonly<Record<string, string | readonly string[] | null>> | undefined;
  readonly headers: Readonly<Record<string, string>>;
  /** Bytes, a string, or what has a `read` (`ObjectContent`). */
  readonly body?: unknown;
}

/** As the SDK wants it. */
export interface HttpResponse {
  readonly statusCode: number;
  readonly reason?: string;
  readonly headers: Record<string, string>;
  readonly body: http.IncomingMessage;
}

/** What the SDK asks of a request handler. */
export interface HttpHandler {
  readonly metadata: { readonly handlerProtocol: "http/1.1" };
  handle(
    request: HttpRequest,
    options?: { readonly abortSignal?: AbortSignal | { readonly aborted: boolean } | undefined },
  ): Promise<{ response: HttpResponse }>;
  /** Closes all connections. */
  destroy(): void;
  updateHttpClientConfig(key: never, value: never): void;
  httpHandlerConfigs(): Record<string, never>;
}

/** A request went unanswered for too long. `code` tells apart which wait it was. */
export class HttpTimeout extends Error {
  override readonly name = "HttpTimeout";
  constructor(readonly code: "CONNECT_TIMEOUT" | "READ_TIMEOUT", milliseconds: number) {
    super(
      code === "CONNECT_TIMEOUT"
        ? `no connection within ${milliseconds / 1000} s`
        : `nothing moved for ${milliseconds / 1000} s`,
    );
  }
}

/**
 * Bodies go out in slices of this size, the next when the socket has taken the last: that bounds what
 * is queued, and lets an early refusal be read.
 */
const SLICE = 256 * 1024;

/** More than the streams of any runtime take without asking to wait. */
const KEPT_BY_STREAMS = 128 * 1024;

export function createHttpHandler(options: HttpHandlerOptions): HttpHandler {
  const keep = { keepAlive: options.keepAlive ?? true, scheduling: "lifo" } as const;
  const tls = options.ca === undefined ? {} : { ca: options.ca };
  const plain = new http.Agent(keep);
  const secure = new https.Agent({ ...keep, ...tls });
  const tunnels = new Map<string, TunnelAgent>();

  const tunnel = (proxy: URL) => {
    const known = tunnels.get(proxy.href);
    if (known !== undefined) return known;
    const made = new TunnelAgent(proxy, { ...keep, ...tls });
    tunnels.set(proxy.href, made);
    return made;
  };

  const open = (request: HttpRequest): Opened => {
    const isSecure = request.protocol === "https:";
    const query = queryString(request.query ?? {});
    const path = query === "" ? request.path : `${request.path}?${query}`;
    const headers = { ...request.headers };
    const host = bare(request.hostname);
    const port = request.port ?? (isSecure ? 443 : 80);
    const { method } = request;
    const origin = `${request.protocol}//${request.hostname}:${port}`;
    const proxy = options.proxyFor(new URL(origin));
    if (isSecure) {
      const agent = proxy === undefined ? secure : tunnel(proxy);
      return { outgoing: https.request({ host, port, method, path, headers, agent, ...tls }) };
    }
    if (proxy === undefined) {
      return { outgoing: http.request({ host, port, method, path, headers, agent: plain }) };
    }
    const authorization = authorizationOf(proxy);
    if (authorization !== undefined) headers["proxy-authorization"] = authorization;
    // A plain request is sent to the proxy with the whole URL in its first line.
    const target = { host: bare(proxy.hostname), port: Number(proxy.port || 80), agent: plain };
    return { outgoing: http.request({ ...target, method, path: origin + path, headers }), proxy };
  };

  return {
    metadata: { handlerProtocol: "http/1.1" },
    handle: (request, { abortSignal } = {}) =>
      exchange(
        () => open(request),
        request,
        options,
        abortSignal instanceof AbortSignal ? abortSignal : undefined,
      ),
    destroy() {
      plain.destroy();
      secure.destroy();
      for (const agent of tunnels.values()) agent.destroy();
    },
    updateHttpClientConfig() {},
    httpHandlerConfigs: () => ({}),
  };
}

interface Opened {
  readonly outgoing: http.ClientRequest;
  /** The proxy that the request itself goes to; tunnels tell of theirs. */
  readonly proxy?: URL;
}

/** One request and its answer. The watch over silence and the signal last until the body's end. */
function exchange(
  open: () => Opened,
  request: HttpRequest,
  options: HttpHandlerOptions,
  signal: AbortSignal | undefined,
): Promise<{ response: HttpResponse }> {
  return new Promise((resolve, reject) => {
    signal?.throwIfAborted();
    const { outgoing, proxy } = open();
    let isConnected = false;
    let incoming: http.IncomingMessage | undefined;
    let socket: Socket | undefined;

    const fail = (error: unknown) => {
      const reason = error instanceof Error ? error : new Error(String(error));
      reject(reason);
      incoming?.destroy(reason);
      outgoing.destroy(reason);
    };
    const connecting = setTimeout(
      () => fail(new HttpTimeout("CONNECT_TIMEOUT", options.connectTimeout)),
      options.connectTimeout,
    );
    const watch = watchSilence(options.readTimeout, () => ({ socket, incoming }), fail);
    const onAbort = () => fail(signal?.reason);
    const finish = () => {
      clearTimeout(connecting);
      watch.stop();
      signal?.removeEventListener("abort", onAbort);
    };
    signal?.addEventListener("abort", onAbort, { once: true });

    const connected = () => {
      isConnected = true;
      clearTimeout(connecting);
      watch.start();
    };
    outgoing.on("socket", (given: Socket) => {
      socket = given;
      // A kept socket is ready; a new TLS one only after its handshake.
      if (!given.connecting) connected();
      else given.once(request.protocol === "https:" ? "secureConnect" : "connect", connected);
    });
    outgoing.on("error", (error) => {
      reject(proxy === undefined || isConnected ? error : proxyUnreachable(proxy, error));
      incoming?.destroy(error);
      if (incoming === undefined) finish();
    });
    outgoing.on("close", () => {
      if (incoming !== undefined) return;
      finish();
      reject(connectionClosed());
    });
    outgoing.on("response", (response) => {
      incoming = response;
      connected();
      watch.moved();
      response.once("close", () => {
        finish();
        // Answered before all was sent: the rest will never be, so the connection is of no more use.
        if (!outgoing.writableFinished) outgoing.destroy();
      });
      // Whoever reads the body gets the error too; without a reader it must not end the process.
      response.on("error", () => {});
      resolve({
        response: {
          statusCode: response.statusCode ?? 0,
          ...(response.statusMessage === undefined ? {} : { reason: response.statusMessage }),
          headers: headersOf(response),
          body: response,
        },
      });
    });
    send(outgoing, request.body, () => incoming !== undefined, watch.moved).catch(fail);
  });
}

async function send(
  outgoing: http.ClientRequest,
  body: unknown,
  answered: () => boolean,
  moved: () => void,
): Promise<void> {
  if (body === undefined || body === null || body === "") {
    outgoing.end();
    return;
  }
  if (typeof body === "string") {
    outgoing.end(body);
    return;
  }
  for await (const slice of slicesOf(body)) {
    if (answered() || outgoing.destroyed) return;
    if (!outgoing.write(slice)) await drained(outgoing);
    moved();
  }
  if (!answered()) outgoing.end();
}

function slicesOf(body: unknown): AsyncIterable<Buffer> | Iterable<Buffer> {
  if (body instanceof Uint8Array) return slices(body);
  if (isContent(body)) return steady(body);
  throw new TypeError("A request body must be bytes, a string or content that can be read");
}

function* slices(body: Uint8Array): Generator<Buffer, void, void> {
  for (let at = 0; at < body.length; at += SLICE) yield bufferOf(body.subarray(at, at + SLICE));
}

/** Its memory is used again for the next chunk. A small one may be kept by the stream without a word until later. */
async function* steady(content: ObjectContent): AsyncGenerator<Buffer, void, void> {
  for await (const chunk of content.read()) {
    yield chunk.length <= KEPT_BY_STREAMS ? Buffer.from(chunk) : bufferOf(chunk);
  }
}

function bufferOf(bytes: Uint8Array): Buffer {
  return Buffer.from(bytes.buffer, bytes.byteOffset, bytes.length);
}

function isContent(body: unknown): body is ObjectContent {
  return typeof body === "object" && body !== null && "read" in body &&
    typeof body.read === "function";
}

/** The socket has taken what was written, or the exchange is over anyway. */
function drained(outgoing: http.ClientRequest): Promise<void> {
  return new Promise((resolve) => {
    const events = ["drain", "close", "error", "response"];
    const done = () => {
      for (const event of events) outgoing.off(event, done);
      resolve();
    };
    for (const event of events) outgoing.on(event, done);
  });
}

interface SilenceWatch {
  start(): void;
  moved(): void;
  stop(): void;
}

/**
 * Fails when nothing has come or gone for so long. That a reader is slow to take what has come does
 * not count. One timer that looks now and then is cheaper than one set anew with every chunk.
 */
function watchSilence(
  limit: number,
  state: () => {
    readonly socket: Socket | undefined;
    readonly incoming: http.IncomingMessage | undefined;
  },
  fail: (error: Error) => void,
): SilenceWatch {
  let timer: ReturnType<typeof setInterval> | undefined;
  let last = 0;
  let bytes = 0;
  const moved = () => {
    last = performance.now();
  };
  const look = () => {
    const { socket, incoming } = state();
    const read = socket?.bytesRead ?? 0;
    const unread = incoming !== undefined && incoming.readableLength > 0;
    if (read !== bytes || unread) {
      bytes = read;
      moved();
    } else if (performance.now() - last >= limit) fail(new HttpTimeout("READ_TIMEOUT", limit));
  };
  return {
    start() {
      moved();
      bytes = state().socket?.bytesRead ?? 0;
      timer ??= setInterval(look, Math.max(10, Math.min(1000, limit / 8)));
    },
    moved,
    stop() {
      clearInterval(timer);
    },
  };
}

function headersOf(response: http.IncomingMessage): Record<string, string> {
  const headers: Record<string, string> = {};
  for (const [name, value] of Object.entries(response.headers)) {
    if (value !== undefined) headers[name] = Array.isArray(value) ? value.join(", ") : value;
  }
  return headers;
}

function connectionClosed(): Error {
  return Object.assign(new Error("the connection was closed without an answer"), {
    code: "ECONNRESET",
  });
}

/** The query of a URL: encoded, in the order of the names, which signatures need. */
export function queryString(
  query: Readonly<Record<string, string | readonly string[] | null>>,
): string {
  return Object.keys(query).sort().flatMap((name) => {
    const value = query[name] ?? null;
    if (value === null) return [escaped(name)];
    const values = typeof value === "string" ? [value] : value;
    return values.map((text) => `${escaped(name)}=${escaped(text)}`);
  }).join("&");
}

/** Everything but RFC 3986's unreserved characters is encoded. */
export function escaped(text: string): string {
  return encodeURIComponent(text).replace(
    /[!'()*]/g,
    (character) => `%${character.charCodeAt(0).toString(16).toUpperCase()}`,
  );
}

/** An IPv6 address without its brackets. */
function bare(hostname: string): string {
  return hostname.replace(/^\[(.*)\]$/, "$1");
}
