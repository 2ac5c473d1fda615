/**
 * `verification.json`: what was found out while a backup was taken, for whoever verifies it later. An object of ours
 * that Barman does not look at.
 */
import type { Cancellable, ObjectStore, StoredObject } from "../../providers/object_store.ts";
import type { ServerLayout } from "../layout.ts";
import type { PageFailure, PageReport } from "./page_failures.ts";
import { NotText, readText } from "./small_object.ts";

export interface BackupRecord {
  readonly backupId: string;
  readonly archives: readonly RecordedArchive[];
  /** Null when pages were not looked at. */
  readonly pages:
    | {
      readonly blockSize: number;
      readonly segmentBlocks: number;
      readonly report: PageReport;
    }
    | null;
  /** Segments that were not in the archive when the backup ended; null when nobody looked. */
  readonly missingWal: number | null;
}

/** An archive as it was sent. */
export interface RecordedArchive {
  /** `data.tar.zst` */
  readonly name: string;
  /** Bytes. */
  readonly size: number;
  /** Of all its bytes, as zlib has it. */
  readonly crc32: number;
}

/** `verification.json` is there and can't be used; the message completes "KEY is damaged". */
export class MalformedRecord extends Error {
  override readonly name = "MalformedRecord";
}

/** Bytes. */
const MAX_SIZE = 4 * 1024 ** 2;

/**
 * The record of a backup.
 * @param objects what the store has of the backup
 * @returns null when there is none: Barman writes none
 * @throws {StoreError} {MalformedRecord}
 */
export async function loadRecord(
  store: ObjectStore,
  layout: ServerLayout,
  backupId: string,
  objects: readonly StoredObject[],
  options: Cancellable,
): Promise<BackupRecord | null> {
  const key = layout.record(backupId);
  if (!objects.some((object) => object.key === key)) return null;
  try {
    return parseRecord(await readText(store, key, MAX_SIZE, options));
  } catch (error) {
    if (!(error instanceof SyntaxError || error instanceof NotText)) throw error;
    throw new MalformedRecord(error.message, { cause: error });
  }
}

/** @returns what is wrong with an archive of which so much was read; null when it is as it was sent */
export function archiveMismatch(
  recorded: RecordedArchive,
  read: { readonly size: number; readonly crc32: number },
): string | null {
  if (recorded.size !== read.size) {
    return `has ${read.size} bytes, not the ${recorded.size} that were stored`;
  }
  return recorded.crc32 === read.crc32
    ? null
    : "does not have the bytes that were stored: its checksum is wrong";
}

export function formatRecord({ backupId, archives, pages, missingWal }: BackupRecord): string {
  return `${
    JSON.stringify(
      {
        version: 1,
        backup_id: backupId,
        archives: archives.map(({ name, size, crc32 }) => ({
          name,
          size,
          crc32: crc32.toString(16).padStart(8, "0"),
        })),
        page_checksums: pages === null ? null : {
          block_size: pages.blockSize,
          segment_blocks: pages.segmentBlocks,
          pages: pages.report.pages,
          failures: pages.report.failures,
          failed_pages: pages.report.listed,
        },
        missing_wal_segments: missingWal,
      },
      null,
      1,
    )
  }\n`;
}

/** @throws {SyntaxError} for anything but a record of a version that is known */
export function parseRecord(text: string): BackupRecord {
  const record = fields(JSON.parse(text));
  if (record["version"] !== 1) throw new SyntaxError("its version is not known");
  const pages = record["page_checksums"] === null ? null : fields(record["page_checksums"]);
  const missing = record["missing_wal_segments"];
  return {
    backupId: String(record["backup_id"]),
    archives: Array.isArray(record["archives"]) ? record["archives"].map(archive) : [],
    missingWal: missing === null ? null : count(missing),
    pages: pages === null ? null : {
      blockSize: blockSize(pages["block_size"]),
      segmentBlocks: count(pages["segment_blocks"]),
      report: {
        pages: count(pages["pages"]),
        failures: count(pages["failures"]),
        listed: Array.isArray(pages["failed_pages"]) ? pages["failed_pages"].map(failure) : [],
      },
    },
  };
}

function archive(value: unknown): RecordedArchive {
  const { name, size, crc32 } = fields(value);
  if (typeof name !== "string" || typeof crc32 !== "string" || !/^[0-9a-f]{8}$/.test(crc32)) {
    throw new SyntaxError("it has an archive without name or checksum");
  }
  return { name, size: count(size), crc32: parseInt(crc32, 16) };
}

function failure(value: unknown): PageFailure {
  const { file, block, found, expected } = fields(value);
  return {
    file: String(file),
    block: count(block),
    found: found === null ? null : count(found),
    expected: expected === null ? null : count(expected),
  };
}

function fields(value: unknown): Record<string, unknown> {
  if (typeof value !== "object" || value === null) throw new SyntaxError("it lacks a part");
  return { ...value };
}

function count(value: unknown): number {
  if (typeof value === "number" && Number.isSafeInteger(value) && value >= 0) return value;
  throw new SyntaxError("it has no number where one should be");
}

function blockSize(value: unknown): number {
  const size = count(value);
  if (size >= 1024 && size <= 32_768 && (size & (size - 1)) === 0) return size;
  throw new SyntaxError("it has no size of pages");
}
