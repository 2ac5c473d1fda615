/**
 * Google Cloud Storage, through its JSON and XML APIs. Loaded only when such a store is opened; the
 * library of identities only for federated ones.
 */
import { type Cancellable, isStoreError, type ObjectStore, StoreError } from "../object_store.ts";
import type { OpenedStore, StoreOptions } from "../open.ts";
import { withBandwidthOf } from "../bandwidth.ts";
import { withRetry } from "../retry.ts";
import { readGcsConfig } from "./config.ts";
import { deleteObjects } from "./delete.ts";
import { LIMITS } from "./limits.ts";
import { listObjects } from "./list.ts";
import { type Learnt, startMultipart } from "./multipart.ts";
import { bucketExists, getObject, headObject } from "./read.ts";
import { type GcsSession, openSession } from "./session.ts";
import { listUploads, removeUpload } from "./uploads.ts";
import { parseGcsUrl } from "./url.ts";
import { putObject } from "./write.ts";

/**
 * Open the store of `gs://BUCKET[/PATH]` or of the console's URL, with retries. Nothing is sent yet,
 * and credentials are not looked for.
 * @throws {StoreError} kind `invalid` for a bad URL or setting.
 */
export async function openGcsStore(url: string, options: StoreOptions): Promise<OpenedStore> {
  const { store, location } = await openWithoutRetries(url, options);
  const policy = options.attempts === undefined ? {} : { attempts: options.attempts };
  return {
    store: withRetry(withBandwidthOf(store, options), policy, options.onNotice),
    location,
  };
}

/** The same, but every request is sent once. */
export async function openWithoutRetries(
  url: string,
  options: StoreOptions,
): Promise<OpenedStore> {
  const { bucket, prefix } = parseGcsUrl(url);
  const config = await readGcsConfig(options);
  return {
    store: gcsStore(openSession(bucket, config, options), options),
    location: { provider: "google-cloud-storage", url, prefix },
  };
}

function gcsStore(session: GcsSession, options: StoreOptions): ObjectStore {
  const settings = { kmsKeyName: options.kmsKeyName };
  const learnt: Learnt = { composes: false };
  return {
    provider: "google-cloud-storage",
    description: session.description,
    limits: LIMITS,
    capabilities: { createOnlyPut: true, createOnlyMultipart: false, tags: true },
    bucketExists: (callOptions) => bucketExists(session, callOptions),
    createBucket: (callOptions) => createBucket(session, callOptions),
    list: (prefix, callOptions) => listObjects(session, prefix, callOptions),
    head: (key, callOptions) => headObject(session, key, callOptions),
    get: (key, callOptions) => getObject(session, key, callOptions),
    put: (key, body, callOptions) => putObject(session, settings, key, body, callOptions),
    startMultipart: (key, callOptions) =>
      startMultipart(session, settings, learnt, key, callOptions),
    listUploads: (prefix, callOptions) => listUploads(session, prefix, callOptions),
    removeUpload: (upload, callOptions) => removeUpload(session, upload, callOptions),
    deleteMany: (keys, callOptions) => deleteObjects(session, keys, callOptions),
    close() {
      session.close();
      return Promise.resolve();
    },
  };
}

/** With the defaults of the project (location US), as Barman makes it. */
async function createBucket(session: GcsSession, { signal }: Cancellable = {}): Promise<void> {
  const context = { action: "create the bucket", signal, conflictIsThere: true } as const;
  signal?.throwIfAborted();
  const project = await session.project(context);
  if (project === undefined && session.isGoogle) {
    throw new StoreError(
      "invalid",
      `Cannot create the bucket in ${session.description}: the credentials name no project; set ` +
        "GOOGLE_CLOUD_PROJECT to the id of the project that it shall belong to",
    );
  }
  try {
    await session.text(context, {
      method: "POST",
      path: `/storage/v1/b?project=${encodeURIComponent(project ?? "emulator")}&fields=name`,
      headers: { "content-type": "application/json" },
      body: JSON.stringify({ name: session.bucket }),
    });
  } catch (error) {
    if (!isStoreError(error, "exists") || !await isOurs(session, signal)) throw error;
  }
}

/** Names of buckets are everybody's: one that is there may be a stranger's. */
async function isOurs(session: GcsSession, signal: AbortSignal | undefined): Promise<boolean> {
  try {
    return await bucketExists(session, { signal });
  } catch (error) {
    if (isStoreError(error, "denied")) return false;
    throw error;
  }
}
