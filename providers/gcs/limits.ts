import { StoreError, type StoreLimits, type UploadedPart } from "../object_store.ts";
import type { GcsSession, RequestContext } from "./session.ts";

const MiB = 1024 ** 2;

/** Google's quotas; deletions are single requests, the number is Barman's. */
export const LIMITS: StoreLimits = {
  maxParts: 10_000,
  minPartSize: 5 * MiB,
  maxPartSize: 5 * 1024 * MiB,
  maxObjectSize: 5 * 1024 ** 2 * MiB,
  maxPutSize: 5 * 1024 * MiB,
  maxDeleteBatch: 100,
};

/** @throws {StoreError} kind `invalid` */
export function requirePartNumber(
  session: GcsSession,
  { action, key }: RequestContext,
  number: number,
): void {
  if (Number.isInteger(number) && number >= 1 && number <= LIMITS.maxParts) return;
  throw new StoreError(
    "invalid",
    `Cannot ${action} in ${session.description}: part numbers are 1 to ${LIMITS.maxParts}`,
    { key },
  );
}

/** @throws {StoreError} kind `invalid` */
export function requireParts(
  session: GcsSession,
  { action, key }: RequestContext,
  parts: readonly UploadedPart[],
): void {
  if (parts.length > 0) return;
  throw new StoreError(
    "invalid",
    `Cannot ${action} in ${session.description}: a multipart upload needs a part`,
    { key },
  );
}
