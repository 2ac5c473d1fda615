/** A real S3 server with an HTTP proxy before it that answers some requests itself, as other stores would. */
import { once } from "node:events";
import http from "node:http";
import type { AddressInfo } from "node:net";

export interface InterceptedRequest {
  readonly method: string;
  /** Decoded path without the bucket. */
  readonly key: string;
  readonly query: URLSearchParams;
}

/** `pass`: the server answers; `cut`: the connection is closed without an answer. */
export type Interception = "pass" | "cut" | {
  readonly status: number;
  /** S3's error code; the body is the error document around it. */
  readonly code?: string;
  readonly body?: string;
};

export interface Interceptor extends AsyncDisposable {
  readonly endpoint: string;
  /** What passed or was answered: `DELETE key`, `POST ?delete`. */
  readonly seen: string[];
  /** Decides about each request; everything passes at first. */
  intercept: (request: InterceptedRequest) => Interception;
}

/** @param upstream the real server's endpoint; requests keep their Host header, so signatures stay valid */
export async function startInterceptor(upstream: string): Promise<Interceptor> {
  const { hostname, port } = new URL(upstream);
  const agent = new http.Agent({ keepAlive: true });
  const server = http.createServer((incoming, outgoing) => {
    const { method = "", url = "" } = incoming;
    const { pathname, searchParams } = new URL(url, "http://any");
    const key = decodeURIComponent(pathname).split("/").slice(2).join("/");
    self.seen.push(`${method} ${searchParams.has("delete") ? "?delete" : key}`);
    const verdict = self.intercept({ method, key, query: searchParams });
    if (verdict === "cut") {
      incoming.socket.destroy();
      return;
    }
    if (verdict !== "pass") {
      incoming.resume();
      incoming.on("end", () => {
        outgoing.writeHead(verdict.status, { "content-type": "application/xml" });
        outgoing.end(method === "HEAD" ? "" : verdict.body ?? errorDocument(verdict.code ?? ""));
      });
      return;
    }
    const passed = http.request(
      { hostname, port, method, path: url, headers: incoming.headers, agent },
      (answer) => {
        outgoing.writeHead(answer.statusCode ?? 502, answer.headers);
        answer.pipe(outgoing);
      },
    );
    passed.on("error", () => outgoing.destroy());
    incoming.pipe(passed);
  });
  server.listen(0, "127.0.0.1");
  await once(server, "listening");
  const self: Interceptor = {
    endpoint: `http://127.0.0.1:${(server.address() as AddressInfo).port}`,
    seen: [],
    intercept: () => "pass",
    async [Symbol.asyncDispose]() {
      agent.destroy();
      server.closeAllConnections();
      server.close();
      await once(server, "close");
    },
  };
  return self;
}

function errorDocument(code: string): string {
  const message = code === "MissingContentMD5"
    ? "Missing required header for this request: Content-Md5."
    : "No";
  return `<?xml version="1.0" encoding="UTF-8"?>\n<Error><Code>${code}</Code><Message>${message}</Message></Error>`;
}
