/**
 * What the environment and the AWS configuration files say, read by boto3's rules, so that a set-up
 * that works with Barman works here.
 */
import { access } from "node:fs/promises";
import http from "node:http";
import { homedir } from "node:os";
import { join } from "node:path";
import process from "node:process";
import type { StoreOptions } from "../open.ts";
import { certificateAuthorities } from "../certificates.ts";
import { StoreError } from "../object_store.ts";

type Environment = StoreOptions["env"];

export interface S3Config {
  /** The profile asked for by option or AWS_PROFILE. */
  readonly profile: string | undefined;
  readonly configFile: string;
  readonly credentialsFile: string;
  readonly endpoint: string | undefined;
  readonly region: string | undefined;
  /** The SDK is asked for, or FIPS or dual-stack endpoints, which it knows. */
  readonly wantsSdk: boolean;
  readonly forcePathStyle: boolean;
  /** PEM text of the authorities to trust instead of the runtime's. */
  readonly ca: string | undefined;
  readonly maxAttempts: number | undefined;
  readonly requestChecksums: Checksums;
  readonly responseChecksums: Checksums;
  /** Keys from the environment, which win over AWS_PROFILE but not over a profile asked for by option. */
  readonly environmentKeys: EnvironmentKeys | undefined;
}

export type Checksums = "WHEN_SUPPORTED" | "WHEN_REQUIRED";

export interface EnvironmentKeys {
  readonly accessKeyId: string;
  readonly secretAccessKey: string;
  readonly sessionToken?: string;
}

/**
 * @throws {StoreError} kind `invalid` for a profile that is not there, or a setting that can't be right.
 */
export async function readS3Config(options: StoreOptions): Promise<S3Config> {
  const { env } = options;
  const home = env["HOME"] || env["USERPROFILE"] || homeOfUser();
  const configFile = fromHome(env["AWS_CONFIG_FILE"], home) ?? join(home, ".aws", "config");
  const credentialsFile = fromHome(env["AWS_SHARED_CREDENTIALS_FILE"], home) ??
    join(home, ".aws", "credentials");
  const files = await sharedFiles(credentialsFile, configFile);
  const profile = options.awsProfile || env["AWS_PROFILE"] || env["AWS_DEFAULT_PROFILE"] ||
    undefined;
  const name = profile ?? "default";
  const inCredentials = files.credentialsFile[name];
  // Settings in the credentials file count too, and more: boto3 lays them over those of the other.
  const inConfig = inCredentials === undefined
    ? files.configFile[name]
    : { ...files.configFile[name], ...inCredentials };
  if (profile !== undefined && inConfig === undefined) {
    throw new StoreError(
      "invalid",
      `There is no AWS profile "${profile}" in ${configFile} or ${credentialsFile}`,
    );
  }
  const setting = (key: string) => inConfig?.[key] || undefined;

  const endpoint = endpointUrl(options.endpointUrl, env, inConfig, files.configFile);
  const style = options.addressingStyle ?? setting("s3.addressing_style") ?? "auto";
  if (!["auto", "virtual", "path"].includes(style)) {
    throw new StoreError(
      "invalid",
      `addressing_style of S3 must be auto, virtual or path, not ${style}`,
    );
  }
  return {
    profile,
    configFile,
    credentialsFile,
    endpoint,
    region: env["AWS_REGION"] || env["AWS_DEFAULT_REGION"] || setting("region"),
    wantsSdk: env["BARMAN_CLOUD_S3_CLIENT"] === "sdk" ||
      isTrue(env["AWS_USE_FIPS_ENDPOINT"] || setting("use_fips_endpoint")) ||
      isTrue(env["AWS_USE_DUALSTACK_ENDPOINT"] || setting("use_dualstack_endpoint")),
    forcePathStyle: style === "path" || (style === "auto" && endpoint !== undefined),
    ca: await certificateAuthorities({
      AWS_CA_BUNDLE: env["AWS_CA_BUNDLE"],
      ca_bundle: setting("ca_bundle"),
      REQUESTS_CA_BUNDLE: env["REQUESTS_CA_BUNDLE"],
    }),
    maxAttempts: attempts(env["AWS_MAX_ATTEMPTS"] || setting("max_attempts")),
    requestChecksums: checksums(
      "AWS_REQUEST_CHECKSUM_CALCULATION",
      env["AWS_REQUEST_CHECKSUM_CALCULATION"] || setting("request_checksum_calculation"),
    ),
    responseChecksums: checksums(
      "AWS_RESPONSE_CHECKSUM_VALIDATION",
      env["AWS_RESPONSE_CHECKSUM_VALIDATION"] || setting("response_checksum_validation"),
    ),
    environmentKeys: options.awsProfile ? undefined : environmentKeys(env),
  };
}

interface SharedFiles {
  readonly configFile: Readonly<Record<string, Section | undefined>>;
  readonly credentialsFile: Readonly<Record<string, Section | undefined>>;
}

/** What reads the files is loaded only where there are some. */
async function sharedFiles(filepath: string, configFilepath: string): Promise<SharedFiles> {
  const there = await Promise.all([filepath, configFilepath].map(isThere));
  if (!there.includes(true)) return { configFile: {}, credentialsFile: {} };
  const { loadSharedConfigFiles } = await import("@smithy/core/config");
  return await loadSharedConfigFiles({ filepath, configFilepath, ignoreCache: true });
}

/** True also when that can't be told. */
async function isThere(path: string): Promise<boolean> {
  try {
    await access(path);
    return true;
  } catch (error) {
    return !(error instanceof Error && "code" in error && error.code === "ENOENT");
  }
}

function isTrue(text: string | undefined): boolean {
  return text?.toLowerCase() === "true";
}

/** As the system has it, for callers that pass no environment on; a uid without a name has none. */
function homeOfUser(): string {
  try {
    return homedir();
  } catch {
    // The SDK looks for it too, needed or not, and would fail.
    process.env["HOME"] = "/";
    return "/";
  }
}

type Section = Readonly<Record<string, string | undefined>>;

/** Option, then AWS_ENDPOINT_URL_S3, AWS_ENDPOINT_URL, the profile's service section, the profile. */
function endpointUrl(
  option: string | undefined,
  env: Environment,
  profile: Section | undefined,
  sections: Readonly<Record<string, Section | undefined>>,
): string | undefined {
  const ignored = env["AWS_IGNORE_CONFIGURED_ENDPOINT_URLS"] ??
    profile?.["ignore_configured_endpoint_urls"];
  const services = profile?.["services"];
  const configured = ignored?.toLowerCase() === "true" ? undefined : env["AWS_ENDPOINT_URL_S3"] ||
    env["AWS_ENDPOINT_URL"] ||
    (services === undefined ? undefined : sections[`services.${services}`]?.["s3.endpoint_url"]) ||
    profile?.["endpoint_url"];
  const endpoint = option || configured || undefined;
  if (endpoint === undefined) return undefined;
  if (!/^https?:\/\/[^/]/i.test(endpoint) || !URL.canParse(endpoint)) {
    throw new StoreError(
      "invalid",
      `Cannot use ${endpoint} as the S3 endpoint: write http://HOST:PORT or https://HOST`,
    );
  }
  return endpoint;
}

function attempts(text: string | undefined): number | undefined {
  if (text === undefined) return undefined;
  const count = Number(text);
  if (Number.isInteger(count) && count >= 1) return count;
  throw new StoreError("invalid", `AWS_MAX_ATTEMPTS (max_attempts) must be 1 or more, not ${text}`);
}

function checksums(name: string, text: string | undefined): Checksums {
  const value = text?.toUpperCase() ?? "WHEN_SUPPORTED";
  if (value === "WHEN_SUPPORTED" || value === "WHEN_REQUIRED") return value;
  throw new StoreError("invalid", `${name} must be when_supported or when_required, not ${text}`);
}

function environmentKeys(env: Environment): EnvironmentKeys | undefined {
  const accessKeyId = env["AWS_ACCESS_KEY_ID"];
  const secretAccessKey = env["AWS_SECRET_ACCESS_KEY"];
  if (!accessKeyId || !secretAccessKey) return undefined;
  const sessionToken = env["AWS_SESSION_TOKEN"] || env["AWS_SECURITY_TOKEN"];
  return { accessKeyId, secretAccessKey, ...(sessionToken ? { sessionToken } : {}) };
}

function fromHome(path: string | undefined, home: string): string | undefined {
  if (!path) return undefined;
  return path === "~" || path.startsWith("~/") ? join(home, path.slice(1)) : path;
}

const METADATA_TIMEOUT_MS = 1000;

/**
 * The region of the EC2 instance that we run on, from its metadata service; undefined when there is no
 * answer within a second or two, or AWS_EC2_METADATA_DISABLED is set.
 */
export async function instanceRegion(env: Environment): Promise<string | undefined> {
  if (env["AWS_EC2_METADATA_DISABLED"]?.toLowerCase() === "true") return undefined;
  const base = env["AWS_EC2_METADATA_SERVICE_ENDPOINT"] || "http://169.254.169.254";
  try {
    const ttl = { "x-aws-ec2-metadata-token-ttl-seconds": "60" };
    const token = await metadata(new URL("/latest/api/token", base), "PUT", ttl);
    const region = await metadata(new URL("/latest/meta-data/placement/region", base), "GET", {
      "x-aws-ec2-metadata-token": token,
    });
    return /^[a-z0-9-]+$/.test(region) ? region : undefined;
  } catch {
    // No instance of EC2, or one that hides it: the region is then looked up elsewhere.
    return undefined;
  }
}

function metadata(url: URL, method: string, headers: Record<string, string>): Promise<string> {
  return new Promise((resolve, reject) => {
    const signal = AbortSignal.timeout(METADATA_TIMEOUT_MS);
    const request = http.request(url, { method, headers, signal }, (response) => {
      let text = "";
      response.setEncoding("utf8");
      response.on("data", (chunk: string) => text += chunk);
      response.on("error", reject);
      response.on("end", () => {
        if (response.statusCode === 200) resolve(text.trim());
        else reject(new Error(`The instance metadata service answered ${response.statusCode}`));
      });
    });
    request.on("error", reject);
    request.end();
  });
}
