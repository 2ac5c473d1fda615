/** Pages with a wrong checksum: the first of them one by one, and how many there are. */

export interface PageFailure {
  /** Relative to the data directory, tablespaces by way of `pg_tblspc/OID/`. */
  readonly file: string;
  /** Number of the page in the relation, over all its files. */
  readonly block: number;
  /** The checksum that is in the page and the one that it should have; null where that does not tell anything. */
  readonly found: number | null;
  readonly expected: number | null;
}

export interface PageReport {
  /** Pages looked at, those that need no look included. */
  readonly pages: number;
  readonly failures: number;
  /** At most `MAX_LISTED_PAGES`. */
  readonly listed: readonly PageFailure[];
}

/** More are only counted: a broken disk has millions. */
export const MAX_LISTED_PAGES = 1000;
/** Warnings about one file, as many as PostgreSQL gives. */
const WARNINGS_OF_FILE = 5;

/** Collects what is found in many files, some of them at the same time. */
export class PageFailures implements PageReport {
  pages = 0;
  failures = 0;
  readonly listed: PageFailure[] = [];
  readonly #onWarning: (message: string) => void;

  constructor(onWarning: (message: string) => void) {
    this.#onWarning = onWarning;
  }

  /** @param ofFile how many of this file were found before */
  add(failure: PageFailure, ofFile: number): void {
    this.failures += 1;
    if (this.listed.length < MAX_LISTED_PAGES) this.listed.push(failure);
    if (ofFile < WARNINGS_OF_FILE) this.#onWarning(describeFailure(failure));
    else if (ofFile === WARNINGS_OF_FILE) {
      this.#onWarning(`More pages of ${failure.file} are damaged; they are not listed here`);
    }
  }
}

export function describeFailure({ file, block, found, expected }: PageFailure): string {
  return `Page ${block} of ${file} is damaged: ` +
    (found === null || expected === null
      ? "it has no content and is not empty"
      : `its checksum is ${hex(found)}, not ${hex(expected)}`);
}

function hex(value: number): string {
  return value.toString(16).padStart(4, "0");
}
