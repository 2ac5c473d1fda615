/**
 * Application default credentials: the file that GOOGLE_APPLICATION_CREDENTIALS names, else the one
 * that `gcloud auth application-default login` makes, else the metadata service of the machine.
 */
import { readFile } from "node:fs/promises";
import { join } from "node:path";
import type { StoreOptions } from "../open.ts";

export type GoogleCredentials =
  | ServiceAccountKey
  | AuthorizedUser
  | Impersonation
  /** Workload identity federation and the like; google-auth-library understands it. */
  | { readonly kind: "federated"; readonly json: Readonly<Record<string, unknown>> }
  | { readonly kind: "metadata" };

export interface ServiceAccountKey {
  readonly kind: "service-account";
  readonly clientEmail: string;
  /** PEM */
  readonly privateKey: string;
  readonly privateKeyId: string | undefined;
  readonly tokenUri: string;
  readonly project: string | undefined;
}

export interface AuthorizedUser {
  readonly kind: "authorized-user";
  readonly clientId: string;
  readonly clientSecret: string;
  readonly refreshToken: string;
  readonly tokenUri: string;
}

export interface Impersonation {
  readonly kind: "impersonation";
  /** Ends with `:generateAccessToken`. */
  readonly url: string;
  readonly delegates: readonly string[];
  readonly source: GoogleCredentials;
}

/** Which credentials there are, and for a person where from. */
export interface FoundCredentials {
  readonly credentials: GoogleCredentials;
  readonly origin: string;
  /** From the file. */
  readonly quotaProject?: string | undefined;
}

/** No token could be had, and whether it is worth trying again. */
export class CredentialsError extends Error {
  override readonly name = "CredentialsError";
  constructor(
    readonly kind: "denied" | "unreachable" | "unavailable",
    /** Follows "no Google access token: " */
    message: string,
    readonly retryAfter?: string | undefined,
  ) {
    super(message);
  }
}

/** Google's token service, and the audience of what service accounts sign, wherever it is reached. */
export const TOKEN_URI = "https://oauth2.googleapis.com/token";
const VARIABLE = "GOOGLE_APPLICATION_CREDENTIALS";

/** @throws {CredentialsError} when a file can't be read or understood. */
export async function findCredentials(env: StoreOptions["env"]): Promise<FoundCredentials> {
  const named = env[VARIABLE];
  if (named) return await fromFile(named, `${named}, which ${VARIABLE} names`);
  const home = env["HOME"] || env["USERPROFILE"];
  const gcloud = env["CLOUDSDK_CONFIG"] || (home ? join(home, ".config", "gcloud") : undefined);
  if (gcloud !== undefined) {
    const path = join(gcloud, "application_default_credentials.json");
    try {
      return await fromFile(path, path);
    } catch (error) {
      if (!(error instanceof CredentialsError && isAbsent(error.cause))) throw error;
    }
  }
  return { credentials: { kind: "metadata" }, origin: "the metadata service of this machine" };
}

async function fromFile(path: string, origin: string): Promise<FoundCredentials> {
  let text: string;
  try {
    text = await readFile(path, "utf8");
  } catch (error) {
    const why = error instanceof Error ? error.message : String(error);
    throw Object.assign(new CredentialsError("denied", `cannot read ${origin}: ${why}`), {
      cause: error,
    });
  }
  let json: unknown;
  try {
    json = JSON.parse(text);
  } catch {
    // What the parser says may quote the key.
    throw new CredentialsError("denied", `${origin}, is not JSON`);
  }
  const credentials = parseCredentials(json, origin);
  const project = isRecord(json) ? json["quota_project_id"] : undefined;
  // As Google's Python library reads them: the file of a service account names none.
  const namesNone = typeof project !== "string" || credentials.kind === "service-account";
  return { credentials, origin, quotaProject: namesNone ? undefined : project || undefined };
}

function isAbsent(error: unknown): boolean {
  return error instanceof Error && "code" in error &&
    (error.code === "ENOENT" || error.code === "ENOTDIR" || error.code === "EACCES");
}

/** @throws {CredentialsError} naming the field that is missing, never a value. */
function parseCredentials(json: unknown, origin: string): GoogleCredentials {
  if (!isRecord(json)) throw new CredentialsError("denied", `${origin}, holds no JSON object`);
  const optional = (name: string): string | undefined => {
    const value = json[name];
    return typeof value === "string" && value !== "" ? value : undefined;
  };
  const required = (name: string): string => {
    const value = optional(name);
    if (value === undefined) {
      throw new CredentialsError("denied", `${origin}, has no "${name}"`);
    }
    return value;
  };
  const type = required("type");
  switch (type) {
    case "service_account":
      return {
        kind: "service-account",
        clientEmail: required("client_email"),
        privateKey: required("private_key"),
        privateKeyId: optional("private_key_id"),
        tokenUri: optional("token_uri") ?? TOKEN_URI,
        project: optional("project_id"),
      };
    case "authorized_user":
      return {
        kind: "authorized-user",
        clientId: required("client_id"),
        clientSecret: required("client_secret"),
        refreshToken: required("refresh_token"),
        tokenUri: optional("token_uri") ?? TOKEN_URI,
      };
    case "impersonated_service_account": {
      const delegates = json["delegates"];
      return {
        kind: "impersonation",
        url: required("service_account_impersonation_url"),
        delegates: Array.isArray(delegates)
          ? delegates.filter((one) => typeof one === "string")
          : [],
        source: parseCredentials(json["source_credentials"], `source_credentials in ${origin}`),
      };
    }
    case "external_account":
    case "external_account_authorized_user":
      return { kind: "federated", json };
  }
  throw new CredentialsError(
    "denied",
    `${origin}, has the type "${type}", which is not known here`,
  );
}

export function isRecord(value: unknown): value is Record<string, unknown> {
  return typeof value === "object" && value !== null && !Array.isArray(value);
}
