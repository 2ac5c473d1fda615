/** Fetch one file of the WAL archive: what PostgreSQL's restore_command is for. */
import type { Logger } from "../cli/log.ts";
import { CorruptDataError } from "../compression/corrupt_data_error.ts";
import { type CompressionName, stripSuffix } from "../compression/table.ts";
import type { ServerLayout } from "../layout.ts";
import { storedContent } from "../stored_content.ts";
import { isStoreError, type ObjectStore, type StoredObject } from "../../providers/object_store.ts";
import { noLargerThanWal } from "./largest_file.ts";
import { writeDurably } from "./local_file.ts";
import { parseWalName, type WalName } from "./segment.ts";

export interface RestoreRequest {
  readonly wal: WalName;
  /** Path of the file to write; relative to the working directory, which is PGDATA for PostgreSQL. */
  readonly destination: string;
  /** May a `.partial` stand for a segment that has no complete object? */
  readonly partial: boolean;
}

/** An object that holds the file that was asked for. */
export interface Candidate {
  readonly key: string;
  readonly compression: CompressionName | null;
  readonly partial: boolean;
}

export type RestoreResult =
  | { readonly kind: "restored"; readonly candidate: Candidate; readonly size: number }
  /** The store said that no such file is there; a store that could not tell is an error instead. */
  | { readonly kind: "not-found" };

/**
 * Bring a file of the archive to its destination: one listing and one read. The destination appears whole and durable,
 * or stays as it was.
 * @throws {StoreError}; {CorruptDataError}; {OversizedWal}; an Error that names the destination; the signal's reason
 */
export async function restoreWal(
  store: ObjectStore,
  layout: ServerLayout,
  request: RestoreRequest,
  options: { readonly signal?: AbortSignal | undefined; readonly log: Logger },
): Promise<RestoreResult> {
  const { log } = options;
  for (let listings = 1;; listings++) {
    const candidates = await findCandidates(store, layout, request, options);
    let damage: unknown;
    let gone: unknown;
    for (const candidate of candidates) {
      // A broken segment is an error, not a reason to end recovery inside the segment.
      if (damage !== undefined && candidate.partial) break;
      try {
        const size = await download(store, candidate, request.destination, options);
        return { kind: "restored", candidate, size };
      } catch (error) {
        if (isStoreError(error, "not-found")) {
          log.info(`${candidate.key} was listed but is gone`);
          gone ??= error;
        } else if (error instanceof CorruptDataError) {
          log.warning(`${candidate.key} is damaged: ${error.message}`);
          damage ??= error;
        } else throw error;
      }
    }
    if (damage !== undefined) throw damage;
    if (gone === undefined) return { kind: "not-found" };
    // What was deleted meanwhile is not in the next listing. What is listed again and "not there" again is not
    // absent: a gateway answers 404 for reasons of its own.
    if (listings > 1) throw gone;
  }
}

async function findCandidates(
  store: ObjectStore,
  layout: ServerLayout,
  { wal, partial }: RestoreRequest,
  { signal, log }: { readonly signal?: AbortSignal | undefined; readonly log: Logger },
): Promise<readonly Candidate[]> {
  const plainKey = layout.wal(wal.name);
  const folder = plainKey.slice(0, plainKey.length - wal.name.length);
  const keys: string[] = [];
  for await (const entry of store.list(plainKey, { delimiter: "/", signal })) {
    if (entry.kind === "object") keys.push(entry.key);
  }
  const strangers = keys.filter((key) =>
    parseWalName(stripSuffix(key.slice(folder.length)).name) === null
  );
  if (strangers.length > 0) log.warning(`Not a WAL file, ignored: ${strangers.join(", ")}`);
  return chooseCandidates(keys, folder, wal, partial);
}

/** Cheapest to read first, so that the choice among several is always the same. */
const PREFERENCE: readonly (CompressionName | null)[] = [
  null,
  "lz4",
  "snappy",
  "zstd",
  "gzip",
  "xz",
  "bzip2",
];

/**
 * Which of the listed keys hold the file, best first: complete ones before `.partial`, each plain, lz4, snappy, zstd,
 * gzip, xz, bzip2. Others that begin with the same name (backup labels) do not.
 * @param folder what the keys have before the file's name
 */
export function chooseCandidates(
  keys: readonly string[],
  folder: string,
  wal: WalName,
  partial: boolean,
): readonly Candidate[] {
  const candidates: Candidate[] = [];
  for (const key of keys) {
    const { name, compression } = stripSuffix(key.slice(folder.length));
    if (name === wal.name) candidates.push({ key, compression, partial: false });
    else if (partial && wal.kind === "segment" && name === `${wal.name}.partial`) {
      candidates.push({ key, compression, partial: true });
    }
  }
  const rank = ({ partial, compression }: Candidate) =>
    (partial ? PREFERENCE.length : 0) + PREFERENCE.indexOf(compression);
  return candidates.sort((a, b) => rank(a) - rank(b));
}

/**
 * Bring the content of one object to a destination, whole and durable or not at all.
 * @returns bytes written
 * @throws as `restoreWal`
 */
export async function download(
  store: ObjectStore,
  candidate: Candidate,
  destination: string,
  { signal, log }: { readonly signal?: AbortSignal | undefined; readonly log: Logger },
): Promise<number> {
  const { key, compression } = candidate;
  const content = storedContent(store, key, compression, { through: countedAgain, signal });
  const wal = noLargerThanWal(key, content);
  return await writeDurably(destination, wal, { signal, onDebug: log.debug });
}

/** The store promises to tell of bodies cut short; a WAL file is worth counting again. */
async function* countedAgain(
  body: AsyncIterable<Uint8Array>,
  { key, size }: StoredObject,
): AsyncGenerator<Uint8Array, void, void> {
  let received = 0;
  for await (const chunk of body) {
    received += chunk.length;
    yield chunk;
  }
  if (received !== size) {
    throw new Error(`Cannot restore ${key}: received ${received} of ${size} bytes`);
  }
}
