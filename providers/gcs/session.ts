/**
 * What all requests share: the endpoint, an access token, one attempt, our errors.
 *
 * The JSON and XML APIs directly, not `@google-cloud/storage` (8.4.0): its calls take no AbortSignal,
 * it sends parts from files only, and its HTTP client can't be exchanged, so that proxies,
 * authorities, time-outs and back-pressure would be other ones than S3's and Azure's. What would be
 * left of it is the building of URLs. Loading it is not the reason, though it takes 31 ms and 49 MiB
 * in the executable, this provider 8 ms and 36 MiB.
 */
import type { Cancellable } from "../object_store.ts";
import type { StoreOptions } from "../open.ts";
import { createHttpHandler, type HttpHandler } from "../s3/http_handler.ts";
import { proxyChoice } from "../s3/proxy.ts";
import type { GcsConfig } from "./config.ts";
import { type ErrorContext, refusalOf, toStoreError } from "./errors.ts";
import { beginningOf, exchange, type HttpAnswer, type HttpCall, textOf } from "./http.ts";
import { createTokenSource } from "./token.ts";

/** Google's Python library waits so long for a connection and for data. */
const TIMEOUT_S = 60;
/** Completing a multipart upload "can take several minutes", says Google, without a word meanwhile. */
const PATIENT_TIMEOUT_S = 15 * 60;

/** About one request, for its errors. */
export interface RequestContext extends Cancellable {
  /** Follows "Cannot": `write a/b`. */
  readonly action: string;
  readonly key?: string | undefined;
  readonly precondition?: ErrorContext["precondition"];
  readonly conflictIsThere?: ErrorContext["conflictIsThere"];
  readonly missing?: ErrorContext["missing"];
}

export interface GcsRequest extends Omit<HttpCall, "url" | "signal"> {
  /** After the endpoint, with its query. */
  readonly path: string;
  /** Wait long for the answer. */
  readonly patient?: boolean | undefined;
}

export interface GcsSession {
  readonly bucket: string;
  /** `bucket "b" of Google Cloud Storage` or `bucket "b" at http://…`. */
  readonly description: string;
  readonly isGoogle: boolean;
  /**
   * Send a request whose answer is of 2xx. The body has to be read to its end or destroyed.
   * @throws {StoreError}, or the signal's reason.
   */
  send(context: RequestContext, request: GcsRequest): Promise<HttpAnswer>;
  /** The same, and read the answer as text. */
  text(context: RequestContext, request: GcsRequest): Promise<HttpAnswer & { text: string }>;
  /** The same, and read the answer as JSON; null for an empty one. */
  json(context: RequestContext, request: GcsRequest): Promise<unknown>;
  /** An error as a `StoreError` about this session's store. */
  storeError(error: unknown, context: RequestContext): Error;
  /** The project that a new bucket shall belong to. @throws {StoreError} */
  project(context: RequestContext): Promise<string | undefined>;
  close(): void;
}

export function openSession(bucket: string, config: GcsConfig, options: StoreOptions): GcsSession {
  const { env } = options;
  const proxyFor = proxyChoice(env);
  const handlerWith = (seconds: number) =>
    createHttpHandler({
      connectTimeout: Math.min(TIMEOUT_S, seconds) * 1000,
      readTimeout: seconds * 1000,
      ca: config.ca,
      proxyFor,
    });
  const readTimeout = options.readTimeout ?? TIMEOUT_S;
  const handler = handlerWith(readTimeout);
  let patient: HttpHandler | undefined;
  const tokens = config.isEmulator ? undefined : createTokenSource({ env, handler });

  const description = config.endpoint === "https://storage.googleapis.com"
    ? `bucket "${bucket}" of Google Cloud Storage`
    : `bucket "${bucket}" at ${config.endpoint}`;
  const storeError = (error: unknown, context: RequestContext) =>
    toStoreError(error, {
      ...context,
      where: description,
      credentials: tokens?.origin() ?? "nowhere: it is an emulator",
    });

  const userProject = async (): Promise<Record<string, string>> => {
    const project = await tokens?.quotaProject();
    return project === undefined ? {} : { "x-goog-user-project": project };
  };

  /** One attempt, and one more with a new token when the first one was refused. */
  const attempt = async (request: GcsRequest, signal: AbortSignal | undefined) => {
    if (request.patient === true) patient ??= handlerWith(Math.max(readTimeout, PATIENT_TIMEOUT_S));
    const way = request.patient === true && patient !== undefined ? patient : handler;
    for (let renewed = false;; renewed = true) {
      const authorization = await tokens?.authorization(signal);
      const answer = await exchange(way, {
        method: request.method,
        url: config.endpoint + request.path,
        headers: {
          ...request.headers,
          ...(authorization === undefined ? {} : { authorization }),
          ...await userProject(),
        },
        body: request.body,
        signal,
      });
      if (answer.status >= 200 && answer.status < 300) return answer;
      const refusal = refusalOf(answer, await beginningOf(answer));
      if (answer.status !== 401 || authorization === undefined || renewed) throw refusal;
      tokens?.forget(authorization);
    }
  };

  const guarded = async <T>(context: RequestContext, work: () => Promise<T>): Promise<T> => {
    const { signal } = context;
    signal?.throwIfAborted();
    try {
      return await work();
    } catch (error) {
      signal?.throwIfAborted();
      throw storeError(error, context);
    }
  };

  const text: GcsSession["text"] = (context, request) =>
    guarded(context, async () => {
      const answer = await attempt(request, context.signal);
      return { ...answer, text: await textOf(answer) };
    });

  return {
    bucket,
    description,
    isGoogle: config.isGoogle,
    storeError,
    send: (context, request) => guarded(context, () => attempt(request, context.signal)),
    text,
    async json(context, request) {
      const answer = await text(context, request);
      if (answer.text.trim() === "") return null;
      if (answer.text.trimStart().startsWith("<")) {
        throw storeError(
          new Error(
            `what answers there is not Google Cloud Storage (HTTP ${answer.status}, a page); look at proxies between`,
          ),
          context,
        );
      }
      try {
        return JSON.parse(answer.text);
      } catch (error) {
        const cut = Object.assign(new Error("the answer is no JSON"), {
          code: "ERR_STREAM_PREMATURE_CLOSE",
          cause: error,
        });
        throw storeError(cut, context);
      }
    },
    async project(context) {
      if (config.project !== undefined) return config.project;
      return await guarded(context, async () => await tokens?.project());
    },
    close() {
      handler.destroy();
      patient?.destroy();
      tokens?.close();
    },
  };
}
