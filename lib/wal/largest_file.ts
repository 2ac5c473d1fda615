/** How much a file of the WAL archive can be: an object of a few kilobytes may decompress to more than the disk holds. */
import { stripSuffix } from "../compression/table.ts";
import { MAX_SEGMENT_SIZE, parseWalName } from "./segment.ts";

/** History and backup label files have a few lines. */
const LARGEST_TEXT = 16 * 1024 ** 2;

/** More than any file of that name has. The message says of which object. */
export class OversizedWal extends Error {
  override readonly name = "OversizedWal";
}

/**
 * The content of an object, as long as it can be a file of that name.
 * @throws {OversizedWal}; what the content throws
 */
export async function* noLargerThanWal(
  key: string,
  content: AsyncIterable<Uint8Array>,
): AsyncGenerator<Uint8Array, void, void> {
  const wal = parseWalName(stripSuffix(key.slice(key.lastIndexOf("/") + 1)).name);
  const limit = wal?.kind === "history" || wal?.kind === "backup-label"
    ? LARGEST_TEXT
    : MAX_SEGMENT_SIZE;
  let size = 0;
  for await (const chunk of content) {
    size += chunk.length;
    if (size > limit) {
      throw new OversizedWal(
        `Cannot use ${key}: it holds more than ${limit} bytes, which no file of that name has`,
      );
    }
    yield chunk;
  }
}
