/**
 * The way of the SDK's requests to the network: the same as that of S3's, which see for why it is
 * neither `fetch` nor the SDK's own client.
 */
import type { Readable } from "node:stream";
import type {
  HttpHeaders,
  HttpOperationResponse,
  IHttpClient,
  WebResource,
} from "@azure/storage-blob";
import { HttpRequest } from "@smithy/core/protocols";
import type { HttpHandler } from "../s3/http_handler.ts";

export interface AzureHttpClient extends IHttpClient {
  /** Why the body of the request that was made with this signal broke; undefined when it did not. */
  bodyError(signal: AbortSignal): unknown;
}

/** Most that is read of an answer that is not streamed: a page of a listing is a few MiB. */
const MAX_TEXT = 64 * 1024 ** 2;

export function createHttpClient(handler: HttpHandler): AzureHttpClient {
  const broken = new WeakMap<object, unknown>();
  return {
    bodyError: (signal) => broken.get(signal),
    async sendRequest(request) {
      const signal = request.abortSignal;
      const { response } = await handler.handle(
        requestOf(request),
        signal === undefined ? {} : { abortSignal: signal },
      );
      const body: Readable = response.body;
      const refusal = refusalOf(response.statusCode, response.headers);
      if (refusal !== null) {
        body.destroy();
        throw refusal;
      }
      const answer = {
        request,
        status: response.statusCode,
        headers: headersOf(request, response.headers),
      };
      // Errors are read to the end, whatever the SDK wants to do with an answer.
      if (request.streamResponseStatusCodes?.has(response.statusCode)) {
        if (signal !== undefined) body.once("error", (error) => broken.set(signal, error));
        return { ...answer, readableStreamBody: body } satisfies HttpOperationResponse;
      }
      return {
        ...answer,
        bodyAsText: request.method === "HEAD" ? "" : await textOf(body),
      } satisfies HttpOperationResponse;
    },
  };
}

/**
 * What the SDK would take for an answer of the service, or follow with our credentials: a login page, a redirection.
 * The service sends its version or a request id with everything.
 */
function refusalOf(status: number, headers: Record<string, string>): Error | null {
  const isRedirection = status >= 300 && status < 400 && status !== 304;
  if (isRedirection) return Object.assign(new Error(""), { statusCode: status });
  if (status >= 300 || "x-ms-version" in headers || "x-ms-request-id" in headers) return null;
  const type = headers["content-type"] ?? "no type";
  return new Error(
    `what answers there is not Azure Blob Storage (HTTP ${status}, ${type}); look at the URL and at proxies between`,
  );
}

function requestOf(request: WebResource): HttpRequest {
  const url = new URL(request.url);
  const headers: Record<string, string> = { host: url.host };
  for (const { name, value } of request.headers.headersArray()) {
    // Nobody here would unpack it.
    if (name.toLowerCase() !== "accept-encoding") headers[name.toLowerCase()] = value;
  }
  const body: unknown = request.body;
  if ((request.method === "PUT" || request.method === "POST") && !hasContent(body)) {
    headers["content-length"] = "0";
  }
  return new HttpRequest({
    protocol: url.protocol,
    hostname: url.hostname,
    ...(url.port === "" ? {} : { port: Number(url.port) }),
    method: request.method,
    // The query stays as it was signed.
    path: url.pathname + url.search,
    headers,
    body: hasContent(body) ? body : undefined,
  });
}

function hasContent(body: unknown): boolean {
  if (body instanceof Uint8Array) return body.length > 0;
  return body !== undefined && body !== null && body !== "";
}

/** The SDK has a class of its own for headers, of which a request brings a sample. */
function headersOf(request: WebResource, received: Record<string, string>): HttpHeaders {
  const headers = request.headers.clone();
  for (const name of headers.headerNames()) headers.remove(name);
  for (const [name, value] of Object.entries(received)) headers.set(name, value);
  return headers;
}

async function textOf(body: Readable): Promise<string> {
  const decoder = new TextDecoder();
  let text = "";
  for await (const chunk of body) {
    text += decoder.decode(chunk, { stream: true });
    if (text.length > MAX_TEXT) throw new Error(`the answer is larger than ${MAX_TEXT} bytes`);
  }
  return text + decoder.decode();
}
