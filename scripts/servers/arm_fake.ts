/**
 * A small Azure Resource Manager in memory, for tests of disk snapshots: what Microsoft's public REST reference says
 * about virtual machines, managed disks, snapshots and asynchronous operations, as far as backups need it. It also
 * gives tokens of a managed identity, as App Service does.
 *
 * - https://learn.microsoft.com/rest/api/compute/snapshots, …/disks, …/virtual-machines
 * - https://learn.microsoft.com/azure/azure-resource-manager/management/async-operations
 * - https://learn.microsoft.com/azure/app-service/overview-managed-identity (REST endpoint)
 */
import { once } from "node:events";
import http from "node:http";

type Json = Record<string, unknown>;

export interface FakeResource {
  readonly id: string;
  readonly name: string;
  location: string;
  zones: string[] | undefined;
  tags: Record<string, string>;
  sku: Json | undefined;
  properties: Json;
}

/** How a kind of request goes. */
export interface ArmBehaviour {
  /** Looks until an operation is over; 1 when not set. */
  looks?: number;
  /** How the operation fails in the end. */
  failure?: { readonly code: string; readonly message: string };
  /** Refused at once. */
  refusal?: { readonly status: number; readonly code: string; readonly message: string };
  /** Only a Location tells of its end, no Azure-AsyncOperation. */
  onlyLocation?: boolean;
  /** No header tells of its end: the resource's provisioningState does. */
  noHeaders?: boolean;
  /** Nobody knows the operation when it is looked at. */
  forgotten?: boolean;
  /** Percentages of the background copy, one a look at the resource. */
  completion?: number[];
  /** It is done and the connection is cut instead of an answer; so many times. */
  lost?: number;
  /** So many times it is answered 429. */
  throttled?: number;
  /** Header of every answer; none when not set. */
  retryAfter?: string;
}

export interface ArmFake extends AsyncDisposable {
  readonly endpoint: string;
  /** The environment of a managed identity. */
  readonly env: Readonly<Record<string, string>>;
  readonly subscription: string;
  readonly machines: Map<string, FakeResource>;
  readonly disks: Map<string, FakeResource>;
  readonly snapshots: Map<string, FakeResource>;
  readonly calls: { readonly method: string; readonly path: string; readonly body: unknown }[];
  /** By `PUT snapshots`, `DELETE disks`, `POST attachDetachDataDisks`. */
  readonly behaviour: Map<string, ArmBehaviour>;
  addMachine(
    group: string,
    name: string,
    more?: { zones?: string[]; bootDiskType?: string },
  ): FakeResource;
  addDisk(machine: FakeResource, name: string, lun: number, more?: Json): FakeResource;
}

export const SUBSCRIPTION = "00000000-1111-2222-3333-444444444444";
export const TOKEN = "token-of-the-managed-identity";

interface Operation {
  readonly behaviour: ArmBehaviour;
  looks: number;
  /** Called when it is over, once. */
  finish: () => void;
  readonly isDelete: boolean;
}

class Refused extends Error {
  constructor(readonly status: number, readonly code: string, message: string) {
    super(message);
  }
}

export async function startArmFake(): Promise<ArmFake> {
  const operations = new Map<string, Operation>();
  const server = http.createServer((request, response) => {
    serve(fake, operations, request, response).catch((error) => {
      if (!(error instanceof Refused) || response.destroyed) return response.destroy();
      send(response, error.status, { error: { code: error.code, message: error.message } });
    });
  });
  server.listen(0, "127.0.0.1");
  await once(server, "listening");
  const address = server.address();
  if (address === null || typeof address === "string") throw new Error("The fake has no port");
  const endpoint = `http://127.0.0.1:${address.port}`;
  const resource = (group: string, kind: string, name: string): FakeResource => ({
    id: `/subscriptions/${SUBSCRIPTION}/resourceGroups/${group}/providers/Microsoft.Compute/` +
      `${kind}/${name}`,
    name,
    location: "uksouth",
    zones: undefined,
    tags: {},
    sku: { name: "Premium_LRS" },
    properties: { provisioningState: "Succeeded" },
  });
  const fake: ArmFake = {
    endpoint,
    env: {
      AZURE_RESOURCE_MANAGER_ENDPOINT: endpoint,
      IDENTITY_ENDPOINT: `${endpoint}/msi/token`,
      IDENTITY_HEADER: "secret-of-the-host",
    },
    subscription: SUBSCRIPTION,
    machines: new Map(),
    disks: new Map(),
    snapshots: new Map(),
    calls: [],
    behaviour: new Map(),
    addMachine(group, name, { zones, bootDiskType = "Premium_LRS" } = {}) {
      const machine = resource(group, "virtualMachines", name);
      machine.zones = zones;
      machine.properties["storageProfile"] = {
        osDisk: {
          name: `${name}_OsDisk`,
          managedDisk: { storageAccountType: bootDiskType, id: "/os" },
        },
        dataDisks: [],
      };
      fake.machines.set(key(machine.id), machine);
      return machine;
    },
    addDisk(machine, name, lun, more = {}) {
      const disk = resource(groupOf(machine.id), "disks", name);
      disk.properties = {
        provisioningState: "Succeeded",
        diskSizeGB: 100,
        creationData: { createOption: "Empty" },
        ...more,
      };
      fake.disks.set(key(disk.id), disk);
      dataDisksOf(machine).push({ lun, name, managedDisk: { id: disk.id } });
      return disk;
    },
    async [Symbol.asyncDispose]() {
      const closed = once(server, "close");
      server.close();
      server.closeAllConnections();
      await closed;
    },
  };
  return fake;
}

async function serve(
  fake: ArmFake,
  operations: Map<string, Operation>,
  request: http.IncomingMessage,
  response: http.ServerResponse,
): Promise<void> {
  let text = "";
  for await (const chunk of request) text += chunk;
  const url = new URL(request.url ?? "", fake.endpoint);
  const path = decodeURIComponent(url.pathname);
  const { method = "" } = request;
  if (path === "/msi/token") return identity(url, request, response);
  if (request.headers.authorization !== `Bearer ${TOKEN}`) {
    throw new Refused(401, "InvalidAuthenticationToken", "The access token is invalid.");
  }
  const [, operationId] =
    /^\/subscriptions\/[^/]+\/providers\/Microsoft\.Compute\/locations\/[^/]+\/operations\/(.+)$/
      .exec(path) ?? [];
  if (operationId !== undefined) return lookAt(operations, operationId, url, response);
  if (!/^\d{4}-\d\d-\d\d$/.test(url.searchParams.get("api-version") ?? "")) {
    throw new Refused(
      400,
      "MissingApiVersionParameter",
      "The api-version query parameter (?api-version=) is required for all requests.",
    );
  }
  const body: unknown = text === "" ? undefined : JSON.parse(text);
  fake.calls.push({ method, path, body });
  const [, subscription = "", kind = "", name = "", action] =
    /^\/subscriptions\/([^/]+)\/resourceGroups\/[^/]+\/providers\/Microsoft\.Compute\/([^/]+)\/([^/]+)(?:\/([^/]+))?$/i
      .exec(path) ?? [];
  if (subscription !== fake.subscription) {
    throw new Refused(
      404,
      "SubscriptionNotFound",
      `The subscription '${subscription}' could not be found.`,
    );
  }
  const group = groupOf(path);
  if (![...fake.machines.values()].some(({ id }) => key(groupOf(id)) === key(group))) {
    throw new Refused(
      404,
      "ResourceGroupNotFound",
      `Resource group '${group}' could not be found.`,
    );
  }
  const behaviour = fake.behaviour.get(`${method} ${action ?? kind}`) ?? {};
  if (behaviour.refusal !== undefined) {
    const { status, code, message } = behaviour.refusal;
    throw new Refused(status, code, message);
  }
  if ((behaviour.throttled ?? 0) > 0) {
    behaviour.throttled = (behaviour.throttled ?? 0) - 1;
    response.setHeader("retry-after", "0");
    throw new Refused(429, "TooManyRequests", "The request is being throttled.");
  }
  const begin = (finish: () => void, answer: unknown) => {
    if ((behaviour.lost ?? 0) > 0) {
      behaviour.lost = (behaviour.lost ?? 0) - 1;
      finish();
      return void response.destroy();
    }
    const id = crypto.randomUUID();
    operations.set(id, { behaviour, looks: 0, finish, isDelete: method === "DELETE" });
    const monitor = `https://management.azure.com/subscriptions/${fake.subscription}/providers/` +
      `Microsoft.Compute/locations/uksouth/operations/${id}?p=1&api-version=2024-03-02`;
    if (behaviour.noHeaders) finish();
    else {
      if (!behaviour.onlyLocation) response.setHeader("azure-asyncoperation", monitor);
      response.setHeader("location", `${monitor}&monitor=true`);
    }
    if (behaviour.retryAfter !== undefined) response.setHeader("retry-after", behaviour.retryAfter);
    send(response, 202, answer);
  };
  const [table, label] = kind.toLowerCase() === "virtualmachines"
    ? [fake.machines, "virtualMachines"]
    : kind.toLowerCase() === "disks"
    ? [fake.disks, "disks"]
    : [fake.snapshots, "snapshots"];
  const known = table.get(key(action === undefined ? path : path.slice(0, -action.length - 1)));
  if (method === "PUT") return put(fake, table, path, name, body as Json, behaviour, begin);
  if (known === undefined) {
    if (method === "DELETE") return void response.writeHead(204).end();
    throw new Refused(
      404,
      "ResourceNotFound",
      `The Resource 'Microsoft.Compute/${label}/${name}' under resource group was not found.`,
    );
  }
  if (method === "GET") return send(response, 200, look(known));
  if (method === "POST" && action === "attachDetachDataDisks") {
    return attach(fake, known, body as Json, begin);
  }
  if (method === "DELETE") {
    if (table === fake.disks && isAttached(fake, known.id)) {
      throw new Refused(409, "OperationNotAllowed", `Disk ${name} is attached to a VM.`);
    }
    return begin(() => table.delete(key(known.id)), undefined);
  }
  throw new Refused(405, "MethodNotAllowed", "No such method");
}

function put(
  fake: ArmFake,
  table: Map<string, FakeResource>,
  path: string,
  name: string,
  body: Json,
  behaviour: ArmBehaviour,
  begin: (finish: () => void, answer: unknown) => void,
): void {
  const properties = record(body["properties"]);
  const creation = record(properties["creationData"]);
  const source = String(creation["sourceResourceId"] ?? creation["sourceUri"] ?? "");
  if (typeof body["location"] !== "string") {
    throw new Refused(400, "LocationRequired", "The location property is required.");
  }
  if (!/^[A-Za-z0-9_][\w.-]{0,79}$/.test(name)) {
    throw new Refused(400, "InvalidParameter", `The entity name '${name}' is invalid.`);
  }
  const from = fake.snapshots.get(key(source)) ?? fake.disks.get(key(source));
  if (creation["createOption"] !== "Copy" || from === undefined) {
    throw new Refused(404, "NotFound", `${source} is not found.`);
  }
  const sectors = sectorsOf(fake, from);
  const sku = String(record(body["sku"])["name"] ?? "");
  if (table === fake.disks && sectors === 4096 && !WITH_LARGE_SECTORS.test(sku)) {
    throw new Refused(
      400,
      "BadRequest",
      `A disk of type ${sku} can't be made from a snapshot with a logical sector size of 4096.`,
    );
  }
  if (/_ZRS$/.test(sku) && body["zones"] !== undefined) {
    throw new Refused(400, "BadRequest", `Zones can't be specified for a disk of type ${sku}.`);
  }
  const resource: FakeResource = {
    id: path,
    name,
    location: body["location"],
    zones: body["zones"] as string[] | undefined,
    tags: (body["tags"] ?? {}) as Record<string, string>,
    sku: body["sku"] as Json | undefined,
    properties: {
      ...properties,
      creationData: {
        ...creation,
        ...(sectors === undefined ? {} : { logicalSectorSize: sectors }),
      },
      diskSizeGB: from.properties["diskSizeGB"] ?? 100,
      provisioningState: "Updating",
    },
  };
  const completion = behaviour.completion;
  if (completion !== undefined) resource.properties["completionPercents"] = [...completion];
  table.set(key(path), resource);
  begin(() => {
    resource.properties["provisioningState"] = "Succeeded";
    if (behaviour.failure !== undefined) table.delete(key(path));
  }, { ...resource, properties: { ...properties, provisioningState: "Updating" } });
}

const WITH_LARGE_SECTORS = /^(UltraSSD_LRS|PremiumV2_LRS)$/;

/** Snapshots have the logical sector size of their disk, which only disks of two types tell. */
function sectorsOf(fake: ArmFake, { id, sku, properties }: FakeResource): number | undefined {
  const told = record(properties["creationData"])["logicalSectorSize"];
  if (typeof told === "number") return told;
  const isLarge = fake.disks.has(key(id)) && WITH_LARGE_SECTORS.test(String(sku?.["name"]));
  return isLarge ? 4096 : undefined;
}

function attach(
  fake: ArmFake,
  machine: FakeResource,
  body: Json,
  begin: (finish: () => void, answer: unknown) => void,
): void {
  const wanted = (body["dataDisksToAttach"] as Json[]).map(({ diskId, lun }) => {
    const disk = fake.disks.get(key(String(diskId)));
    if (disk === undefined) throw new Refused(404, "NotFound", `Disk ${diskId} is not found.`);
    if (!Number.isInteger(lun)) {
      throw new Refused(400, "InvalidParameter", "Required parameter 'lun' is no integer.");
    }
    if (dataDisksOf(machine).some((it) => it["lun"] === lun)) {
      throw new Refused(409, "AttachDiskWhileBeingDetached", `LUN ${lun} is in use.`);
    }
    return { lun, name: disk.name, managedDisk: { id: disk.id } };
  });
  begin(() => void dataDisksOf(machine).push(...wanted), undefined);
}

function isAttached(fake: ArmFake, id: string): boolean {
  return [...fake.machines.values()].some((machine) =>
    dataDisksOf(machine).some((disk) => key(String(record(disk["managedDisk"])["id"])) === key(id))
  );
}

/** A resource as GET shows it. */
function look(resource: FakeResource): unknown {
  const { completionPercents, ...properties } = resource.properties;
  const left = completionPercents as number[] | undefined;
  const completionPercent = left?.shift();
  return {
    ...resource,
    properties: completionPercent === undefined ? properties : { ...properties, completionPercent },
  };
}

function lookAt(
  operations: Map<string, Operation>,
  id: string,
  url: URL,
  response: http.ServerResponse,
): void {
  const operation = operations.get(id);
  if (operation === undefined) throw new Refused(404, "NotFound", "No such operation.");
  if (operation.behaviour.forgotten) {
    throw new Refused(404, "OperationNotFound", "It is forgotten.");
  }
  operation.looks++;
  const { behaviour, looks, isDelete } = operation;
  const isDone = looks >= (behaviour.looks ?? 1);
  if (isDone) {
    operation.finish();
    operation.finish = () => {};
  }
  if (behaviour.retryAfter !== undefined) response.setHeader("retry-after", behaviour.retryAfter);
  if (url.searchParams.get("monitor") === "true") {
    if (!isDone) return send(response, 202, undefined);
    if (behaviour.failure !== undefined) {
      throw new Refused(409, behaviour.failure.code, behaviour.failure.message);
    }
    return send(response, isDelete ? 204 : 200, isDelete ? undefined : {});
  }
  const percentComplete = Math.floor(100 * looks / (behaviour.looks ?? 1));
  if (!isDone) return send(response, 200, { name: id, status: "InProgress", percentComplete });
  if (behaviour.failure === undefined) {
    return send(response, 200, { name: id, status: "Succeeded", percentComplete: 100 });
  }
  send(response, 200, { name: id, status: "Failed", error: behaviour.failure });
}

function identity(url: URL, request: http.IncomingMessage, response: http.ServerResponse): void {
  if (request.headers["x-identity-header"] !== "secret-of-the-host") {
    return send(response, 401, { error: "unauthorized" });
  }
  const resource = url.searchParams.get("resource") ?? "";
  if (
    !/^https:\/\/management\.(azure\.com|chinacloudapi\.cn|usgovcloudapi\.net)\/?$/.test(resource)
  ) {
    return send(response, 400, { error: "invalid_resource" });
  }
  send(response, 200, {
    access_token: TOKEN,
    expires_on: String(Math.floor(Date.now() / 1000) + 3600),
    resource,
    token_type: "Bearer",
  });
}

function send(response: http.ServerResponse, status: number, body: unknown): void {
  response.writeHead(status, { "content-type": "application/json; charset=utf-8" });
  response.end(body === undefined ? "" : JSON.stringify(body));
}

function dataDisksOf(machine: FakeResource): Json[] {
  return record(machine.properties["storageProfile"])["dataDisks"] as Json[];
}

function groupOf(id: string): string {
  return /\/resourceGroups\/([^/]+)/i.exec(id)?.[1] ?? "";
}

/** Names and groups don't care about case. */
function key(id: string): string {
  return id.toLowerCase();
}

function record(value: unknown): Json {
  return typeof value === "object" && value !== null ? value as Json : {};
}
