/**
 * Amazon S3 and what speaks its protocol, by plain requests or through the AWS SDK. This file is
 * loaded only when such a store is opened, the SDK only where it is needed.
 */
import type { BucketLocationConstraint } from "@aws-sdk/client-s3";
import {
  type Cancellable,
  isStoreError,
  type ObjectStore,
  type StoreLimits,
} from "../object_store.ts";
import { withBandwidthOf } from "../bandwidth.ts";
import type { OpenedStore, StoreOptions } from "../open.ts";
import { withRetry } from "../retry.ts";
import { readS3Config } from "./config.ts";
import { readCustomerKey } from "./customer_key.ts";
import { deleteObjects } from "./delete.ts";
import { listObjects } from "./list.ts";
import { bucketExists, getObject, headObject, objectLock } from "./read.ts";
import { openSession, type S3Session } from "./session.ts";
import { listUploads, removeUpload } from "./uploads.ts";
import { parseS3Url } from "./url.ts";
import { createWriter, type Learnt, MAX_PARTS } from "./write.ts";

const MiB = 1024 ** 2;

/** Amazon's; most other stores have the same. */
const LIMITS: StoreLimits = {
  maxParts: MAX_PARTS,
  minPartSize: 5 * MiB,
  maxPartSize: 5 * 1024 * MiB,
  maxObjectSize: 5 * 1024 ** 2 * MiB,
  maxPutSize: 5 * 1024 * MiB,
  maxDeleteBatch: 1000,
};

/**
 * Open the store of `s3://BUCKET[/PATH]`, with retries. Nothing is sent yet.
 * @throws {StoreError} kind `invalid` for a bad URL, profile, setting or customer key.
 */
export async function openS3Store(url: string, options: StoreOptions): Promise<OpenedStore> {
  const { bucket, prefix } = parseS3Url(url);
  const config = await readS3Config(options);
  const session = openSession(bucket, config, options, await readCustomerKey(options));
  const attempts = config.maxAttempts ?? options.attempts;
  return {
    store: withRetry(
      withBandwidthOf(s3Store(session, options), options),
      attempts === undefined ? {} : { attempts },
      options.onNotice,
    ),
    location: { provider: "aws-s3", url, prefix },
  };
}

function s3Store(session: S3Session, options: StoreOptions): ObjectStore {
  // That a store other than Amazon's honours the condition on `complete` can't be known: Ceph ignores it.
  const learnt: Learnt = {
    createOnlyPut: true,
    createOnlyMultipart: !session.isCustomEndpoint,
    tags: true,
    looksFirst: session.isCustomEndpoint,
  };
  const writer = createWriter(session, learnt, options);
  return {
    provider: "aws-s3",
    description: session.description,
    limits: LIMITS,
    capabilities: learnt,
    bucketExists: (callOptions) => bucketExists(session, callOptions),
    createBucket: (callOptions) => createBucket(session, callOptions),
    list: (prefix, callOptions) => listObjects(session, prefix, callOptions),
    head: (key, callOptions) => headObject(session, key, callOptions),
    get: (key, callOptions) => getObject(session, key, callOptions),
    put: writer.put,
    putContent: writer.put,
    startMultipart: writer.startMultipart,
    listUploads: (prefix, callOptions) => listUploads(session, prefix, callOptions),
    removeUpload: (upload, callOptions) => removeUpload(session, upload, callOptions),
    deleteMany: (keys, callOptions) =>
      deleteObjects(session, keys, LIMITS.maxDeleteBatch, callOptions),
    objectLock: (key, callOptions) => objectLock(session, key, callOptions),
    close() {
      session.close();
      return Promise.resolve();
    },
  };
}

async function createBucket(session: S3Session, { signal }: Cancellable = {}): Promise<void> {
  const context = { action: "create the bucket", signal };
  const create = async (constraint: string | undefined) => {
    await session.call(context, (api, send) =>
      api.createBucket({
        Bucket: session.bucket,
        ...(constraint === undefined ? {} : {
          CreateBucketConfiguration: {
            LocationConstraint: constraint as BucketLocationConstraint,
          },
        }),
      }, send));
  };
  const region = await session.region();
  try {
    // us-east-1 is the one region that must not be named.
    await create(region === "us-east-1" ? undefined : region);
  } catch (error) {
    if (isStoreError(error) && error.code === "BucketAlreadyOwnedByYou") return;
    if (!isStoreError(error, "exists", "invalid")) throw error;
    // Other stores have names of their own for places, or call our own bucket a stranger's.
    if (error.kind === "invalid" && session.isCustomEndpoint && region !== "us-east-1") {
      return await create(undefined);
    }
    if (error.kind === "exists" && await isOurs(session, signal)) return;
    throw error;
  }
}

async function isOurs(session: S3Session, signal: AbortSignal | undefined): Promise<boolean> {
  try {
    return await bucketExists(session, { signal });
  } catch (error) {
    if (isStoreError(error, "denied")) return false;
    throw error;
  }
}
