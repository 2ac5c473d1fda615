/** The bytes of one tar archive, made of opened members. */
import { endOfArchive, memberHeader } from "../tar/writer.ts";
import { paddingOf } from "../tar/format.ts";
import { type ContentInspection, PIECE_ALIGNMENT } from "./inspection.ts";
import type { OpenMember } from "./members.ts";
import type { OpenedFile } from "./opened_file.ts";
import { displayPath } from "./raw_names.ts";
import { unreadable } from "./walk.ts";

export interface TarStreamOptions {
  /** Asked before each member but the first, with the bytes of tar so far: end this archive here? */
  readonly isFull: (bytes: number) => boolean;
  /** Bytes of file content that went in. */
  readonly onContent: (bytes: number) => void;
  /** Told when a file was shorter than it was when opened. */
  readonly onShrunk: (message: string) => void;
  /** Who looks at the content of a member, if anybody. */
  readonly inspect?: ((open: OpenMember) => ContentInspection | undefined) | undefined;
  readonly signal: AbortSignal;
}

/** Bytes of a chunk: large reads, few steps. */
const CHUNK_SIZE = 512 * 1024;

/** A read under way into a chunk. */
interface Reading {
  readonly chunk: Uint8Array;
  /** Bytes; fewer come at the file's end only. */
  readonly wanted: number;
  readonly count: Promise<number>;
}

/**
 * Chunks of an archive that holds `first` and what `next` gives, until `isFull` or the last. A member is asked
 * for only when the one before was read to its end. Contents have exactly the size that their header says: a file
 * that got shorter is filled up with zeros (WAL replay writes those pages again), one that grew is cut. The next piece
 * of a file is read while one is looked at and stored. A chunk is overwritten once the next is asked for.
 */
export async function* tarStream(
  first: OpenMember | undefined,
  next: () => Promise<OpenMember | undefined>,
  options: TarStreamOptions,
): AsyncGenerator<Uint8Array> {
  let chunk = new Uint8Array(CHUNK_SIZE);
  let spare = new Uint8Array(CHUNK_SIZE);
  let used = 0;
  let total = 0;
  let ahead: Reading | undefined;

  /** The chunk so far, to be yielded. */
  const take = (): Uint8Array => {
    const full = chunk.subarray(0, used);
    [chunk, spare] = [spare, chunk];
    used = 0;
    return full;
  };
  /** Begin to read the next piece of a file: behind what the chunk has, or in the other one when there is no room. */
  const read = (file: OpenedFile, rest: number): Reading => {
    const room = pieceSize(rest, CHUNK_SIZE - used);
    const [into, start] = room > 0 ? [chunk, used] : [spare, 0];
    const wanted = room > 0 ? room : pieceSize(rest, CHUNK_SIZE);
    const count = file.read(into, start, wanted, null);
    // A failure is seen when its turn comes.
    count.catch(() => undefined);
    return { chunk: into, wanted, count };
  };

  /** Bytes into the chunk; without bytes, zeros. Not delegated to by `yield*`, which would wait for each. */
  function* put(length: number, bytes?: Uint8Array): Generator<Uint8Array> {
    total += length;
    for (let done = 0; done < length;) {
      const count = Math.min(length - done, CHUNK_SIZE - used);
      if (bytes === undefined) chunk.fill(0, used, used + count);
      else chunk.set(bytes.subarray(done, done + count), used);
      used += count;
      done += count;
      if (used === CHUNK_SIZE) yield take();
    }
  }

  let open = first;
  try {
    while (open !== undefined) {
      options.signal.throwIfAborted();
      const { member, content } = open;
      const inspection = options.inspect?.(open);
      const header = memberHeader(member);
      for (const full of put(header.length, header)) yield full;
      if (content.kind === "bytes") {
        const looking = inspection?.piece(content.bytes.subarray(0, member.size), 0);
        if (looking !== undefined) await looking;
        for (const full of put(member.size, content.bytes)) yield full;
      }
      if (content.kind === "opened") {
        let rest = member.size;
        while (rest > 0) {
          options.signal.throwIfAborted();
          const reading = ahead ?? read(content.file, rest);
          ahead = undefined;
          if (reading.chunk !== chunk) yield take();
          const count = await reading.count
            .catch((error) => Promise.reject(unreadable(content.path, error)));
          const piece = chunk.subarray(used, used + count);
          const position = member.size - rest;
          used += count;
          total += count;
          rest -= count;
          if (rest > 0 && count === reading.wanted) ahead = read(content.file, rest);
          const looking = inspection?.piece(piece, position);
          if (looking !== undefined) await looking;
          if (used === CHUNK_SIZE) yield take();
          if (count < reading.wanted) {
            options.onShrunk(
              `${displayPath(content.path)} got ${rest} bytes shorter while it was read`,
            );
            inspection?.zeros(rest);
            for (const full of put(rest)) yield full;
            rest = 0;
          }
        }
        content.file.close();
      }
      open = undefined;
      const ending = member.type === "file" ? inspection?.end() : undefined;
      if (ending !== undefined) await ending;
      options.onContent(member.size);
      for (const full of put(paddingOf(member.size))) yield full;
      if (options.isFull(total)) break;
      open = await next();
    }
  } finally {
    // Left in the middle of a file, which has to stay open while it is being read.
    await ahead?.count.catch(() => undefined);
    if (open?.content.kind === "opened") open.content.file.close();
  }
  const end = endOfArchive(total);
  for (const full of put(end.length, end)) yield full;
  if (used > 0) yield take();
}

/** How much to read at once, so that the next piece begins at a page of its file; 0 when there is no room for that. */
function pieceSize(rest: number, room: number): number {
  return rest <= room ? rest : room - room % PIECE_ALIGNMENT;
}
