/**
 * A small EC2 in memory, for tests of EBS snapshots: what Amazon's public API reference says about instances,
 * volumes and snapshots (query API 2016-11-15), as far as backups need it. Unlike moto it has LockSnapshot,
 * snapshots that take their time or fail, pages, and answers that get lost.
 *
 * - https://docs.aws.amazon.com/AWSEC2/latest/APIReference/Query-Requests.html
 * - https://docs.aws.amazon.com/AWSEC2/latest/APIReference/API_CreateSnapshots.html and its neighbours
 * - https://docs.aws.amazon.com/AWSEC2/latest/APIReference/errors-overview.html
 */
import { once } from "node:events";
import http from "node:http";

export interface FakeVolume {
  readonly id: string;
  readonly size: number;
  readonly zone: string;
  readonly snapshot: string;
  readonly tags: Map<string, string>;
  attachment: { readonly instance: string; readonly device: string } | undefined;
}

export interface FakeInstance {
  readonly id: string;
  readonly name: string;
  readonly zone: string;
  readonly rootDevice: string;
  state: string;
}

export interface FakeSnapshot {
  readonly id: string;
  readonly volume: string;
  readonly description: string;
  readonly tags: Map<string, string>;
  /** Snapshots of one call have the same. */
  readonly started: string;
  /** How often it was looked at. */
  looks: number;
  lock:
    | {
      readonly mode: string;
      readonly duration: string | undefined;
      readonly coolOff: string | undefined;
      readonly expires: string | undefined;
    }
    | undefined;
}

/** How one call goes wrong. `lost`: it is done, and the connection is cut instead of an answer. */
export type Mishap = "lost" | {
  readonly status: number;
  readonly code: string;
  readonly message?: string;
};

export interface Ec2Fake extends AsyncDisposable {
  readonly endpoint: string;
  readonly region: string;
  readonly account: string;
  readonly instances: Map<string, FakeInstance>;
  readonly volumes: Map<string, FakeVolume>;
  readonly snapshots: Map<string, FakeSnapshot>;
  /** What was asked for, in order, with its parameters. */
  readonly calls: { readonly action: string; readonly params: URLSearchParams }[];
  /** Looks until a snapshot is complete; 1 when not set. */
  looksUntilComplete: number;
  /** Snapshots of these volumes end in state `error`. */
  readonly broken: Set<string>;
  /** Actions that the credentials may not use. */
  readonly denied: Set<string>;
  /** For each action what happens to its next calls. */
  readonly mishaps: Map<string, Mishap[]>;
  /** For each action what is waited for before it is answered. */
  readonly hooks: Map<string, () => Promise<void>>;
  /** Instances and volumes in a page; a thousand when not set. */
  pageSize: number;
  /** So many calls about a new snapshot or volume don't know it yet. */
  youngFor: number;
  addInstance(instance?: Partial<FakeInstance>): FakeInstance;
  addVolume(instance: FakeInstance, volume: Partial<FakeVolume> & { device: string }): FakeVolume;
}

const REGION = "eu-west-1";
const ACCOUNT = "123456789012";

export async function startEc2Fake(): Promise<Ec2Fake> {
  const server = http.createServer((request, response) => {
    serve(fake, request, response).catch((error) => {
      if (!(error instanceof Refused) || response.destroyed) return response.destroy();
      const body = `<?xml version="1.0" encoding="UTF-8"?>\n<Response><Errors><Error><Code>` +
        `${error.code}</Code><Message>${escaped(error.message)}</Message></Error></Errors>` +
        `<RequestID>${crypto.randomUUID()}</RequestID></Response>`;
      response.writeHead(error.status, { "content-type": "text/xml;charset=UTF-8" }).end(body);
    });
  });
  server.listen(0, "127.0.0.1");
  await once(server, "listening");
  const address = server.address();
  if (address === null || typeof address === "string") throw new Error("The fake has no port");
  const fake: Ec2Fake = {
    endpoint: `http://127.0.0.1:${address.port}`,
    region: REGION,
    account: ACCOUNT,
    instances: new Map(),
    volumes: new Map(),
    snapshots: new Map(),
    calls: [],
    looksUntilComplete: 1,
    broken: new Set(),
    denied: new Set(),
    mishaps: new Map(),
    hooks: new Map(),
    pageSize: 1000,
    youngFor: 0,
    addInstance(given = {}) {
      const instance: FakeInstance = {
        id: newId("i"),
        name: "db1",
        zone: `${REGION}a`,
        rootDevice: "/dev/xvda",
        state: "running",
        ...given,
      };
      fake.instances.set(instance.id, instance);
      fake.addVolume(instance, { device: instance.rootDevice });
      return instance;
    },
    addVolume(instance, { device, ...given }) {
      const volume: FakeVolume = {
        id: newId("vol"),
        size: 8,
        zone: instance.zone,
        snapshot: "",
        tags: new Map(),
        attachment: { instance: instance.id, device },
        ...given,
      };
      fake.volumes.set(volume.id, volume);
      return volume;
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

class Refused extends Error {
  constructor(readonly code: string, message: string, readonly status = 400) {
    super(message);
  }
}

async function serve(
  fake: Ec2Fake,
  request: http.IncomingMessage,
  response: http.ServerResponse,
): Promise<void> {
  let text = "";
  for await (const chunk of request) text += chunk;
  const params = new URLSearchParams(text);
  const action = params.get("Action") ?? "";
  const scope = `/${fake.region}/ec2/aws4_request`;
  if (!request.headers.authorization?.includes(scope)) {
    throw new Refused("AuthFailure", "AWS was not able to validate the credentials", 401);
  }
  if (params.get("Version") !== "2016-11-15") throw new Refused("NoSuchVersion", "No version");
  fake.calls.push({ action, params });
  if (fake.denied.has(action)) {
    throw new Refused(
      "UnauthorizedOperation",
      `You are not authorized to perform this operation: ec2:${action}.`,
      403,
    );
  }
  const mishap = fake.mishaps.get(action)?.shift();
  if (mishap !== undefined && mishap !== "lost") {
    const { code, message = "as the test wants it", status } = mishap;
    throw new Refused(code, message, status);
  }
  const handler = ACTIONS[action];
  if (handler === undefined) {
    throw new Refused("InvalidAction", `The action ${action} is not valid for this web service.`);
  }
  const result = handler(fake, params);
  await fake.hooks.get(action)?.();
  if (mishap === "lost") return void response.destroy();
  const body = `<?xml version="1.0" encoding="UTF-8"?>\n<${action}Response ` +
    `xmlns="http://ec2.amazonaws.com/doc/2016-11-15/"><requestId>${crypto.randomUUID()}` +
    `</requestId>${result}</${action}Response>`;
  response.writeHead(200, { "content-type": "text/xml;charset=UTF-8" }).end(body);
}

const ACTIONS: Readonly<Record<string, (fake: Ec2Fake, params: URLSearchParams) => string>> = {
  DescribeInstances(fake, params) {
    const ids = listed(params, "InstanceId");
    for (const id of ids) {
      if (!/^i-[0-9a-f]+$/.test(id)) {
        throw new Refused("InvalidInstanceID.Malformed", `Invalid id: "${id}"`);
      }
      if (!fake.instances.has(id)) {
        throw new Refused("InvalidInstanceID.NotFound", `The instance ID '${id}' does not exist`);
      }
    }
    const found = [...fake.instances.values()].filter(({ id, name, state }) =>
      (ids.length === 0 || ids.includes(id)) && filters(params).every(([filter, values]) => {
        if (filter === "instance-id") return matches(values, id);
        if (filter === "tag:Name") return matches(values, name);
        if (filter === "instance-state-name") return matches(values, state);
        throw new Refused("InvalidParameterValue", `The filter '${filter}' is invalid`);
      })
    );
    const { page, token } = paged(fake, params, found);
    const reservations = page.map((instance) => {
      const volumes = [...fake.volumes.values()]
        .filter(({ attachment }) => attachment?.instance === instance.id);
      const mapping = volumes.map((volume) =>
        `<item><deviceName>${volume.attachment?.device}</deviceName><ebs><volumeId>${volume.id}` +
        `</volumeId><status>attached</status></ebs></item>`
      ).join("");
      return `<item><reservationId>${
        newId("r")
      }</reservationId><ownerId>${fake.account}</ownerId>` +
        `<instancesSet><item><instanceId>${instance.id}</instanceId><instanceState><code>16</code>` +
        `<name>${instance.state}</name></instanceState><placement><availabilityZone>` +
        `${instance.zone}</availabilityZone></placement><rootDeviceType>ebs</rootDeviceType>` +
        `<rootDeviceName>${instance.rootDevice}</rootDeviceName><virtualizationType>hvm` +
        `</virtualizationType><blockDeviceMapping>${mapping}` +
        `</blockDeviceMapping><tagSet>${tagSet(new Map([["Name", instance.name]]))}</tagSet>` +
        `</item></instancesSet></item>`;
    }).join("");
    return `<reservationSet>${reservations}</reservationSet>${token}`;
  },

  DescribeVolumes(fake, params) {
    const found = [...fake.volumes.values()].filter((volume) =>
      filters(params).every(([filter, values]) => {
        if (filter === "attachment.instance-id") {
          return matches(values, volume.attachment?.instance ?? "");
        }
        if (filter === "volume-id") return matches(values, volume.id) && isKnown(fake, volume.id);
        throw new Refused("InvalidParameterValue", `The filter '${filter}' is invalid`);
      })
    );
    const { page, token } = paged(fake, params, found);
    return `<volumeSet>${page.map(volumeItem).join("")}</volumeSet>${token}`;
  },

  CreateSnapshot(fake, params) {
    const id = params.get("VolumeId") ?? "";
    if (!fake.volumes.has(id)) throw noVolume(id);
    const snapshot = makeSnapshot(fake, id, params, new Date().toISOString());
    return snapshotFields(fake, snapshot);
  },

  CreateSnapshots(fake, params) {
    const instance = params.get("InstanceSpecification.InstanceId") ?? "";
    const known = fake.instances.get(instance);
    if (known === undefined) {
      throw new Refused(
        "InvalidInstanceID.NotFound",
        `The instance ID '${instance}' does not exist`,
      );
    }
    const excluded = listed(params, "InstanceSpecification.ExcludeDataVolumeId");
    if (excluded.length > 40) throw new Refused("InvalidParameterValue", "More than 40 volumes");
    const all = [...fake.volumes.values()].filter((it) => it.attachment?.instance === instance);
    const isRoot = (id: string) => fake.volumes.get(id)?.attachment?.device === known.rootDevice;
    for (const id of excluded) {
      if (isRoot(id) || !all.some((volume) => volume.id === id)) {
        throw new Refused("InvalidParameterValue", `Volume ${id} can't be excluded`);
      }
    }
    const started = new Date().toISOString();
    const withoutRoot = params.get("InstanceSpecification.ExcludeBootVolume") === "true";
    const items = all
      .filter(({ id }) => !excluded.includes(id) && !(withoutRoot && isRoot(id)))
      .map(({ id }) => makeSnapshot(fake, id, params, started))
      .map((snapshot) => `<item>${snapshotFields(fake, snapshot, "state")}</item>`);
    return `<snapshotSet>${items.join("")}</snapshotSet>`;
  },

  CreateTags(fake, params) {
    for (const id of listed(params, "ResourceId")) {
      const tags = fake.snapshots.get(id)?.tags ?? fake.volumes.get(id)?.tags;
      if (tags === undefined || !isKnown(fake, id)) throw noSnapshot(id);
      for (let n = 1; params.has(`Tag.${n}.Key`); n++) {
        tags.set(params.get(`Tag.${n}.Key`) ?? "", params.get(`Tag.${n}.Value`) ?? "");
      }
    }
    return "<return>true</return>";
  },

  DescribeSnapshots(fake, params) {
    const owners = listed(params, "Owner");
    if (owners.some((owner) => owner !== "self" && owner !== fake.account)) return "<snapshotSet/>";
    const ids = listed(params, "SnapshotId");
    for (const id of ids) if (!fake.snapshots.has(id) || !isKnown(fake, id)) throw noSnapshot(id);
    const found = [...fake.snapshots.values()].filter((snapshot) =>
      (ids.length === 0 || ids.includes(snapshot.id)) &&
      filters(params).every(([filter, values]) => {
        if (filter === "snapshot-id") {
          return matches(values, snapshot.id) && isKnown(fake, snapshot.id);
        }
        if (filter === "description") return matches(values, snapshot.description);
        if (filter === "volume-id") return matches(values, snapshot.volume);
        throw new Refused("InvalidParameterValue", `The filter '${filter}' is invalid`);
      })
    );
    for (const snapshot of found) snapshot.looks++;
    const items = found.map((snapshot) => `<item>${snapshotFields(fake, snapshot)}</item>`);
    return `<snapshotSet>${items.join("")}</snapshotSet>`;
  },

  DeleteSnapshot(fake, params) {
    const id = params.get("SnapshotId") ?? "";
    const snapshot = fake.snapshots.get(id);
    if (snapshot === undefined) throw noSnapshot(id);
    if (snapshot.lock !== undefined) {
      throw new Refused("SnapshotLocked", `The snapshot ${id} is locked and can't be deleted.`);
    }
    fake.snapshots.delete(id);
    return "<return>true</return>";
  },

  LockSnapshot(fake, params) {
    const id = params.get("SnapshotId") ?? "";
    const snapshot = fake.snapshots.get(id);
    if (snapshot === undefined || !isKnown(fake, id)) throw noSnapshot(id);
    const mode = params.get("LockMode") ?? "";
    const duration = params.get("LockDuration") ?? undefined;
    const coolOff = params.get("CoolOffPeriod") ?? undefined;
    const expires = params.get("ExpirationDate") ?? undefined;
    if (mode !== "governance" && mode !== "compliance") {
      throw new Refused("InvalidParameterValue", `Invalid lock mode ${mode}`);
    }
    if ((duration === undefined) === (expires === undefined)) {
      throw new Refused(
        "InvalidParameterCombination",
        "Specify either LockDuration or ExpirationDate.",
      );
    }
    if (mode === "governance" && coolOff !== undefined) {
      throw new Refused("InvalidParameterCombination", "CoolOffPeriod is for compliance mode.");
    }
    inRange(duration, 1, 36_500);
    inRange(coolOff, 1, 72);
    // Once it counts, a lock in compliance mode can only be made longer.
    const before = snapshot.lock;
    if (before?.mode === "compliance" && before.coolOff === undefined) {
      const isLonger = mode === "compliance" && coolOff === undefined &&
        (Number(duration) > Number(before.duration) || (expires ?? "") > (before.expires ?? ""));
      if (!isLonger) {
        throw new Refused("InvalidParameterValue", `The lock of ${id} can only be made longer.`);
      }
    }
    snapshot.lock = { mode, duration, coolOff, expires };
    return `<snapshotId>${id}</snapshotId><lockState>${lockState(snapshot.lock)}</lockState>` +
      `<lockCreatedOn>${new Date().toISOString()}</lockCreatedOn>`;
  },

  DescribeLockedSnapshots(fake, params) {
    const ids = listed(params, "SnapshotId");
    const items = [...fake.snapshots.values()]
      .filter(({ id, lock }) => lock !== undefined && (ids.length === 0 || ids.includes(id)))
      .map(({ id, lock }) => {
        const duration = lock?.duration === undefined
          ? ""
          : `<lockDuration>${lock.duration}</lockDuration>`;
        const expires = lock?.expires === undefined
          ? ""
          : `<lockExpiresOn>${lock.expires}</lockExpiresOn>`;
        return `<item><snapshotId>${id}</snapshotId><lockState>${
          lock && lockState(lock)
        }</lockState>${duration}${expires}</item>`;
      });
    return `<snapshotSet>${items.join("")}</snapshotSet>`;
  },

  CreateVolume(fake, params) {
    const token = params.get("ClientToken") ?? crypto.randomUUID();
    const before = clientTokens.get(fake)?.get(token);
    if (before !== undefined) return volumeFields(before);
    const source = params.get("SnapshotId") ?? "";
    const snapshot = fake.snapshots.get(source);
    if (snapshot === undefined) throw noSnapshot(source);
    const volume: FakeVolume = {
      id: newId("vol"),
      size: fake.volumes.get(snapshot.volume)?.size ?? 8,
      zone: params.get("AvailabilityZone") ?? "",
      snapshot: source,
      tags: tagsOf(params),
      attachment: undefined,
    };
    fake.volumes.set(volume.id, volume);
    clientTokens.set(fake, (clientTokens.get(fake) ?? new Map()).set(token, volume));
    return volumeFields(volume);
  },

  AttachVolume(fake, params) {
    const volume = volumeOf(fake, params);
    const instance = fake.instances.get(params.get("InstanceId") ?? "");
    const device = params.get("Device") ?? "";
    if (instance === undefined) throw new Refused("InvalidInstanceID.NotFound", "No such instance");
    if (volume.attachment !== undefined) {
      throw new Refused("VolumeInUse", `${volume.id} is already attached to an instance`);
    }
    if (volume.zone !== instance.zone) {
      throw new Refused("InvalidVolume.ZoneMismatch", "The volume is not in the same zone");
    }
    const inUse = [...fake.volumes.values()].some(({ attachment }) =>
      attachment?.instance === instance.id && onXen(attachment.device) === onXen(device)
    );
    if (inUse || !/^\/dev\/(sd[a-z]|xvd[b-d][a-z]|xvd[e-z])$/.test(device)) {
      throw new Refused(
        "InvalidParameterValue",
        `Invalid value '${device}' for unixDevice. Attachment point ${device} is already in use`,
      );
    }
    volume.attachment = { instance: instance.id, device };
    return `<volumeId>${volume.id}</volumeId><instanceId>${instance.id}</instanceId>` +
      `<device>${device}</device><status>attaching</status>`;
  },

  DetachVolume(fake, params) {
    const volume = volumeOf(fake, params);
    if (volume.attachment === undefined) {
      throw new Refused("IncorrectState", `Volume '${volume.id}' is in the 'available' state.`);
    }
    volume.attachment = undefined;
    return `<volumeId>${volume.id}</volumeId><status>detaching</status>`;
  },

  DeleteVolume(fake, params) {
    const volume = volumeOf(fake, params);
    if (volume.attachment !== undefined) {
      throw new Refused("VolumeInUse", `Volume ${volume.id} is currently attached`);
    }
    fake.volumes.delete(volume.id);
    return "<return>true</return>";
  },
};

const clientTokens = new WeakMap<Ec2Fake, Map<string, FakeVolume>>();
const asked = new WeakMap<Ec2Fake, Map<string, number>>();

/** Something new is not known everywhere at once. */
function isKnown(fake: Ec2Fake, id: string): boolean {
  const counts = asked.get(fake) ?? new Map<string, number>();
  asked.set(fake, counts);
  const count = (counts.get(id) ?? 0) + 1;
  counts.set(id, count);
  return count > fake.youngFor;
}

function makeSnapshot(
  fake: Ec2Fake,
  volume: string,
  params: URLSearchParams,
  started: string,
): FakeSnapshot {
  const snapshot: FakeSnapshot = {
    id: newId("snap"),
    volume,
    description: params.get("Description") ?? "",
    tags: tagsOf(params),
    started,
    looks: 0,
    lock: undefined,
  };
  fake.snapshots.set(snapshot.id, snapshot);
  return snapshot;
}

function snapshotFields(
  fake: Ec2Fake,
  { id, volume, description, tags, started, looks }: FakeSnapshot,
  // The answer of CreateSnapshots has another name for it.
  stateField = "status",
): string {
  const isDone = looks >= fake.looksUntilComplete;
  const state = looks === 0 || !isDone
    ? "pending"
    : fake.broken.has(volume)
    ? "error"
    : "completed";
  const message = state === "error" ? "<statusMessage>Client.InternalError</statusMessage>" : "";
  const percent = Math.min(100, Math.floor(100 * looks / fake.looksUntilComplete));
  return `<snapshotId>${id}</snapshotId><volumeId>${volume}</volumeId><${stateField}>${state}` +
    `</${stateField}>${message}<startTime>${started}</startTime>` +
    `<progress>${looks === 0 ? "" : `${percent}%`}</progress><ownerId>${fake.account}</ownerId>` +
    `<volumeSize>${fake.volumes.get(volume)?.size ?? 8}</volumeSize>` +
    `<description>${escaped(description)}</description><tagSet>${tagSet(tags)}</tagSet>`;
}

function volumeItem(volume: FakeVolume): string {
  return `<item>${volumeFields(volume)}</item>`;
}

function volumeFields({ id, size, zone, snapshot, tags, attachment }: FakeVolume): string {
  const attached = attachment === undefined
    ? ""
    : `<item><volumeId>${id}</volumeId><instanceId>${attachment.instance}</instanceId><device>` +
      `${attachment.device}</device><status>attached</status></item>`;
  return `<volumeId>${id}</volumeId><size>${size}</size><snapshotId>${snapshot}</snapshotId>` +
    `<availabilityZone>${zone}</availabilityZone><status>` +
    `${attachment === undefined ? "available" : "in-use"}</status><attachmentSet>${attached}` +
    `</attachmentSet><tagSet>${tagSet(tags)}</tagSet><volumeType>gp3</volumeType>`;
}

function volumeOf(fake: Ec2Fake, params: URLSearchParams): FakeVolume {
  const id = params.get("VolumeId") ?? "";
  const volume = fake.volumes.get(id);
  if (volume === undefined) throw noVolume(id);
  return volume;
}

function paged<T>(
  fake: Ec2Fake,
  params: URLSearchParams,
  items: readonly T[],
): { readonly page: readonly T[]; readonly token: string } {
  const start = Number(params.get("NextToken") ?? 0);
  const end = start + fake.pageSize;
  const token = end < items.length ? `<nextToken>${end}</nextToken>` : "";
  return { page: items.slice(start, end), token };
}

/** Values of filters take `*` for any characters and `?` for one at most; a backslash makes them ordinary. */
function matches(values: readonly string[], text: string): boolean {
  const quoted = (char: string) => char.replace(/[\\^$.*+?()[\]{}|/-]/, "\\$&");
  return values.some((value) => {
    const pattern = value.replace(
      /\\([^])|[^]/g,
      (char, plain?: string) =>
        plain !== undefined
          ? quoted(plain)
          : char === "*"
          ? "[^]*"
          : char === "?"
          ? "[^]?"
          : quoted(char),
    );
    return new RegExp(`^${pattern}$`).test(text);
  });
}

/** What the kernel of a Xen instance makes of a name: `/dev/sdf` is `xvdf` there. */
function onXen(device: string): string {
  return device.replace(/^(\/dev\/)?(sd|xvd)/, "xvd");
}

function filters(params: URLSearchParams): [name: string, values: string[]][] {
  const found: [string, string[]][] = [];
  for (let n = 1; params.has(`Filter.${n}.Name`); n++) {
    found.push([params.get(`Filter.${n}.Name`) ?? "", listed(params, `Filter.${n}.Value`)]);
  }
  return found;
}

function listed(params: URLSearchParams, name: string): string[] {
  const found: string[] = [];
  for (let n = 1; params.has(`${name}.${n}`); n++) found.push(params.get(`${name}.${n}`) ?? "");
  return found;
}

function tagsOf(params: URLSearchParams): Map<string, string> {
  const tags = new Map<string, string>();
  const base = "TagSpecification.1";
  if (params.has(`${base}.ResourceType`) === false) return tags;
  for (let n = 1; params.has(`${base}.Tag.${n}.Key`); n++) {
    const key = params.get(`${base}.Tag.${n}.Key`) ?? "";
    if (tags.has(key)) {
      throw new Refused("InvalidParameterValue", `Duplicate tag key '${key}' specified.`);
    }
    tags.set(key, params.get(`${base}.Tag.${n}.Value`) ?? "");
  }
  return tags;
}

function tagSet(tags: ReadonlyMap<string, string>): string {
  return [...tags].map(([key, value]) =>
    `<item><key>${escaped(key)}</key><value>${escaped(value)}</value></item>`
  ).join("");
}

function lockState({ mode, coolOff }: { mode: string; coolOff: string | undefined }): string {
  return mode === "compliance" && coolOff !== undefined ? "compliance-cooloff" : mode;
}

function inRange(value: string | undefined, least: number, most: number): void {
  if (value === undefined || (Number(value) >= least && Number(value) <= most)) return;
  throw new Refused("InvalidParameterValue", `${value} is not between ${least} and ${most}`);
}

function noVolume(id: string): Refused {
  return new Refused("InvalidVolume.NotFound", `The volume '${id}' does not exist.`);
}

function noSnapshot(id: string): Refused {
  return new Refused("InvalidSnapshot.NotFound", `The snapshot '${id}' does not exist.`);
}

function newId(kind: string): string {
  return `${kind}-0${crypto.randomUUID().replaceAll("-", "").slice(0, 16)}`;
}

function escaped(text: string): string {
  return text.replaceAll("&", "&amp;").replaceAll("<", "&lt;").replaceAll(">", "&gt;");
}
