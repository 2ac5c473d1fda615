/** Keys of the customer's own (SSE-C): the store encrypts with them and forgets them. */
import { readFile } from "node:fs/promises";
import { fileURLToPath } from "node:url";
import { StoreError } from "../object_store.ts";
import type { StoreOptions } from "../open.ts";

/** Parameters of the SDK's commands; the SDK adds the key's MD5. */
export type CustomerKey =
  | { readonly SSECustomerAlgorithm: "AES256"; readonly SSECustomerKey: string }
  | { readonly SSECustomerAlgorithm?: never; readonly SSECustomerKey?: never };

const KEY_BYTES = 32;

/**
 * The key that `sseCustomerKey` names.
 * @throws {StoreError} kind `invalid`: not a `file://` URI, no such file, not 32 bytes in base64, or together with
 *   another encryption. Messages name the file, never what is in it.
 */
export async function readCustomerKey(
  { sseCustomerKey: uri, encryption, sseKmsKeyId }: StoreOptions,
): Promise<CustomerKey> {
  if (uri === undefined) return {};
  if (encryption !== undefined || sseKmsKeyId !== undefined) {
    throw invalid("--sse-customer-key and --encryption exclude each other: leave out one of them");
  }
  const path = pathOf(uri);
  let text: string;
  try {
    text = (await readFile(path, "utf8")).trim();
  } catch (error) {
    throw invalid(
      `Cannot read the key of --sse-customer-key: ${
        error instanceof Error ? error.message : String(error)
      }`,
      error,
    );
  }
  const isBase64 = /^(?:[A-Za-z0-9+/]{4})*(?:[A-Za-z0-9+/]{2}==|[A-Za-z0-9+/]{3}=)?$/.test(text);
  const length = isBase64 ? Buffer.from(text, "base64").length : undefined;
  if (length !== KEY_BYTES) {
    const what = length === undefined ? "something else" : `${length} bytes`;
    throw invalid(
      `${path} of --sse-customer-key must hold a key of ${KEY_BYTES} bytes (256 bits) in base64, but holds ${what}`,
    );
  }
  return { SSECustomerAlgorithm: "AES256", SSECustomerKey: text };
}

function pathOf(uri: string): string {
  try {
    // A path alone may not look like a URI, but would be taken for a relative one.
    if (/^file:\/\//i.test(uri)) return fileURLToPath(uri);
  } catch {
    // Told below.
  }
  throw invalid(
    `--sse-customer-key needs the file's URI: '${uri}' is not of the form file:///path/to/key`,
  );
}

function invalid(message: string, cause?: unknown): StoreError {
  return new StoreError("invalid", message, cause === undefined ? {} : { cause });
}
