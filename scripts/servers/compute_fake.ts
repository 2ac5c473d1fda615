/**
 * A small Compute Engine in memory, for tests of disk snapshots: what Google's public reference of the API (v1) says
 * about instances, disks, snapshots and operations, as far as backups need it. It also gives access tokens to a
 * service account.
 *
 * - https://cloud.google.com/compute/docs/reference/rest/v1/snapshots, …/disks, …/instances
 * - https://cloud.google.com/compute/docs/reference/rest/v1/globalOperations, …/zoneOperations
 * - https://developers.google.com/identity/protocols/oauth2/service-account
 */
import { generateKeyPairSync } from "node:crypto";
import { once } from "node:events";
import http from "node:http";

type Json = Record<string, unknown>;

export interface FakeDisk {
  readonly name: string;
  readonly zone: string;
  /** Of a regional disk. */
  region?: string;
  readonly sizeGb: string;
  readonly type: string;
  readonly sourceSnapshot: string | undefined;
  readonly labels: Record<string, string>;
}

export interface FakeSnapshot {
  readonly name: string;
  readonly sourceDisk: string;
  readonly description: string;
  readonly labels: Record<string, string>;
  isReady: boolean;
}

export interface FakeInstance {
  readonly name: string;
  readonly zone: string;
  readonly disks: { readonly deviceName: string; readonly disk: string; readonly boot: boolean }[];
}

/** How a kind of request goes. */
export interface ComputeBehaviour {
  /** Looks until the operation is done; 1 when not set. */
  looks?: number;
  /** How the operation fails in the end. */
  failure?: { readonly code: string; readonly message: string };
  readonly warning?: { readonly code: string; readonly message: string };
  /** Nobody knows the operation when it is looked at. */
  forgotten?: boolean;
  /** Refused at once. */
  refusal?: {
    readonly status: number;
    readonly reason: string;
    /** Told as google.rpc.ErrorInfo only. */
    readonly inDetails?: boolean;
  };
  /** Refused when it sets labels, as without compute.snapshots.setLabels. */
  noLabels?: boolean;
  /** It is done and the connection is cut instead of an answer; so many times. */
  lost?: number;
}

export interface ComputeFake extends AsyncDisposable {
  /** Ends with `/compute/v1`. */
  readonly endpoint: string;
  readonly project: string;
  /** By which the project may be asked for, too; answers name its id. */
  readonly projectNumber: string;
  readonly zone: string;
  /** Text of a service account's key file. */
  readonly credentials: string;
  readonly instances: Map<string, FakeInstance>;
  readonly disks: Map<string, FakeDisk>;
  readonly snapshots: Map<string, FakeSnapshot>;
  readonly calls: { readonly method: string; readonly path: string; readonly body: unknown }[];
  /** By `POST snapshots`, `DELETE snapshots`, `POST attachDisk`. */
  readonly behaviour: Map<string, ComputeBehaviour>;
  addInstance(name: string): FakeInstance;
  /** @param name of the disk; its device has another one */
  addDisk(instance: FakeInstance, name: string, sourceSnapshot?: string): FakeDisk;
}

const PROJECT = "my-project";
const PROJECT_NUMBER = "415104041262";
const ZONE = "europe-west1-b";
export const TOKEN = "token-of-the-service-account";

interface Operation {
  readonly id: string;
  readonly scope: string;
  readonly behaviour: ComputeBehaviour;
  looks: number;
  /** Called when it is over, once. */
  finish: () => void;
  readonly operationType: string;
}

interface State {
  readonly operations: Map<string, Operation>;
  /** By the `requestId` of the request that began it. */
  readonly known: Map<string, Operation>;
}

class Refused extends Error {
  constructor(
    readonly status: number,
    readonly reason: string,
    message: string,
    readonly inDetails = false,
  ) {
    super(message);
  }
}

export async function startComputeFake(): Promise<ComputeFake> {
  const state: State = { operations: new Map(), known: new Map() };
  const server = http.createServer((request, response) => {
    serve(fake, state, request, response).catch((error) => {
      if (!(error instanceof Refused) || response.destroyed) return response.destroy();
      const { status, reason, message, inDetails } = error;
      const info = { "@type": "type.googleapis.com/google.rpc.ErrorInfo", reason };
      const told = inDetails
        ? { details: [{ "@type": "type.googleapis.com/google.rpc.Help" }, info] }
        : { errors: [{ message, domain: "global", reason }] };
      send(response, status, { error: { code: status, message, ...told } });
    });
  });
  server.listen(0, "127.0.0.1");
  await once(server, "listening");
  const address = server.address();
  if (address === null || typeof address === "string") throw new Error("The fake has no port");
  const origin = `http://127.0.0.1:${address.port}`;
  const { privateKey } = generateKeyPairSync("rsa", { modulusLength: 2048 });
  const fake: ComputeFake = {
    endpoint: `${origin}/compute/v1`,
    project: PROJECT,
    projectNumber: PROJECT_NUMBER,
    zone: ZONE,
    credentials: JSON.stringify({
      type: "service_account",
      project_id: PROJECT,
      private_key_id: "key1",
      private_key: privateKey.export({ type: "pkcs8", format: "pem" }),
      client_email: "backup@my-project.iam.gserviceaccount.com",
      client_id: "1",
      token_uri: `${origin}/token`,
    }),
    instances: new Map(),
    disks: new Map(),
    snapshots: new Map(),
    calls: [],
    behaviour: new Map(),
    addInstance(name) {
      const instance: FakeInstance = { name, zone: ZONE, disks: [] };
      fake.instances.set(name, instance);
      addDisk(fake, instance, name, true);
      return instance;
    },
    addDisk: (instance, name, sourceSnapshot) =>
      addDisk(fake, instance, name, false, sourceSnapshot),
    async [Symbol.asyncDispose]() {
      const closed = once(server, "close");
      server.close();
      server.closeAllConnections();
      await closed;
    },
  };
  return fake;
}

function addDisk(
  fake: ComputeFake,
  instance: FakeInstance,
  name: string,
  boot: boolean,
  sourceSnapshot?: string,
): FakeDisk {
  const disk: FakeDisk = {
    name,
    zone: ZONE,
    sizeGb: "200",
    type: boot ? "pd-balanced" : "pd-ssd",
    sourceSnapshot,
    labels: {},
  };
  fake.disks.set(name, disk);
  const deviceName = boot ? "persistent-disk-0" : `device-of-${name}`;
  instance.disks.push({ deviceName, disk: name, boot });
  return disk;
}

async function serve(
  fake: ComputeFake,
  state: State,
  request: http.IncomingMessage,
  response: http.ServerResponse,
): Promise<void> {
  let text = "";
  for await (const chunk of request) text += chunk;
  const url = new URL(request.url ?? "", "http://localhost");
  const { method = "" } = request;
  if (url.pathname === "/token") return token(text, response);
  if (request.headers.authorization !== `Bearer ${TOKEN}`) {
    throw new Refused(401, "authError", "Invalid Credentials");
  }
  if (method === "POST" && request.headers["content-length"] === undefined) {
    throw new Refused(411, "required", "Length Required");
  }
  const path = decodeURIComponent(url.pathname).replace(/^\/compute\/v1\//, "");
  const body = text === "" ? {} : JSON.parse(text) as Json;
  const [, project, scope = "", kind = "", name = "", action] =
    /^projects\/([^/]+)\/(global|(?:zones|regions)\/[^/]+)\/([^/]+)(?:\/([^/]+))?(?:\/([^/]+))?$/
      .exec(path) ??
      [];
  if (kind === "operations") {
    const operation = state.operations.get(name);
    const isKnown = operation?.scope === scope && !operation.behaviour.forgotten;
    if (operation === undefined || !isKnown) throw notFound(path);
    operation.looks++;
    if (operation.looks >= (operation.behaviour.looks ?? 1)) {
      operation.finish();
      operation.finish = () => {};
    }
    return send(response, 200, described(fake, operation));
  }
  fake.calls.push({ method, path, body });
  if (project !== fake.project && project !== fake.projectNumber) {
    throw notFound(`projects/${project}`);
  }
  const behaviour = fake.behaviour.get(`${method} ${action ?? kind}`) ?? {};
  const { refusal } = behaviour;
  const hasLabels = Object.keys(record(body["labels"])).length > 0;
  if (behaviour.noLabels && hasLabels) {
    throw new Refused(
      403,
      "forbidden",
      `Required 'compute.snapshots.setLabels' permission for '${path}/${body["name"]}'`,
    );
  }
  if (refusal !== undefined) {
    throw new Refused(
      refusal.status,
      refusal.reason,
      `The request was refused (${refusal.reason}).`,
      refusal.inDetails,
    );
  }
  if (method === "GET") return send(response, 200, found(fake, scope, kind, name, path));
  const requestId = url.searchParams.get("requestId") ?? crypto.randomUUID();
  if (!/^[\da-f]{8}(-[\da-f]{4}){3}-[\da-f]{12}$/.test(requestId)) {
    throw new Refused(400, "invalid", "Invalid value for field 'requestId'");
  }
  let operation = state.known.get(requestId);
  if (operation === undefined) {
    operation = {
      id: String(1_000_000 + state.known.size),
      scope,
      behaviour,
      looks: 0,
      finish: change(fake, { method, scope, kind, name, action, path, body, url, behaviour }),
      operationType: action ?? (method === "DELETE" ? "delete" : "insert"),
    };
    state.known.set(requestId, operation);
    state.operations.set(nameOf(operation), operation);
  }
  if ((behaviour.lost ?? 0) > 0) {
    behaviour.lost = (behaviour.lost ?? 0) - 1;
    return void response.destroy();
  }
  send(response, 200, described(fake, operation));
}

interface Change {
  readonly method: string;
  readonly scope: string;
  readonly kind: string;
  readonly name: string;
  readonly action: string | undefined;
  readonly path: string;
  readonly body: Json;
  readonly url: URL;
  readonly behaviour: ComputeBehaviour;
}

/** Begins it. @returns what is to be done when the operation is over */
function change(fake: ComputeFake, request: Change): () => void {
  const { method, kind, name, action, path, body, url, behaviour } = request;
  const newName = () => {
    const given = String(body["name"]);
    if (!/^[a-z]([-a-z0-9]{0,61}[a-z0-9])?$/.test(given)) {
      throw new Refused(400, "invalid", `Invalid value for field 'resource.name': '${given}'.`);
    }
    if (fake.snapshots.has(given) || fake.disks.has(given)) {
      throw new Refused(409, "alreadyExists", `The resource '${path}/${given}' already exists`);
    }
    for (const [label, value] of Object.entries(record(body["labels"]))) {
      if (
        /^[\p{Ll}\p{Lo}][\p{Ll}\p{Lo}\p{N}_-]{0,62}$/u.test(label) &&
        /^[\p{Ll}\p{Lo}\p{N}_-]{0,63}$/u.test(String(value))
      ) continue;
      throw new Refused(400, "invalid", `Invalid value for field 'resource.labels': '${label}'.`);
    }
    return given;
  };
  if (method === "POST" && kind === "snapshots") {
    const source = fake.disks.get(lastOf(String(body["sourceDisk"])));
    if (source === undefined) throw notFound(String(body["sourceDisk"]));
    const snapshot: FakeSnapshot = {
      name: newName(),
      sourceDisk: source.name,
      description: String(body["description"] ?? ""),
      labels: record(body["labels"]) as Record<string, string>,
      isReady: false,
    };
    fake.snapshots.set(snapshot.name, snapshot);
    return () => {
      if (behaviour.failure === undefined) snapshot.isReady = true;
      else fake.snapshots.delete(snapshot.name);
    };
  }
  if (method === "DELETE" && kind === "snapshots") {
    const snapshot = fake.snapshots.get(name);
    if (snapshot === undefined) throw notFound(path);
    if (!snapshot.isReady) {
      throw new Refused(400, "resourceNotReady", `The resource '${path}' is not ready`);
    }
    return () => {
      if (behaviour.failure === undefined) fake.snapshots.delete(name);
    };
  }
  if (method === "POST" && kind === "disks") {
    const source = fake.snapshots.get(lastOf(String(body["sourceSnapshot"])));
    if (source === undefined) throw notFound(String(body["sourceSnapshot"]));
    const type = String(body["type"] ?? `zones/${ZONE}/diskTypes/pd-standard`);
    if (!type.includes(`zones/${ZONE}/diskTypes/`)) {
      throw new Refused(400, "invalid", `Invalid value for field 'resource.type': '${type}'.`);
    }
    const disk: FakeDisk = {
      name: newName(),
      zone: ZONE,
      sizeGb: "200",
      type: lastOf(type),
      sourceSnapshot: source.name,
      labels: record(body["labels"]) as Record<string, string>,
    };
    fake.disks.set(disk.name, disk);
    return () => {};
  }
  if (method === "DELETE" && kind === "disks") {
    if (!fake.disks.has(name)) throw notFound(path);
    const isInUse = [...fake.instances.values()].some(({ disks }) =>
      disks.some(({ disk }) => disk === name)
    );
    if (isInUse) {
      throw new Refused(400, "resourceInUseByAnotherResource", `'${path}' is already being used`);
    }
    return () => void fake.disks.delete(name);
  }
  const instance = fake.instances.get(name);
  if (method === "POST" && kind === "instances" && instance !== undefined) {
    if (action === "attachDisk") {
      const disk = lastOf(String(body["source"]));
      const deviceName = String(body["deviceName"]);
      if (!fake.disks.has(disk)) throw notFound(disk);
      if (instance.disks.some((it) => it.deviceName === deviceName)) {
        throw new Refused(400, "invalid", `Device name '${deviceName}' is already in use.`);
      }
      return () => {
        if (behaviour.failure === undefined) instance.disks.push({ deviceName, disk, boot: false });
      };
    }
    if (action === "detachDisk") {
      const device = url.searchParams.get("deviceName");
      const index = instance.disks.findIndex(({ deviceName }) => deviceName === device);
      if (index < 0) {
        throw new Refused(400, "invalid", `No attached disk found with device name '${device}'`);
      }
      return () => void instance.disks.splice(index, 1);
    }
  }
  throw notFound(path);
}

function found(fake: ComputeFake, scope: string, kind: string, name: string, path: string): Json {
  const home = `${fake.endpoint}/projects/${PROJECT}`;
  const placeOf = (disk: FakeDisk | undefined) =>
    disk?.region === undefined ? `zones/${ZONE}` : `regions/${disk.region}`;
  const instance = fake.instances.get(name);
  if (kind === "instances" && instance !== undefined && scope === `zones/${ZONE}`) {
    return {
      kind: "compute#instance",
      name,
      zone: `${home}/${scope}`,
      status: "RUNNING",
      disks: instance.disks.map(({ deviceName, disk, boot }, index) => ({
        kind: "compute#attachedDisk",
        type: "PERSISTENT",
        mode: "READ_WRITE",
        source: `${home}/${placeOf(fake.disks.get(disk))}/disks/${disk}`,
        deviceName,
        index,
        boot,
      })),
    };
  }
  const disk = fake.disks.get(name);
  if (kind === "disks" && disk !== undefined && scope === placeOf(disk)) {
    return {
      kind: "compute#disk",
      name,
      sizeGb: disk.sizeGb,
      status: "READY",
      type: `${home}/${scope}/diskTypes/${disk.type}`,
      ...(disk.sourceSnapshot === undefined ? {} : {
        sourceSnapshot: `${home}/global/snapshots/${disk.sourceSnapshot}`,
      }),
      labels: disk.labels,
    };
  }
  throw notFound(path);
}

function described(fake: ComputeFake, operation: Operation): Json {
  const { behaviour, looks, scope, operationType, id } = operation;
  const needed = behaviour.looks ?? 1;
  const status = looks === 0 ? "PENDING" : looks < needed ? "RUNNING" : "DONE";
  const isDone = status === "DONE";
  return {
    kind: "compute#operation",
    id,
    name: nameOf(operation),
    operationType,
    status,
    progress: isDone ? 100 : Math.floor(100 * looks / needed),
    selfLink: `${fake.endpoint}/projects/${PROJECT}/${scope}/operations/${nameOf(operation)}`,
    ...(isDone && behaviour.warning !== undefined ? { warnings: [behaviour.warning] } : {}),
    ...(isDone && behaviour.failure !== undefined
      ? { error: { errors: [behaviour.failure] }, httpErrorStatusCode: 503 }
      : {}),
  };
}

function token(text: string, response: http.ServerResponse): void {
  const params = new URLSearchParams(text);
  const [, claims = ""] = (params.get("assertion") ?? "").split(".");
  const { scope } = JSON.parse(atob(claims.replaceAll("-", "+").replaceAll("_", "/"))) as Json;
  if (!/\/auth\/(compute|cloud-platform|devstorage\.\w+)$/.test(String(scope))) {
    return send(response, 400, { error: "invalid_scope" });
  }
  send(response, 200, { access_token: TOKEN, expires_in: 3600, token_type: "Bearer" });
}

function send(response: http.ServerResponse, status: number, body: unknown): void {
  response.writeHead(status, { "content-type": "application/json; charset=UTF-8" });
  response.end(JSON.stringify(body));
}

function nameOf({ id }: Operation): string {
  return `operation-${id}`;
}

function notFound(path: string): Refused {
  return new Refused(404, "notFound", `The resource '${path}' was not found`);
}

function lastOf(path: string): string {
  return path.slice(path.lastIndexOf("/") + 1);
}

function record(value: unknown): Json {
  return typeof value === "object" && value !== null ? value as Json : {};
}
