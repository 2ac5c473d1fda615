/**
 * Identities of other clouds and providers (workload and workforce identity federation), through
 * Google's library. Loaded only where such credentials are used.
 */
import {
  type AuthClient,
  AwsClient,
  type AwsClientOptions,
  ExternalAccountAuthorizedUserClient,
  type ExternalAccountAuthorizedUserClientOptions,
  IdentityPoolClient,
  type IdentityPoolClientOptions,
  PluggableAuthClient,
  type PluggableAuthClientOptions,
} from "google-auth-library";
import type { HttpHandler } from "../s3/http_handler.ts";
import { CredentialsError, isRecord } from "./credentials.ts";
import { exchange, textOf } from "./http.ts";

export interface FederatedToken {
  readonly token: string;
  readonly expiresInMs: number;
}

/**
 * @param json content of a file of type `external_account` or `external_account_authorized_user`
 * @throws {CredentialsError}
 */
export async function federatedToken(
  json: Readonly<Record<string, unknown>>,
  scope: string,
  { handler, signal }: { readonly handler: HttpHandler; readonly signal: AbortSignal },
): Promise<FederatedToken> {
  // The library wraps what goes wrong on the way, so it is noted where it happens.
  let transport: unknown;
  const fetchImplementation: typeof fetch = async (input, init) => {
    try {
      return await throughHandler(handler, signal, input, init);
    } catch (error) {
      transport = error;
      throw error;
    }
  };
  try {
    const client = clientOf({ ...json, transporterOptions: { fetchImplementation } }, scope);
    const { token } = await client.getAccessToken();
    if (!token) throw new CredentialsError("denied", "the federation answered without a token");
    const expiry = client.credentials.expiry_date;
    return { token, expiresInMs: expiry ? expiry - Date.now() : 3_600_000 };
  } catch (error) {
    signal.throwIfAborted();
    if (error instanceof CredentialsError) throw error;
    if (transport !== undefined) {
      const why = transport instanceof Error ? transport.message : String(transport);
      throw new CredentialsError("unreachable", `the token service did not answer (${why})`);
    }
    const status = statusOf(error);
    // What the library throws holds the request, and so the subject's token: only its words go on.
    const words = (error instanceof Error ? error.message : String(error)).replace(/\s+/g, " ");
    throw new CredentialsError(
      status !== undefined && (status === 408 || status === 429 || status >= 500)
        ? "unavailable"
        : "denied",
      `the federation refused: ${words.slice(0, 300)}`,
    );
  }
}

/**
 * The library chooses in the same way, but warns on stderr, past our log, that files from strangers
 * are dangerous; this one was named by the user's own environment.
 */
function clientOf(options: Readonly<Record<string, unknown>>, scope: string): AuthClient {
  if (options["type"] === "external_account_authorized_user") {
    return new ExternalAccountAuthorizedUserClient(
      options as unknown as ExternalAccountAuthorizedUserClientOptions,
    );
  }
  const source = isRecord(options["credential_source"]) ? options["credential_source"] : {};
  if (source["certificate"] !== undefined) {
    // The library would go by connections of its own with it, and lose it for impersonation.
    throw new CredentialsError(
      "denied",
      "federation by an X.509 certificate (credential_source.certificate) is not supported here; use another source",
    );
  }
  const client = source["environment_id"] !== undefined
    ? new AwsClient(options as unknown as AwsClientOptions)
    : source["executable"] !== undefined
    ? new PluggableAuthClient(options as unknown as PluggableAuthClientOptions)
    : new IdentityPoolClient(options as unknown as IdentityPoolClientOptions);
  client.scopes = [scope];
  return client;
}

async function throughHandler(
  handler: HttpHandler,
  signal: AbortSignal,
  input: string | URL | Request,
  init: RequestInit = {},
): Promise<Response> {
  const request = new Request(input, { ...init, signal: null });
  const body = new Uint8Array(await request.arrayBuffer());
  const { method } = request;
  if (method !== "GET" && method !== "POST" && method !== "PUT") {
    throw new Error(`${method} is not used to get tokens`);
  }
  const headers: Record<string, string> = {};
  request.headers.forEach((value, name) => {
    // Nobody here would unpack it.
    if (name !== "accept-encoding") headers[name] = value;
  });
  const answer = await exchange(handler, { method, url: request.url, headers, body, signal });
  const text = await textOf(answer, 1024 ** 2);
  const type = answer.headers["content-type"];
  return new Response(text, {
    status: answer.status,
    headers: type === undefined ? {} : { "content-type": type },
  });
}

function statusOf(error: unknown): number | undefined {
  if (typeof error !== "object" || error === null || !("status" in error)) return undefined;
  return typeof error.status === "number" ? error.status : undefined;
}
