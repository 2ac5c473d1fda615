/** From what node:http and the service say to a `StoreError` that tells what to do. */
import { judgeTransport, type Verdict } from "../transport_errors.ts";
import { StoreError } from "../object_store.ts";
import { CredentialsError, isRecord } from "./credentials.ts";
import type { HttpAnswer } from "./http.ts";

/** What an error is about. */
export interface ErrorContext {
  /** Follows "Cannot": `write a/b`. */
  readonly action: string;
  /** The store's description. */
  readonly where: string;
  readonly key?: string | undefined;
  /** Kind of a failed precondition (412), if the request has one. */
  readonly precondition?: "exists" | "changed" | undefined;
  /** Does a conflict (409) say that it is there, as for buckets? Else it is a change at the same time, to be repeated. */
  readonly conflictIsThere?: boolean | undefined;
  /** What an answer of 404 without a clear word means; an object when absent. */
  readonly missing?: "object" | "bucket" | "upload" | undefined;
  /** Where the credentials came from, for a person. */
  readonly credentials: string;
}

/** The service's answer is a refusal. */
export class Refusal extends Error {
  override readonly name = "Refusal";
  constructor(
    readonly status: number,
    /** The `reason` of the JSON API, the `Code` of the XML API. */
    readonly code: string | undefined,
    /** One line, shortened; may be empty. */
    override readonly message: string,
    readonly retryAfter: string | undefined,
  ) {
    super(message);
  }
}

/** @param text the body, or its beginning */
export function refusalOf({ status, headers }: HttpAnswer, text: string): Refusal {
  const { code, message } = wordsIn(text, headers["content-type"] ?? "");
  return new Refusal(status, code, oneLine(message), headers["retry-after"]);
}

function wordsIn(text: string, type: string): { code: string | undefined; message: string } {
  if (text.trimStart().startsWith("{")) {
    try {
      const json: unknown = JSON.parse(text);
      const error = isRecord(json) && isRecord(json["error"]) ? json["error"] : {};
      const errors: unknown[] = Array.isArray(error["errors"]) ? error["errors"] : [];
      const [first] = errors.filter(isRecord);
      const code = first?.["reason"];
      const message = error["message"];
      return {
        code: typeof code === "string" && code !== "" ? code : undefined,
        message: typeof message === "string" ? message : "",
      };
    } catch {
      return { code: undefined, message: "" };
    }
  }
  const code = elementOf(text, "Code");
  if (code !== undefined) {
    // Who may not do what, and other causes, are told there only.
    const words = [elementOf(text, "Message"), elementOf(text, "Details")];
    return { code, message: words.filter(Boolean).join(" ") };
  }
  return { code: undefined, message: /html/i.test(type) && /</.test(text) ? "" : text };
}

/** The text of an element in the small answers of the XML API, whose text is never nested. */
export function elementOf(xml: string, name: string): string | undefined {
  const text = new RegExp(`<${name}>([^<]*)</${name}>`).exec(xml)?.[1];
  return text?.replace(/&(lt|gt|quot|apos|amp|#\d+|#x[0-9a-f]+);/gi, (all, entity: string) => {
    const known = ({ lt: "<", gt: ">", quot: '"', apos: "'", amp: "&" } as Record<string, string>)[
      entity.toLowerCase()
    ];
    if (known !== undefined) return known;
    const point = /^#x/i.test(entity) ? parseInt(entity.slice(2), 16) : Number(entity.slice(1));
    return point <= 0x10ffff ? String.fromCodePoint(point) : all;
  });
}

export function toStoreError(error: unknown, context: ErrorContext): StoreError {
  if (error instanceof StoreError) return error;
  const { where, action, key } = context;
  const verdict = judge(error, context);
  const code = error instanceof Refusal ? codeOfRefusal(error) : codeOf(error);
  const asked = error instanceof Refusal || error instanceof CredentialsError
    ? error.retryAfter
    : undefined;
  return new StoreError(verdict.kind, `Cannot ${action} in ${where}: ${verdict.reason}`, {
    key,
    cause: error,
    code,
    retryable: verdict.retryable,
    retryAfter: verdict.kind === "unavailable" ? waitOf(asked) : undefined,
  });
}

/** Of a range that begins behind the end, the JSON API and emulators say it in other words, or not at all. */
function codeOfRefusal({ status, code }: Refusal): string | undefined {
  return status === 416 ? "InvalidRange" : code;
}

/** Does a 404 leave open whether the object or the whole bucket is not there? */
export function isVagueMissing(error: unknown): boolean {
  return error instanceof StoreError && error.kind === "not-found" &&
    error.cause instanceof Refusal && !saysNoObject(error.cause);
}

/** May the store lack the kind of request altogether, as emulators lack the XML API? */
export function refusesRequest(error: unknown): boolean {
  if (!(error instanceof StoreError)) return false;
  const status = error.cause instanceof Refusal ? error.cause.status : undefined;
  return status === 400 || status === 404 || status === 405 || status === 501;
}

function judge(error: unknown, context: ErrorContext): Verdict {
  if (error instanceof Refusal) return judgeRefusal(error, context);
  if (error instanceof CredentialsError) {
    return { kind: error.kind, reason: `no Google access token: ${error.message}` };
  }
  const message = oneLine(error instanceof Error ? error.message : String(error));
  return judgeTransport(codeOf(error) ?? "", message, {
    host: "look at STORAGE_EMULATOR_HOST and API_ENDPOINT_OVERRIDE, or at this machine's network",
    tls: "set REQUESTS_CA_BUNDLE to the file with the certificate of its authority, or look at " +
      "the host name and the clock",
  }) ?? { kind: "other", reason: message || "unknown error" };
}

function judgeRefusal(refusal: Refusal, context: ErrorContext): Verdict {
  const { status, code, message } = refusal;
  const told = [code, message].filter((text) => text !== undefined && text !== "").join(": ");
  const detail = told === "" ? `HTTP ${status}` : `HTTP ${status}, ${told}`;
  const invalid = (reason: string): Verdict => ({ kind: "invalid", reason });
  switch (code) {
    case "userRateLimitExceeded":
    case "rateLimitExceeded":
    case "SlowDown":
      return { kind: "unavailable", reason: `the store asks to slow down (${detail})` };
    case "BadDigest":
      return { kind: "unreachable", reason: `our data came damaged (${detail})` };
    // XML and JSON spell some of them differently.
    case "UserProjectMissing":
    case "userProjectMissing":
    case "UserProjectInvalid":
    case "userProjectInvalid":
    case "UserProjectAccessDenied":
    case "UserProjectAccountProblem":
    case "accountDisabled":
      return { kind: "denied", reason: `the project's billing refuses (${detail})` };
  }
  if (status === 401 || status === 403) {
    return {
      kind: "denied",
      reason: `access denied (${detail}); look at what the credentials (from ` +
        `${context.credentials}) may do with this bucket and path`,
    };
  }
  if (status === 404) return judgeMissing(refusal, context);
  if (status === 412) {
    // Comes with the code of a failed precondition, too.
    if (
      code === "orgPolicyConstraintFailed" || /violates constraint|constraints\//i.test(message)
    ) {
      return { kind: "denied", reason: `a policy of the organization refuses it (${detail})` };
    }
    if (context.precondition === "exists") {
      return { kind: "exists", reason: "an object with this key is there already" };
    }
    if (context.precondition === "changed") {
      return { kind: "changed", reason: "the object was replaced in the meantime" };
    }
  }
  if (status === 409) {
    return context.conflictIsThere === true
      ? { kind: "exists", reason: `it is there already (${detail})` }
      : { kind: "unavailable", reason: `another request works on the same thing (${detail})` };
  }
  if (status === 416) return invalid("the object does not reach so far");
  if (status >= 300 && status < 400) {
    return invalid(
      `the store points elsewhere (${detail}); look at STORAGE_EMULATOR_HOST and ` +
        "API_ENDPOINT_OVERRIDE",
    );
  }
  if (status === 407) {
    return { kind: "denied", reason: "the proxy wants other credentials (HTTP 407)" };
  }
  if (status === 408) {
    return { kind: "unreachable", reason: "the store waited too long (HTTP 408)" };
  }
  if (status === 429) {
    return { kind: "unavailable", reason: `the store asks to slow down (${detail})` };
  }
  if (status === 501 || status === 505) {
    return invalid(`the store does not support the request (${detail})`);
  }
  if (status >= 500) return { kind: "unavailable", reason: `the store failed (${detail})` };
  if (status >= 400) {
    // The JSON API has no code of its own for a checksum that does not match.
    if (/(md5|crc32c)\b.*(match|mismatch)|doesn't match calculated/i.test(message)) {
      return { kind: "unreachable", reason: `our data came damaged (${detail})` };
    }
    return invalid(`the store refuses the request (${detail})`);
  }
  return { kind: "other", reason: detail };
}

function judgeMissing(refusal: Refusal, { missing }: ErrorContext): Verdict {
  if (refusal.code === "NoSuchUpload" || (missing === "upload" && !saysNoBucket(refusal))) {
    return { kind: "not-found", reason: "the multipart upload is no longer there" };
  }
  if (missing === "bucket" || saysNoBucket(refusal)) {
    return { kind: "no-bucket", reason: "the bucket does not exist" };
  }
  return { kind: "not-found", reason: "there is no such object" };
}

function saysNoBucket({ code, message }: Refusal): boolean {
  return code === "NoSuchBucket" || /bucket does not exist/i.test(message);
}

function saysNoObject({ code, message }: Refusal): boolean {
  return code === "NoSuchKey" || /^No such object/i.test(message);
}

const LONGEST_WAIT_MS = 10 * 60_000;

/** Retry-After is a number of seconds or a date. */
function waitOf(value: string | undefined): number | undefined {
  if (value === undefined) return undefined;
  const seconds = Number(value);
  const wait = Number.isFinite(seconds) ? seconds * 1000 : Date.parse(value) - Date.now();
  return wait > 0 ? Math.min(wait, LONGEST_WAIT_MS) : undefined;
}

function codeOf(error: unknown): string | undefined {
  if (!(error instanceof Error) || !("code" in error)) return undefined;
  return typeof error.code === "string" ? error.code : undefined;
}

function oneLine(text: string): string {
  const line = text.replace(/\s+/g, " ").trim().replace(/\.$/, "");
  return line.length > 300 ? `${line.slice(0, 300)}…` : line;
}
