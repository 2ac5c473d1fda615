/** Store one file of the WAL archive: what PostgreSQL's archive_command is for. */
import type { Logger } from "../cli/log.ts";
import {
  compressionLevel,
  type CompressionName,
  COMPRESSIONS,
  compressStream,
  stripSuffix,
} from "../compression/table.ts";
import type { ServerLayout } from "../layout.ts";
import {
  isStoreError,
  type ObjectStore,
  type PutOptions,
  type Tags,
} from "../../providers/object_store.ts";
import type { WalHeader } from "./header.ts";
import { NOTHING_KNOWN, requireCluster, type Verdict, type Verdicts } from "./identity.ts";
import { inspectWal } from "./inspect.ts";
import { type LocalFile, openLocalFile } from "./local_file.ts";
import type { WalName } from "./segment.ts";
import { fitsPut, uploadFile, uploadStream } from "./upload.ts";

export interface ArchiveRequest {
  /** The file to read. */
  readonly path: string;
  readonly wal: WalName;
  readonly compression: CompressionName | null;
  /** Numbers out of the codec's range are clamped; its usual level when absent. */
  readonly level?: number | undefined;
  readonly tags?: Tags | undefined;
  /** Replace what is there, as Barman does, whatever it is. */
  readonly overwrite?: boolean | undefined;
  /** Archive without looking at the header of the file and at whose archive it is. */
  readonly unchecked?: boolean | undefined;
  /** If the archive is another cluster's, it becomes that of this file's cluster. */
  readonly takeOver?: boolean | undefined;
}

/** What will be written, and from where. */
export interface ArchivePlan extends ArchiveRequest {
  readonly key: string;
  readonly layout: ServerLayout;
}

export interface ArchivedWal {
  /** `already-there`: an object with the same content is in the archive, and nothing was written. */
  readonly outcome: "stored" | "already-there";
  readonly key: string;
  /** Bytes of the file. */
  readonly size: number;
  /** Bytes of the object; null if it was there already. */
  readonly storedSize: number | null;
}

/** A different file of this name is in the archive. */
export class WalConflictError extends Error {
  override readonly name = "WalConflictError";
}

export interface ArchiveOptions {
  readonly signal?: AbortSignal | undefined;
  readonly log: Logger;
  /** Given to all files of one call: whose archive it is is asked once. */
  readonly verdicts?: Verdicts | undefined;
  /** May be used until the file is archived, instead of getting memory anew for each file. */
  readonly memory?: ArchiveMemory | undefined;
}

export interface ArchiveMemory {
  /** For the file, if it fits. */
  readonly file: Uint8Array;
  /** For what is uploaded. */
  readonly object: Uint8Array;
}

/** Where a file goes: Barman's key, with the compression's suffix behind the complete name. */
export function planArchive(layout: ServerLayout, request: ArchiveRequest): ArchivePlan {
  return { ...request, layout, key: layout.wal(request.wal.name) + suffixOf(request.compression) };
}

function suffixOf(compression: CompressionName | null): string {
  return compression === null ? "" : COMPRESSIONS[compression].walSuffix;
}

/**
 * Read, compress and upload a file of the archive. When this resolves, the store has all of it. An object that is there
 * is never replaced, unless `overwrite`: with the same content (decompressed, under whatever suffix) it is as good as
 * stored. Memory is bounded (32 MiB and what the codec needs) for segments of any size.
 * @throws {WrongWalError} for WAL of another cluster or another segment; {WalConflictError}; {StoreError}; an Error
 * that names the file if it can't be read or changes meanwhile; the signal's reason
 */
export async function archiveWal(
  store: ObjectStore,
  plan: ArchivePlan,
  options: ArchiveOptions,
): Promise<ArchivedWal> {
  const { key, compression, level, tags, path, wal } = plan;
  const { signal, log } = options;
  const file = await openLocalFile(path);
  try {
    const header = plan.unchecked ? null : await inspectWal(file, path, wal, log);
    // What zlib gives is new memory each time, the other codecs would have to copy it.
    const keepsChunks = options.memory === undefined && fitsPut(store, file) &&
      (compression === "zstd" || compression === "gzip");
    // The upload copies other chunks, and codecs are done with one when they ask for the next.
    const content = () => {
      const memory = options.memory?.file;
      // Those archived ahead keep all cores busy by themselves, and wait in this thread for the one that PostgreSQL waits for.
      const alone = memory === undefined;
      if (compression === null) return file.read(alone ? "here" : true);
      if (compression === "zstd" && memory !== undefined && file.size <= memory.length) {
        return zstdAtOnce(file, memory, level);
      }
      return compressStream(compression, file.read(memory ?? "here"), {
        level,
        contentSize: file.size,
        concurrency: alone ? undefined : 1,
        reuse: !keepsChunks,
        signal,
      });
    };
    const look = lookAtArchive(store, plan, header, options);
    // What it claims has to be given back even when the upload does not wait for it.
    const release = async () => await (await look.catch(() => null))?.claim?.release();
    try {
      const how = {
        tags,
        signal,
        expectedSize: file.size,
        memory: options.memory?.object,
        keepsChunks,
        ready: look,
        onWarning: (message: string) => log.warning(message),
      };
      const storedSize = compression === null && fitsPut(store, file)
        ? await uploadFile(store, key, file, how)
        : await uploadStream(store, key, content(), how);
      await release();
      return { outcome: "stored", key, size: file.size, storedSize };
    } catch (error) {
      if (error instanceof FoundCopies) return await useCopies(store, plan, error.keys, options);
      // Of an upload whose answer was lost nothing is known: the next attempt takes its claim.
      if (!isStoreError(error) || !error.retryable) await release();
      if (!plan.overwrite && await isThere(store, key, error, signal)) {
        return await useCopies(store, plan, [key], options);
      }
      throw error;
    }
  } finally {
    await file.close();
  }
}

/** Less work for this thread, which others wait for, than a stream. */
async function* zstdAtOnce(
  file: LocalFile,
  memory: Uint8Array,
  level: number | undefined,
): AsyncGenerator<Uint8Array, void, void> {
  const { compressZstdAtOnce } = await import("../compression/zstd.ts");
  let size = 0;
  for await (const chunk of file.read(memory)) size += chunk.length;
  yield await compressZstdAtOnce(memory.subarray(0, size), compressionLevel("zstd", level) ?? 0);
}

/** Was a put refused because of an object that is there? */
async function isThere(
  store: ObjectStore,
  key: string,
  refusal: unknown,
  signal: AbortSignal | undefined,
): Promise<boolean> {
  if (isStoreError(refusal, "exists")) return true;
  // Where replacing takes another permission than creating, as at Google, that may be asked for before the condition.
  if (!isStoreError(refusal, "denied")) return false;
  try {
    await store.head(key, { signal });
    return true;
  } catch (error) {
    if (!isStoreError(error)) throw error;
    return false;
  }
}

/** Objects that may hold the file already. */
class FoundCopies extends Error {
  readonly keys: readonly string[];
  constructor(keys: readonly string[]) {
    super(`Found ${keys.join(", ")}`);
    this.keys = keys;
  }
}

/**
 * Everything that has to be known before something is written: one small read for a segment, usually.
 * @throws {FoundCopies}
 */
async function lookAtArchive(
  store: ObjectStore,
  plan: ArchivePlan,
  header: WalHeader | null,
  options: ArchiveOptions,
): Promise<Look> {
  const { layout, tags, compression, overwrite = false, takeOver } = plan;
  const ask = (cluster: WalHeader) => {
    const more = { ...options, put: { tags }, takeOver };
    return requireCluster(store, layout, cluster, suffixOf(compression), more);
  };
  const verdict = header === null
    ? NOTHING_KNOWN
    : await once(options.verdicts, header, suffixOf(compression), ask);
  if (overwrite) return {};
  const { conditionKept } = verdict;
  // Who may not list can't tell what a claim would protect.
  const looked = verdict.siblings && await requireNoCopies(store, plan, options);
  // Labels of backups have names of their own, and what is no WAL is nobody's.
  const isContended = header !== null || plan.wal.kind === "history";
  if (!looked || !isContended) {
    return { createOnly: true, conditionKept: looked || conditionKept };
  }
  const claim = await requireClaim(store, plan, conditionKept, options);
  return { createOnly: true, conditionKept: true, claim };
}

interface Look extends Pick<PutOptions, "createOnly" | "conditionKept"> {
  /** To be released when the file is stored. */
  readonly claim?: { release(): Promise<void> } | undefined;
}

/**
 * Another file of this name may be on its way under another suffix.
 * @throws {FoundCopies} {WalConflictError}
 */
async function requireClaim(
  store: ObjectStore,
  plan: ArchivePlan,
  conditionKept: boolean,
  options: ArchiveOptions,
): Promise<Look["claim"]> {
  const { claimName } = await import("./claim.ts");
  const key = plan.layout.walClaim(plan.wal.name);
  const { tags } = plan;
  const claim = await claimName(store, key, plan.path, { ...options, tags, conditionKept });
  if (claim.kind === "none") return undefined;
  // Whoever had claimed it before may have finished since the first look.
  try {
    await requireNoCopies(store, plan, options);
  } catch (error) {
    if (error instanceof FoundCopies && claim.kind === "ours") await claim.release();
    throw error;
  }
  if (claim.kind === "ours") return claim;
  throw new WalConflictError(
    `Refused to archive ${plan.path}: a different file of this name is being archived (${key}, by ${claim.by}). ` +
      "Nothing was changed. Do two servers archive under one name? If that one never comes, remove the claim",
  );
}

async function once(
  verdicts: Verdicts | undefined,
  header: WalHeader,
  suffix: string,
  ask: (header: WalHeader) => Promise<Verdict>,
): Promise<Verdict> {
  const about = `${header.systemIdentifier} ${header.magic} ${suffix}`;
  const known = verdicts?.get(about);
  if (known !== undefined) return await known;
  const verdict = ask(header);
  verdicts?.set(about, verdict);
  return await verdict;
}

/**
 * The same file may be there under another suffix, where a conditional write does not see it.
 * @returns false when listing is not allowed; the key itself is then all that is protected
 */
async function requireNoCopies(
  store: ObjectStore,
  { layout, wal }: ArchivePlan,
  { signal, log }: ArchiveOptions,
): Promise<boolean> {
  const plainKey = layout.wal(wal.name);
  const keys: string[] = [];
  try {
    for await (const entry of store.list(plainKey, { delimiter: "/", signal })) {
      if (entry.kind === "object" && stripSuffix(entry.key).name === plainKey) keys.push(entry.key);
    }
  } catch (error) {
    if (!isStoreError(error, "denied")) throw error;
    log.info(`Cannot look for copies with other compressions: ${error.message}`);
    return false;
  }
  if (keys.length > 0) throw new FoundCopies(keys);
  return true;
}

/** Nothing is written: either all that is there has the same content, or the file is refused. */
async function useCopies(
  store: ObjectStore,
  { path, key: wanted }: ArchivePlan,
  keys: readonly string[],
  { signal, log }: ArchiveOptions,
): Promise<ArchivedWal> {
  const { compareWithObject } = await import("./compare.ts");
  let size = 0;
  for (const key of keys) {
    const result = await compareWithObject(store, key, path, { signal }).catch((error) => {
      if (!isStoreError(error, "denied")) throw error;
      throw new WalConflictError(
        `Refused to archive ${path}: ${key} is there, and whether it is the same can't be told without ` +
          `permission to read it: ${error.message}`,
        { cause: error },
      );
    });
    if (result.kind === "different") {
      throw new WalConflictError(
        `Refused to archive ${path}: ${key} is there and ${result.reason}. Nothing was changed. Do two servers ` +
          "archive under one name? If the file in the archive is the wrong one, remove it or use --overwrite",
      );
    }
    size = result.size;
  }
  const [key = wanted] = keys;
  log.info(`${key} is there already, with the same content as ${path}`);
  return { outcome: "already-there", key, size, storedSize: null };
}
