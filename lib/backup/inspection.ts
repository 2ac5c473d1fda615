/** What is learnt of the files of a backup while they are stored: their checksums, and whether their pages are whole. */
import { constants } from "node:fs";
import { lstat } from "node:fs/promises";
import {
  damagedPages,
  pageChecksum,
  type PageRules,
  type RelationFile,
  relationFile,
  storedChecksum,
} from "../postgres/page_checksum.ts";
import {
  type ContentSum,
  contentSum,
  type ManifestChecksum,
  type ManifestFile,
} from "./backup_manifest.ts";
import type { OpenMember } from "./members.ts";
import { OpenedFile } from "./opened_file.ts";
import type { PageFailures } from "./page_failures.ts";
import { fsPath } from "./raw_names.ts";

export interface InspectionOptions {
  readonly checksum: ManifestChecksum;
  /** Told each file when all of it was stored; null when there is to be no manifest. */
  readonly onFile: ((file: ManifestFile) => Promise<void>) | null;
  /** Null when pages have no checksums or nobody wants to know. Asked when a file begins. */
  readonly pages: (() => PageRules) | null;
  readonly failures: PageFailures;
}

/** Looks at the content of one file on its way. */
export interface ContentInspection {
  /**
   * The next piece, beginning at a multiple of `PIECE_ALIGNMENT`. A page that was caught in the middle of a write is
   * replaced in the piece by the whole one.
   * @returns something to wait for, seldom
   */
  piece(bytes: Uint8Array, position: number): Promise<void> | undefined;
  /** Zeros instead of what the file does not have any more. */
  zeros(count: number): void;
  end(): Promise<void> | undefined;
}

/** PostgreSQL's largest page: pieces that begin at a multiple of it never cut one. Bytes. */
export const PIECE_ALIGNMENT = 32 * 1024;

/**
 * The inspection of one member; undefined when there is nothing to look at.
 * @param directory where the member's archive belongs: "" or `pg_tblspc/OID/`
 */
export function inspectionOf(
  { member, content }: OpenMember,
  directory: string,
  options: InspectionOptions,
): ContentInspection | undefined {
  if (member.type !== "file") return undefined;
  const path = directory + member.name.replace(/^\.\//, "");
  const { onFile } = options;
  const file = options.pages === null ? null : relationFile(path);
  if (onFile === null && file === null) return undefined;
  const sum = onFile === null ? null : contentSum(options.checksum);
  const pages = file === null || options.pages === null || content.kind === "none"
    ? undefined
    : new PagesOfFile(path, file, content, options.pages(), options.failures);
  return {
    piece(bytes, position) {
      const repaired = pages?.check(bytes, position);
      if (repaired === undefined) {
        sum?.update(bytes);
        return undefined;
      }
      return repaired.then(() => sum?.update(bytes));
    },
    zeros(count) {
      if (sum !== null) addZeros(sum, count);
    },
    end() {
      const checksum = sum?.digest() ?? null;
      return onFile?.({ path, size: member.size, mtime: member.mtime, checksum });
    },
  };
}

const ZEROS = new Uint8Array(64 * 1024);

function addZeros(sum: ContentSum, count: number): void {
  for (let left = count; left > 0; left -= ZEROS.length) {
    sum.update(ZEROS.subarray(0, Math.min(left, ZEROS.length)));
  }
}

/** Checks the pages of one file of a relation. */
class PagesOfFile {
  readonly #path: string;
  readonly #file: RelationFile;
  readonly #content: Exclude<OpenMember["content"], { kind: "none" }>;
  readonly #rules: PageRules;
  readonly #failures: PageFailures;
  readonly #firstBlock: number;
  #failed = 0;

  constructor(
    path: string,
    file: RelationFile,
    content: Exclude<OpenMember["content"], { kind: "none" }>,
    rules: PageRules,
    failures: PageFailures,
  ) {
    this.#path = path;
    this.#file = file;
    this.#content = content;
    this.#rules = rules;
    this.#failures = failures;
    this.#firstBlock = file.segment * rules.segmentBlocks;
  }

  check(bytes: Uint8Array, position: number): Promise<void> | undefined {
    const { blockSize } = this.#rules;
    const first = this.#firstBlock + position / blockSize;
    this.#failures.pages += Math.floor(bytes.length / blockSize);
    const damaged = damagedPages(bytes, first, this.#rules);
    return damaged.length === 0 ? undefined : this.#again(bytes, position, damaged);
  }

  /**
   * A page that was being written while it was read is whole at the second look, or has an LSN that makes it none of
   * our business.
   */
  async #again(bytes: Uint8Array, position: number, damaged: readonly number[]): Promise<void> {
    const { blockSize } = this.#rules;
    const { path } = this.#content;
    if (path === undefined) return;
    if (await this.#isUnlogged(path)) return;
    const source = this.#content.kind === "opened" ? this.#content.file : reopened(path);
    // Gone with its relation: WAL says so too.
    if (source === undefined) return;
    try {
      for (const index of damaged) {
        const page = bytes.subarray(index * blockSize, (index + 1) * blockSize);
        const block = this.#firstBlock + position / blockSize + index;
        const second = await pageAt(source, position + index * blockSize, blockSize);
        // Cut off meanwhile.
        if (second === undefined) continue;
        page.set(second);
        if (damagedPages(page, block, this.#rules).length > 0) this.#report(page, block);
      }
    } finally {
      if (this.#content.kind !== "opened") source.close();
    }
  }

  #report(page: Uint8Array, block: number): void {
    const hasContent = new DataView(page.buffer, page.byteOffset).getUint16(14) !== 0;
    this.#failures.add({
      file: this.#path,
      block,
      found: hasContent ? storedChecksum(page) : null,
      expected: hasContent ? pageChecksum(page, block) : null,
    }, this.#failed++);
  }

  /** What an unlogged table holds is thrown away by recovery, and no WAL mends pages caught in a write. */
  async #isUnlogged(path: string): Promise<boolean> {
    const last = this.#file.relation.slice(this.#file.relation.lastIndexOf("/") + 1);
    const directory = path.slice(0, path.lastIndexOf("/"));
    if (path.endsWith(`${last}_init`)) return false;
    try {
      await lstat(fsPath(`${directory}/${last}_init`));
      return true;
    } catch {
      return false;
    }
  }
}

function reopened(path: string): OpenedFile | undefined {
  try {
    return new OpenedFile(path, constants.O_RDONLY | constants.O_NOFOLLOW);
  } catch (error) {
    if (error instanceof Error && "code" in error && error.code === "ENOENT") return undefined;
    throw error;
  }
}

/** @returns undefined when the file ends before */
async function pageAt(
  file: OpenedFile,
  position: number,
  size: number,
): Promise<Uint8Array | undefined> {
  const page = new Uint8Array(size);
  return await file.read(page, 0, size, position) === size ? page : undefined;
}
