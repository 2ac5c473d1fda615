/** Azure Resource Manager's API, and its long-running operations. */
import { certificateAuthorities } from "../../azure/config.ts";
import { type TokenCredential, tokenCredential, TokenError } from "../../azure/token.ts";
import { parseAzureUrl } from "../../azure/url.ts";
import type { StoreOptions } from "../../open.ts";
import { createHttpHandler } from "../../s3/http_handler.ts";
import { proxyChoice } from "../../s3/proxy.ts";
import { SnapshotError } from "../provider.ts";
import {
  type Call,
  createJsonClient,
  type JsonAnswer,
  type JsonRecord,
  numberAt,
  recordOf,
  textAt,
  waitOf,
} from "../rest.ts";
import { lookUntil, PAUSES, type Pauses } from "../waiting.ts";

export interface AzureOptions {
  readonly env: StoreOptions["env"];
  readonly credential: StoreOptions["azureCredential"];
  readonly subscriptionId: string;
  /** Of the instance; new snapshots and disks go there. */
  readonly resourceGroup: string;
  /** Of the snapshots that disks are made from; that of the instance when absent. */
  readonly snapshotResourceGroup?: string | undefined;
  /** Of the object store: it tells which of Azure's clouds it is. */
  readonly storeUrl: string;
  readonly readTimeout?: number | undefined;
  readonly onNotice?: ((message: string) => void) | undefined;
  readonly pauses?: Pauses | undefined;
  /** Instead of Azure's identities; tests give their own. */
  readonly tokens?: TokenCredential | undefined;
}

export interface AzureSession {
  readonly description: string;
  readonly pauses: Pauses;
  /** `/subscriptions/S/resourceGroups/G/providers/Microsoft.Compute` */
  readonly compute: string;
  /** @param id of the resource: `/subscriptions/…` */
  get(call: Call, id: string): Promise<JsonRecord>;
  /** Begin something that goes on after the answer. Sent twice it is done once. */
  begin(
    call: Call,
    method: "PUT" | "POST" | "DELETE",
    id: string,
    body?: unknown,
  ): Promise<JsonAnswer>;
  /**
   * Wait for the end of what `begin` began.
   * @throws {SnapshotError} kind `failed` with the operation's error
   */
  finish(call: Call, answer: JsonAnswer, onProgress?: (percent: number) => void): Promise<void>;
  close(): void;
}

const TIMEOUT_S = 60;
/** https://learn.microsoft.com/rest/api/compute: snapshots and disks have versions of their own. */
const DISK_VERSION = "2024-03-02";
const VM_VERSION = "2024-07-01";

/** Where identities are checked → the cloud's resource manager. */
const MANAGERS: Readonly<Record<string, string>> = {
  "https://login.microsoftonline.com": "https://management.azure.com",
  "https://login.chinacloudapi.cn": "https://management.chinacloudapi.cn",
  "https://login.microsoftonline.us": "https://management.usgovcloudapi.net",
  "https://login.microsoftonline.de": "https://management.microsoftazure.de",
};

/** @throws {SnapshotError} kind `invalid` for an endpoint that can't be right */
export async function openAzureSession(options: AzureOptions): Promise<AzureSession> {
  const { env, subscriptionId, resourceGroup } = options;
  const { authorityHost = "https://login.microsoftonline.com" } = parseAzureUrl(options.storeUrl);
  const manager = MANAGERS[authorityHost] ?? "https://management.azure.com";
  const endpoint = endpointOf(env) ?? manager;
  const handler = createHttpHandler({
    connectTimeout: TIMEOUT_S * 1000,
    readTimeout: (options.readTimeout ?? TIMEOUT_S) * 1000,
    ca: await certificateAuthorities(env),
    proxyFor: proxyChoice(env),
  });
  const choice = options.credential ?? "default";
  const tokens = options.tokens ?? tokenCredential({ choice, authorityHost, env });
  const pauses = options.pauses ?? PAUSES;
  const client = createJsonClient({
    handler,
    authorization: async (signal) => {
      const { token } = await tokens.getToken(`${manager}/.default`, { abortSignal: signal });
      return `Bearer ${token}`;
    },
    tokenProblem: (error) =>
      error instanceof TokenError ? { kind: "denied", retryable: error.retryable } : undefined,
    where: `resource group ${resourceGroup} of Azure`,
    pauses,
    onNotice: options.onNotice,
  });
  const urlOf = (id: string) => {
    const version = /\/virtualMachines\//i.test(id) ? VM_VERSION : DISK_VERSION;
    return `${endpoint}${id}?api-version=${version}`;
  };
  return {
    description: `managed disks in resource group ${resourceGroup}`,
    pauses,
    compute: computeOf(subscriptionId, resourceGroup),
    get: async (call, id) => (await client.send(call, { method: "GET", url: urlOf(id) })).body,
    begin: (call, method, id, body) => client.send(call, { method, url: urlOf(id), body }),
    async finish(call, answer, onProgress) {
      // The first of these tells most; a Location only tells when it is over.
      const status = ownUrl(endpoint, answer.headers["azure-asyncoperation"]);
      const location = ownUrl(endpoint, answer.headers["location"]);
      const url = status ?? location;
      if (url === undefined || !(answer.status === 201 || answer.status === 202)) return;
      let first = waitOf(answer.headers["retry-after"]);
      await lookUntil(async () => {
        const before = first;
        first = undefined;
        if (before !== undefined && before > 0) return Math.min(before, pauses.longest);
        const now = await client.send(call, { method: "GET", url });
        const wait = waitOf(now.headers["retry-after"]);
        const again = wait === undefined ? undefined : Math.min(wait, pauses.longest);
        if (status === undefined) return now.status === 202 ? again : true;
        onProgress?.(numberAt(now.body, "percentComplete") ?? 0);
        switch (textAt(now.body, "status")?.toLowerCase()) {
          case "succeeded":
            return true;
          case "failed":
          case "canceled":
            throw failed(call, now.body);
          default:
            return again;
        }
      }, { pauses, signal: call.signal });
    },
    close: () => handler.destroy(),
  };
}

export function computeOf(subscriptionId: string, resourceGroup: string): string {
  return `/subscriptions/${encodeURIComponent(subscriptionId)}/resourceGroups/` +
    `${encodeURIComponent(resourceGroup)}/providers/Microsoft.Compute`;
}

function failed(call: Call, body: JsonRecord): SnapshotError {
  const error = recordOf(body["error"]);
  const code = textAt(error, "code");
  const told = [textAt(body, "status"), code, textAt(error, "message")].filter(Boolean).join(", ");
  return new SnapshotError("failed", `Cannot ${call.action}: ${told.replace(/\s+/g, " ")}`, {
    code: code ?? undefined,
  });
}

/** The token goes nowhere else. */
function ownUrl(endpoint: string, url: string | undefined): string | undefined {
  if (url === undefined || !URL.canParse(url)) return undefined;
  return new URL(url).origin === new URL(endpoint).origin ? url : undefined;
}

/** Ours: an address of the resource manager that no cloud of Azure's has, such as a private link or Azure Stack. */
const OVERRIDE = "AZURE_RESOURCE_MANAGER_ENDPOINT";

function endpointOf(env: AzureOptions["env"]): string | undefined {
  const override = env[OVERRIDE]?.trim();
  if (!override) return undefined;
  if (!/^https?:\/\/[^/]/i.test(override) || !URL.canParse(override)) {
    throw new SnapshotError("invalid", `Cannot use ${override} (${OVERRIDE}): write https://HOST`);
  }
  return override.replace(/\/+$/, "");
}
