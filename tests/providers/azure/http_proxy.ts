/**
 * An HTTP proxy before the server: it records requests, and answers some itself. It works in both ways:
 * named as the endpoint, and named by HTTP_PROXY.
 */
import http from "node:http";

export interface SeenRequest {
  readonly method: string;
  /** Path and query, as sent. */
  readonly url: string;
  readonly query: URLSearchParams;
  readonly headers: http.IncomingHttpHeaders;
  readonly body: Uint8Array;
}

export interface Answer {
  readonly status: number;
  readonly headers?: Record<string, string> | undefined;
  readonly body?: string | undefined;
  /** Ask the server first, and keep its answer back. */
  readonly afterServer?: boolean | undefined;
}

type Interception = (
  request: SeenRequest,
) => Answer | undefined | Promise<Answer | undefined>;

export interface HttpProxy {
  readonly origin: string;
  readonly seen: SeenRequest[];
  /** From now on: answer these requests instead of the server. */
  intercept(answer: Interception): void;
  stop(): Promise<void>;
}

/** @param target `http://HOST:PORT` */
export async function startHttpProxy(target: string): Promise<HttpProxy> {
  const { hostname, port } = new URL(target);
  const seen: SeenRequest[] = [];
  let answerInstead: Interception = () => undefined;

  const server = http.createServer(async (request, response) => {
    const chunks: Uint8Array[] = [];
    for await (const chunk of request) chunks.push(chunk);
    const { pathname, search, searchParams } = new URL(request.url ?? "/", target);
    const one: SeenRequest = {
      method: request.method ?? "",
      url: pathname + search,
      query: searchParams,
      headers: request.headers,
      body: new Uint8Array(Buffer.concat(chunks)),
    };
    seen.push(one);
    const answer = await answerInstead(one);
    const answerNow = () => {
      response.writeHead(answer?.status ?? 500, answer?.headers);
      response.end(answer?.body);
    };
    if (answer !== undefined && answer.afterServer !== true) return answerNow();
    const onward = http.request({
      host: hostname,
      port,
      method: one.method,
      path: one.url,
      headers: one.headers,
      agent: false,
    });
    onward.on("response", (received) => {
      if (answer !== undefined) {
        received.resume();
        received.on("end", answerNow);
        return;
      }
      response.writeHead(received.statusCode ?? 502, received.headers);
      received.pipe(response);
    });
    onward.on("error", () => response.destroy());
    onward.end(one.body);
  });
  await new Promise<void>((resolve, reject) => {
    server.once("error", reject);
    server.listen(0, "127.0.0.1", resolve);
  });
  const address = server.address();
  if (address === null || typeof address === "string") throw new Error("The proxy has no port");
  return {
    origin: `http://127.0.0.1:${address.port}`,
    seen,
    intercept(answer) {
      answerInstead = answer;
    },
    stop() {
      server.closeAllConnections();
      return new Promise((resolve) => server.close(() => resolve()));
    },
  };
}

/** An error as Azure sends it. */
export function azureError(
  status: number,
  code: string,
  headers: Record<string, string> = {},
): Answer {
  return {
    status,
    headers: { "x-ms-error-code": code, "content-type": "application/xml", ...headers },
    body: `<?xml version="1.0" encoding="utf-8"?><Error><Code>${code}</Code>` +
      `<Message>Told by the test.\nRequestId:1\nTime:2026-01-01T00:00:00Z</Message></Error>`,
  };
}
