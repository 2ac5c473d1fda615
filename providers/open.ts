/**
 * From a URL and options to a store. This file and what it imports statically stay small: the code of
 * a provider, its SDK above all, is loaded only when that provider is used.
 */
import type { ObjectStore, ProviderName, Tags } from "./object_store.ts";

/** Where a store is: the provider, and the path inside the bucket (Barman's PREFIX). */
export interface StoreLocation {
  readonly provider: ProviderName;
  /** As given, for messages. */
  readonly url: string;
  /** Key prefix without leading slash; a trailing one is kept where Barman keeps it (S3, Azure). */
  readonly prefix: string;
}

/** Options of all providers; each takes its own and ignores the others (as Barman does). */
export interface StoreOptions {
  readonly provider?: ProviderName | undefined;
  /** Bytes a second that parts are uploaded with at most, what is sent again included. */
  readonly maxBandwidth?: number | undefined;
  /** How often a request is sent at most, unless the store's own settings say so; 5 when absent. */
  readonly attempts?: number | undefined;
  // S3
  readonly endpointUrl?: string | undefined;
  readonly awsProfile?: string | undefined;
  readonly addressingStyle?: "auto" | "virtual" | "path" | undefined;
  /** Seconds that the store may stay silent in the middle of an answer; 60 when absent. */
  readonly readTimeout?: number | undefined;
  readonly encryption?: "AES256" | "aws:kms" | undefined;
  readonly sseKmsKeyId?: string | undefined;
  /** `file://` URI of the key that objects are encrypted and decrypted with (SSE-C). */
  readonly sseCustomerKey?: string | undefined;
  // Azure
  readonly azureCredential?: "azure-cli" | "managed-identity" | "default" | undefined;
  readonly encryptionScope?: string | undefined;
  readonly maxBlockSize?: number | undefined;
  readonly maxConcurrency?: number | undefined;
  readonly maxSinglePutSize?: number | undefined;
  // Google
  readonly kmsKeyName?: string | undefined;
  /** The process environment; given so that tests can set it. */
  readonly env: Readonly<Record<string, string | undefined>>;
  /** Told what is retried or noteworthy, one line each, without secrets. */
  readonly onNotice?: ((message: string) => void) | undefined;
}

export interface OpenedStore {
  readonly store: ObjectStore;
  readonly location: StoreLocation;
}

export type { ObjectStore, Tags };

/** Blob storage of Azure's clouds. Other hosts (emulators, custom domains) need `--cloud-provider`. */
const AZURE_HOST =
  /^https?:\/\/[^/?#]+\.blob\.(core\.(windows\.net|chinacloudapi\.cn|usgovcloudapi\.net|cloudapi\.de)|storage\.azure\.net)(?::\d+)?(?:[/?#]|$)/i;

/**
 * Which provider a URL belongs to: `--cloud-provider` when given, else by the URL's form.
 * A URL that tells nothing is taken for S3's, which then refuses it (Barman's default provider).
 */
export function providerOfUrl(url: string): ProviderName {
  if (/^file:/i.test(url)) return "local";
  if (/^gs:\/\//i.test(url) || /^https:\/\/console\.cloud\.google\.com\/storage\//i.test(url)) {
    return "google-cloud-storage";
  }
  if (AZURE_HOST.test(url)) return "azure-blob-storage";
  return "aws-s3";
}

/**
 * Open the store of a URL. Nothing is sent yet.
 * @throws {StoreError} kind `invalid` for a URL that the provider does not understand.
 */
export async function openStore(url: string, options: StoreOptions): Promise<OpenedStore> {
  const provider = options.provider ?? providerOfUrl(url);
  switch (provider) {
    case "aws-s3": {
      const { openS3Store } = await import("./s3/store.ts");
      return await openS3Store(url, options);
    }
    case "azure-blob-storage": {
      const { openAzureStore } = await import("./azure/store.ts");
      return await openAzureStore(url, options);
    }
    case "google-cloud-storage": {
      const { openGcsStore } = await import("./gcs/store.ts");
      return await openGcsStore(url, options);
    }
    case "local": {
      const { openFileStore } = await import("./file/store.ts");
      return await openFileStore(url, options);
    }
  }
}
