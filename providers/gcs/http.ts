/**
 * Requests and answers over the same connections as S3's (proxies, certificate authorities, watch
 * over silence; see there for why it is no `fetch`).
 */
import { Buffer } from "node:buffer";
import type { IncomingMessage } from "node:http";
import { HttpRequest } from "@smithy/core/protocols";
import type { HttpHandler } from "../s3/http_handler.ts";

export interface HttpCall {
  readonly method: "GET" | "PUT" | "POST" | "PATCH" | "DELETE";
  readonly url: string;
  /** Names in lower case. */
  readonly headers?: Readonly<Record<string, string>> | undefined;
  readonly body?: Uint8Array | string | undefined;
  readonly signal?: AbortSignal | undefined;
}

export interface HttpAnswer {
  readonly status: number;
  /** Names in lower case. */
  readonly headers: Readonly<Record<string, string | undefined>>;
  /** Has to be read to its end or destroyed. */
  readonly body: IncomingMessage;
}

/** Most that is read of an answer that is not streamed: a page of a listing is about 1 MiB. */
const MAX_TEXT = 64 * 1024 ** 2;

/** Send a request; any status is an answer. @throws what node:http throws, or the signal's reason. */
export async function exchange(handler: HttpHandler, call: HttpCall): Promise<HttpAnswer> {
  const url = new URL(call.url);
  const body = typeof call.body === "string" ? new TextEncoder().encode(call.body) : call.body;
  const hasBody = body !== undefined && body.length > 0;
  const headers: Record<string, string> = { host: url.host, "user-agent": "barman-cloud" };
  if (call.method !== "GET" && call.method !== "DELETE") {
    headers["content-length"] = String(body?.length ?? 0);
  }
  const request = new HttpRequest({
    protocol: url.protocol,
    hostname: url.hostname,
    ...(url.port === "" ? {} : { port: Number(url.port) }),
    method: call.method,
    path: pathOf(call.url),
    headers: { ...headers, ...call.headers },
    body: hasBody ? body : undefined,
  });
  const { response } = await handler.handle(
    request,
    call.signal === undefined ? {} : { abortSignal: call.signal },
  );
  return { status: response.statusCode, headers: response.headers, body: response.body };
}

/** As it was written: `URL` would take `/../` in a key for a step upwards. */
function pathOf(url: string): string {
  return url.replace(/^https?:\/\/[^/]*/i, "") || "/";
}

/** The whole body as text. @throws what reading throws, or for more than `most` bytes. */
export async function textOf(answer: HttpAnswer, most = MAX_TEXT): Promise<string> {
  const decoder = new TextDecoder();
  let text = "";
  let size = 0;
  for await (const chunk of answer.body as AsyncIterable<Uint8Array>) {
    size += chunk.length;
    if (size > most) throw new Error(`the answer is larger than ${most} bytes`);
    text += decoder.decode(chunk, { stream: true });
  }
  return text + decoder.decode();
}

/** The beginning of a body, whatever happens: for the text of an error. */
export async function beginningOf(answer: HttpAnswer, most = 64 * 1024): Promise<string> {
  const chunks: Uint8Array[] = [];
  let size = 0;
  try {
    for await (const chunk of answer.body as AsyncIterable<Uint8Array>) {
      chunks.push(chunk);
      size += chunk.length;
      if (size >= most) break;
    }
  } catch {
    // The status says enough.
  }
  return new TextDecoder().decode(Buffer.concat(chunks));
}
