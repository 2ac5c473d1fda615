/** Is a local file the WAL that its name says? */
import { dirname, join } from "node:path";
import { readFile } from "node:fs/promises";
import type { Logger } from "../cli/log.ts";
import {
  headerMismatch,
  majorOfMagic,
  parseWalHeader,
  SECOND_PAGE_END,
  secondPageMagic,
  type WalHeader,
} from "./header.ts";
import { WrongWalError } from "./identity.ts";
import type { LocalFile } from "./local_file.ts";
import {
  formatTimeline,
  isSegmentSize,
  segmentsPerXlogId,
  startOfSegment,
  type WalName,
} from "./segment.ts";

/**
 * The header of a segment or partial segment, checked against the file's name and size.
 * @returns null for files without such a header: history and backup label files, and what is no WAL at all, which
 * PostgreSQL would not make and Barman takes (with a warning if it has the size of a segment)
 * @throws {WrongWalError} for WAL that is damaged or of another segment
 */
export async function inspectWal(
  file: LocalFile,
  path: string,
  wal: WalName,
  log: Logger,
): Promise<WalHeader | null> {
  if (wal.kind !== "segment" && wal.kind !== "partial") return null;
  const beginning = await file.head(SECOND_PAGE_END);
  const header = parseWalHeader(beginning);
  const secondMagic = secondPage(beginning, wal, file.size);
  if (header === null) {
    if (secondMagic !== null) {
      throw refusal(path, "its second page is WAL, but its first page is not: the file is damaged");
    }
    const message =
      `${path} does not begin with the header of a WAL segment; it is archived as it is`;
    if (isSegmentSize(file.size)) log.warning(message);
    else log.info(message);
    return null;
  }
  if (secondMagic !== null && secondMagic !== header.magic) {
    throw refusal(path, "its first pages are of different versions of PostgreSQL: it is damaged");
  }
  if (majorOfMagic(header.magic) === null) {
    log.info(
      `${path} is WAL of a version of PostgreSQL that is not known here (page magic ` +
        `0x${header.magic.toString(16)})`,
    );
  }
  const history = header.timeline < wal.timeline ? await historyBeside(path, wal.timeline) : null;
  const mismatch = headerMismatch(header, { ...wal, kind: wal.kind }, file.size, history);
  if (mismatch !== null) throw refusal(path, mismatch);
  return header;
}

function secondPage(
  beginning: Uint8Array,
  { segment, index }: WalName & { readonly kind: "segment" | "partial" },
  size: number,
): number | null {
  if (!isSegmentSize(size) || index >= segmentsPerXlogId(size)) return null;
  return secondPageMagic(beginning, startOfSegment(segment, size));
}

function refusal(path: string, reason: string): WrongWalError {
  return new WrongWalError(
    `Refused to archive ${path}: ${reason} (--no-wal-check archives it nevertheless)`,
  );
}

/** PostgreSQL keeps the history of its own timeline in pg_wal. */
async function historyBeside(path: string, timeline: number): Promise<string | null> {
  try {
    return await readFile(join(dirname(path), `${formatTimeline(timeline)}.history`), "utf8");
  } catch {
    // Then nothing can be said about where the timelines met, which is no reason to refuse.
    return null;
  }
}
