/**
 * Access tokens. Service accounts, users, impersonation and the metadata service are a request or two
 * of documented HTTP each, and made here: google-auth-library leaves `token_uri` of a service account's
 * file unread (Barman's library follows it), goes by its own connections to a metadata service that it
 * waits long for when there is none, and takes 20 ms and 7 MiB to load, which each archived segment
 * would pay. Federated identities (`external_account`) are intricate, and the library's.
 */
import { Buffer } from "node:buffer";
import { createSign } from "node:crypto";
import { setTimeout as sleep } from "node:timers/promises";
import type { StoreOptions } from "../open.ts";
import { createHttpHandler, type HttpHandler } from "../s3/http_handler.ts";
import {
  CredentialsError,
  findCredentials,
  type FoundCredentials,
  type GoogleCredentials,
  type Impersonation,
  isRecord,
  type ServiceAccountKey,
  TOKEN_URI,
} from "./credentials.ts";
import { exchange, type HttpCall, textOf } from "./http.ts";

export interface TokenSource {
  /**
   * The value of the Authorization header; asked for when first used, and again before it expires.
   * @throws {CredentialsError}, or the signal's reason.
   */
  authorization(signal: AbortSignal | undefined): Promise<string>;
  /** The service refused this one. */
  forget(authorization: string): void;
  /** The project that pays for requests and whose quotas they use, if the environment or the credentials name one. */
  quotaProject(): Promise<string | undefined>;
  /** The project that the credentials belong to, if they tell. */
  project(): Promise<string | undefined>;
  /** Where the credentials came from, for a person. */
  origin(): string;
  close(): void;
}

export interface TokenOptions {
  readonly env: StoreOptions["env"];
  /** The way to everything but the metadata service, which is never behind a proxy. */
  readonly handler: HttpHandler;
  /** Milliseconds that getting a token may take; half a minute when absent. */
  readonly timeout?: number | undefined;
  /** What the token is for; Cloud Storage when absent. */
  readonly scope?: string | undefined;
}

const SCOPE = "https://www.googleapis.com/auth/devstorage.full_control";
/** What a source needs to be allowed to impersonate. */
const PLATFORM_SCOPE = "https://www.googleapis.com/auth/cloud-platform";
const TIMEOUT_MS = 30_000;
/** A token is not used in its last minutes: requests take time, and clocks differ. */
const RESERVE_MS = 225_000;

interface Token {
  readonly authorization: string;
  /** Milliseconds of `performance.now()`, which does not jump. */
  readonly expires: number;
}

export function createTokenSource(options: TokenOptions): TokenSource {
  const { env, handler } = options;
  const timeout = options.timeout ?? TIMEOUT_MS;
  const metadata = createMetadataService(env);
  let found: FoundCredentials | undefined;
  let token: Token | undefined;
  let underWay: Promise<Token> | undefined;

  const resolved = async () => found ??= await findCredentials(env);
  const credentials = async () => (await resolved()).credentials;

  const acquire = async (): Promise<Token> => {
    const late = AbortSignal.timeout(timeout);
    const source: Source = { env, handler, metadata, signal: late };
    try {
      return token = await raced(
        late,
        requestToken(await credentials(), options.scope ?? SCOPE, source),
      );
    } catch (error) {
      if (late.aborted) {
        throw new CredentialsError("unreachable", `no answer within ${timeout / 1000} s`);
      }
      throw error;
    } finally {
      underWay = undefined;
    }
  };

  return {
    async authorization(signal) {
      if (token !== undefined && performance.now() < token.expires) return token.authorization;
      underWay ??= acquire();
      // One request serves all that wait, so it must not end with the first of them that is aborted.
      return (await raced(signal, underWay)).authorization;
    },
    forget(authorization) {
      if (token?.authorization === authorization) token = undefined;
    },
    async quotaProject() {
      return env["GOOGLE_CLOUD_QUOTA_PROJECT"]?.trim() || (await resolved()).quotaProject;
    },
    async project() {
      const own = await credentials();
      if (own.kind === "service-account") return own.project;
      if (own.kind === "metadata") return await metadata.project(AbortSignal.timeout(timeout));
      return undefined;
    },
    origin: () => found?.origin ?? "application default credentials",
    close: () => metadata.close(),
  };
}

/** What one token is asked for with. */
interface Source {
  readonly env: StoreOptions["env"];
  readonly handler: HttpHandler;
  readonly metadata: MetadataService;
  readonly signal: AbortSignal;
}

async function requestToken(
  credentials: GoogleCredentials,
  scope: string,
  source: Source,
): Promise<Token> {
  switch (credentials.kind) {
    case "service-account": {
      const grant = {
        grant_type: "urn:ietf:params:oauth:grant-type:jwt-bearer",
        assertion: signedClaims(credentials, scope),
      };
      return await postGrant(credentials.tokenUri, grant, source);
    }
    case "authorized-user": {
      const grant = {
        grant_type: "refresh_token",
        client_id: credentials.clientId,
        client_secret: credentials.clientSecret,
        refresh_token: credentials.refreshToken,
      };
      return await postGrant(credentials.tokenUri, grant, source);
    }
    case "impersonation":
      return await impersonate(credentials, scope, source);
    case "federated": {
      const { federatedToken } = await import("./federated.ts");
      const { token, expiresInMs } = await federatedToken(credentials.json, scope, source);
      return bearer(token, expiresInMs);
    }
    case "metadata":
      return await source.metadata.token(source.signal);
  }
}

/** RFC 7523, as Google describes it for service accounts without a library. */
function signedClaims(account: ServiceAccountKey, scope: string): string {
  const now = Math.floor(Date.now() / 1000);
  const header = { alg: "RS256", typ: "JWT", kid: account.privateKeyId };
  const claims = {
    iss: account.clientEmail,
    scope,
    // Wherever it is sent: a private address of the service asks for the same.
    aud: TOKEN_URI,
    iat: now,
    exp: now + 3600,
  };
  const part = (value: unknown) => Buffer.from(JSON.stringify(value)).toString("base64url");
  const text = `${part(header)}.${part(claims)}`;
  try {
    const signature = createSign("RSA-SHA256").update(text).sign(account.privateKey, "base64url");
    return `${text}.${signature}`;
  } catch {
    // The library's words could quote the key.
    throw new CredentialsError(
      "denied",
      `the private_key of ${account.clientEmail} is no RSA key in PEM form`,
    );
  }
}

async function postGrant(
  url: string,
  grant: Readonly<Record<string, string>>,
  source: Source,
): Promise<Token> {
  const answer = await ask(source.handler, {
    method: "POST",
    url,
    headers: { "content-type": "application/x-www-form-urlencoded" },
    body: new URLSearchParams(grant).toString(),
    signal: source.signal,
  });
  return tokenOf(answer, url);
}

/** IAM Credentials API, generateAccessToken. */
async function impersonate(
  { url, delegates, source: inner }: Impersonation,
  scope: string,
  source: Source,
): Promise<Token> {
  const { authorization } = await requestToken(inner, PLATFORM_SCOPE, source);
  const answer = await ask(source.handler, {
    method: "POST",
    url,
    headers: { "content-type": "application/json", authorization },
    body: JSON.stringify({ scope: [scope], delegates, lifetime: "3600s" }),
    signal: source.signal,
  });
  const { accessToken, expireTime } = answer;
  const until = typeof expireTime === "string" ? Date.parse(expireTime) - Date.now() : NaN;
  if (typeof accessToken !== "string") {
    throw new CredentialsError("denied", `${hostOf(url)} answered without a token`);
  }
  return bearer(accessToken, Number.isNaN(until) ? 3_600_000 : until);
}

function tokenOf(answer: Readonly<Record<string, unknown>>, url: string): Token {
  const { access_token: token, expires_in: seconds } = answer;
  if (typeof token !== "string" || token === "") {
    throw new CredentialsError("denied", `${hostOf(url)} answered without a token`);
  }
  // Some services tell it as text.
  const lifetime = Number(seconds) * 1000;
  return bearer(token, lifetime > 0 ? lifetime : 3_600_000);
}

function bearer(token: string, lifetimeMs: number): Token {
  // A short-lived one is used for half of its life at least.
  const usable = Math.max(lifetimeMs - RESERVE_MS, lifetimeMs / 2);
  return { authorization: `Bearer ${token}`, expires: performance.now() + usable };
}

/** Ask for JSON. @throws {CredentialsError} that says what the other side said, without secrets. */
async function ask(handler: HttpHandler, call: HttpCall): Promise<Record<string, unknown>> {
  if (!URL.canParse(call.url) || !/^https?:/i.test(call.url)) {
    throw new CredentialsError("denied", "the credentials name no valid URL to get a token from");
  }
  const host = hostOf(call.url);
  let status: number;
  let retryAfter: string | undefined;
  let text: string;
  try {
    const answer = await exchange(handler, call);
    status = answer.status;
    retryAfter = answer.headers["retry-after"];
    text = await textOf(answer, 1024 ** 2);
  } catch (error) {
    const why = error instanceof Error ? error.message : String(error);
    throw new CredentialsError("unreachable", `${host} did not answer (${why})`);
  }
  let json: unknown;
  try {
    json = JSON.parse(text);
  } catch {
    json = undefined;
  }
  if (status === 200 && isRecord(json)) return json;
  const reason = `${host} answered HTTP ${status}${reasonIn(json)}`;
  if (status === 408 || isPassing(status) || saysTryAgain(json)) {
    throw new CredentialsError("unavailable", reason, retryAfter);
  }
  throw new CredentialsError("denied", reason);
}

function isPassing(status: number): boolean {
  return status === 429 || status >= 500;
}

/** What Google's libraries take for passing, whatever the status. */
function saysTryAgain(json: unknown): boolean {
  if (!isRecord(json)) return false;
  const passing = ["internal_failure", "server_error", "temporarily_unavailable"];
  return passing.some((word) => json["error"] === word || json["error_description"] === word);
}

/** OAuth's errors (`error`, `error_description`) and those of Google's APIs (`error.message`). */
function reasonIn(json: unknown): string {
  if (!isRecord(json)) return "";
  const { error, error_description: description } = json;
  const texts = isRecord(error) ? [error["message"]] : [error, description];
  const known = texts.filter((text) => typeof text === "string" && text !== "");
  if (known.length === 0) return "";
  const line = known.join(": ").replace(/\s+/g, " ").trim().replace(/\.$/, "").slice(0, 300);
  return /iat|clock|timeframe/i.test(line)
    ? `, ${line}; look at this machine's clock`
    : `, ${line}`;
}

function hostOf(url: string): string {
  return new URL(url).host;
}

/** The promise, unless the signal comes first. */
export function raced<T>(signal: AbortSignal | undefined, promise: Promise<T>): Promise<T> {
  if (signal === undefined) return promise;
  return new Promise((resolve, reject) => {
    if (signal.aborted) {
      promise.catch(() => {});
      reject(signal.reason);
      return;
    }
    const onAbort = () => reject(signal.reason);
    signal.addEventListener("abort", onAbort, { once: true });
    promise.then(resolve, reject).finally(() => signal.removeEventListener("abort", onAbort));
  });
}

interface MetadataService {
  token(signal: AbortSignal): Promise<Token>;
  project(signal: AbortSignal): Promise<string | undefined>;
  close(): void;
}

/** Answers come from the machine itself, if there is such a service. */
const METADATA_CONNECT_MS = 1500;
const METADATA_READ_MS = 10_000;
/** GKE's answers only some seconds after a pod has begun. */
const METADATA_ATTEMPTS = 4;
const METADATA_PAUSE_MS = 700;

/** The service of Google's machines that knows their service account. */
function createMetadataService(env: StoreOptions["env"]): MetadataService {
  let handler: HttpHandler | undefined;
  const hosts = env["GCE_METADATA_HOST"]
    ? [env["GCE_METADATA_HOST"]]
    : [env["GCE_METADATA_IP"] || "169.254.169.254", "metadata.google.internal"];
  let answering: string | undefined;

  const askHost = async (host: string, path: string, signal: AbortSignal) => {
    handler ??= createHttpHandler({
      connectTimeout: METADATA_CONNECT_MS,
      readTimeout: METADATA_READ_MS,
      proxyFor: () => undefined,
    });
    const answer = await exchange(handler, {
      method: "GET",
      url: `http://${host}/computeMetadata/v1/${path}`,
      headers: { "metadata-flavor": "Google" },
      signal,
    });
    const text = await textOf(answer, 1024 ** 2);
    const isGoogles = answer.headers["metadata-flavor"] === "Google";
    if (isGoogles) answering = host;
    // Other clouds have a service of theirs at the same address. An overloaded one of Google's may forget the header.
    if (!isGoogles && !isPassing(answer.status)) {
      throw new Error(`what answers at ${host} is not Google's metadata service`);
    }
    return { status: answer.status, text };
  };

  const get = async (path: string, signal: AbortSignal) => {
    const reasons: string[] = [];
    let busy = false;
    for (let attempt = 1; attempt <= METADATA_ATTEMPTS; attempt++) {
      let again = false;
      for (const host of answering === undefined ? hosts : [answering]) {
        try {
          const { status, text } = await askHost(host, path, signal);
          if (!isPassing(status)) return { status, text };
          reasons.push(`${host} answered HTTP ${status}`);
          again = busy = true;
        } catch (error) {
          signal.throwIfAborted();
          reasons.push(`${host}: ${error instanceof Error ? error.message : error}`);
          const code = error instanceof Error && "code" in error ? error.code : undefined;
          if (code === "ECONNREFUSED" || code === "ECONNRESET") again = true;
        }
      }
      if (!again) break;
      if (attempt < METADATA_ATTEMPTS) await sleep(METADATA_PAUSE_MS, undefined, { signal });
    }
    if (busy) {
      const told = `the metadata service failed (${[...new Set(reasons)].join("; ")})`;
      throw new CredentialsError("unavailable", told);
    }
    throw new CredentialsError(
      answering === undefined ? "denied" : "unreachable",
      answering === undefined
        ? "there are no credentials: GOOGLE_APPLICATION_CREDENTIALS is not set, gcloud's file is " +
          `not there, and this is no machine of Google's (${[...new Set(reasons)].join("; ")}). ` +
          "Set GOOGLE_APPLICATION_CREDENTIALS to the file with a service account's key"
        : `the metadata service failed (${reasons.at(-1)})`,
    );
  };

  return {
    async token(signal) {
      const path = "instance/service-accounts/default/token";
      const { status, text } = await get(path, signal);
      if (status === 404) {
        throw new CredentialsError("denied", "this machine of Google's has no service account");
      }
      if (status !== 200) {
        throw new CredentialsError("denied", `the metadata service answered HTTP ${status}`);
      }
      let json: unknown;
      try {
        json = JSON.parse(text);
      } catch {
        // What the parser says may quote the token.
        throw new CredentialsError("denied", "the metadata service's answer is no JSON");
      }
      return tokenOf(isRecord(json) ? json : {}, `http://${answering}`);
    },
    async project(signal) {
      const { status, text } = await get("project/project-id", signal);
      return status === 200 && text.trim() !== "" ? text.trim() : undefined;
    },
    close: () => handler?.destroy(),
  };
}
