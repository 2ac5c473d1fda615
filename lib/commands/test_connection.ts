/** What `-t` does, for all commands, and the connection check of check-wal-archive. */
import { EXIT, type ExitCode } from "../cli/exit_codes.ts";
import type { Logger } from "../cli/log.ts";
import {
  type Cancellable,
  isStoreError,
  type ObjectStore,
  type StoreError,
} from "../../providers/object_store.ts";

/** `no-connection` was already logged as an error; `no-bucket` was not. */
export type ConnectionState = "ok" | "no-bucket" | "no-connection";

/**
 * `-t`: can the store be reached and is the bucket there?
 * @returns 0 when both, 1 without the bucket, 2 without connection; the reason is logged as an error
 * @throws {StoreError} for answers that are neither (exit code 4), such as access denied by S3
 */
export async function testConnection(
  store: ObjectStore,
  log: Logger,
  options: Cancellable = {},
): Promise<ExitCode> {
  switch (await checkConnection(store, log, options)) {
    case "no-connection":
      return EXIT.noConnection;
    case "no-bucket":
      log.error(`There is no ${store.description}; make it, or correct the URL`);
      return EXIT.operationFailed;
    case "ok":
      log.info(`Connection to ${store.description} works`);
      return EXIT.success;
  }
}

/**
 * Ask the store for the bucket.
 * @throws {StoreError} for answers that do not mean that there is no connection
 */
export async function checkConnection(
  store: ObjectStore,
  log: Logger,
  options: Cancellable = {},
): Promise<ConnectionState> {
  try {
    return await store.bucketExists(options) ? "ok" : "no-bucket";
  } catch (error) {
    if (isStoreError(error) && meansNoConnection(store, error)) {
      log.error(error.message);
      return "no-connection";
    }
    throw error;
  }
}

/** Barman calls every refusal of Azure and Google "no connection", but of S3 only silence. */
function meansNoConnection(store: ObjectStore, error: StoreError): boolean {
  switch (store.provider) {
    case "azure-blob-storage":
    case "google-cloud-storage":
      return true;
    case "aws-s3":
    case "local":
      return error.kind === "unreachable";
  }
}
