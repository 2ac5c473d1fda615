/** Between the commands' options and the disk snapshots of a cloud. Loaded only for backups made of them. */
import type { CommandContext } from "../cli/command.ts";
import type { CommonValues } from "../cli/common_options.ts";
import { tagsOf } from "../cli/common_options.ts";
import { CommandError, EXIT } from "../cli/exit_codes.ts";
import type { SnapshotsInfo } from "../backup/snapshots_info.ts";
import {
  cloudOf,
  openSnapshotProvider,
  type SnapshotOptions,
} from "../../providers/snapshots/open.ts";
import { SnapshotError, type SnapshotProvider } from "../../providers/snapshots/provider.ts";
import { type BackupValues, providerOf } from "./backup_options.ts";

/**
 * The snapshots that `backup` takes. The options are complete already.
 * @throws {CommandError} exit code 4 for a store that has no snapshots beside it
 */
export async function snapshotsOfBackup(
  values: BackupValues,
  context: CommandContext,
): Promise<SnapshotProvider> {
  const cloud = cloudOf(providerOf(values));
  if (cloud === undefined) {
    throw new CommandError(
      EXIT.generalError,
      `Disk snapshots belong to a cloud, and ${values.destinationUrl} to none: use its object store`,
    );
  }
  const { awsSnapshotLockMode: mode, awsSnapshotLockExpirationDate: expiration } = values;
  const lock = mode === undefined ? undefined : {
    mode,
    duration: values.awsSnapshotLockDuration,
    coolOffPeriod: values.awsSnapshotLockCoolOffPeriod,
    expirationDate: expiration === undefined ? undefined : new Date(expiration),
  };
  if (
    mode === undefined &&
    (expiration ?? values.awsSnapshotLockDuration ?? values.awsSnapshotLockCoolOffPeriod) !==
      undefined
  ) {
    context.log.warning(
      "Snapshots are not locked: the other options of locks only count with --aws-snapshot-lock-mode",
    );
  }
  return await refusing(() =>
    openSnapshotProvider(cloud, {
      ...common(values, context),
      aws: {
        profile: values.awsProfile,
        region: values.awsRegion,
        lock,
      },
      azure: {
        credential: values.azureCredential,
        subscriptionId: values.azureSubscriptionId ?? "",
        resourceGroup: values.azureResourceGroup ?? "",
        storeUrl: values.destinationUrl,
      },
      gcp: { project: values.gcpProject ?? "", zone: values.gcpZone },
    })
  );
}

/** Take a backup by snapshots; what can't be done this way at all is exit code 4. */
export async function whatToTake(values: BackupValues, context: CommandContext) {
  const { localHost } = await import("../snapshots/host.ts");
  return {
    host: localHost(context.env),
    instance: values.snapshotInstance ?? "",
    disks: values.snapshotDisk ?? [],
    limit: limitOf(values),
    tags: tagsOf(values),
  };
}

/** Large disks take hours where a snapshot is a copy; for EBS it is as long as Barman waits. */
const DEFAULT_LIMIT_S = 24 * 3600;

function limitOf(values: BackupValues): { ms: number; option: string } {
  const { snapshotTimeout, awsAwaitSnapshotsTimeout } = values;
  const isAws = providerOf(values) === "aws-s3";
  return snapshotTimeout === undefined && isAws
    ? { ms: awsAwaitSnapshotsTimeout * 1000, option: "--aws-await-snapshots-timeout" }
    : { ms: (snapshotTimeout ?? DEFAULT_LIMIT_S) * 1000, option: "--snapshot-timeout" };
}

/** What the commands that read a backup know of where its snapshots are. */
export interface SnapshotPlace {
  readonly awsRegion?: string | undefined;
  readonly azureResourceGroup?: string | undefined;
  readonly gcpZone?: string | undefined;
  /** Of the object store. */
  readonly url: string;
}

/** The snapshots that a backup consists of: account, region, project as it recorded them. */
export async function snapshotsOfInfo(
  info: SnapshotsInfo,
  place: SnapshotPlace,
  values: CommonValues,
  context: CommandContext,
): Promise<SnapshotProvider> {
  const recorded = (name: string): string => {
    const value = info.providerInfo.get(name);
    return typeof value === "string" ? value : "";
  };
  const recordedGroup = recorded("resource_group");
  return await refusing(() =>
    openSnapshotProvider(info.provider, {
      ...common(values, context),
      aws: { profile: values.awsProfile, region: place.awsRegion ?? recorded("region") },
      azure: {
        credential: values.azureCredential,
        subscriptionId: recorded("subscription_id"),
        resourceGroup: place.azureResourceGroup ?? recordedGroup,
        snapshotResourceGroup: recordedGroup,
        storeUrl: place.url,
      },
      gcp: { project: recorded("project"), zone: place.gcpZone },
    })
  );
}

function common(values: CommonValues, { env, log }: CommandContext): SnapshotOptions {
  return {
    env,
    readTimeout: values.readTimeout,
    onNotice: (message) => log.warning(message),
  };
}

async function refusing<T>(work: () => Promise<T>): Promise<T> {
  try {
    return await work();
  } catch (error) {
    if (!(error instanceof SnapshotError)) throw error;
    throw new CommandError(EXIT.generalError, error.message, { cause: error });
  }
}
