/** From what the SDK, node:http and the service say to a `StoreError` that tells what to do. */
import { StoreError } from "../object_store.ts";
import type { AzureCredential } from "./config.ts";
import { TokenError } from "./token.ts";
import { judgeTransport, type Verdict } from "../transport_errors.ts";

/** What an error is about. */
export interface ErrorContext {
  /** Follows "Cannot": `write a/b`. */
  readonly action: string;
  /** The store's description. */
  readonly where: string;
  readonly key?: string | undefined;
  /** Kind of a failed condition (409, 412). */
  readonly precondition?: "exists" | "changed" | undefined;
  /** The request carried tags, which need a permission of their own. */
  readonly tagged?: boolean | undefined;
  readonly credential: AzureCredential;
  /** Where the credential comes from, for a person. */
  readonly credentialSource: string;
}

export function toStoreError(error: unknown, context: ErrorContext): StoreError {
  if (error instanceof StoreError) return error;
  const facts = factsOf(error);
  const verdict = judge(error, facts, context);
  const { where, action, key } = context;
  return new StoreError(verdict.kind, `Cannot ${action} in ${where}: ${verdict.reason}`, {
    key,
    cause: withoutRequest(error, facts),
    code: facts.code,
    retryable: verdict.retryable,
    retryAfter: verdict.kind === "unavailable"
      ? retryAfter(facts.headers("retry-after"))
      : undefined,
  });
}

/** The service's code of an error, if it is an answer of the service. */
export function codeOf(error: unknown): string | undefined {
  return error instanceof StoreError ? error.code : factsOf(error).code;
}

interface Facts {
  /** HTTP status; undefined when there was no (whole) answer. */
  readonly status: number | undefined;
  /** The service's code, or the runtime's. */
  readonly code: string | undefined;
  /** One line, shortened, without signatures. */
  readonly message: string;
  readonly detail: string;
  headers(name: string): string | undefined;
}

function factsOf(error: unknown): Facts {
  const object = isRecord(error) ? error : {};
  const response = isRecord(object["response"]) ? object["response"] : {};
  const received = response["headers"];
  const headers = (name: string): string | undefined => {
    if (!isRecord(received) || typeof received["get"] !== "function") return undefined;
    const value: unknown = received["get"](name);
    return typeof value === "string" && value !== "" ? value : undefined;
  };
  const status = object["statusCode"];
  const details = isRecord(object["details"]) ? object["details"] : {};
  const named = [headers("x-ms-error-code"), details["errorCode"], object["code"], object["name"]]
    .find((name) => typeof name === "string" && name !== "");
  return {
    status: typeof status === "number" ? status : undefined,
    code: typeof named === "string" && !/^(Error|RestError|\d+)$/.test(named) ? named : undefined,
    message: oneLine(error instanceof Error ? error.message : String(error)),
    detail: oneLine(String(details["authenticationErrorDetail"] ?? details["reason"] ?? "")),
    headers,
  };
}

/** The SDK's error holds the request, whose URL may hold a SAS token. */
function withoutRequest(error: unknown, { code, message }: Facts): unknown {
  if (!isRecord(error) || !("request" in error)) return error;
  return Object.assign(new Error(message), code === undefined ? {} : { code });
}

function judge(error: unknown, facts: Facts, context: ErrorContext): Verdict {
  if (error instanceof TokenError) return judgeToken(error, context);
  if (facts.status === undefined || facts.status === 200 || facts.code === "PARSE_ERROR") {
    const known = judgeTransport(facts.code ?? "", facts.message, {
      host: "look at the account's name in the URL",
      tls: "set REQUESTS_CA_BUNDLE to the file with the certificate of its authority, or look at " +
        "the host name and the clock",
    });
    if (known !== undefined) return known;
  }
  if (/not permitted for non-TLS/.test(facts.message)) {
    return {
      kind: "invalid",
      reason: `${context.credentialSource} works over https only; write https:// in the URL`,
    };
  }
  return judgeCode(facts, context) ?? judgeStatus(facts, context);
}

function judgeToken({ message, retryable }: TokenError, context: ErrorContext): Verdict {
  if (retryable) {
    return { kind: "unavailable", reason: `the token could not be renewed (${message})` };
  }
  const none = context.credentialSource.startsWith("--azure-credential")
    ? `no token from ${context.credentialSource} (${message})`
    : "none of AZURE_STORAGE_CONNECTION_STRING, AZURE_STORAGE_SAS_TOKEN and AZURE_STORAGE_KEY is " +
      `set, and there is no token from ${context.credentialSource} (${message})`;
  return denied(none);
}

/** An answer with a code of Azure's. */
function judgeCode(facts: Facts, context: ErrorContext): Verdict | undefined {
  const { code = "", message, detail, status } = facts;
  const source = context.credentialSource;
  switch (code) {
    case "ContainerNotFound":
    case "FilesystemNotFound":
      return { kind: "no-bucket", reason: "the container does not exist" };
    case "BlobNotFound":
    case "ResourceNotFound":
    case "PathNotFound":
      return { kind: "not-found", reason: "there is no such object" };
    case "BlobAlreadyExists":
    case "PathAlreadyExists":
      return { kind: "exists", reason: "an object with this key is there already" };
    case "ConditionNotMet":
    case "TargetConditionNotMet":
      return conditionFailed(context);
    case "ContainerAlreadyExists":
      return { kind: "exists", reason: "the container is there already" };
    case "ContainerBeingDeleted":
    case "BlobBeingRehydrated":
      return {
        kind: "unavailable",
        reason: `${lower(message)} (${code}); wait until that is done`,
      };
    case "BlobArchived":
      return {
        kind: "invalid",
        reason:
          "the object is in the archive tier; move it to the hot or cool tier first (BlobArchived)",
      };
    case "AuthenticationFailed":
    case "InvalidAuthenticationInfo":
      return denied(authenticationFailed(facts, context));
    case "AuthorizationFailure":
      return denied(
        outOfTime(context) ??
          `access denied (${code}): the account's firewall does not let this address in, or what ` +
            `comes from ${source} is wrong or not enough`,
      );
    case "AuthorizationPermissionMismatch":
    case "AuthorizationResourceTypeMismatch":
    case "AuthorizationServiceMismatch":
    case "InsufficientAccountPermissions":
    case "UnauthorizedBlobOverwrite":
      return denied(`${permission(context)} (${code})`);
    case "AuthorizationProtocolMismatch":
      return denied(`the SAS token (from ${source}) is for https only; write https:// in the URL`);
    case "AuthorizationSourceIPMismatch":
      return denied(`the SAS token (from ${source}) is not for this machine's address (${code})`);
    case "KeyBasedAuthenticationNotPermitted":
      return denied(
        `the account takes no keys (${code}); use --azure-credential, or a SAS token of a user`,
      );
    case "AccountIsDisabled":
    case "PublicAccessNotPermitted":
    case "NoAuthenticationInformation":
    case "AccountRequiresHttps":
      return denied(`${lower(message)} (${code})`);
    case "BlobImmutableDueToPolicy":
    case "BlobImmutableDueToLegalHold":
      return denied(`the object is locked by a retention policy or legal hold (${code})`);
    case "LeaseIdMissing":
    case "LeaseAlreadyPresent":
      return denied(`somebody holds a lease on it (${code}); break the lease first`);
    case "SnapshotsPresent":
      return { kind: "invalid", reason: "the object has snapshots; delete these first" };
    case "ServerBusy":
    case "TooManyRequests":
    case "IngressOverAccountLimit":
    case "EgressOverAccountLimit":
      return { kind: "unavailable", reason: `the store asks to slow down (${code})` };
    case "InternalError":
    case "OperationTimedOut":
    case "AccountBeingCreated":
      return { kind: "unavailable", reason: `the store failed (${code})` };
    case "Md5Mismatch":
    case "Crc64Mismatch":
    case "RequestBodyTooSmall":
    case "IncompleteBody":
      return { kind: "unreachable", reason: `our data came incomplete or damaged (${code})` };
    case "InvalidRange":
      return { kind: "invalid", reason: "the object does not reach so far" };
    case "InvalidResourceName":
    case "OutOfRangeInput":
    case "InvalidUri":
      return {
        kind: "invalid",
        reason: `the container's or the object's name is not allowed (${code})`,
      };
    case "EncryptionScopeNotFound":
    case "EncryptionScopeDisabled":
      return {
        kind: "invalid",
        reason:
          `the account has no such encryption scope in use (${code}); look at --encryption-scope`,
      };
  }
  // The SDK names some failures itself, before anything was sent.
  if (status === undefined) return { kind: "other", reason: message || code || "unknown error" };
  if (context.tagged === true && status === 400 && /tag/i.test(code)) {
    return {
      kind: "invalid",
      reason:
        `it refuses the tags (${code}: ${lower(message)}); Azure takes at most 10, of letters, ` +
        "digits, blanks and + - . / : = _",
    };
  }
  if (/EncryptionScope/i.test(code + detail)) {
    return { kind: "invalid", reason: `${lower(message)} (${code}); look at --encryption-scope` };
  }
  return undefined;
}

/** An answer with nothing but a status: proxies have bodies of their own. */
function judgeStatus({ status = 0, code, message }: Facts, context: ErrorContext): Verdict {
  const told = code === undefined ? message : `${code}: ${message}`;
  const detail = told === "" ? `HTTP ${status}` : `HTTP ${status}, ${told}`;
  if (status === 401 || status === 403) {
    return denied(`${permission(context)} (${detail})`);
  }
  if (status === 404) return { kind: "not-found", reason: "there is no such object" };
  if (status === 412) return conditionFailed(context);
  if (status === 416) return { kind: "invalid", reason: "the object does not reach so far" };
  if (status >= 300 && status < 400) {
    return { kind: "invalid", reason: `the store points elsewhere (${detail}); look at the URL` };
  }
  if (status === 407) {
    return denied("the proxy wants other credentials (HTTP 407)");
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
  if (status === 400 || status === 405 || status === 411 || status === 413) {
    return { kind: "invalid", reason: `the store refuses the request (${detail})` };
  }
  return { kind: "other", reason: detail };
}

function conditionFailed({ precondition }: ErrorContext): Verdict {
  return precondition === "exists"
    ? { kind: "exists", reason: "an object with this key is there already" }
    : { kind: "changed", reason: "the object was replaced in the meantime" };
}

const LARGEST_SKEW_MS = 5 * 60_000;

function authenticationFailed({ detail, headers }: Facts, context: ErrorContext): string {
  const { credential, credentialSource: source } = context;
  const theirs = Date.parse(headers("date") ?? "");
  if (Math.abs(theirs - Date.now()) > LARGEST_SKEW_MS) {
    return `the clocks differ too much: here it is ${new Date().toISOString()}, at the store ` +
      `${new Date(theirs).toISOString()}; set this machine's clock (NTP)`;
  }
  switch (credential.kind) {
    case "sas":
      return outOfTime(context) ??
        `the SAS token (from ${source}) is refused: its signature is wrong, or the key that it was ` +
          "made with was renewed";
    case "key":
      return `the account key (from ${source}) is wrong for account ${credential.account}, or a ` +
        "proxy changes requests";
    case "token":
      return `the token from ${source} is refused${detail === "" ? "" : ` (${detail})`}`;
  }
}

/** A SAS token that expired, or is not valid yet. */
function outOfTime({ credential, credentialSource: source }: ErrorContext): string | undefined {
  if (credential.kind !== "sas") return undefined;
  const fields = new URLSearchParams(credential.token);
  const [start, end] = [fields.get("st"), fields.get("se")];
  if (end !== null && Date.parse(end) <= Date.now()) {
    return `the SAS token (from ${source}) expired at ${end}; make a new one`;
  }
  if (start !== null && Date.parse(start) > Date.now()) {
    return `the SAS token (from ${source}) is not valid before ${start}`;
  }
  return undefined;
}

/** The credential is good, but not for this. */
function permission({ credential, credentialSource: source, tagged }: ErrorContext): string {
  const tags = tagged === true ? "; writing tags needs a permission of its own" : "";
  switch (credential.kind) {
    case "sas": {
      const permissions = new URLSearchParams(credential.token).get("sp") ?? "none listed";
      return `access denied: the SAS token (from ${source}) does not allow this, only ` +
        `"${permissions}"${tagged === true ? `${tags} ("t")` : ""}`;
    }
    case "key":
      return `access denied; look at what the account key (from ${source}) may do`;
    case "token":
      return `access denied: the identity (from ${source}) needs a role such as Storage Blob Data ` +
        `Contributor on this container${
          tagged === true ? `${tags} (Storage Blob Data Owner)` : ""
        }`;
  }
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

/** Nothing behind it is shown anyway. Characters. */
const LONGEST_TEXT = 2000;

/** The service's words, up to its request id; what may be a signature is taken out. */
function oneLine(text: string): string {
  const line = text.slice(0, LONGEST_TEXT).replace(
    /\s*(RequestId:|The MAC signature found).*$/s,
    "",
  )
    .replace(/([?&]sig=)[^&\s"']*/gi, "$1…").replace(/\s+/g, " ").trim().replace(/\.$/, "");
  return line.length > 300 ? `${line.slice(0, 300)}…` : line;
}

function lower(text: string): string {
  return text.charAt(0).toLowerCase() + text.slice(1);
}

function isRecord(value: unknown): value is Record<string, unknown> {
  return typeof value === "object" && value !== null;
}
