/**
 * Create-only across compressions. A conditional write protects one key, and a file may have several: plain, `.gz`, `.zst`.
 * Where more than one is in use, an archiver first makes a small object with the file's digest, one for all keys, on
 * condition that it is new; of several files the first wins. The object goes when the file is there. One that is left
 * by a killed process lets the same file through, which is what PostgreSQL sends next.
 */
import { createHash } from "node:crypto";
import { hostname } from "node:os";
import { readText } from "../backup/small_object.ts";
import type { Logger } from "../cli/log.ts";
import {
  type Cancellable,
  isStoreError,
  type ObjectStore,
  type Tags,
} from "../../providers/object_store.ts";
import { openLocalFile } from "./local_file.ts";

const MAX_SIZE = 64 * 1024;

export type Claim =
  /** Claims could not be removed again: nothing was written. */
  | { readonly kind: "none" }
  /** Nobody else archives a different file under this name. */
  | { readonly kind: "ours"; release(): Promise<void> }
  /** Somebody does, or did and was killed. `by` is for people. */
  | { readonly kind: "theirs"; readonly by: string };

/**
 * @param key of the claim
 * @param path of the file that is to be archived
 * @param conditionKept see `PutOptions`
 * @throws {StoreError}; an Error that names the file if it can't be read
 */
export async function claimName(
  store: ObjectStore,
  key: string,
  path: string,
  { signal, log, tags, conditionKept }: Cancellable & {
    readonly log: Logger;
    readonly tags: Tags | undefined;
    readonly conditionKept: boolean;
  },
): Promise<Claim> {
  // Nothing has this key. Archivers that may not delete would leave a claim for each file.
  const [refusal] = await store.deleteMany([`${key}.none`], { signal });
  if (refusal !== undefined) {
    log.info(
      `Files of one name under several compressions are not kept apart: ${refusal.error.message}`,
    );
    return { kind: "none" };
  }
  const sha256 = await digestOf(path);
  const text = JSON.stringify({
    about: "Written by barman-cloud wal-archive while it archives the file of this name",
    sha256,
    host: hostname(),
    pid: process.pid,
    at: new Date().toISOString(),
  });
  const ours: Claim = {
    kind: "ours",
    async release() {
      try {
        const [failure] = await store.deleteMany([key], { signal });
        if (failure !== undefined) throw failure.error;
      } catch (error) {
        log.info(
          `Cannot remove ${key}, which does no harm: ${
            error instanceof Error ? error.message : error
          }`,
        );
      }
    },
  };
  for (let attempt = 1;; attempt++) {
    try {
      await store.put(key, new TextEncoder().encode(`${text}\n`), {
        signal,
        tags,
        createOnly: true,
        conditionKept,
      });
      return ours;
    } catch (error) {
      if (!isStoreError(error, "exists")) throw error;
    }
    const found = await readClaim(store, key, { signal });
    // Removed meanwhile: its file is there, or nobody's is.
    if (found === null && attempt < 3) continue;
    if (found?.sha256 === sha256) return ours;
    return { kind: "theirs", by: found?.by ?? "somebody" };
  }
}

async function digestOf(path: string): Promise<string> {
  const file = await openLocalFile(path);
  try {
    const hash = createHash("sha256");
    for await (const chunk of file.read(true)) hash.update(chunk);
    return hash.digest("hex");
  } finally {
    await file.close();
  }
}

async function readClaim(
  store: ObjectStore,
  key: string,
  options: Cancellable,
): Promise<{ readonly sha256: string; readonly by: string } | null> {
  let json: unknown;
  try {
    json = JSON.parse(await readText(store, key, MAX_SIZE, options));
  } catch (error) {
    if (isStoreError(error, "not-found")) return null;
    if (!(error instanceof SyntaxError)) throw error;
  }
  const record: Readonly<Record<string, unknown>> = typeof json === "object" && json !== null
    ? { ...json }
    : {};
  const { sha256, host, pid, at } = record;
  return {
    sha256: typeof sha256 === "string" ? sha256 : "",
    by: `process ${pid ?? "?"} on ${host ?? "?"} at ${at ?? "?"}`,
  };
}
