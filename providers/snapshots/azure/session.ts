/** Azure Resource Manager's API, and its long-running operations. */
import { requestsCaBundle } from "../../certificates.ts";
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
import { lookUntil, PAUSES, type Pauses, sleep } from "../waiting.ts";

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
  /** For messages. */
  readonly where: string;
  readonly pauses: Pauses;
  /** `/subscriptions/S/resourceGroups/G/providers/Microsoft.Compute` */
  readonly compute: string;
  /** @param id of the resource: `/subscriptions/…`, as Azure writes it: nothing in it is encoded */
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
  finish(call: LimitedCall, answer: JsonAnswer, onProgress?: OnProgress): Promise<void>;
  /**
   * `finish` for a resource that was put: it must be there and whole in the end.
   * @throws {SnapshotError} kind `failed` when it is not
   */
  finishPut(
    call: LimitedCall,
    id: string,
    answer: JsonAnswer,
    onProgress?: OnProgress,
  ): Promise<void>;
  close(): void;
}

export interface LimitedCall extends Call {
  /** Milliseconds that it may take in all, and what to say then. */
  readonly limit: { readonly ms: number; readonly message: string };
}

type OnProgress = (percent: number) => void;

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
    ca: await requestsCaBundle(env),
    proxyFor: proxyChoice(env),
  });
  const where = `resource group ${resourceGroup} of Azure`;
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
    where,
    pauses,
    onNotice: options.onNotice,
  });
  const urlOf = (id: string) => {
    const version = /\/virtualMachines\//i.test(id) ? VM_VERSION : DISK_VERSION;
    const path = id.split("/").map(encodeURIComponent).join("/");
    return `${endpoint}${path}?api-version=${version}`;
  };
  const get = async (call: Call, id: string) =>
    (await client.send(call, { method: "GET", url: urlOf(id) })).body;

  /** The pause that Azure asks for, in milliseconds. */
  const asked = ({ headers }: JsonAnswer): number | undefined => {
    const wait = waitOf(headers["retry-after"]);
    return wait === undefined ? undefined : Math.min(Math.max(wait, pauses.first), pauses.longest);
  };

  /** https://learn.microsoft.com/azure/azure-resource-manager/management/async-operations */
  const finish: AzureSession["finish"] = async (call, answer, onProgress) => {
    // The first of these tells most; a Location only tells when it is over.
    const status = answer.headers["azure-asyncoperation"];
    const address = status ?? answer.headers["location"];
    if (address === undefined) return;
    const url = ours(endpoint, address);
    await sleep(asked(answer) ?? pauses.first, call.signal);
    await lookUntil(async () => {
      const now = await client.send(call, { method: "GET", url });
      if (status === undefined) return now.status !== 202 || asked(now);
      onProgress?.(numberAt(now.body, "percentComplete") ?? 0);
      const state = textAt(now.body, "status")?.toLowerCase();
      if (state === "failed" || state === "canceled") throw failed(call, now.body);
      return state === "succeeded" || asked(now);
    }, { pauses, signal: call.signal, limit: call.limit });
  };

  return {
    where,
    pauses,
    compute: computeOf(subscriptionId, resourceGroup),
    get,
    begin: (call, method, id, body) => client.send(call, { method, url: urlOf(id), body }),
    finish,
    async finishPut(call, id, answer, onProgress) {
      await finish(call, answer, onProgress);
      await lookUntil(async () => {
        const properties = recordOf((await get(call, id))["properties"]);
        const state = textAt(properties, "provisioningState") ?? "";
        const problem = recordOf(properties["copyCompletionError"]);
        if (/^(failed|canceled)$/i.test(state) || textAt(problem, "errorCode") !== null) {
          const told = [`its state is ${state}`, textAt(problem, "errorMessage")];
          throw new SnapshotError(
            "failed",
            `Cannot ${call.action}: ${told.filter(Boolean).join(", ")}`,
          );
        }
        // Snapshots of Ultra and Premium v2 disks are filled in the background.
        const percent = numberAt(properties, "completionPercent") ?? 100;
        onProgress?.(percent);
        return /^succeeded$/i.test(state) && percent >= 100 || undefined;
      }, { pauses, signal: call.signal, limit: call.limit });
    },
    close: () => handler.destroy(),
  };
}

/**
 * The beginning of ids.
 * @throws {SnapshotError} kind `invalid` for what can be no name
 */
export function computeOf(subscriptionId: string, resourceGroup: string): string {
  return `/subscriptions/${checkedName(subscriptionId)}/resourceGroups/` +
    `${checkedName(resourceGroup)}/providers/Microsoft.Compute`;
}

/**
 * The id of a resource.
 * @param compute what `computeOf` returns
 * @throws {SnapshotError} kind `invalid` for what can be no name
 */
export function resourceId(
  compute: string,
  kind: "disks" | "snapshots" | "virtualMachines",
  name: string,
): string {
  return `${compute}/${kind}/${checkedName(name)}`;
}

/** A slash, or dots, would lead to another resource. */
function checkedName(name: string): string {
  if (!/\/|^\.*$/.test(name)) return name;
  throw new SnapshotError(
    "invalid",
    name === ""
      ? "Cannot tell where in Azure: the subscription, the resource group or a name is empty; look at the options and " +
        "at the snapshots in backup.info"
      : `Cannot use "${name}" as a name in Azure: give the name alone, without slashes`,
  );
}

function failed(call: Call, body: JsonRecord): SnapshotError {
  const error = recordOf(body["error"]);
  const code = textAt(error, "code");
  const told = [textAt(body, "status"), code, textAt(error, "message")].filter(Boolean).join(", ");
  return new SnapshotError("failed", `Cannot ${call.action}: ${told.replace(/\s+/g, " ")}`, {
    code: code ?? undefined,
  });
}

/** The path of an address that Azure tells, at the endpoint that we use: our token goes nowhere else. */
function ours(endpoint: string, address: string): string {
  const { pathname, search } = new URL(address, endpoint);
  return `${endpoint}${pathname}${search}`;
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
