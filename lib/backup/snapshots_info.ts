/** The snapshots of a backup made of disk snapshots, as backup.info records them. */
import { isPyDict, isPyList, type PyDict, type PyValue } from "./python_literal.ts";

export type SnapshotProvider = "aws" | "azure" | "gcp";

export interface SnapshotRecord {
  readonly mountPoint: string | null;
  /** As findmnt printed them: `rw,noatime`. */
  readonly mountOptions: string | null;
  /** What the provider knows the snapshot by: `snapshot_id`, `device_name`, …, in Barman's order. */
  readonly identifiers: ReadonlyMap<string, PyValue>;
}

export interface SnapshotsInfo {
  readonly provider: SnapshotProvider;
  /** Account, region, project, …, in Barman's order. */
  readonly providerInfo: ReadonlyMap<string, PyValue>;
  readonly snapshots: readonly SnapshotRecord[];
}

/** The names that Barman stores for each provider, in its order. */
const KEYS: Readonly<
  Record<
    SnapshotProvider,
    { readonly info: readonly string[]; readonly snapshot: readonly string[] }
  >
> = {
  aws: {
    info: ["account_id", "region"],
    snapshot: ["device_name", "snapshot_id", "snapshot_name", "snapshot_lock_mode"],
  },
  azure: {
    info: ["subscription_id", "resource_group"],
    snapshot: ["location", "lun", "snapshot_name"],
  },
  gcp: {
    info: ["project"],
    snapshot: ["device_name", "snapshot_name", "snapshot_project"],
  },
};

/**
 * Missing names inside `mount`, `provider` and `provider_info` are null, as in files of older Barman versions.
 * @returns the snapshots, or why the value makes the whole file unreadable
 */
export function parseSnapshotsInfo(value: PyValue): SnapshotsInfo | string {
  if (!isPyDict(value)) return "a dict is expected";
  const provider = value.get("provider");
  if (provider !== "aws" && provider !== "azure" && provider !== "gcp") {
    return "the provider is missing or unknown";
  }
  const snapshots = value.get("snapshots");
  if (snapshots === undefined || !isPyList(snapshots)) return "the snapshots are missing";
  const records: SnapshotRecord[] = [];
  for (const snapshot of snapshots) {
    if (!isPyDict(snapshot)) return "a snapshot is not a dict";
    const mount = dictAt(snapshot, "mount");
    records.push({
      mountPoint: textAt(mount, "mount_point"),
      mountOptions: textAt(mount, "mount_options"),
      identifiers: named(dictAt(snapshot, "provider"), KEYS[provider].snapshot),
    });
  }
  return {
    provider,
    providerInfo: named(dictAt(value, "provider_info"), KEYS[provider].info),
    snapshots: records,
  };
}

export function formatSnapshotsInfo(info: SnapshotsInfo): PyDict {
  return new Map<PyValue, PyValue>([
    ["provider", info.provider],
    ["provider_info", info.providerInfo],
    [
      "snapshots",
      info.snapshots.map((snapshot) =>
        new Map<PyValue, PyValue>([
          [
            "mount",
            new Map<PyValue, PyValue>([
              ["mount_options", snapshot.mountOptions],
              ["mount_point", snapshot.mountPoint],
            ]),
          ],
          ["provider", snapshot.identifiers],
        ])
      ),
    ],
  ]);
}

/** The name by which the provider's API deletes it: the id on AWS, the name elsewhere. */
export function snapshotIdentifier(info: SnapshotsInfo, snapshot: SnapshotRecord): string | null {
  const value = snapshot.identifiers.get(info.provider === "aws" ? "snapshot_id" : "snapshot_name");
  return typeof value === "string" ? value : null;
}

function dictAt(dict: PyDict, key: string): PyDict {
  const value = dict.get(key);
  return value !== undefined && isPyDict(value) ? value : new Map();
}

function textAt(dict: PyDict, key: string): string | null {
  const value = dict.get(key);
  return typeof value === "string" ? value : null;
}

/** The known names in their order, then what else is there. */
function named(dict: PyDict, names: readonly string[]): ReadonlyMap<string, PyValue> {
  const result = new Map<string, PyValue>(names.map((name) => [name, dict.get(name) ?? null]));
  for (const [key, value] of dict) {
    if (typeof key === "string" && !result.has(key)) result.set(key, value);
  }
  return result;
}
