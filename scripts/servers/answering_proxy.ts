/**
 * An HTTP proxy before a store's server that answers some requests itself: what tests use for a store that throttles,
 * fails, redirects, or is none.
 */
import http from "node:http";

export interface Answer {
  readonly status: number;
  readonly headers?: Readonly<Record<string, string>>;
  readonly body?: string;
}

/** Null passes the request on. */
export type AnswerPlan = (request: {
  readonly method: string;
  /** Path and query. */
  readonly url: string;
  /** From 1, since the plan was made. */
  readonly number: number;
}) => Answer | null;

export interface AnsweringProxy extends AsyncDisposable {
  /** `http://127.0.0.1:PORT` */
  readonly endpoint: string;
  /** Requests since the plan was made. */
  readonly requests: number;
  /** Connections that were opened since the plan was made. */
  readonly connections: number;
  plan(plan: AnswerPlan): void;
}

/** @param target `http://HOST:PORT` */
export async function startAnsweringProxy(target: string): Promise<AnsweringProxy> {
  const { hostname, port } = new URL(target);
  const agent = new http.Agent({ keepAlive: true });
  let current: AnswerPlan = () => null;
  let requests = 0;
  let connections = 0;
  const server = http.createServer((incoming, outgoing) => {
    requests++;
    const { method = "GET", url = "/", headers } = incoming;
    const answer = current({ method, url, number: requests });
    if (answer !== null) {
      // As servers do: the body is taken before the answer.
      incoming.resume();
      incoming.on("end", () => {
        const body = Buffer.from(answer.body ?? "");
        outgoing.writeHead(answer.status, { "content-length": body.length, ...answer.headers });
        outgoing.end(method === "HEAD" ? undefined : body);
      });
      return;
    }
    const onward = http.request({ hostname, port, method, path: url, headers, agent }, (reply) => {
      outgoing.writeHead(reply.statusCode ?? 502, reply.headers);
      reply.pipe(outgoing);
    });
    onward.on("error", () => outgoing.destroy());
    incoming.pipe(onward);
  });
  server.on("connection", () => connections++);
  await new Promise<void>((resolve, reject) => {
    server.once("error", reject);
    server.listen(0, "127.0.0.1", resolve);
  });
  const address = server.address();
  if (address === null || typeof address === "string") throw new Error("The proxy has no port");
  return {
    endpoint: `http://127.0.0.1:${address.port}`,
    get requests() {
      return requests;
    },
    get connections() {
      return connections;
    },
    plan(plan) {
      requests = 0;
      connections = 0;
      current = plan;
    },
    async [Symbol.asyncDispose]() {
      agent.destroy();
      server.closeAllConnections();
      await new Promise((resolve) => server.close(resolve));
    },
  };
}
