/**
 * Tokens of Azure's identities. The library for them is loaded when the first token is needed, and
 * whatever it does (probing, asking other programs, trying again) has to end within seconds.
 */
import http from "node:http";
import { setTimeout as sleep } from "node:timers/promises";
import type { StoreOptions } from "../open.ts";
import type { TokenChoice } from "./config.ts";

/** The SDK's interface of the same name, as far as it is used here. */
export interface TokenCredential {
  getToken(
    scopes: string | string[],
    options?: { readonly abortSignal?: unknown },
  ): Promise<AccessToken>;
}

interface AccessToken {
  readonly token: string;
  /** Milliseconds of the epoch. */
  readonly expiresOnTimestamp: number;
  readonly refreshAfterTimestamp?: number;
}

/** No token could be had. */
export class TokenError extends Error {
  override readonly name = "TokenError";
  /** There was a token before, so that trying again makes sense. */
  readonly retryable: boolean;
  constructor(message: string, retryable: boolean) {
    super(message);
    this.retryable = retryable;
  }
}

export interface TokenOptions {
  readonly choice: TokenChoice;
  readonly authorityHost: string | undefined;
  readonly env: StoreOptions["env"];
  /** Milliseconds that getting a token may take; half a minute when absent. */
  readonly timeout?: number | undefined;
}

const TIMEOUT_MS = 30_000;
/** The metadata service answers from the same machine, if there is one. */
const PROBE_TIMEOUT_MS = 2000;
const PROBE_ATTEMPTS = 2;
/** A token is not used in its last minutes: requests take time, and clocks differ. */
const RESERVE_MS = 5 * 60_000;

/**
 * A credential that asks the given source when first used, and again before a token expires.
 * `getToken` rejects with `TokenError`.
 */
export function tokenCredential(options: TokenOptions): TokenCredential {
  let source: Promise<Source> | undefined;
  let token: AccessToken | undefined;
  let underWay: Promise<AccessToken> | undefined;

  const acquire = async (scopes: string | string[]): Promise<AccessToken> => {
    const timeout = options.timeout ?? TIMEOUT_MS;
    const late = new AbortController();
    try {
      const limit = sleep(timeout, undefined, { signal: late.signal }).then(() => {
        throw new TokenError(`no answer within ${timeout / 1000} s`, false);
      });
      const answer = (async () => {
        source ??= openSource(options);
        return await (await source).getToken(scopes);
      })();
      const got = await Promise.race([answer, limit]);
      if (got === null) throw new TokenError("it gave no token", false);
      return token = got;
    } catch (error) {
      source = undefined;
      throw new TokenError(reasonOf(error), token !== undefined);
    } finally {
      late.abort();
      underWay = undefined;
    }
  };

  return {
    async getToken(scopes) {
      const now = Date.now();
      const isFresh = token !== undefined && now < token.expiresOnTimestamp - RESERVE_MS &&
        now < (token.refreshAfterTimestamp ?? Infinity);
      if (token !== undefined && isFresh) return token;
      underWay ??= acquire(scopes);
      try {
        return await underWay;
      } catch (error) {
        // Renewing early failed: the old one is still good.
        if (token !== undefined && Date.now() < token.expiresOnTimestamp - 10_000) return token;
        throw error;
      }
    },
  };
}

interface Source {
  getToken(scopes: string | string[]): Promise<AccessToken | null>;
}

async function openSource({ choice, authorityHost, env }: TokenOptions): Promise<Source> {
  if (choice === "managed-identity" && usesMetadataService(env)) await requireMetadataService();
  const identity = await import("@azure/identity");
  const authority = env["AZURE_AUTHORITY_HOST"] || authorityHost;
  const common = authority === undefined ? {} : { authorityHost: authority };
  const processes = { processTimeoutInMs: 20_000 };
  switch (choice) {
    case "azure-cli":
      return new identity.AzureCliCredential(processes);
    case "managed-identity":
      return new identity.ManagedIdentityCredential(common);
    case "default":
      return new identity.DefaultAzureCredential({ ...common, ...processes });
  }
}

/** Elsewhere than on virtual machines the platform names its own source of tokens. */
function usesMetadataService(env: StoreOptions["env"]): boolean {
  return ["IDENTITY_ENDPOINT", "MSI_ENDPOINT", "IMDS_ENDPOINT", "AZURE_POD_IDENTITY_AUTHORITY_HOST"]
    .every((name) => !env[name]) && !env["AZURE_FEDERATED_TOKEN_FILE"];
}

/** The library waits minutes for an address that nobody answers. */
async function requireMetadataService(): Promise<void> {
  let reason = "";
  for (let attempt = 1; attempt <= PROBE_ATTEMPTS; attempt++) {
    try {
      return await probe();
    } catch (error) {
      reason = error instanceof Error ? error.message : String(error);
    }
  }
  throw new TokenError(
    `the instance metadata service (169.254.169.254) does not answer (${reason}): this is no ` +
      "machine of Azure's, or it has no managed identity",
    false,
  );
}

/**
 * Without its special header the service refuses at once (HTTP 400), which shows that it is there. With
 * 403 answers what stands in the way: a container's network, a proxy.
 */
function probe(): Promise<void> {
  return new Promise((resolve, reject) => {
    const signal = AbortSignal.timeout(PROBE_TIMEOUT_MS);
    const url = "http://169.254.169.254/metadata/identity/oauth2/token";
    const request = http.get(url, { signal, agent: false }, (response) => {
      response.resume();
      response.on("error", () => {});
      if (response.statusCode === 403) reject(new Error("HTTP 403"));
      else resolve();
    });
    request.on("error", (error) => {
      reject(signal.aborted ? new Error(`nothing within ${PROBE_TIMEOUT_MS / 1000} s`) : error);
    });
  });
}

const NOT_SET_UP =
  /unavailable|not available|not be found|couldn't be found|not found|not installed|not be loaded|unable to execute|requires|please run/i;

/** What a person needs of the library's many lines. */
function reasonOf(error: unknown): string {
  const parts = error instanceof Error && "errors" in error && Array.isArray(error.errors)
    ? error.errors as unknown[]
    : [error];
  const texts = parts.map((part) => {
    // Far more than is told; a pattern takes quadratic time for blanks without an end.
    const text = (part instanceof Error ? part.message : String(part)).slice(0, 4000);
    return text.replace(
      /\s*(To troubleshoot|See the troubleshooting|Trace ID|Correlation ID).*$/is,
      "",
    )
      .replace(/\s+/g, " ").trim().replace(/\.$/, "");
  });
  // A chain tells of all its links; those that merely are not set up say nothing of use.
  const telling = texts.filter((text) => !NOT_SET_UP.test(text));
  if (telling.length === 0 && texts.length > 1) {
    return "no environment variables of a service principal, no workload or managed identity, no " +
      "login of the Azure CLI";
  }
  const chosen = telling.length > 0 ? telling : texts;
  const line = chosen.join("; ");
  return line.length > 500 ? `${line.slice(0, 500)}…` : line;
}
