/** The client of the SDK and what all requests share: one attempt, the right region, our errors. */
import { Buffer } from "node:buffer";
import { defaultProvider } from "@aws-sdk/credential-provider-node";
import { S3Client } from "@aws-sdk/client-s3";
import { HttpRequest, HttpResponse } from "@smithy/core/protocols";
import { type Cancellable, StoreError } from "../object_store.ts";
import type { StoreOptions } from "../open.ts";
import { withoutSecrets } from "../url_in_messages.ts";
import { instanceRegion, type S3Config } from "./config.ts";
import type { CustomerKey } from "./customer_key.ts";
import { type ErrorContext, rightRegion, toStoreError } from "./errors.ts";
import { createHttpHandler } from "./http_handler.ts";
import { proxyChoice } from "./proxy.ts";

/** boto3's time-outs. */
const DEFAULT_TIMEOUT_S = 60;

/** Where S3 answers for buckets of any region, with the right one. */
const FALLBACK_REGION = "us-east-1";

/** The SDK would warn on stderr, past our log, where a profile and keys are both given. */
const SILENT = { debug() {}, info() {}, warn() {}, error() {} };

/** About one request, for its errors. */
export interface RequestContext extends Cancellable {
  /** Follows "Cannot": `write a/b`. */
  readonly action: string;
  readonly key?: string | undefined;
  readonly precondition?: ErrorContext["precondition"];
}

export interface S3Session {
  readonly bucket: string;
  /** `bucket "b" at https://…` or `bucket "b" of S3`. */
  readonly description: string;
  /** Goes into every request that reads or writes an object; empty without SSE-C. */
  readonly customerKey: CustomerKey;
  /** Not Amazon's own: what such a store supports is not known beforehand. */
  readonly isCustomEndpoint: boolean;
  /** The region that requests are signed for. */
  region(): Promise<string>;
  /**
   * Send a request; it is sent once more only when the store names the bucket's region.
   * @throws {StoreError}, or the signal's reason.
   */
  call<T>(
    context: RequestContext,
    send: (client: S3Client, options: { readonly abortSignal?: AbortSignal }) => Promise<T>,
  ): Promise<T>;
  /** An error as a `StoreError` about this session's store. */
  storeError(error: unknown, context: RequestContext): Error;
  close(): void;
}

export function openSession(
  bucket: string,
  config: S3Config,
  options: StoreOptions,
  customerKey: CustomerKey = {},
): S3Session {
  const handler = createHttpHandler({
    connectTimeout: DEFAULT_TIMEOUT_S * 1000,
    readTimeout: (options.readTimeout ?? DEFAULT_TIMEOUT_S) * 1000,
    ca: config.ca,
    proxyFor: proxyChoice(options.env),
  });
  let region: Promise<string> | undefined;
  let regionNow = config.region ?? FALLBACK_REGION;
  const findRegion = async () => {
    regionNow = config.region ?? await regionOfInstance(config, options) ?? FALLBACK_REGION;
    return regionNow;
  };
  const regionOf = () => region ??= findRegion();
  const client = new S3Client({
    region: regionOf,
    requestHandler: handler,
    streamCollector: collectAnswer,
    // Retrying is done by one wrapper for all stores.
    maxAttempts: 1,
    credentials: config.environmentKeys ?? defaultProvider({
      ...(config.profile === undefined ? {} : { profile: config.profile }),
      filepath: config.credentialsFile,
      configFilepath: config.configFile,
      clientConfig: { requestHandler: handler },
      logger: SILENT,
    }),
    forcePathStyle: config.forcePathStyle,
    requestChecksumCalculation: config.requestChecksums,
    responseChecksumValidation: config.responseChecksums,
    // Costs a round trip, and some stores never answer it. The handler reads early refusals anyway.
    expectContinueHeader: false,
    ...(config.endpoint === undefined ? {} : { endpoint: config.endpoint }),
    ...(config.profile === undefined ? {} : { profile: config.profile }),
  });
  leaveChecksummedBodiesUnsigned(client);
  refusePages(client);

  const description = config.endpoint === undefined
    ? `bucket "${bucket}" of S3`
    : `bucket "${bucket}" at ${withoutSecrets(config.endpoint).replace(/\/+$/, "")}`;
  const credentials = config.environmentKeys !== undefined
    ? "AWS_ACCESS_KEY_ID"
    : config.profile === undefined
    ? "the AWS SDK's chain: files, web identity, container, instance"
    : `profile "${config.profile}"`;

  const storeError = (error: unknown, context: RequestContext) =>
    toStoreError(error, { ...context, where: description, region: regionNow, credentials });

  return {
    bucket,
    description,
    customerKey,
    isCustomEndpoint: config.endpoint !== undefined,
    region: regionOf,
    storeError,
    async call(context, send) {
      const { signal } = context;
      const sendOptions = signal === undefined ? {} : { abortSignal: signal };
      for (let redirected = false;;) {
        signal?.throwIfAborted();
        try {
          return await send(client, sendOptions);
        } catch (error) {
          signal?.throwIfAborted();
          if (error instanceof PageError) throw pageInstead(description, context, error);
          const right = rightRegion(error);
          if (right === undefined || right === regionNow || redirected) {
            throw storeError(error, context);
          }
          redirected = true;
          regionNow = right;
          region = Promise.resolve(right);
        }
      }
    },
    close() {
      client.destroy();
      handler.destroy();
    },
  };
}

/**
 * Only where credentials would come from the machine too; elsewhere asking costs a second of waiting
 * for an address that nobody answers.
 */
async function regionOfInstance(
  config: S3Config,
  options: StoreOptions,
): Promise<string | undefined> {
  const hasOwnCredentials = config.environmentKeys !== undefined || config.profile !== undefined;
  if (config.endpoint !== undefined || hasOwnCredentials) return undefined;
  return await instanceRegion(options.env);
}

/** Most that is read of an answer that is not streamed: a page of a listing is a few MiB. */
const MAX_ANSWER = 64 * 1024 ** 2;

/** The SDK's own collector takes all that comes. */
async function collectAnswer(body: AsyncIterable<Uint8Array>): Promise<Uint8Array> {
  const chunks: Uint8Array[] = [];
  let size = 0;
  for await (const chunk of body) {
    size += chunk.length;
    if (size > MAX_ANSWER) throw new Error(`the answer is larger than ${MAX_ANSWER} bytes`);
    chunks.push(chunk);
  }
  return Buffer.concat(chunks);
}

/**
 * Over TLS the body's checksum (CRC-32 in a signed header) is protection enough; the SHA-256 of every
 * body for the signature would be most of the CPU time of an upload.
 */
function leaveChecksummedBodiesUnsigned(client: S3Client): void {
  client.middlewareStack.add(
    (next) => (args) => {
      const { request } = args;
      if (
        HttpRequest.isInstance(request) && request.protocol === "https:" &&
        request.body instanceof Uint8Array &&
        Object.keys(request.headers).some((name) => /^x-amz-checksum-/i.test(name))
      ) {
        request.headers["x-amz-content-sha256"] = "UNSIGNED-PAYLOAD";
      }
      return next(args);
    },
    // After the checksum, before the signature.
    { step: "build", priority: "low", name: "leaveChecksummedBodiesUnsigned" },
  );
}

/** A page for people came where S3 sends XML or nothing. */
class PageError extends Error {
  override readonly name = "PageError";
}

/**
 * The SDK takes the page of a login or of another server for an answer without anything in it: an empty listing, a
 * deletion that went well. Objects may be pages; their answers are known by their ETag.
 */
function refusePages(client: S3Client): void {
  client.middlewareStack.add(
    (next, { commandName }) => async (args) => {
      const result = await next(args);
      const { response } = result;
      if (
        HttpResponse.isInstance(response) && response.statusCode < 300 &&
        /^text\/html\b/i.test(response.headers["content-type"] ?? "") &&
        commandName !== "GetObjectCommand" && commandName !== "HeadObjectCommand"
      ) throw new PageError(`HTTP ${response.statusCode}, ${response.headers["content-type"]}`);
      return result;
    },
    { step: "deserialize", name: "refusePages" },
  );
}

function pageInstead(
  description: string,
  { action, key }: RequestContext,
  error: PageError,
): StoreError {
  return new StoreError(
    "other",
    `Cannot ${action} in ${description}: what answers there is not S3 but a page (${error.message}); look at ` +
      "--endpoint-url and at proxies between",
    { key, cause: error },
  );
}

/** A proxy or a login page says 200 to anything; only a store that has the bytes names their ETag. */
export function noProof(session: S3Session, { action, key }: RequestContext): StoreError {
  return new StoreError(
    "other",
    `Cannot ${action} in ${session.description}: the answer gave no ETag, so it is not that of an S3 ` +
      "store that has the data; look at --endpoint-url and at proxies",
    { key },
  );
}
