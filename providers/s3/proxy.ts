/** Proxies named by HTTP_PROXY, HTTPS_PROXY and NO_PROXY, with the rules that curl and boto3 share. */
import http from "node:http";
import https from "node:https";
import type { Duplex } from "node:stream";
import tls from "node:tls";
import { StoreError } from "../object_store.ts";

/** The proxy for a URL, if any. */
export type ProxyChoice = (url: URL) => URL | undefined;

type Environment = Readonly<Record<string, string | undefined>>;

/**
 * Lower-case names win over upper-case ones. `NO_PROXY` lists hosts, domains (with or without a
 * leading dot; their subdomains are included), `host:port`, or `*`.
 *
 * @throws {StoreError} kind `invalid` when a variable holds no URL of a proxy.
 */
export function proxyChoice(env: Environment): ProxyChoice {
  const named = (name: string) => env[name.toLowerCase()] || env[name] || undefined;
  const proxies: Record<string, URL | undefined> = {
    "http:": proxyUrl("HTTP_PROXY", named("HTTP_PROXY")),
    "https:": proxyUrl("HTTPS_PROXY", named("HTTPS_PROXY")),
  };
  const exceptions = (named("NO_PROXY") ?? "").split(",").map((word) => word.trim().toLowerCase())
    .filter((word) => word !== "");
  return (url) => exceptions.some((word) => matches(word, url)) ? undefined : proxies[url.protocol];
}

function proxyUrl(variable: string, value: string | undefined): URL | undefined {
  if (value === undefined) return undefined;
  const text = value.includes("://") ? value : `http://${value}`;
  // The value is not repeated: it may hold a password.
  if (!URL.canParse(text)) throw new StoreError("invalid", `${variable} is not the URL of a proxy`);
  const url = new URL(text);
  if (url.protocol !== "http:" && url.protocol !== "https:") {
    throw new StoreError(
      "invalid",
      `${variable} names a ${url.protocol}// proxy; only http and https ones work`,
    );
  }
  return url;
}

function matches(word: string, url: URL): boolean {
  if (word === "*") return true;
  const host = url.hostname.toLowerCase();
  const port = url.port || (url.protocol === "https:" ? "443" : "80");
  const [, name = word, wordPort] = /^(.*?)(?::(\d+))?$/.exec(word) ?? [];
  if (wordPort !== undefined && wordPort !== port) return false;
  const domain = name.replace(/^\*?\./, "");
  return host === domain || host.endsWith(`.${domain}`);
}

/** The value of Proxy-Authorization for the user in the proxy's URL, if any. */
export function authorizationOf(proxy: URL): string | undefined {
  if (proxy.username === "") return undefined;
  const user = `${decodeURIComponent(proxy.username)}:${decodeURIComponent(proxy.password)}`;
  return `Basic ${Buffer.from(user).toString("base64")}`;
}

/** It is not the store that can't be reached. */
export function proxyUnreachable(proxy: URL, error: NodeJS.ErrnoException): Error {
  const reason = error.code ?? error.message;
  return Object.assign(new Error(`the proxy ${proxy.host} can't be reached (${reason})`), {
    code: "PROXY_UNREACHABLE",
  });
}

/** Makes TLS connections through a tunnel that the proxy opens (CONNECT). */
export class TunnelAgent extends https.Agent {
  readonly #proxy: URL;

  constructor(proxy: URL, options: https.AgentOptions) {
    super(options);
    this.#proxy = proxy;
  }

  override createConnection(
    options: https.RequestOptions,
    callback?: (error: Error | null, stream: Duplex) => void,
  ): Duplex {
    const done = callback as ((error: Error | null, stream?: Duplex) => void) | undefined;
    const failed = (error: Error) => done?.(error);
    const unreachable = (error: Error) => failed(proxyUnreachable(this.#proxy, error));
    const target = `${isIpv6(options.host) ? `[${options.host}]` : options.host}:${options.port}`;
    const authorization = authorizationOf(this.#proxy);
    const { request } = this.#proxy.protocol === "https:" ? https : http;
    const connect = request({
      host: this.#proxy.hostname.replace(/^\[(.*)\]$/, "$1"),
      port: Number(this.#proxy.port || (this.#proxy.protocol === "https:" ? 443 : 80)),
      method: "CONNECT",
      path: target,
      agent: false,
      headers: {
        host: target,
        ...(authorization === undefined ? {} : { "proxy-authorization": authorization }),
      },
    });
    connect.once("error", unreachable);
    connect.once("connect", (response, socket) => {
      connect.off("error", unreachable);
      if (response.statusCode !== 200) {
        socket.destroy();
        failed(new Error(`the proxy answered ${response.statusCode} to CONNECT ${target}`));
        return;
      }
      const servername = options.servername || options.host || undefined;
      const secure = tls.connect({
        socket,
        ...(servername === undefined || isIp(servername) ? {} : { servername }),
        ...(options.ca === undefined ? {} : { ca: options.ca }),
      });
      done?.(null, secure);
    });
    connect.end();
    // Node's documentation lets an agent call back later instead of returning; its types do not.
    return undefined as unknown as Duplex;
  }
}

function isIpv6(host: string | null | undefined): boolean {
  return host?.includes(":") ?? false;
}

function isIp(host: string): boolean {
  return isIpv6(host) || /^\d+\.\d+\.\d+\.\d+$/.test(host);
}
