/** What all requests share: one attempt, the right region, our errors. */
import { type Cancellable, StoreError } from "../object_store.ts";
import type { StoreOptions } from "../open.ts";
import { withoutSecrets } from "../url_in_messages.ts";
import { PageError, type S3Api, type SendOptions } from "./api.ts";
import { instanceRegion, type S3Config } from "./config.ts";
import { credentialsOf } from "./credentials.ts";
import type { CustomerKey } from "./customer_key.ts";
import { type ErrorContext, rightRegion, toStoreError } from "./errors.ts";
import { createHttpHandler } from "./http_handler.ts";
import { openLightApi, suitsLightApi } from "./light_api.ts";
import { proxyChoice } from "./proxy.ts";

/** boto3's time-outs. */
const DEFAULT_TIMEOUT_S = 60;

/** Where S3 answers for buckets of any region, with the right one. */
const FALLBACK_REGION = "us-east-1";

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
  /** Whether writes are sent with their CRC-32, for the store to check. */
  readonly sendsChecksums: boolean;
  /** The region that requests are signed for. */
  region(): Promise<string>;
  /**
   * Send a request; it is sent once more only when the store names the bucket's region.
   * @throws {StoreError}, or the signal's reason.
   */
  call<T>(
    context: RequestContext,
    send: (api: S3Api, options: SendOptions) => Promise<T>,
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
  const openApi = async (): Promise<S3Api> => {
    if (suitsLightApi(bucket, config, await regionOf())) {
      return openLightApi(config, regionOf, credentialsOf(config, handler), handler);
    }
    const { openSdkApi } = await import("./sdk_api.ts");
    return openSdkApi(config, regionOf, handler);
  };
  let api: Promise<S3Api> | undefined;

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
    sendsChecksums: config.requestChecksums === "WHEN_SUPPORTED",
    region: regionOf,
    storeError,
    async call(context, send) {
      const { signal } = context;
      const sendOptions = signal === undefined ? {} : { abortSignal: signal };
      for (let redirected = false;;) {
        signal?.throwIfAborted();
        try {
          return await send(await (api ??= openApi()), sendOptions);
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
      api?.then((opened) => opened.close(), () => undefined);
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
