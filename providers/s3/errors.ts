/** From what the SDK, node:http and the server say to a `StoreError` that tells what to do. */
import { StoreError } from "../object_store.ts";
import { judgeTransport, type Verdict } from "../transport_errors.ts";

/** What an error is about. */
export interface ErrorContext {
  /** Follows "Cannot": `write a/b`. */
  readonly action: string;
  /** The store's description. */
  readonly where: string;
  readonly key?: string | undefined;
  /** Kind of a failed precondition (412). */
  readonly precondition?: "exists" | "changed" | undefined;
  /** The region that the request was signed for. */
  readonly region: string;
  /** Where the credentials came from, for a person. */
  readonly credentials: string;
}

export function toStoreError(error: unknown, context: ErrorContext): StoreError {
  if (error instanceof StoreError) return error;
  const facts = factsOf(error);
  const verdict = judge(facts, context);
  const { where, action, key } = context;
  // As Backblaze did, of headers that all newer SDKs send.
  const remedy = verdict.kind === "invalid" && /checksum/i.test(facts.message)
    ? "; for a store that takes no checksums set AWS_REQUEST_CHECKSUM_CALCULATION=when_required"
    : "";
  return new StoreError(verdict.kind, `Cannot ${action} in ${where}: ${verdict.reason}${remedy}`, {
    key,
    cause: error,
    code: facts.code,
    retryable: verdict.retryable,
    retryAfter: verdict.kind === "unavailable"
      ? retryAfter(facts.headers["retry-after"])
      : undefined,
  });
}

/** The region that the server says is the right one for the bucket. */
export function rightRegion(error: unknown): string | undefined {
  return regionTold(factsOf(error));
}

function regionTold({ status, code, headers, message, fields }: Facts): string | undefined {
  const misplaced = status === 301 || status === 307 || code === "AuthorizationHeaderMalformed" ||
    code === "PermanentRedirect" || code === "IllegalLocationConstraintException" ||
    (status === 400 && headers["x-amz-bucket-region"] !== undefined);
  if (!misplaced) return undefined;
  const told = headers["x-amz-bucket-region"] ?? fields["Region"] ??
    /expecting '([a-z0-9-]+)'/.exec(message)?.[1];
  // It becomes part of a host name, which signed requests are sent to.
  return told !== undefined && /^[a-z0-9-]{1,40}$/.test(told) ? told : undefined;
}

/** Did the store refuse a conditional write as such (instead of finding the condition false)? */
export function refusesConditions(error: unknown): boolean {
  const { status, code, message } = factsOf(error);
  if (status === 501 || code === "NotImplemented") return true;
  return status === 400 && /if-none-match|conditional|not implemented/i.test(`${code} ${message}`);
}

/** Does the store want Content-MD5 on a bulk deletion, which the SDK no longer sends? */
export function wantsContentMd5(error: unknown): boolean {
  const { code, message } = factsOf(error);
  return code === "MissingContentMD5" || /content-md5/i.test(message);
}

/** The store's code of an error, if it is an answer of the store. */
export function codeOf(error: unknown): string | undefined {
  return factsOf(error).code;
}

interface Facts {
  /** HTTP status; undefined when there was no (whole) answer. */
  readonly status: number | undefined;
  readonly code: string | undefined;
  /** One line, shortened. */
  readonly message: string;
  readonly headers: Readonly<Record<string, string | undefined>>;
  /** Further elements of the error's XML. */
  readonly fields: Readonly<Record<string, string | undefined>>;
}

function factsOf(error: unknown): Facts {
  if (error instanceof StoreError && error.cause !== undefined) return factsOf(error.cause);
  const object = isRecord(error) ? error : {};
  const metadata = isRecord(object["$metadata"]) ? object["$metadata"] : {};
  const response = isRecord(object["$response"]) ? object["$response"] : {};
  const fields: Record<string, string | undefined> = {};
  for (const name of ["Region", "ServerTime", "RequestTime", "Endpoint"]) {
    const value = object[name];
    if (typeof value === "string") fields[name] = value;
  }
  const answered = metadata["httpStatusCode"] ?? response["statusCode"];
  const status = typeof answered === "number" ? answered : undefined;
  const named = [object["Code"], object["code"], object["name"]].find((name) =>
    typeof name === "string" && name !== ""
  );
  const code = typeof named === "string" && !/^(Error|UnknownError|\d+)$/.test(named)
    ? named
    : undefined;
  return {
    status,
    code,
    message: oneLine(error instanceof Error ? error.message : String(error)),
    headers: isRecord(response["headers"]) ? stringsOf(response["headers"]) : {},
    fields,
  };
}

function judge(facts: Facts, context: ErrorContext): Verdict {
  if (facts.status === undefined || facts.status === 200) {
    const known = judgeSilence(facts, context);
    if (known !== undefined) return known;
  }
  return judgeCode(facts, context) ?? judgeStatus(facts, context);
}

/** No (whole) answer. */
function judgeSilence({ code = "", message }: Facts, context: ErrorContext): Verdict | undefined {
  if (code === "CredentialsProviderError" || code === "TokenProviderError") {
    return {
      kind: "denied",
      reason: `no AWS credentials from ${context.credentials} (${message}); set ` +
        "AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or name a profile with --aws-profile",
    };
  }
  return judgeTransport(code, message, {
    host: "look at --endpoint-url and the region",
    tls: "set AWS_CA_BUNDLE to the file with the certificate of its authority, " +
      "or look at the host name and the clock",
  });
}

/** An answer with a code of S3's. */
function judgeCode(facts: Facts, context: ErrorContext): Verdict | undefined {
  const { code = "", message, status } = facts;
  const region = regionTold(facts);
  if (region !== undefined && region !== context.region) {
    return {
      kind: "invalid",
      reason: `the bucket is in region ${region}, the request was for ${context.region}; ` +
        `set AWS_REGION=${region} or the profile's region`,
    };
  }
  switch (code) {
    case "NoSuchBucket":
      return { kind: "no-bucket", reason: "the bucket does not exist" };
    case "NoSuchKey":
      return { kind: "not-found", reason: "there is no such object" };
    case "NoSuchUpload":
      return { kind: "not-found", reason: "the multipart upload is no longer there" };
    case "PreconditionFailed":
      if (context.precondition === "exists") {
        return { kind: "exists", reason: "an object with this key is there already" };
      }
      return { kind: "changed", reason: "the object was replaced in the meantime" };
    case "ConditionalRequestConflict":
    case "OperationAborted":
      return { kind: "unavailable", reason: "another request is working on the same thing" };
    case "InvalidAccessKeyId":
      // Ceph answers so, in other words, when it does not know the KMS key.
      return denied(
        `the store does not know the access key (from ${context.credentials})` +
          (/^(unknown.*|InvalidAccessKeyId)?$|access key/i.test(message) ? "" : `: ${message}`),
      );
    case "SignatureDoesNotMatch":
      return denied(
        `the signature is refused: the secret key (from ${context.credentials}) is wrong, or a ` +
          "proxy changes requests",
      );
    case "ExpiredToken":
    case "ExpiredTokenException":
    case "RequestExpired":
      return denied(`the credentials (from ${context.credentials}) have expired; renew them`);
    case "InvalidToken":
    case "TokenRefreshRequired":
      return denied(`the session token (from ${context.credentials}) is not valid; renew it`);
    case "RequestTimeTooSkewed": {
      const theirs = facts.fields["ServerTime"] ?? isoDate(facts.headers["date"]) ?? "unknown";
      return {
        kind: "invalid",
        reason:
          `the clocks differ too much: here it is ${new Date().toISOString()}, at the store ` +
          `${theirs}; set this machine's clock (NTP)`,
      };
    }
    case "QuotaExceeded":
      return { kind: "other", reason: "a quota of the store is used up (QuotaExceeded)" };
    case "SlowDown":
    case "Throttling":
    case "ThrottlingException":
    case "TooManyRequests":
    case "RequestLimitExceeded":
    case "BandwidthLimitExceeded":
      return { kind: "unavailable", reason: `the store asks to slow down (${code})` };
    case "RequestTimeout":
      return { kind: "unreachable", reason: "the store waited too long for our data" };
    case "IncompleteBody":
    case "BadDigest":
    case "XAmzContentSHA256Mismatch":
    case "XAmzContentChecksumMismatch":
      return { kind: "unreachable", reason: `our data came incomplete or damaged (${code})` };
    case "InternalError":
    case "ServiceUnavailable":
      return { kind: "unavailable", reason: `the store failed (${code})` };
    case "NotImplemented":
      return {
        kind: "invalid",
        reason: `the store does not support a part of the request (${message})`,
      };
    case "InvalidRange":
      return { kind: "invalid", reason: "the object does not reach so far" };
    case "InvalidBucketName":
      return { kind: "invalid", reason: "that is no valid name of a bucket" };
    case "BucketAlreadyExists":
      return { kind: "exists", reason: "another owner has a bucket of that name; choose another" };
  }
  // The SDK names some failures itself, before anything was sent.
  if (status === undefined) return { kind: "other", reason: message || code || "unknown error" };
  return undefined;
}

/** An answer with nothing but a status: HEAD has no body, proxies have bodies of their own. */
function judgeStatus({ status = 0, code, message }: Facts, context: ErrorContext): Verdict {
  const told = code === undefined || message === code ? message : `${code}: ${message}`;
  const detail = told === "" || /^unknown/i.test(told)
    ? `HTTP ${status}`
    : `HTTP ${status}, ${told}`;
  if (status === 401 || status === 403) {
    return denied(
      `access denied (${detail}); look at what the credentials (from ${context.credentials}) may ` +
        "do with this bucket and path",
    );
  }
  if (status === 404) return { kind: "not-found", reason: "there is no such object" };
  if (status === 412) {
    const kind = context.precondition ?? "changed";
    return {
      kind,
      reason: kind === "exists"
        ? "an object with this key is there already"
        : "the object was replaced in the meantime",
    };
  }
  if (status === 416) return { kind: "invalid", reason: "the object does not reach so far" };
  if (status === 301 || status === 307 || status === 308) {
    return {
      kind: "invalid",
      reason: `the store points elsewhere (${detail}); look at --endpoint-url and the region`,
    };
  }
  if (status === 407) {
    return { kind: "denied", reason: "the proxy wants other credentials (HTTP 407)" };
  }
  if (status === 408) {
    return { kind: "unreachable", reason: "the store waited too long (HTTP 408)" };
  }
  if (status === 429 || status === 503) {
    return { kind: "unavailable", reason: `the store asks to slow down (${detail})` };
  }
  if (status === 501 || status === 505) {
    return { kind: "invalid", reason: `the store does not support the request (${detail})` };
  }
  if (status >= 500) return { kind: "unavailable", reason: `the store failed (${detail})` };
  if (status === 400 || status === 405 || status === 411) {
    return { kind: "invalid", reason: `the store refuses the request (${detail})` };
  }
  return { kind: "other", reason: detail };
}

function denied(reason: string): Verdict {
  return { kind: "denied", reason };
}

const LONGEST_WAIT_MS = 10 * 60_000;

/** Retry-After is a number of seconds or a date. */
function retryAfter(value: string | undefined): number | undefined {
  if (value === undefined) return undefined;
  const seconds = Number(value);
  const wait = Number.isFinite(seconds) ? seconds * 1000 : Date.parse(value) - Date.now();
  return wait > 0 ? Math.min(wait, LONGEST_WAIT_MS) : undefined;
}

function isoDate(header: string | undefined): string | undefined {
  const time = header === undefined ? NaN : Date.parse(header);
  return Number.isNaN(time) ? undefined : new Date(time).toISOString();
}

function oneLine(text: string): string {
  const line = text.replace(/\s+/g, " ").trim();
  return line.length > 300 ? `${line.slice(0, 300)}…` : line;
}

function isRecord(value: unknown): value is Record<string, unknown> {
  return typeof value === "object" && value !== null;
}

function stringsOf(record: Record<string, unknown>): Record<string, string | undefined> {
  const strings: Record<string, string | undefined> = {};
  for (const [name, value] of Object.entries(record)) {
    if (typeof value === "string") strings[name.toLowerCase()] = value;
  }
  return strings;
}
