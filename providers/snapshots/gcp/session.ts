/** Compute Engine's API (v1), and its operations. */
import { randomUUID } from "node:crypto";
import { requestsCaBundle } from "../../certificates.ts";
import { CredentialsError } from "../../gcs/credentials.ts";
import { createTokenSource } from "../../gcs/token.ts";
import { createHttpHandler } from "../../s3/http_handler.ts";
import { proxyChoice } from "../../s3/proxy.ts";
import type { StoreOptions } from "../../open.ts";
import { SnapshotError } from "../provider.ts";
import {
  type Call,
  createJsonClient,
  type JsonRecord,
  listOf,
  numberAt,
  recordOf,
  textAt,
} from "../rest.ts";
import { lookUntil, PAUSES, type Pauses } from "../waiting.ts";

export interface GcpOptions {
  readonly env: StoreOptions["env"];
  readonly project: string;
  readonly zone: string | undefined;
  readonly readTimeout?: number | undefined;
  readonly onNotice?: ((message: string) => void) | undefined;
  readonly pauses?: Pauses | undefined;
}

/** What to do while an operation goes on, and how long it may. */
export interface Watch {
  readonly onProgress?: ((percent: number) => void) | undefined;
  readonly onWarning: (message: string) => void;
  /** Milliseconds, and what to say then. */
  readonly limit: { readonly ms: number; readonly message: string };
}

export interface GcpSession {
  readonly pauses: Pauses;
  /** @param path below the API's version: `projects/p/zones/z/disks/d` */
  get(call: Call, path: string): Promise<JsonRecord>;
  /** Begin something; sent twice it is done once. @returns the operation */
  begin(
    call: Call,
    method: "POST" | "DELETE",
    path: string,
    query: Readonly<Record<string, string>>,
    body?: unknown,
  ): Promise<JsonRecord>;
  /**
   * Wait for the end of an operation.
   * @param scope where it is: `projects/p/global` or `projects/p/zones/z`
   * @throws {SnapshotError} kind `failed` with the operation's error
   */
  finish(call: Call, scope: string, operation: JsonRecord, watch: Watch): Promise<void>;
  close(): void;
}

const TIMEOUT_S = 60;
const SCOPE = "https://www.googleapis.com/auth/compute";

/** @throws {SnapshotError} kind `invalid` for an endpoint that can't be right */
export async function openGcpSession(options: GcpOptions): Promise<GcpSession> {
  const { env } = options;
  const ca = await requestsCaBundle(env);
  const endpoint = endpointOf(env);
  const handler = createHttpHandler({
    connectTimeout: TIMEOUT_S * 1000,
    readTimeout: (options.readTimeout ?? TIMEOUT_S) * 1000,
    ca,
    proxyFor: proxyChoice(env),
  });
  const tokens = createTokenSource({ env, handler, scope: SCOPE });
  const pauses = options.pauses ?? PAUSES;
  const client = createJsonClient({
    handler,
    authorization: (signal) => tokens.authorization(signal),
    tokenProblem: (error) =>
      error instanceof CredentialsError
        ? {
          kind: error.kind === "denied" ? "denied" : "unreachable",
          retryable: error.kind === "unavailable",
        }
        : undefined,
    where: `project ${options.project} of Compute Engine`,
    pauses,
    onNotice: options.onNotice,
  });
  const get = async (call: Call, path: string) =>
    (await client.send(call, { method: "GET", url: `${endpoint}/${path}` })).body;
  return {
    pauses,
    get,
    async begin(call, method, path, query, body) {
      const url = new URL(`${endpoint}/${path}`);
      for (const [name, value] of Object.entries(query)) url.searchParams.set(name, value);
      // By this Google knows a request that it has got before.
      url.searchParams.set("requestId", randomUUID());
      return (await client.send(call, { method, url: url.href, body })).body;
    },
    async finish(call, scope, operation, { onProgress, onWarning, limit }) {
      const name = textAt(operation, "name");
      let latest = operation;
      await lookUntil(async () => {
        if (textAt(latest, "status") === "DONE") return true;
        onProgress?.(numberAt(latest, "progress") ?? 0);
        latest = await get(call, `${scope}/operations/${name}`);
        return textAt(latest, "status") === "DONE" || undefined;
      }, { pauses, signal: call.signal, limit });
      for (const warning of listOf(latest["warnings"]).map(recordOf)) {
        onWarning(`Google says of "${call.action}": ${describe(warning)}`);
      }
      const errors = listOf(recordOf(latest["error"])["errors"]).map(recordOf);
      if (errors.length === 0) return;
      throw new SnapshotError(
        "failed",
        `Cannot ${call.action}: ${errors.map(describe).join("; ")}`,
        {
          code: textAt(errors[0] ?? {}, "code") ?? undefined,
        },
      );
    },
    close() {
      handler.destroy();
      tokens.close();
    },
  };
}

function describe(problem: JsonRecord): string {
  return [textAt(problem, "code"), textAt(problem, "message")].filter((text) => text !== null)
    .join(": ").replace(/\s+/g, " ").trim() || "no reason is given";
}

/** gcloud's variable for another address of the API. */
const OVERRIDE = "CLOUDSDK_API_ENDPOINT_OVERRIDES_COMPUTE";

function endpointOf(env: GcpOptions["env"]): string {
  const override = env[OVERRIDE]?.trim();
  if (!override) {
    const universe = env["GOOGLE_CLOUD_UNIVERSE_DOMAIN"]?.trim() || "googleapis.com";
    return `https://compute.${universe}/compute/v1`;
  }
  if (!/^https?:\/\/[^/]/i.test(override) || !URL.canParse(override)) {
    throw new SnapshotError(
      "invalid",
      `Cannot use ${override} (${OVERRIDE}): write https://HOST/compute/v1/`,
    );
  }
  return override.replace(/\/+$/, "");
}
