/** An HTTP proxy before an S3 server that tells how many requests of each kind, and connections, came through it. */
import http from "node:http";

export interface CountingProxy extends AsyncDisposable {
  readonly endpoint: string;
  /** Since the last call: by operation, as S3 calls it. */
  take(): { readonly requests: ReadonlyMap<string, number>; readonly connections: number };
}

/** @param target `http://HOST:PORT` */
export async function startCountingProxy(target: string): Promise<CountingProxy> {
  const { hostname, port } = new URL(target);
  const agent = new http.Agent({ keepAlive: true });
  let requests = new Map<string, number>();
  let connections = 0;
  const server = http.createServer((incoming, outgoing) => {
    const { method = "GET", url = "/", headers } = incoming;
    const operation = operationOf(method, url);
    requests.set(operation, (requests.get(operation) ?? 0) + 1);
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
    take() {
      const taken = { requests, connections };
      requests = new Map();
      connections = 0;
      return taken;
    },
    async [Symbol.asyncDispose]() {
      agent.destroy();
      server.closeAllConnections();
      await new Promise((resolve) => server.close(resolve));
    },
  };
}

function operationOf(method: string, url: string): string {
  const { pathname, searchParams } = new URL(url, "http://store");
  const isBucket = pathname.split("/").filter((part) => part !== "").length === 1;
  switch (method) {
    case "PUT":
      if (searchParams.has("partNumber")) return "UploadPart";
      return isBucket ? "CreateBucket" : "PutObject";
    case "POST":
      if (searchParams.has("delete")) return "DeleteObjects";
      return searchParams.has("uploads") ? "CreateMultipartUpload" : "CompleteMultipartUpload";
    case "GET":
      return isBucket ? "ListObjects" : "GetObject";
    case "HEAD":
      return isBucket ? "HeadBucket" : "HeadObject";
    case "DELETE":
      return searchParams.has("uploadId") ? "AbortMultipartUpload" : "DeleteObject";
    default:
      return method;
  }
}
