/** Whose archive it is when nothing is recorded: asked once in the life of an archive. */
import { loadBackupInfo, UnreadableBackupInfo } from "../backup/catalogue.ts";
import { type CompressionName, COMPRESSIONS, stripSuffix } from "../compression/table.ts";
import type { ServerLayout } from "../layout.ts";
import { storedContent } from "../stored_content.ts";
import type { Cancellable, ObjectStore } from "../../providers/object_store.ts";
import { HEADER_SIZE, parseWalHeader, type WalHeader } from "./header.ts";
import type { Cluster } from "./identity.ts";
import { parseWalName } from "./segment.ts";

export interface ArchiveOwner {
  /** What is known of it. */
  readonly cluster: Partial<Cluster>;
  /** The object that tells; empty when none does. */
  readonly evidence: string;
  /** Compression suffixes of the newest segments, `""` for none. */
  readonly suffixes: readonly string[];
}

/** How many of the newest backups are asked, and how many of the newest segments. */
const ASKED = 3;

/**
 * The cluster of the newest segment, else of the newest backup, and how segments are compressed. A few requests, however
 * large the archive is (one for each 1000 folders of segments).
 * @throws {StoreError}
 */
export async function ownerOfArchive(
  store: ObjectStore,
  layout: ServerLayout,
  options: Cancellable,
): Promise<ArchiveOwner> {
  const newest = await newestSegments(store, layout, options);
  const suffixes = [
    ...new Set(
      newest.map(({ compression }) =>
        compression === null ? "" : COMPRESSIONS[compression].walSuffix
      ),
    ),
  ];
  for (const { key, compression } of newest.slice(-ASKED).reverse()) {
    const header = await headerOf(store, key, compression, options);
    if (header === null) continue;
    const { systemIdentifier, magic } = header;
    return { cluster: { systemIdentifier, magic }, evidence: key, suffixes };
  }
  return { ...await clusterOfBackups(store, layout, options), suffixes };
}

/** The header of the newest segment that has one; null when none of the last few has. */
export async function newestHeader(
  store: ObjectStore,
  layout: ServerLayout,
  options: Cancellable,
): Promise<WalHeader | null> {
  const newest = await newestSegments(store, layout, options);
  for (const { key, compression } of newest.slice(-ASKED).reverse()) {
    const header = await headerOf(store, key, compression, options);
    if (header !== null) return header;
  }
  return null;
}

/** No WAL and no backup is left. One or two requests. */
export async function isUnused(
  store: ObjectStore,
  layout: ServerLayout,
  options: Cancellable,
): Promise<boolean> {
  const { findConflict } = await import("./catalogue.ts");
  if (await findConflict(store, layout, options) !== null) return false;
  for await (const _ of store.list(layout.base, options)) return false;
  return true;
}

interface SegmentObject {
  readonly key: string;
  readonly compression: CompressionName | null;
}

/** The segments of the last folder, in the order of their names. */
async function newestSegments(
  store: ObjectStore,
  layout: ServerLayout,
  { signal }: Cancellable,
): Promise<SegmentObject[]> {
  let last: string | undefined;
  for await (const entry of store.list(layout.wals, { delimiter: "/", signal })) {
    if (entry.kind === "prefix") last = entry.prefix;
  }
  const segments: SegmentObject[] = [];
  if (last === undefined) return segments;
  for await (const entry of store.list(last, { signal })) {
    if (entry.kind !== "object") continue;
    const { name, compression } = stripSuffix(entry.key.slice(last.length));
    if (parseWalName(name)?.kind === "segment") segments.push({ key: entry.key, compression });
  }
  return segments;
}

/** @returns null for what does not begin as WAL */
async function headerOf(
  store: ObjectStore,
  key: string,
  compression: CompressionName | null,
  { signal }: Cancellable,
): Promise<WalHeader | null> {
  const head = new Uint8Array(HEADER_SIZE);
  let filled = 0;
  try {
    for await (const chunk of storedContent(store, key, compression, { signal })) {
      const taken = Math.min(chunk.length, head.length - filled);
      head.set(chunk.subarray(0, taken), filled);
      filled += taken;
      if (filled === head.length) break;
    }
  } catch (error) {
    const { CorruptDataError } = await import("../compression/corrupt_data_error.ts");
    if (!(error instanceof CorruptDataError)) throw error;
    return null;
  }
  return parseWalHeader(head.subarray(0, filled));
}

async function clusterOfBackups(
  store: ObjectStore,
  layout: ServerLayout,
  options: Cancellable,
): Promise<Pick<ArchiveOwner, "cluster" | "evidence">> {
  const ids: string[] = [];
  for await (const entry of store.list(layout.base, { ...options, delimiter: "/" })) {
    if (entry.kind === "prefix") ids.push(entry.prefix.slice(layout.base.length, -1));
  }
  for (const id of ids.slice(-ASKED).reverse()) {
    try {
      const systemid = (await loadBackupInfo(store, layout, id, options))?.systemid ?? "";
      if (/^\d{1,20}$/.test(systemid)) {
        return { cluster: { systemIdentifier: BigInt(systemid) }, evidence: layout.backupInfo(id) };
      }
    } catch (error) {
      if (!(error instanceof UnreadableBackupInfo && error.permanent)) throw error;
    }
  }
  return { cluster: {}, evidence: "" };
}
