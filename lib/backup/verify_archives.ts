/** The reading of a backup's archives to verify them, and what is found on the way. */
import { crc32 } from "node:zlib";
import { storedContent } from "../stored_content.ts";
import { isStoreError, type ObjectStore } from "../../providers/object_store.ts";
import type { Logger } from "../cli/log.ts";
import { CorruptDataError } from "../compression/corrupt_data_error.ts";
import { mapInParallel } from "../parallel.ts";
import {
  damagedPages,
  pageChecksum,
  type PageRules,
  type RelationFile,
  relationFile,
  storedChecksum,
} from "../postgres/page_checksum.ts";
import type { ProgressListener } from "../progress.ts";
import { threadsFor } from "../restore/jobs.ts";
import { memberPath, UnsafeMember } from "../restore/member_path.ts";
import { type TarEntry, TarError, TarReader } from "../tar/reader.ts";
import type { Archive } from "./archives.ts";
import { contentSum } from "./backup_manifest.ts";
import type { ManifestIndex } from "./manifest_index.ts";
import { MAX_LISTED_PAGES, type PageFailure } from "./page_failures.ts";
import { displayPath } from "./raw_names.ts";
import { archiveMismatch, type RecordedArchive } from "./record.ts";

export interface ReadingJob {
  readonly store: ObjectStore;
  /** Archives at once, 1 or more. */
  readonly jobs: number;
  readonly signal: AbortSignal;
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

export interface PagesReport {
  readonly checked: number;
  readonly failures: number;
  readonly listed: readonly PageFailure[];
}

export interface RankedArchive {
  readonly archive: Archive;
  /** `data`, or a tablespace's oid. */
  readonly name: string;
  /** Of its name's archives the one with the highest rank has the last word. */
  readonly rank: number;
}

/** The reading of all archives. */
export class ArchiveReading {
  readonly reports: ArchiveReport[] = [];
  readonly #job: ReadingJob;
  readonly #findings: Findings;
  readonly #manifest: ManifestIndex | null;
  readonly #rules: PageRules | null;
  readonly #recorded: ReadonlyMap<string, RecordedArchive> | null;
  readonly #damage = new Map<string, { count: number; readonly listed: PageFailure[] }>();
  /** Relations that have an init fork, so that their contents are thrown away by recovery. */
  readonly #unlogged = new Set<string>();
  readonly #needed = new Set<string>();
  /** Of all archives. */
  #totalBytes = 0;
  #allRead = true;
  #listed = 0;
  #checked = 0;
  #doneBytes = 0;

  constructor(
    job: ReadingJob,
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

  pages(): PagesReport {
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
    this.#totalBytes = totalBytes;
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
      const onChunk = (chunk: Uint8Array) => {
        read += chunk.length;
        sum = crc32(chunk, sum);
        onBytes(chunk.length);
      };
      const tar = storedContent(this.#job.store, key, compression, {
        through: (body) => counting(body, onChunk),
        threads: threadsFor(compression, this.#job.jobs, size / this.#totalBytes),
        signal,
      });
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
export const NEEDED = ["PG_VERSION", "global/pg_control", "backup_label"];

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

/** More problems are only counted. */
export const MAX_PROBLEMS = 1000;

/** Problems and warnings as they are found, logged at once. */
export class Findings {
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
