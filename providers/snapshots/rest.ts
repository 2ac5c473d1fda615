/** JSON requests to a cloud's API: tokens, repetition of what failed for a passing reason, our errors. */
import { judgeTransport } from "../transport_errors.ts";
import { beginningOf, exchange, type HttpCall, textOf } from "../gcs/http.ts";
import type { Cancellable } from "../object_store.ts";
import type { HttpHandler } from "../s3/http_handler.ts";
import { SnapshotError, type SnapshotErrorKind } from "./provider.ts";
import { type Pauses, sleep } from "./waiting.ts";

/** About one request, for its errors. All requests are such that they may be sent twice. */
export interface Call extends Cancellable {
  /** Follows "Cannot": `create snapshot x`. */
  readonly action: string;
  /**
   * The signal counts only before each attempt: what is given up on the way may be done nevertheless, too late to be
   * found and undone.
   */
  readonly whole?: boolean | undefined;
}

export interface JsonAnswer {
  readonly status: number;
  readonly headers: Readonly<Record<string, string | undefined>>;
  /** An empty record for an empty answer. */
  readonly body: JsonRecord;
}

export type JsonRecord = Readonly<Record<string, unknown>>;

export interface JsonClient {
  /** @throws {SnapshotError}, or the signal's reason */
  send(
    call: Call,
    request: Omit<HttpCall, "body" | "signal"> & { readonly body?: unknown },
  ): Promise<
    JsonAnswer
  >;
}

export interface JsonClientOptions {
  readonly handler: HttpHandler;
  /** `Bearer …`; undefined where none is needed. May throw what `tokenProblem` understands. */
  readonly authorization: (signal: AbortSignal | undefined) => Promise<string | undefined>;
  /** What a failure of `authorization` means; undefined when it is none of its own. */
  readonly tokenProblem: (
    error: unknown,
  ) => { readonly kind: SnapshotErrorKind; readonly retryable: boolean } | undefined;
  /** For messages: `Compute Engine`. */
  readonly where: string;
  readonly pauses: Pauses;
  readonly onNotice: ((message: string) => void) | undefined;
}

const ATTEMPTS = 6;
const LONGEST_WAIT_MS = 5 * 60_000;

export function createJsonClient(options: JsonClientOptions): JsonClient {
  const { handler, pauses } = options;

  const attempt = async (
    { signal, whole = false }: Call,
    request: Parameters<JsonClient["send"]>[1],
  ) => {
    const authorization = await options.authorization(signal);
    const answer = await exchange(handler, {
      method: request.method,
      url: request.url,
      headers: {
        accept: "application/json",
        ...(request.body === undefined ? {} : { "content-type": "application/json" }),
        ...(authorization === undefined ? {} : { authorization }),
        ...request.headers,
      },
      body: request.body === undefined ? undefined : JSON.stringify(request.body),
      signal: whole ? undefined : signal,
    });
    const { status, headers } = answer;
    if (status >= 200 && status < 300) {
      const text = await textOf(answer);
      return { status, headers, body: text.trim() === "" ? {} : recordOf(jsonOf(text)) };
    }
    throw new Refusal(status, headers["retry-after"], wordsIn(await beginningOf(answer)));
  };

  return {
    async send(call, request) {
      const { action, signal, whole = false } = call;
      for (let count = 1, pause = pauses.first;; count++, pause *= 2) {
        signal?.throwIfAborted();
        try {
          return await attempt(call, request);
        } catch (error) {
          if (!whole) signal?.throwIfAborted();
          const verdict = judge(error, options);
          const judged = new SnapshotError(
            verdict.kind,
            `Cannot ${action} (${options.where}): ${verdict.reason}`,
            { code: error instanceof Refusal ? error.words.code : undefined, cause: error },
          );
          if (!verdict.retryable || count >= ATTEMPTS) throw judged;
          const asked = error instanceof Refusal ? waitOf(error.retryAfter) : undefined;
          const wait = asked ?? Math.min(pause, pauses.longest);
          options.onNotice?.(
            `Trying again in ${wait / 1000} s (${count + 1} of ${ATTEMPTS}): ${judged.message}`,
          );
          await sleep(wait, signal);
        }
      }
    },
  };
}

/** An answer that is none of 2xx. */
class Refusal extends Error {
  override readonly name = "Refusal";
  constructor(
    readonly status: number,
    readonly retryAfter: string | undefined,
    readonly words: { readonly code: string | undefined; readonly message: string },
  ) {
    super(words.message);
  }
}

/**
 * A request that makes something whose name is known beforehand.
 * @param onMade called when it is made, or may be since the answer was lost; not for what was refused
 */
export async function making<T>(onMade: () => void, request: () => Promise<T>): Promise<T> {
  try {
    const answer = await request();
    onMade();
    return answer;
  } catch (error) {
    if (error instanceof SnapshotError && error.kind === "unreachable") onMade();
    throw error;
  }
}

/** The HTTP status that an error tells of; undefined when there was no answer. */
export function statusOf(error: unknown): number | undefined {
  if (!(error instanceof SnapshotError) || !(error.cause instanceof Refusal)) return undefined;
  return error.cause.status;
}

/**
 * Of a deletion that is answered 404 for what a snapshot would be in, so that nobody knows of the snapshot itself.
 * @param accepted whether the deletion was; then it is one that went wrong, after it had begun
 * @param remedy what to look at
 */
export function placeNotFound(
  error: SnapshotError,
  accepted: boolean,
  remedy: string,
): SnapshotError {
  const kind = accepted ? "failed" : "not-found";
  return new SnapshotError(kind, `${error.message}; ${remedy}`, {
    code: error.code,
    cause: error,
  });
}

/** What a service said with a status that is none of 2xx; empty when there was no answer. */
export function wordsOf(error: unknown): string {
  if (!(error instanceof SnapshotError) || !(error.cause instanceof Refusal)) return "";
  return toldBy(error.cause);
}

/** Both clouds answer `{"error": {"code": …, "message": …}}`; Google has its reason in lists below. */
function wordsIn(text: string): Refusal["words"] {
  let json: unknown;
  try {
    json = JSON.parse(text);
  } catch {
    // A page of a proxy, or nothing.
    return { code: undefined, message: "" };
  }
  const error = recordOf(recordOf(json)["error"]);
  const reasonIn = (list: unknown) =>
    listOf(list).map((item) => textAt(recordOf(item), "reason")).find((text) => text !== null);
  return {
    code: reasonIn(error["errors"]) ?? textAt(error, "code") ?? reasonIn(error["details"]),
    message: typeof error["message"] === "string" ? oneLine(error["message"]) : "",
  };
}

interface Verdict {
  readonly kind: SnapshotErrorKind;
  readonly reason: string;
  readonly retryable: boolean;
}

function judge(error: unknown, options: JsonClientOptions): Verdict {
  if (error instanceof Refusal) return judgeRefusal(error);
  const message = oneLine(error instanceof Error ? error.message : String(error));
  const token = options.tokenProblem(error);
  if (token !== undefined) return { ...token, reason: `no access token: ${message}` };
  if (error instanceof SyntaxError) {
    return { kind: "unreachable", reason: "the answer is no JSON", retryable: true };
  }
  const code = error instanceof Error && "code" in error ? String(error.code) : "";
  const transport = judgeTransport(code, message, {
    host: "look at this machine's network",
    tls:
      "set REQUESTS_CA_BUNDLE to the file with the certificate of its authority, or look at the clock",
  });
  if (transport === undefined) return { kind: "failed", reason: message, retryable: false };
  return {
    kind: "unreachable",
    reason: transport.reason,
    retryable: transport.retryable !== false,
  };
}

function judgeRefusal(refusal: Refusal): Verdict {
  const { status, words: { code = "" } } = refusal;
  const told = toldBy(refusal);
  const throttled = status === 429 || status === 408 ||
    /^(rateLimitExceeded|userRateLimitExceeded|RATE_LIMIT_EXCEEDED|TooManyRequests)$/.test(code);
  if (throttled) return { kind: "unreachable", reason: told, retryable: true };
  if (status === 404) return { kind: "not-found", reason: told, retryable: false };
  // Google's, with 403.
  if (code === "quotaExceeded") {
    const reason = `a quota is used up (${told}); delete what is not needed or ask for more`;
    return { kind: "failed", reason, retryable: false };
  }
  if (/^(accessNotConfigured|SERVICE_DISABLED)$/.test(code)) {
    const reason = `the API is not enabled (${told}); enable it for the project`;
    return { kind: "failed", reason, retryable: false };
  }
  if (status === 401 || status === 403) {
    const reason = `access denied (${told}); look at what the credentials may do`;
    return { kind: "denied", reason, retryable: false };
  }
  if (status >= 500) return { kind: "unreachable", reason: told, retryable: true };
  return { kind: "failed", reason: told, retryable: false };
}

function toldBy({ status, words }: Refusal): string {
  return [`HTTP ${status}`, words.code, words.message].filter(Boolean).join(", ");
}

/** Milliseconds; Retry-After is a number of seconds or a date. */
export function waitOf(value: string | undefined): number | undefined {
  if (value === undefined) return undefined;
  const seconds = Number(value);
  const wait = Number.isFinite(seconds) ? seconds * 1000 : Date.parse(value) - Date.now();
  return wait >= 0 ? Math.min(wait, LONGEST_WAIT_MS) : undefined;
}

/** What the parser says quotes the text, whatever is in it. */
function jsonOf(text: string): unknown {
  try {
    return JSON.parse(text);
  } catch {
    throw new Error("the answer is no JSON; look at proxies between");
  }
}

export function recordOf(value: unknown): JsonRecord {
  return typeof value === "object" && value !== null && !Array.isArray(value)
    ? value as JsonRecord
    : {};
}

export function listOf(value: unknown): readonly unknown[] {
  return Array.isArray(value) ? value : [];
}

/** A string that is not empty, else null. */
export function textAt(record: JsonRecord, key: string): string | null {
  const value = record[key];
  return typeof value === "string" && value !== "" ? value : null;
}

/** A number, or one in a string, as JSON has those of 64 bits. */
export function numberAt(record: JsonRecord, key: string): number | null {
  const value = record[key];
  const number = typeof value === "string" && value !== "" ? Number(value) : value;
  return typeof number === "number" && Number.isFinite(number) ? number : null;
}

function oneLine(text: string): string {
  const line = text.replace(/\s+/g, " ").trim().replace(/\.$/, "");
  return line.length > 400 ? `${line.slice(0, 400)}…` : line;
}
