/** An HTTP proxy before an S3 server that tells how many requests of each kind, and connections, came through it. */
import { startAnsweringProxy } from "../servers/answering_proxy.ts";

export interface CountingProxy extends AsyncDisposable {
  readonly endpoint: string;
  /** Since the last call: by operation, as S3 calls it. */
  take(): { readonly requests: ReadonlyMap<string, number>; readonly connections: number };
}

/** @param target `http://HOST:PORT` */
export async function startCountingProxy(target: string): Promise<CountingProxy> {
  const proxy = await startAnsweringProxy(target);
  let requests = new Map<string, number>();
  const countAnew = () => {
    requests = new Map();
    proxy.plan(({ method, url }) => {
      const operation = operationOf(method, url);
      requests.set(operation, (requests.get(operation) ?? 0) + 1);
      return null;
    });
  };
  countAnew();
  return {
    endpoint: proxy.endpoint,
    take() {
      const taken = { requests, connections: proxy.connections };
      countAnew();
      return taken;
    },
    [Symbol.asyncDispose]: () => proxy[Symbol.asyncDispose](),
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
