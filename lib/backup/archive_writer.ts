/** From members to archives in the store: tar, compression, splitting, upload. */
import { availableParallelism } from "node:os";
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
  readonly inspect?: TarStreamOptions["inspect"];
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
  /** A member that did not fit into the archive before. */
  let held: OpenMember | undefined;
  try {
    for (let index = 0;; index++) {
      const first = held ?? await next();
      held = undefined;
      if (first === undefined && index > 0) return;
      let stored = 0;
      const nextThatFits = async (): Promise<OpenMember | undefined> => {
        const member = await next();
        if (member === undefined || fits(member, stored, uploader.capacity())) return member;
        held = member;
        return undefined;
      };
      const bytes = archiveBytes(first, nextThatFits, settings, reports, signal);
      await uploader.upload(name, keyOf(index), counted(bytes, (size) => stored += size));
    }
  } finally {
    if (held?.content.kind === "opened") held.content.file.close();
    await closeIterator(iterator);
  }
}

/** How far the bytes stored may lag behind the members read: buffers of the tar stream and of the codec. */
const UNDER_WAY = 32 * 1024 ** 2;

/** Whether a member is sure not to exceed what an object can have, though nothing of it be compressed. */
function fits({ member }: OpenMember, stored: number, capacity: number): boolean {
  return stored + Math.min(UNDER_WAY, capacity / 10) + 1.01 * member.size <= capacity;
}

async function* counted(
  source: AsyncIterable<Uint8Array>,
  count: (bytes: number) => void,
): AsyncGenerator<Uint8Array> {
  for await (const chunk of source) {
    count(chunk.length);
    yield chunk;
  }
}

async function* archiveBytes(
  first: OpenMember | undefined,
  next: () => Promise<OpenMember | undefined>,
  { compression, level, maxArchiveSize }: ArchiveSettings,
  { onContent, onNotice, inspect }: ArchiveReports,
  signal: AbortSignal,
): AsyncGenerator<Uint8Array> {
  const options = { onContent, onShrunk: onNotice, inspect, signal };
  if (compression === undefined) {
    const isFull = (bytes: number) => bytes > maxArchiveSize;
    yield* tarStream(first, next, { ...options, isFull });
    return;
  }
  let compressed = 0;
  const isFull = () => compressed > maxArchiveSize;
  // Every codec is done with a chunk when it asks for the next (tested); new chunks would double the memory.
  const tar = tarStream(first, next, { ...options, isFull });
  const concurrency = availableParallelism();
  const codec = { level, signal, concurrency, reuse: true, contentChecksum: true };
  for await (const chunk of compressStream(compression, tar, codec)) {
    compressed += chunk.length;
    yield chunk;
  }
}
