/** Reads a backup back from the store: is all of it there, whole, and as it was stored? */
import type { StoredObject } from "../../providers/object_store.ts";
import type { Logger } from "../cli/log.ts";
import type { ServerLayout } from "../layout.ts";
import {
  type PageRules,
  USUAL_BLOCK_SIZE,
  USUAL_SEGMENT_BYTES,
} from "../postgres/page_checksum.ts";
import { parseLsn } from "../postgres/lsn.ts";
import { restorePlan } from "../restore/plan.ts";
import { RestoreError } from "../restore/restore_error.ts";
import { type MissingWal, missingWal, spanOf, spanText, type WalSpan } from "../wal/presence.ts";
import { isSegmentSize } from "../wal/segment.ts";
import { allArchives, backupArchives } from "./archives.ts";
import type { BackupInfo } from "./backup_info.ts";
import { MalformedManifest, type ManifestFacts, readManifest } from "./backup_manifest.ts";
import { listBackupObjects } from "./catalogue.ts";
import { ManifestIndex } from "./manifest_index.ts";
import { describeFailure } from "./page_failures.ts";
import { displayPath } from "./raw_names.ts";
import { type BackupRecord, loadRecord, MalformedRecord, type RecordedArchive } from "./record.ts";
import {
  ArchiveReading,
  type ArchiveReport,
  Findings,
  NEEDED,
  type PagesReport,
  type RankedArchive,
  type ReadingJob,
} from "./verify_archives.ts";

export interface VerifyJob extends ReadingJob {
  readonly layout: ServerLayout;
  readonly backupId: string;
  readonly info: BackupInfo;
  /** What it means when WAL that the backup needs is not in the archive. */
  readonly wal: "fail" | "warn" | "ignore";
  readonly log: Logger;
}

export interface BackupReport {
  readonly backupId: string;
  readonly serverName: string;
  readonly status: string;
  readonly archives: readonly ArchiveReport[];
  /** Null when the backup has none: it was not made by this program, or made without. */
  readonly manifest: { readonly files: number; readonly version: number } | null;
  /** Null when the cluster has no checksums of pages, or nobody knows. */
  readonly pages: PagesReport | null;
  /** Null when it was not looked at, or what the backup needs is not known. */
  readonly wal: { readonly span: WalSpan; readonly missing: MissingWal | null } | null;
  /** One line each, the first `MAX_PROBLEMS`; nothing when the backup is fine. */
  readonly problems: readonly string[];
  readonly problemCount: number;
  readonly warnings: readonly string[];
}

/**
 * Verify one backup: every archive is read to its end, every member compared with the manifest, every page with its
 * checksum, and the WAL from begin to end looked for. Nothing is written. Memory grows with the number of files (about
 * 150 bytes each), not with their size.
 * @throws {StoreError} when the store could not tell
 * @throws {RestoreError} kind `invalid` for a backup whose data is not in the store
 */
export async function verifyBackup(job: VerifyJob): Promise<BackupReport> {
  const { store, layout, backupId, info, signal, log } = job;
  if (info.snapshotsInfo !== null) {
    throw new RestoreError(
      "invalid",
      `Backup ${backupId} consists of disk snapshots, which can't be read here`,
    );
  }
  const findings = new Findings(log);
  if (info.status !== "DONE") findings.problem(`The backup has status ${info.status}, not DONE`);
  const objects = await listBackupObjects(store, layout, backupId, { signal });
  const archives = archivesOf(job, objects, findings);
  const record = await readRecord(job, objects, findings);
  const manifest = await loadManifest(job, objects, findings);
  const rules = rulesOf(info, record);
  const recorded = record === null ? null : recordedArchives(job, record, archives, findings);
  const run = new ArchiveReading(job, findings, manifest?.index ?? null, rules, recorded);
  await run.archives(archives);
  findings.settleTop();
  const pages = rules === null ? null : run.pages();
  for (const failure of pages?.listed ?? []) findings.problem(describeFailure(failure));
  if (pages !== null && pages.failures > pages.listed.length) {
    findings.problem(`${pages.failures - pages.listed.length} more pages are damaged`);
  }
  // Of what is in an archive that is not there, or can't be read, nothing more needs to be said.
  if (run.allRead && !findings.lacksArchives) {
    reportMissing(manifest?.index ?? null, run, info, findings);
  }
  const wal = job.wal === "ignore" ? null : await lookForWal(job, findings);
  return {
    backupId,
    serverName: layout.server,
    status: info.status,
    archives: run.reports,
    manifest: manifest === null
      ? null
      : { files: manifest.facts.files, version: manifest.facts.version },
    pages,
    wal,
    problems: findings.problems,
    problemCount: findings.count,
    warnings: findings.warnings,
  };
}

/** The archives that are there; those that are not are problems. */
function archivesOf(
  { layout, backupId, info }: VerifyJob,
  objects: readonly StoredObject[],
  findings: Findings,
): RankedArchive[] {
  const archives = backupArchives(layout.backup(backupId), objects, info);
  try {
    restorePlan({
      backupId,
      info: { ...info, tablespaces: info.tablespaces ?? [] },
      archives,
      destination: "/verify",
      // Where nothing shares a directory: only what is missing matters here.
      tablespaceRules: (info.tablespaces ?? []).map(({ name, oid }) => ({
        name,
        location: `/verify-${oid}`,
      })),
      resolve: (path) => path,
    });
  } catch (error) {
    if (!(error instanceof RestoreError)) throw error;
    findings.problem(error.message);
    findings.lacksArchives = true;
  }
  for (const key of archives.unknown) findings.warning(`Not looked at: ${key}, of unknown format`);
  const names = new Map(
    archives.sets.flatMap(({ name, main, additional }) =>
      [main, ...additional].map((archive, rank) => [archive, { name, rank }] as const)
    ),
  );
  return allArchives(archives).map((archive) => ({
    archive,
    ...(names.get(archive) ?? { name: "data", rank: 0 }),
  }));
}

async function readRecord(
  { store, layout, backupId, signal }: VerifyJob,
  objects: readonly StoredObject[],
  findings: Findings,
): Promise<BackupRecord | null> {
  try {
    return await loadRecord(store, layout, backupId, objects, { signal });
  } catch (error) {
    if (!(error instanceof MalformedRecord)) throw error;
    findings.problem(`${layout.record(backupId)} is damaged: ${error.message}`);
    return null;
  }
}

/** By key, those that are there; the others are problems. */
function recordedArchives(
  { layout, backupId }: VerifyJob,
  record: BackupRecord,
  archives: readonly RankedArchive[],
  findings: Findings,
): ReadonlyMap<string, RecordedArchive> {
  const there = new Set(archives.map(({ archive }) => archive.object.key));
  const recorded = new Map(
    record.archives.map((archive) => [layout.backup(backupId) + archive.name, archive]),
  );
  for (const key of recorded.keys()) {
    if (there.has(key)) continue;
    findings.problem(`${key} is missing`);
    findings.lacksArchives = true;
  }
  for (const key of there) {
    if (!recorded.has(key)) findings.warning(`${key} was not there when the backup was taken`);
  }
  return recorded;
}

async function loadManifest(
  { store, layout, backupId, signal, log, onProgress }: VerifyJob,
  objects: readonly StoredObject[],
  findings: Findings,
): Promise<{ readonly index: ManifestIndex; readonly facts: ManifestFacts } | null> {
  const key = layout.manifest(backupId);
  if (!objects.some((object) => object.key === key)) {
    log.info(`Backup ${backupId} has no manifest: its members are not compared with one`);
    return null;
  }
  onProgress?.({ activity: "reading the manifest", doneBytes: 0, totalBytes: null });
  const index = new ManifestIndex();
  try {
    const { body } = await store.get(key, { signal });
    const facts = await readManifest(body, (file) => index.add(file));
    return { index, facts };
  } catch (error) {
    if (!(error instanceof MalformedManifest)) throw error;
    findings.problem(`${key} is damaged: ${error.message}`);
    return null;
  }
}

/** Null when pages have no checksums, or it is not known whether they have. */
function rulesOf(info: BackupInfo, record: BackupRecord | null): PageRules | null {
  if (info.dataChecksums !== "on" || info.beginXlog === null) return null;
  const blockSize = record?.pages?.blockSize ?? USUAL_BLOCK_SIZE;
  return {
    blockSize,
    segmentBlocks: record?.pages?.segmentBlocks ?? USUAL_SEGMENT_BYTES / blockSize,
    startLsn: parseLsn(info.beginXlog),
  };
}

/** What should be in an archive and is in none. */
function reportMissing(
  manifest: ManifestIndex | null,
  run: ArchiveReading,
  info: BackupInfo,
  findings: Findings,
): void {
  if (manifest !== null) {
    for (const path of manifest.missing()) {
      findings.problem(`${displayPath(path)} is in the manifest and in no archive`);
    }
  }
  for (const path of NEEDED) {
    if (run.has(path) || manifest?.has(path) === true) continue;
    // The label can be made from backup.info.
    if (path === "backup_label" && info.backupLabel !== null) continue;
    findings.problem(`No archive holds ${path}`);
  }
}

async function lookForWal(
  { store, layout, backupId, info, wal, signal, onProgress }: VerifyJob,
  findings: Findings,
): Promise<BackupReport["wal"]> {
  const { beginXlog, endXlog, timeline, xlogSegmentSize } = info;
  if (
    beginXlog === null || endXlog === null || timeline === null || !isSegmentSize(xlogSegmentSize)
  ) {
    findings.problem(`backup.info of ${backupId} does not tell which WAL it needs`);
    return null;
  }
  if (info.endWal !== null && parseInt(info.endWal.slice(0, 8), 16) !== timeline) {
    findings.warning(
      "Not looked for: WAL over a change of timeline; barman-cloud wal-verify tells more",
    );
    return null;
  }
  onProgress?.({ activity: "looking for WAL", doneBytes: 0, totalBytes: null });
  const span = spanOf(parseLsn(beginXlog), parseLsn(endXlog), timeline, xlogSegmentSize);
  const missing = await missingWal(store, layout, span, { signal });
  for (const range of missing?.ranges.items ?? []) {
    const message = `WAL that the backup needs is missing: ${spanText(span, range)}`;
    if (wal === "fail") findings.problem(message);
    else findings.warning(message);
  }
  return { span, missing };
}
