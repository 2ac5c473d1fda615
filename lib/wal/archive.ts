/** Store one file of the WAL archive: what PostgreSQL's archive_command is for. */
import type { Logger } from "../cli/log.ts";
import { type CompressionName, COMPRESSIONS, compressStream } from "../compression/table.ts";
import type { ServerLayout } from "../layout.ts";
import type { ObjectStore, Tags } from "../../providers/object_store.ts";
import { openLocalFile } from "./local_file.ts";
import type { WalName } from "./segment.ts";
import { uploadStream } from "./upload.ts";

export interface ArchiveRequest {
  /** The file to read. */
  readonly path: string;
  readonly wal: WalName;
  readonly compression: CompressionName | null;
  /** Numbers out of the codec's range are clamped; its medium level when absent. */
  readonly level?: number | undefined;
  readonly tags?: Tags | undefined;
}

/** What will be written, and from where. */
export interface ArchivePlan {
  readonly path: string;
  readonly key: string;
  readonly compression: CompressionName | null;
  readonly level: number | undefined;
  readonly tags: Tags | undefined;
}

export interface ArchivedWal {
  readonly key: string;
  /** Bytes of the file. */
  readonly size: number;
  /** Bytes of the object. */
  readonly storedSize: number;
}

/** Where a file goes: Barman's key, with the compression's suffix behind the complete name. */
export function planArchive(layout: ServerLayout, request: ArchiveRequest): ArchivePlan {
  const { path, wal, compression, level, tags } = request;
  const suffix = compression === null ? "" : COMPRESSIONS[compression].walSuffix;
  return { path, key: layout.wal(wal.name) + suffix, compression, level, tags };
}

/**
 * Read, compress and upload a file of the archive; an object of that key is replaced, as by Barman. When this
 * resolves, the store has all of it. Memory is bounded (32 MiB and what the codec needs) for segments of any size.
 * @throws {StoreError}; an Error that names the file if it can't be read or changes meanwhile; the signal's reason
 */
export async function archiveWal(
  store: ObjectStore,
  plan: ArchivePlan,
  options: { readonly signal?: AbortSignal | undefined; readonly log: Logger },
): Promise<ArchivedWal> {
  const { key, compression, level, tags } = plan;
  const { signal, log } = options;
  const file = await openLocalFile(plan.path);
  try {
    // The upload copies what it gets; a codec may hold on to it.
    const content = compression === null
      ? file.read(true)
      : compressStream(compression, file.read(), { level, contentSize: file.size, signal });
    const storedSize = await uploadStream(store, key, content, {
      tags,
      signal,
      expectedSize: file.size,
      onWarning: (message) => log.warning(message),
    });
    return { key, size: file.size, storedSize };
  } finally {
    await file.close();
  }
}
