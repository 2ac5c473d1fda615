/** Retention policies: which backups may go. Pure. */
import type { CatalogueEntry } from "./catalogue.ts";
import { epochMilliseconds } from "./timestamp.ts";

export type RetentionPolicy =
  | { readonly kind: "redundancy"; readonly count: number }
  /** `days`: whole days of 24 hours; a week has 7, a month 31. */
  | { readonly kind: "recovery-window"; readonly days: number }
  /** Barman's word for "the server's own policy", which cloud backups don't have. */
  | { readonly kind: "main" };

/** A text that is no retention policy. */
export class MalformedPolicy extends Error {
  override readonly name = "MalformedPolicy";
}

const DAYS_IN = { day: 1, week: 7, month: 31 } as const;

/** @throws {MalformedPolicy} */
export function parseRetentionPolicy(text: string): RetentionPolicy {
  const redundancy = /^\s*redundancy\s+(\d+)\s*$/i.exec(text);
  if (redundancy !== null) return { kind: "redundancy", count: Number(redundancy[1]) };
  const window = /^\s*recovery\s+window\s+of\s+(\d+)\s+(day|month|week)s?\s*$/i.exec(text);
  if (window !== null) {
    const unit = (window[2] ?? "").toLowerCase() as keyof typeof DAYS_IN;
    return { kind: "recovery-window", days: Number(window[1]) * DAYS_IN[unit] };
  }
  if (/^\s*main\s*$/i.test(text)) return { kind: "main" };
  throw new MalformedPolicy(
    `'${text}' is not a retention policy: use REDUNDANCY n or RECOVERY WINDOW OF n DAYS (WEEKS, MONTHS)`,
  );
}

export type RetentionStatus =
  | "VALID"
  /** Outside the window, but needed for the minimum redundancy. */
  | "POTENTIALLY OBSOLETE"
  | "OBSOLETE"
  | "KEEP:FULL"
  | "KEEP:STANDALONE";

export interface RetentionReportOptions {
  readonly policy: RetentionPolicy;
  /** Keep annotations: backup id to value. */
  readonly keeps: ReadonlyMap<string, string>;
  /** `--minimum-redundancy`, 0 or more. */
  readonly minimumRedundancy: number;
  readonly now: Date;
}

/**
 * The status of each DONE backup; others have none and no policy ever deletes them.
 * @param backups in ascending order of ids
 * @returns by id, newest first
 */
export function retentionReport(
  backups: readonly CatalogueEntry[],
  { policy, keeps, minimumRedundancy, now }: RetentionReportOptions,
): Map<string, RetentionStatus> {
  const newestFirst = backups.filter(({ info }) => info.status === "DONE").reverse();
  switch (policy.kind) {
    case "redundancy":
      return byRedundancy(newestFirst, keeps, Math.max(policy.count, minimumRedundancy));
    case "recovery-window":
      return byWindow(
        newestFirst,
        keeps,
        now.getTime() - policy.days * 24 * 60 * 60 * 1000,
        minimumRedundancy,
      );
    case "main":
      throw new MalformedPolicy(
        "The retention policy 'main' is for backups of a Barman server: use REDUNDANCY n or RECOVERY WINDOW OF n DAYS",
      );
  }
}

/** What a keep annotation makes of a backup: everything but `standalone` is the stronger `full`. */
export function keepStatus(
  keeps: ReadonlyMap<string, string>,
  id: string,
): "KEEP:FULL" | "KEEP:STANDALONE" | null {
  const value = keeps.get(id);
  if (value === undefined) return null;
  return value === "standalone" ? "KEEP:STANDALONE" : "KEEP:FULL";
}

/** Kept backups count: `REDUNDANCY 2` with the newest one kept leaves one more. */
function byRedundancy(
  newestFirst: readonly CatalogueEntry[],
  keeps: ReadonlyMap<string, string>,
  count: number,
): Map<string, RetentionStatus> {
  return new Map(newestFirst.map(({ id }, index) => [
    id,
    keepStatus(keeps, id) ?? (index < count ? "VALID" : "OBSOLETE"),
  ]));
}

function byWindow(
  newestFirst: readonly CatalogueEntry[],
  keeps: ReadonlyMap<string, string>,
  windowStart: number,
  minimumRedundancy: number,
): Map<string, RetentionStatus> {
  const report = new Map<string, RetentionStatus>();
  let outside = false;
  let valid = 0;
  for (const { id, info } of newestFirst) {
    const keep = keepStatus(keeps, id);
    if (!outside) {
      report.set(id, keep ?? "VALID");
      valid++;
      // The first one that ended before the window is needed to reach the window's start: it stays.
      outside = info.endTime !== null && epochMilliseconds(info.endTime) < windowStart;
    } else if (valid < minimumRedundancy) {
      report.set(id, keep ?? "POTENTIALLY OBSOLETE");
      valid++;
    } else report.set(id, keep ?? "OBSOLETE");
  }
  return report;
}
