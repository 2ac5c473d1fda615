/** A reverse proxy that answers some requests itself, or lets the answer of some get lost. */
import http from "node:http";
import type { AddressInfo } from "node:net";

export type HttpFault =
  /** The store never sees the request. */
  | { readonly status: number; readonly code: string }
  /** The store does what it is asked for, and nobody hears of it. */
  | "answer lost";

export interface HttpFaults extends AsyncDisposable {
  readonly endpoint: string;
  /** Faults that were injected so far. */
  readonly injected: number;
  /** Asked for each request, by its number from 1 since this call. */
  plan(faultOf: (number: number, method: string, url: string) => HttpFault | undefined): void;
}

/** @param target `http://HOST:PORT` */
export async function startHttpFaults(target: string): Promise<HttpFaults> {
  const { hostname, port } = new URL(target);
  let faultOf: (number: number, method: string, url: string) => HttpFault | undefined = () =>
    undefined;
  let requests = 0;
  let injected = 0;
  const agent = new http.Agent({ keepAlive: false });
  const server = http.createServer((request, response) => {
    const { method = "GET", url = "/", headers } = request;
    const fault = faultOf(++requests, method, url);
    if (fault !== undefined) injected++;
    if (fault !== undefined && fault !== "answer lost") {
      request.resume();
      request.on("end", () => {
        response.writeHead(fault.status, { "content-type": "application/xml" });
        response.end(
          method === "HEAD"
            ? undefined
            : `<Error><Code>${fault.code}</Code><Message>Injected</Message></Error>`,
        );
      });
      return;
    }
    // The signature is over the Host that the client knows.
    const onward = http.request({ hostname, port, method, path: url, headers, agent }, (answer) => {
      if (fault === "answer lost") {
        answer.resume();
        answer.on("end", () => request.socket.destroy());
        return;
      }
      response.writeHead(answer.statusCode ?? 500, answer.headers);
      answer.pipe(response);
    });
    onward.on("error", () => request.socket.destroy());
    request.on("error", () => onward.destroy());
    request.pipe(onward);
  });
  await new Promise<void>((listening) => server.listen(0, "127.0.0.1", listening));
  return {
    endpoint: `http://127.0.0.1:${(server.address() as AddressInfo).port}`,
    get injected() {
      return injected;
    },
    plan(next) {
      requests = 0;
      faultOf = next;
    },
    async [Symbol.asyncDispose]() {
      server.closeAllConnections();
      await new Promise((closed) => server.close(closed));
      agent.destroy();
    },
  };
}
