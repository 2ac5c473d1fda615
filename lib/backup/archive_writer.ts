/** From members to archives in the store: tar, compression, splitting, upload. */
import { type CompressionName, COMPRESSIONS, compressStream } from "../compression/table.ts";
import { closeIterator } from "./abortable.ts";
import type { OpenMember } from "./members.ts";
import { tarStream, type TarStreamOptions } from "./tar_stream.ts";
import type { PartUploader } from "./upload.ts";

export interface ArchiveSettings {
  readonly compression: CompressionName | undefined;
  readonly level: number | undefined;
  /** An archive larger than this (compressed bytes) before a member ends there, and the next one begins. */
  readonly maxArchiveSize: number;
}

export interface ArchiveReports {
  /** Bytes of file content stored. */
  readonly onContent: TarStreamOptions["onContent"];
  readonly onNotice: (message: string) => void;
}

/** `tar`, `tar.gz`, …: what keys of archives end with. */
export function archiveExtension(compression: CompressionName | undefined): string {
  return compression === undefined ? "tar" : COMPRESSIONS[compression].tarExtension;
}

/**
 * Store members as `NAME.tar`, `NAME_0001.tar`, …: at least one archive, each complete in itself. Resolves when
 * all bytes are with the uploader, which still has to finish.
 * @param keyOf key of the archive with this number, the first being 0
 */
export async function writeArchives(
  name: string,
  members: AsyncIterable<OpenMember>,
  keyOf: (index: number) => string,
  settings: ArchiveSettings,
  reports: ArchiveReports,
  uploader: PartUploader,
): Promise<void> {
  const { signal } = uploader;
  const iterator = members[Symbol.asyncIterator]();
  const next = async (): Promise<OpenMember | undefined> => {
    const result = await iterator.next();
    return result.done ? undefined : result.value;
  };
  try {
    for (let index = 0;; index++) {
      const first = await next();
      if (first === undefined && index > 0) return;
      const bytes = archiveBytes(first, next, settings, reports, signal);
      await uploader.upload(name, keyOf(index), bytes);
    }
  } finally {
    await closeIterator(iterator);
  }
}

async function* archiveBytes(
  first: OpenMember | undefined,
  next: () => Promise<OpenMember | undefined>,
  { compression, level, maxArchiveSize }: ArchiveSettings,
  { onContent, onNotice }: ArchiveReports,
  signal: AbortSignal,
): AsyncGenerator<Uint8Array> {
  const options = { onContent, onShrunk: onNotice, signal };
  if (compression === undefined) {
    const isFull = (bytes: number) => bytes > maxArchiveSize;
    yield* tarStream(first, next, { ...options, isFull });
    return;
  }
  let compressed = 0;
  const isFull = () => compressed > maxArchiveSize;
  // Every codec is done with a chunk when it asks for the next (tested); new chunks would double the memory.
  const tar = tarStream(first, next, { ...options, isFull });
  for await (const chunk of compressStream(compression, tar, { level, signal })) {
    compressed += chunk.length;
    yield chunk;
  }
}
