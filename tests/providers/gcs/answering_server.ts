/** A small HTTP server that answers what it is told and remembers what it was asked. */
import assert from "node:assert/strict";
import { once } from "node:events";
import http from "node:http";

export interface Asked {
  readonly method: string;
  readonly path: string;
  readonly query: URLSearchParams;
  readonly headers: http.IncomingHttpHeaders;
  readonly body: string;
}

export interface Answer {
  readonly status?: number;
  readonly headers?: Record<string, string>;
  /** An object is sent as JSON. */
  readonly body?: string | Record<string, unknown>;
}

export interface AnsweringServer {
  readonly endpoint: string;
  readonly host: string;
  readonly asked: Asked[];
}

/** @param answers in order, the last one also to what comes after; or a function of the request */
export async function withAnswers(
  answers: readonly Answer[] | ((asked: Asked) => Answer),
  run: (server: AnsweringServer) => Promise<void>,
): Promise<void> {
  const asked: Asked[] = [];
  const server = http.createServer(async (incoming, outgoing) => {
    const chunks: Uint8Array[] = [];
    for await (const chunk of incoming) chunks.push(chunk);
    const [path = "", query = ""] = (incoming.url ?? "").split("?");
    const request: Asked = {
      method: incoming.method ?? "",
      path,
      query: new URLSearchParams(query),
      headers: incoming.headers,
      body: Buffer.concat(chunks).toString("latin1"),
    };
    asked.push(request);
    const answer = typeof answers === "function"
      ? answers(request)
      : answers[Math.min(asked.length, answers.length) - 1] ?? {};
    const { body = "" } = answer;
    const text = typeof body === "string" ? body : JSON.stringify(body);
    const type = typeof body === "string" ? {} : { "content-type": "application/json" };
    outgoing.writeHead(answer.status ?? 200, { ...type, ...answer.headers });
    outgoing.end(text);
  });
  server.listen(0, "127.0.0.1");
  await once(server, "listening");
  const address = server.address();
  assert.ok(address !== null && typeof address !== "string");
  const host = `127.0.0.1:${address.port}`;
  try {
    await run({ endpoint: `http://${host}`, host, asked });
  } finally {
    server.closeAllConnections();
    server.close();
  }
}

/** An error as the JSON API sends it. */
export function jsonError(status: number, reason: string, message: string): Answer {
  const errors = [{ message, domain: "global", reason }];
  return { status, body: { error: { code: status, message, errors } } };
}

/** An error as the XML API sends it. */
export function xmlError(status: number, code: string, message: string, details = ""): Answer {
  const body = `<?xml version='1.0' encoding='UTF-8'?><Error><Code>${code}</Code>` +
    `<Message>${message}</Message><Details>${details}</Details></Error>`;
  return { status, headers: { "content-type": "application/xml; charset=UTF-8" }, body };
}
