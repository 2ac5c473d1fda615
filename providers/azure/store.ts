/**
 * Azure Blob Storage, through Azure's SDK. This file and the SDK are loaded only when such a store is
 * opened; the library of identities only when a token is needed.
 */
import { type Cancellable, isStoreError, type ObjectStore } from "../object_store.ts";
import type { OpenedStore, StoreOptions } from "../open.ts";
import { withBandwidthOf } from "../bandwidth.ts";
import { withRetry } from "../retry.ts";
import { startBlockUpload } from "./block_upload.ts";
import { type AzureConfig, readAzureConfig } from "./config.ts";
import { deleteBlobs } from "./delete.ts";
import { listBlobs } from "./list.ts";
import { containerExists, getBlob, headBlob } from "./read.ts";
import { type AzureSession, openSession } from "./session.ts";
import { listUncommitted, removeUncommitted } from "./uncommitted.ts";
import { LIMITS, putBlob } from "./write.ts";

/**
 * Open the store of a URL, with retries. Nothing is sent yet.
 *
 * - `https://ACCOUNT.blob.core.windows.net/CONTAINER[/PATH]`, also on the sovereign clouds' hosts
 * - `http://HOST:PORT/ACCOUNT/CONTAINER[/PATH]` with AZURE_STORAGE_CONNECTION_STRING (emulators)
 * - `https://DOMAIN/CONTAINER[/PATH]` with any other credential (custom domains)
 *
 * @throws {StoreError} kind `invalid` for a bad URL, credential or setting.
 */
export async function openAzureStore(url: string, options: StoreOptions): Promise<OpenedStore> {
  const config = await readAzureConfig(url, options);
  const session = openSession(config, options);
  return {
    store: withRetry(
      withBandwidthOf(azureStore(session, config, options), options),
      options.attempts === undefined ? {} : { attempts: options.attempts },
      options.onNotice,
    ),
    location: { provider: "azure-blob-storage", url, prefix: config.prefix },
  };
}

function azureStore(
  session: AzureSession,
  config: AzureConfig,
  options: StoreOptions,
): ObjectStore {
  const settings = { encryptionScope: options.encryptionScope, onNotice: options.onNotice };
  return {
    provider: "azure-blob-storage",
    description: session.description,
    limits: LIMITS,
    capabilities: { createOnlyPut: true, createOnlyMultipart: true, tags: true },
    bucketExists: (callOptions) => containerExists(session, config.prefix, callOptions),
    createBucket: (callOptions) => createContainer(session, callOptions),
    list: (prefix, callOptions) => listBlobs(session, prefix, callOptions),
    head: (key, callOptions) => headBlob(session, key, callOptions),
    get: (key, callOptions) => getBlob(session, key, callOptions),
    put: (key, body, callOptions) =>
      putBlob(session, settings, config.sizes, key, body, callOptions),
    startMultipart: (key, callOptions) => startBlockUpload(session, settings, key, callOptions),
    listUploads: (prefix, callOptions) => listUncommitted(session, prefix, callOptions),
    removeUpload: (upload, callOptions) => removeUncommitted(session, upload, callOptions),
    deleteMany: (keys, callOptions) =>
      deleteBlobs(session, keys, LIMITS.maxDeleteBatch, callOptions),
    close() {
      session.close();
      return Promise.resolve();
    },
  };
}

async function createContainer(session: AzureSession, { signal }: Cancellable = {}): Promise<void> {
  try {
    const context = { action: "create the container", signal };
    await session.call(context, (send) => session.container.create(send));
  } catch (error) {
    if (!isStoreError(error, "exists")) throw error;
  }
}
