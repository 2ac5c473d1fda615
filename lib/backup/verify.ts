/** Reads a backup back from the store: is all of it there, whole, and as it was stored? */
import { crc32 } from "node:zlib";
import { isStoreError, type ObjectStore, type StoredObject } from "../../providers/object_store.ts";
import type { Logger } from "../cli/log.ts";
import { CorruptDataError } from "../compression/corrupt_data_error.ts";
import { decompressStream } from "../compression/table.ts";
import type { ServerLayout } from "../layout.ts";
import { mapInParallel } from "../parallel.ts";
import {
  damagedPages,
  pageChecksum,
  type PageRules,
  type RelationFile,
  relationFile,
  storedChecksum,
  USUAL_BLOCK_SIZE,
  USUAL_SEGMENT_BYTES,
} from "../postgres/page_checksum.ts";
import { parseLsn } from "../postgres/lsn.ts";
import type { ProgressListener } from "../progress.ts";
import { memberPath, UnsafeMember } from "../restore/member_path.ts";
import { restorePlan } from "../restore/plan.ts";
import { RestoreError } from "../restore/restore_error.ts";
import { type TarEntry, TarError, TarReader } from "../tar/reader.ts";
import { type MissingWal, missingWal, spanOf, spanText, type WalSpan } from "../wal/presence.ts";
import { isSegmentSize } from "../wal/segment.ts";
import { allArchives, type Archive, backupArchives } from "./archives.ts";
import type { BackupInfo } from "./backup_info.ts";
import {
  contentSum,
  MalformedManifest,
  type ManifestFacts,
  readManifest,
} from "./backup_manifest.ts";
import { listBackupObjects } from "./catalogue.ts";
import { ManifestIndex } from "./manifest_index.ts";
import { describeFailure, MAX_LISTED_PAGES, type PageFailure } from "./page_failures.ts";
import { displayPath } from "./raw_names.ts";
import {
  archiveMismatch,
  type BackupRecord,
  loadRecord,
  MalformedRecord,
  type RecordedArchive,
} from "./record.ts";

export interface VerifyJob {
  readonly store: ObjectStore;
  readonly layout: ServerLayout;
  readonly backupId: string;
  readonly info: BackupInfo;
  /** Archives at once, 1 or more. */
  readonly jobs: number;
  /** What it means when WAL that the backup needs is not in the archive. */
  readonly wal: "fail" | "warn" | "ignore";
  readonly signal: AbortSignal;
  readonly log: Logger;
  readonly onProgress?: ProgressListener | undefined;
}

export interface ArchiveReport {
  readonly key: string;
  /** Bytes, as stored. */
  readonly size: number;
  readonly members: number;
  /** Bytes of the contents of its files. */
  readonly contentBytes: number;
  /** Read to its end, and nothing wrong with the archive as such. */
  readonly whole: boolean;
}

export interface BackupReport {
  readonly backupId: string;
  readonly serverName: string;
  readonly status: string;
  readonly archives: readonly ArchiveReport[];
  /** Null when the backup has none: it was not made by this program, or made without. */
  readonly manifest: { readonly files: number; readonly version: number } | null;
  /** Null when the cluster has no checksums of pages, or nobody knows. */
  readonly pages:
    | {
      readonly checked: number;
      readonly failures: number;
      readonly listed: readonly PageFailure[];
    }
    | null;
  /** Null when it was not looked at, or what the backup needs is not known. */
  readonly wal: { readonly span: WalSpan; readonly missing: MissingWal | null } | null;
  /** One line each, the first `MAX_PROBLEMS`; nothing when the backup is fine. */
  readonly problems: readonly string[];
  readonly problemCount: number;
  readonly warnings: readonly string[];
}

/** More problems are only counted. */
export const MAX_PROBLEMS = 1000;

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
  const run = new Run(job, findings, manifest?.index ?? null, rules, recorded);
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

/** Problems and warnings as they are found, logged at once. */
class Findings {
  readonly problems: string[] = [];
  readonly warnings: string[] = [];
  count = 0;
  lacksArchives = false;
  readonly #log: Logger;
  /** Of files at the top, of which several archives may have one: rank of the last, and what is wrong with it. */
  readonly #top = new Map<string, { readonly rank: number; readonly problem: string | null }>();

  constructor(log: Logger) {
    this.#log = log;
  }

  problem(message: string): void {
    this.count += 1;
    if (this.problems.length === MAX_PROBLEMS) return;
    this.problems.push(message);
    this.#log.warning(message);
  }

  warning(message: string): void {
    if (this.warnings.length === MAX_PROBLEMS) return;
    this.warnings.push(message);
    this.#log.warning(message);
  }

  /** What was found out about a member; null when nothing is wrong. */
  member(path: string, rank: number, problem: string | null): void {
    if (path.includes("/")) {
      if (problem !== null) this.problem(problem);
    } else if ((this.#top.get(path)?.rank ?? rank) <= rank) this.#top.set(path, { rank, problem });
  }

  settleTop(): void {
    for (const { problem } of this.#top.values()) if (problem !== null) this.problem(problem);
  }
}

interface RankedArchive {
  readonly archive: Archive;
  /** `data`, or a tablespace's oid. */
  readonly name: string;
  /** Of its name's archives the one with the highest rank has the last word. */
  readonly rank: number;
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

/** The reading of all archives. */
class Run {
  readonly reports: ArchiveReport[] = [];
  readonly #job: VerifyJob;
  readonly #findings: Findings;
  readonly #manifest: ManifestIndex | null;
  readonly #rules: PageRules | null;
  readonly #recorded: ReadonlyMap<string, RecordedArchive> | null;
  readonly #damage = new Map<string, { count: number; readonly listed: PageFailure[] }>();
  /** Relations that have an init fork, so that their contents are thrown away by recovery. */
  readonly #unlogged = new Set<string>();
  readonly #needed = new Set<string>();
  #allRead = true;
  #listed = 0;
  #checked = 0;
  #doneBytes = 0;

  constructor(
    job: VerifyJob,
    findings: Findings,
    manifest: ManifestIndex | null,
    rules: PageRules | null,
    recorded: ReadonlyMap<string, RecordedArchive> | null,
  ) {
    this.#job = job;
    this.#findings = findings;
    this.#manifest = manifest;
    this.#rules = rules;
    this.#recorded = recorded;
  }

  /** Were all archives read to their ends? */
  get allRead(): boolean {
    return this.#allRead;
  }

  /** Was this file, of those without which nothing works, in an archive? */
  has(path: string): boolean {
    return this.#needed.has(path);
  }

  pages(): NonNullable<BackupReport["pages"]> {
    const logged = [...this.#damage].filter(([relation]) => !this.#unlogged.has(relation));
    return {
      checked: this.#checked,
      failures: logged.reduce((sum, [, { count }]) => sum + count, 0),
      listed: logged.flatMap(([, { listed }]) => listed),
    };
  }

  async archives(archives: readonly RankedArchive[]): Promise<void> {
    const { jobs, onProgress } = this.#job;
    const totalBytes = archives.reduce((sum, { archive }) => sum + archive.object.size, 0);
    const largestFirst = [...archives].sort((a, b) =>
      b.archive.object.size - a.archive.object.size
    );
    // The first failure of the store ends the others.
    const failing = new AbortController();
    const signal = AbortSignal.any([this.#job.signal, failing.signal]);
    const tell = (bytes: number) => {
      this.#doneBytes += bytes;
      const doneBytes = this.#doneBytes;
      onProgress?.({ activity: "reading archives", doneBytes, totalBytes });
    };
    const reports = new Map<string, ArchiveReport>();
    await mapInParallel(largestFirst, jobs, async (ranked) => {
      try {
        signal.throwIfAborted();
        reports.set(ranked.archive.object.key, await this.#archive(ranked, tell, signal));
      } catch (error) {
        failing.abort(error);
        throw error;
      }
    });
    for (const { archive } of archives) {
      const report = reports.get(archive.object.key);
      if (report !== undefined) this.reports.push(report);
    }
  }

  async #archive(
    { archive, name, rank }: RankedArchive,
    onBytes: (bytes: number) => void,
    signal: AbortSignal,
  ): Promise<ArchiveReport> {
    const { object, compression } = archive;
    const { key, size } = object;
    let [members, contentBytes, whole] = [0, 0, true];
    let [read, sum] = [0, 0];
    let reader: TarReader | undefined;
    try {
      const { body } = await this.#job.store.get(key, { signal });
      const counted = counting(body, (chunk) => {
        read += chunk.length;
        sum = crc32(chunk, sum);
        onBytes(chunk.length);
      });
      const tar = compression === null
        ? counted
        : decompressStream(compression, counted, { signal });
      const recorded = this.#recorded?.get(key);
      reader = new TarReader(tar, {
        signal,
        onTrailingData: (at) =>
          this.#findings.warning(`${key}: something follows the archive's end (at byte ${at})`),
      });
      const pages = new PageBuffer();
      for (let entry = await reader.next(); entry !== null; entry = await reader.next()) {
        members += 1;
        contentBytes += entry.size;
        await this.#member(entry, reader, { key, name, rank }, pages);
      }
      const mismatch = recorded === undefined
        ? null
        : archiveMismatch(recorded, { size: read, crc32: sum });
      if (mismatch !== null) {
        whole = false;
        this.#findings.problem(`${key} ${mismatch}`);
      }
    } catch (error) {
      whole = false;
      this.#allRead = false;
      if (isStoreError(error, "not-found")) this.#findings.problem(`${key} is not there any more`);
      else if (error instanceof TarError || error instanceof CorruptDataError) {
        this.#findings.problem(`${key}: ${error.message}`);
      } else throw error;
    } finally {
      await reader?.close();
    }
    return { key, size, members, contentBytes, whole };
  }

  async #member(
    entry: TarEntry,
    reader: TarReader,
    { key, name, rank }: { readonly key: string; readonly name: string; readonly rank: number },
    pages: PageBuffer,
  ): Promise<void> {
    let path: string;
    try {
      path = (name === "data" ? "" : `pg_tblspc/${name}/`) + memberPath(entry.name);
    } catch (error) {
      if (!(error instanceof UnsafeMember)) throw error;
      this.#findings.problem(`${key}: member ${displayPath(entry.name)}: ${error.message}`);
      return;
    }
    if (entry.type !== "file") return;
    if (NEEDED.includes(path)) this.#needed.add(path);
    const file = this.#rules === null ? null : relationFile(path);
    if (file !== null && /_init(\.\d+)?$/.test(path)) this.#unlogged.add(file.relation);
    const expected = this.#manifest?.expect(path);
    const sum = expected?.checksum ? contentSum(expected.checksum.algorithm) : null;
    const check = file === null || this.#rules === null
      ? null
      : this.#pagesOf(path, file, this.#rules, pages);
    for (let chunk = await reader.read(); chunk !== null; chunk = await reader.read()) {
      sum?.update(chunk);
      check?.add(chunk);
    }
    check?.end();
    const shown = `${displayPath(path)} in ${key}`;
    const { member } = this.#findings;
    const tell = member.bind(this.#findings);
    if (this.#manifest === null) return;
    if (expected === undefined) {
      if (path !== "backup_manifest") tell(path, rank, `${shown} is not in the manifest`);
    } else if (expected.size !== entry.size) {
      tell(path, rank, `${shown} has ${entry.size} bytes, not ${expected.size}`);
    } else if (sum !== null && sum.digest().value !== expected.checksum?.value) {
      tell(path, rank, `${shown} has other content than the manifest says: its checksum is wrong`);
    } else tell(path, rank, null);
  }

  #pagesOf(
    path: string,
    { relation, segment }: RelationFile,
    rules: PageRules,
    buffer: PageBuffer,
  ): { add(chunk: Uint8Array): void; end(): void } {
    const { blockSize } = rules;
    let block = segment * rules.segmentBlocks;
    const look = (bytes: Uint8Array) => {
      for (const index of damagedPages(bytes, block, rules)) {
        const page = bytes.subarray(index * blockSize, (index + 1) * blockSize);
        this.#damaged(/_init(\.\d+)?$/.test(path) ? path : relation, path, page, block + index);
      }
      const count = Math.floor(bytes.length / blockSize);
      block += count;
      this.#checked += count;
    };
    return {
      add: (chunk) => buffer.add(chunk, look),
      end: () => buffer.end(look),
    };
  }

  #damaged(relation: string, file: string, page: Uint8Array, block: number): void {
    const damage = this.#damage.get(relation) ?? { count: 0, listed: [] };
    this.#damage.set(relation, damage);
    damage.count += 1;
    if (this.#listed === MAX_LISTED_PAGES) return;
    this.#listed += 1;
    const hasContent = new DataView(page.buffer, page.byteOffset).getUint16(14) !== 0;
    damage.listed.push({
      file,
      block,
      found: hasContent ? storedChecksum(page) : null,
      expected: hasContent ? pageChecksum(page, block) : null,
    });
  }
}

/** Files without which a restored directory is none, or comes up corrupt. */
const NEEDED = ["PG_VERSION", "global/pg_control", "backup_label"];

/** Gathers chunks of any size, at any address, into whole pages at good ones. One file at a time. */
class PageBuffer {
  readonly #bytes = new Uint8Array(256 * 1024);
  #used = 0;

  add(chunk: Uint8Array, look: (pages: Uint8Array) => void): void {
    for (let done = 0; done < chunk.length;) {
      const count = Math.min(chunk.length - done, this.#bytes.length - this.#used);
      this.#bytes.set(chunk.subarray(done, done + count), this.#used);
      this.#used += count;
      done += count;
      if (this.#used === this.#bytes.length) this.end(look);
    }
  }

  end(look: (pages: Uint8Array) => void): void {
    if (this.#used > 0) look(this.#bytes.subarray(0, this.#used));
    this.#used = 0;
  }
}

async function* counting(
  body: AsyncIterable<Uint8Array>,
  onChunk: (chunk: Uint8Array) => void,
): AsyncGenerator<Uint8Array> {
  for await (const chunk of body) {
    onChunk(chunk);
    yield chunk;
  }
}

/** What should be in an archive and is in none. */
function reportMissing(
  manifest: ManifestIndex | null,
  run: Run,
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
