/** The client of the SDK and what all requests share: one attempt, our connections, our errors. */
import {
  AnonymousCredential,
  type BlockBlobClient,
  ContainerClient,
  newPipeline,
  type RequestPolicyFactory,
  StorageSharedKeyCredential,
} from "@azure/storage-blob";
import { type Cancellable, StoreError } from "../object_store.ts";
import type { StoreOptions } from "../open.ts";
import { createHttpHandler } from "../s3/http_handler.ts";
import { proxyChoice } from "../s3/proxy.ts";
import type { AzureConfig, AzureCredential } from "./config.ts";
import { type ErrorContext, toStoreError } from "./errors.ts";
import { createHttpClient } from "./http_client.ts";
import { tokenCredential } from "./token.ts";

/** Azure's Python SDK waits so long for a connection and for data. */
const CONNECT_TIMEOUT_MS = 20_000;
const READ_TIMEOUT_S = 60;

/** About one request, for its errors. */
export interface RequestContext extends Cancellable {
  /** Follows "Cannot": `write a/b`. */
  readonly action: string;
  readonly key?: string | undefined;
  readonly precondition?: ErrorContext["precondition"];
  readonly tagged?: boolean | undefined;
}

export interface AzureSession {
  readonly container: ContainerClient;
  /** `container "c" at https://account.blob.core.windows.net`; no secret. */
  readonly description: string;
  /** A SAS token works on one container or less, a key on the whole account. */
  readonly credentialKind: AzureCredential["kind"];
  /** @throws {StoreError} kind `invalid` for a key that Azure would change. */
  blob(key: string): BlockBlobClient;
  /**
   * Send a request.
   * @throws {StoreError}, or the signal's reason.
   */
  call<T>(context: RequestContext, send: (options: SendOptions) => Promise<T>): Promise<T>;
  /** An error as a `StoreError` about this session's store. */
  storeError(error: unknown, context: RequestContext): Error;
  /** Why the body of the answer to the request with this signal broke, if it did. */
  bodyError(signal: AbortSignal): unknown;
  close(): void;
}

export interface SendOptions {
  readonly abortSignal?: AbortSignal;
}

/** @param tokenTimeout milliseconds that getting a token may take; half a minute when absent */
export function openSession(
  config: AzureConfig,
  options: StoreOptions,
  tokenTimeout?: number,
): AzureSession {
  const handler = createHttpHandler({
    connectTimeout: Math.min(CONNECT_TIMEOUT_MS, (options.readTimeout ?? READ_TIMEOUT_S) * 1000),
    readTimeout: (options.readTimeout ?? READ_TIMEOUT_S) * 1000,
    ca: config.ca,
    proxyFor: proxyChoice(options.env),
  });
  const httpClient = createHttpClient(handler);
  const pipeline = newPipeline(sdkCredential(config.credential, options, tokenTimeout), {
    httpClient,
    // Retrying is done by one wrapper for all stores.
    retryOptions: { maxTries: 1 },
  });
  pipeline.factories.push(commitUncommittedOnly);
  const sas = config.credential.kind === "sas" ? `?${config.credential.token}` : "";
  const container = new ContainerClient(
    `${config.endpoint}/${config.container}${sas}`,
    pipeline,
  );
  const description = `container "${config.container}" at ${config.endpoint}`;
  const { credential, credentialSource } = config;
  const storeError = (error: unknown, context: RequestContext) =>
    toStoreError(error, { ...context, where: description, credential, credentialSource });

  return {
    container,
    description,
    credentialKind: credential.kind,
    blob(key) {
      const change = /\\/.test(key)
        ? "turn the backslash into a slash"
        : /(^|\/)\.{1,2}(\/|$)/.test(key)
        ? "resolve the dots"
        : undefined;
      if (change !== undefined) {
        throw new StoreError(
          "invalid",
          `Cannot use the key ${key} in ${description}: Azure would ${change} in its URL`,
          { key },
        );
      }
      return container.getBlockBlobClient(key);
    },
    storeError,
    bodyError: (signal) => httpClient.bodyError(signal),
    async call(context, send) {
      const { signal } = context;
      signal?.throwIfAborted();
      try {
        return await send(signal === undefined ? {} : { abortSignal: signal });
      } catch (error) {
        signal?.throwIfAborted();
        throw storeError(error, context);
      }
    },
    close: () => handler.destroy(),
  };
}

function sdkCredential(
  credential: AzureCredential,
  { env }: StoreOptions,
  timeout: number | undefined,
) {
  switch (credential.kind) {
    case "key":
      return new StorageSharedKeyCredential(credential.account, credential.key);
    case "sas":
      return new AnonymousCredential();
    case "token":
      return tokenCredential({ ...credential, env, timeout });
  }
}

/**
 * The SDK commits "latest" blocks: of a block that is no longer among the uncommitted ones, the
 * service would take a committed one of the same id, which is another upload's. We want our own or none.
 */
const commitUncommittedOnly: RequestPolicyFactory = {
  create: (next) => ({
    sendRequest(request) {
      const body: unknown = request.body;
      if (
        request.method === "PUT" && typeof body === "string" &&
        /[?&]comp=blocklist\b/.test(request.url)
      ) {
        request.body = body.replace(/<(\/?)Latest>/g, "<$1Uncommitted>");
        request.headers.set("Content-Length", Buffer.byteLength(request.body));
      }
      return next.sendRequest(request);
    },
  }),
};
