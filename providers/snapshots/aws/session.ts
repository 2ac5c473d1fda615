/** The EC2 client of the SDK, with the same connections and credentials as S3's, and our errors. */
import { defaultProvider } from "@aws-sdk/credential-provider-node";
import { EC2Client } from "@aws-sdk/client-ec2";
import type { Cancellable } from "../../object_store.ts";
import { judgeTransport } from "../../transport_errors.ts";
import { instanceRegion, readS3Config, type S3Config } from "../../s3/config.ts";
import { createHttpHandler } from "../../s3/http_handler.ts";
import { proxyChoice } from "../../s3/proxy.ts";
import { SnapshotError, type SnapshotErrorKind } from "../provider.ts";
import { PAUSES, type Pauses, sleep } from "../waiting.ts";

export interface AwsOptions {
  readonly env: Readonly<Record<string, string | undefined>>;
  /** `--aws-profile` */
  readonly profile?: string | undefined;
  /** `--aws-region`, or what a backup recorded; the profile's when absent. */
  readonly region?: string | undefined;
  /** Seconds that the service may stay silent; 60 when absent. */
  readonly readTimeout?: number | undefined;
  /** Told what is tried again, one line each. */
  readonly onNotice?: ((message: string) => void) | undefined;
  /** Between two looks at what EC2 does. */
  readonly pauses?: Pauses | undefined;
}

/** About one call, for its errors. */
export interface Call extends Cancellable {
  /** Follows "Cannot": `describe the volumes of i-0123`. */
  readonly action: string;
  /**
   * What makes something without a token that EC2 knows it by: it is not sent again when EC2 may have done it, since
   * there would be two, and not given up on the way, since nobody would know of the one. The signal still counts
   * before each attempt.
   */
  readonly once?: boolean | undefined;
  /** It is about something just made, which EC2 may need a moment to know everywhere: "not found" is passing. */
  readonly young?: boolean | undefined;
}

export interface Ec2Session {
  readonly region: string;
  readonly pauses: Pauses;
  /** @throws {SnapshotError}, or the signal's reason */
  call<T>(
    call: Call,
    send: (client: EC2Client, options: { readonly abortSignal?: AbortSignal }) => Promise<T>,
  ): Promise<T>;
  close(): void;
}

const TIMEOUT_S = 60;
/** Of calls that are safe to repeat; more than the SDK's 3, since a backup is worth waiting for. */
const ATTEMPTS = 6;
/** The SDK would warn on stderr, past our log, where a profile and keys are both given. */
const SILENT = { debug() {}, info() {}, warn() {}, error() {} };

/** @throws {SnapshotError} kind `invalid` without a region; {StoreError} for a profile that is not there */
export async function openEc2Session(options: AwsOptions): Promise<Ec2Session> {
  const { env } = options;
  const config = await readS3Config({ env, awsProfile: options.profile });
  const region = options.region || config.region || await regionOfInstance(config, options);
  if (region === undefined) {
    throw new SnapshotError(
      "invalid",
      "The region of the instance is not known: give --aws-region, or set it in the AWS profile or AWS_REGION",
    );
  }
  const handler = createHttpHandler({
    connectTimeout: TIMEOUT_S * 1000,
    readTimeout: (options.readTimeout ?? TIMEOUT_S) * 1000,
    ca: config.ca,
    proxyFor: proxyChoice(env),
    // What makes snapshots must not be sent twice.
    keepAlive: false,
  });
  const endpoint = endpointOf(env);
  const credentials = config.environmentKeys ?? defaultProvider({
    ...(config.profile === undefined ? {} : { profile: config.profile }),
    filepath: config.credentialsFile,
    configFilepath: config.configFile,
    clientConfig: { requestHandler: handler },
    logger: SILENT,
  });
  const client = new EC2Client({
    region,
    requestHandler: handler,
    // Retrying is ours: the SDK does not know what may be sent twice.
    maxAttempts: 1,
    credentials,
    ...(endpoint === undefined ? {} : { endpoint }),
    ...(config.profile === undefined ? {} : { profile: config.profile }),
  });
  const where = endpoint === undefined ? `EC2 in ${region}` : `EC2 in ${region} at ${endpoint}`;
  const attempts = config.maxAttempts ?? ATTEMPTS;
  const pauses = options.pauses ?? PAUSES;
  return {
    region,
    pauses,
    async call(call, send) {
      const { action, signal, once = false, young = false } = call;
      const sendOptions = signal === undefined || once ? {} : { abortSignal: signal };
      for (let attempt = 1, pause = pauses.first;; attempt++, pause *= 2) {
        signal?.throwIfAborted();
        try {
          return await send(client, sendOptions);
        } catch (error) {
          if (!once) signal?.throwIfAborted();
          const facts = factsOf(error);
          const judged = errorOf(error, facts, `Cannot ${action} (${where})`);
          const passing = isThrottling(facts) || wasNotSent(error, facts) ||
            (!once && isPassing(facts, error)) || (young && judged.kind === "not-found");
          if (!passing || attempt >= attempts) throw judged;
          const wait = facts.code === PER_VOLUME_RATE
            ? pauses.longest
            : Math.min(pause, pauses.longest);
          options.onNotice?.(
            `Trying again in ${wait / 1000} s (${attempt + 1} of ${attempts}): ${judged.message}`,
          );
          await sleep(wait, signal);
        }
      }
    },
    close() {
      client.destroy();
      handler.destroy();
    },
  };
}

/** A filter's value that stands for itself: `*` and `?` would match others too, and a backslash takes that away. */
export function literally(value: string): string {
  return value.replace(/[\\*?]/g, "\\$&");
}

/** From the environment; what profiles say the SDK finds by itself. @throws {SnapshotError} */
function endpointOf(env: AwsOptions["env"]): string | undefined {
  if (env["AWS_IGNORE_CONFIGURED_ENDPOINT_URLS"]?.toLowerCase() === "true") return undefined;
  const name = env["AWS_ENDPOINT_URL_EC2"] ? "AWS_ENDPOINT_URL_EC2" : "AWS_ENDPOINT_URL";
  const endpoint = env[name];
  if (!endpoint) return undefined;
  if (/^https?:\/\/[^/]/i.test(endpoint) && URL.canParse(endpoint)) return endpoint;
  throw new SnapshotError(
    "invalid",
    `Cannot use ${endpoint} (${name}): write http://HOST:PORT or https://HOST`,
  );
}

/** EC2 takes one snapshot of a volume in 15 seconds. */
const PER_VOLUME_RATE = "SnapshotCreationPerVolumeRateExceeded";

async function regionOfInstance(
  config: S3Config,
  { env }: AwsOptions,
): Promise<string | undefined> {
  return config.environmentKeys !== undefined || config.profile !== undefined
    ? undefined
    : await instanceRegion(env);
}

interface Facts {
  readonly status: number | undefined;
  readonly code: string;
  readonly message: string;
}

function factsOf(error: unknown): Facts {
  const object = isRecord(error) ? error : {};
  const metadata = isRecord(object["$metadata"]) ? object["$metadata"] : {};
  const status = metadata["httpStatusCode"];
  const named = [object["Code"], object["code"], object["name"]].find((name) =>
    typeof name === "string" && name !== "" && name !== "Error"
  );
  return {
    status: typeof status === "number" ? status : undefined,
    code: typeof named === "string" ? named : "",
    message: (error instanceof Error ? error.message : String(error)).replace(/\s+/g, " ").trim()
      .replace(/\.$/, "").slice(0, 400),
  };
}

const THROTTLING = new Set([
  "RequestLimitExceeded",
  "Throttling",
  "ThrottlingException",
  "TooManyRequestsException",
  "ConcurrentSnapshotLimitExceeded",
  PER_VOLUME_RATE,
]);

/** EC2 has not done it. */
function isThrottling({ code, status }: Facts): boolean {
  return THROTTLING.has(code) || status === 429;
}

/** It never got to EC2. */
function wasNotSent(error: unknown, { code }: Facts): boolean {
  return /^(ENOTFOUND|EAI_AGAIN|ECONNREFUSED|CONNECT_TIMEOUT)$/.test(codeOf(error) || code);
}

/** EC2 may have done it or not. */
function isPassing({ status, code, message }: Facts, error: unknown): boolean {
  if (status !== undefined && status !== 200) return status >= 500;
  const verdict = judgeTransport(code || codeOf(error), message, NO_ADVICE);
  return verdict !== undefined && verdict.retryable !== false;
}

const NO_ADVICE = { host: "", tls: "" };

function errorOf(error: unknown, facts: Facts, what: string): SnapshotError {
  const { code, message, status } = facts;
  const of = (kind: SnapshotErrorKind, reason: string) =>
    new SnapshotError(kind, `${what}: ${reason}`, { code: code || undefined, cause: error });
  if (code === "CredentialsProviderError" || code === "TokenProviderError") {
    return of(
      "denied",
      `no AWS credentials (${message}); set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, name a profile ` +
        "with --aws-profile, or give the instance a role",
    );
  }
  if (status === undefined || status === 200) {
    const transport = judgeTransport(code || codeOf(error), message, {
      host: "look at the region (--aws-region)",
      tls:
        "set AWS_CA_BUNDLE to the file with the certificate of its authority, or look at the clock",
    });
    if (transport !== undefined) return of("unreachable", transport.reason);
  }
  const told = code === "" ? message : `${code}: ${message}`;
  if (/\.NotFound$/.test(code)) return of("not-found", told);
  if (
    /^(UnauthorizedOperation|AuthFailure|AccessDenied.*|ExpiredToken.*|InvalidClientTokenId|SignatureDoesNotMatch|OptInRequired)$/
      .test(code)
  ) {
    return of("denied", `${told}; look at what the credentials may do`);
  }
  if (isThrottling(facts) || (status ?? 0) >= 500) return of("unreachable", told);
  return of("failed", told || "unknown error");
}

function codeOf(error: unknown): string {
  return isRecord(error) && typeof error["code"] === "string" ? error["code"] : "";
}

function isRecord(value: unknown): value is Record<string, unknown> {
  return typeof value === "object" && value !== null;
}
