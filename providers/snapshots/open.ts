/** From options to the snapshots of a cloud. Small: a cloud's code is loaded only when it is used. */
import type { ProviderName } from "../object_store.ts";
import type { StoreOptions } from "../open.ts";
import type { SnapshotLock } from "./aws/take.ts";
import { type SnapshotCloud, SnapshotError, type SnapshotProvider } from "./provider.ts";
import type { Pauses } from "./waiting.ts";

/** Options of all clouds; each takes its own. */
export interface SnapshotOptions {
  readonly env: StoreOptions["env"];
  /** Seconds that a service may stay silent; 60 when absent. */
  readonly readTimeout?: number | undefined;
  /** Told what is tried again, one line each, without secrets. */
  readonly onNotice?: ((message: string) => void) | undefined;
  /** Between two looks at what a cloud does; tests shorten them. */
  readonly pauses?: Pauses | undefined;
  readonly aws?: {
    readonly profile: string | undefined;
    readonly region: string | undefined;
    readonly lock?: SnapshotLock | undefined;
    /** Seconds to wait for snapshots. */
    readonly timeout?: number | undefined;
  };
  readonly azure?: {
    readonly credential: StoreOptions["azureCredential"];
    readonly subscriptionId: string;
    readonly resourceGroup: string;
    /** Of the snapshots that disks are made from; that of the instance when absent. */
    readonly snapshotResourceGroup?: string | undefined;
    /** Of the object store: it tells which of Azure's clouds it is. */
    readonly storeUrl: string;
  };
  readonly gcp?: {
    readonly project: string;
    /** Needed for everything but deleting. */
    readonly zone: string | undefined;
  };
}

/** The cloud whose snapshots belong to a store; undefined where there are none. */
export function cloudOf(provider: ProviderName): SnapshotCloud | undefined {
  switch (provider) {
    case "aws-s3":
      return "aws";
    case "azure-blob-storage":
      return "azure";
    case "google-cloud-storage":
      return "gcp";
    case "local":
      return undefined;
  }
}

/** @throws {SnapshotError} kind `invalid`, {StoreError} for settings that can't be right */
export async function openSnapshotProvider(
  cloud: SnapshotCloud,
  options: SnapshotOptions,
): Promise<SnapshotProvider> {
  const { env, readTimeout, onNotice, pauses } = options;
  const common = { env, readTimeout, onNotice, pauses };
  switch (cloud) {
    case "aws": {
      const { openAwsSnapshots } = await import("./aws/provider.ts");
      return await openAwsSnapshots({ ...common, ...options.aws });
    }
    case "azure": {
      if (options.azure === undefined) break;
      const { openAzureSnapshots } = await import("./azure/provider.ts");
      return await openAzureSnapshots({ ...common, ...options.azure });
    }
    case "gcp": {
      if (options.gcp === undefined) break;
      const { openGcpSnapshots } = await import("./gcp/provider.ts");
      return await openGcpSnapshots({ ...common, ...options.gcp });
    }
  }
  throw new SnapshotError("invalid", `Options of ${cloud} are missing`);
}
