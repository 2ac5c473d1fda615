/** The report of wal-verify, for people and for programs. */
import type { PyValue } from "../backup/python_literal.ts";
import { readableSize } from "../cli/table.ts";
import { pythonJson } from "../cli/json.ts";
import { withoutControls } from "../cli/printable.ts";
import { formatLsn } from "../postgres/lsn.ts";
import type { Listed } from "./scan.ts";
import type { ArchiveReport } from "./verify.ts";

/** Tables for a terminal. */
export function verifyTable(report: ArchiveReport): string {
  const { timelines, backups, gaps, duplicates, partials, problems } = report;
  const lines = [
    `WAL archive of ${report.server}: ${report.objects} files, segments of ${
      readableSize(report.segmentSize)
    }` + (report.systemIdentifier === null ? "" : `, cluster ${report.systemIdentifier}`),
    "",
    ...columns([
      ["Timeline", "First segment", "Last segment", "Segments", "Missing", "Size", "Parent"],
      ...timelines.map((each) => [
        String(each.timeline),
        each.first ?? "-",
        each.last ?? "-",
        String(each.segments),
        String(each.missing),
        readableSize(each.bytes),
        each.parent === null ? "-" : `${each.parent.timeline} at ${formatLsn(each.parent.lsn)}`,
      ]),
    ]),
  ];
  if (backups.length > 0) {
    lines.push(
      "",
      ...columns([
        ["Backup", "Begin", "End", "WAL", "Recoverable to"],
        ...backups.map(({ id, begin, end, missing, recoverableTo }) => [
          id,
          begin,
          end,
          missing === null ? "complete" : `lacks ${missing}`,
          recoverableTo ?? "-",
        ]),
      ]),
    );
  }
  const expected = gaps.items.filter((gap) => gap.expected);
  if (expected.length > 0) {
    lines.push("", "Missing by intention, after backups that are kept standalone:");
    lines.push(...expected.map(({ first, last }) => `  ${first} to ${last}`));
  }
  if (duplicates.total > 0) {
    lines.push("", `Segments that are there more than once: ${duplicates.total}`);
    for (const { keys, same } of duplicates.items) {
      const compared = same === null ? "not compared" : same ? "same content" : "DIFFERENT";
      lines.push(`  ${keys.join(", ")}: ${compared}`);
    }
  }
  if (partials.total > 0) {
    lines.push("", `Segments that are there only as .partial: ${partials.total}`);
    lines.push(...partials.items.map((segment) => `  ${segment}`));
  }
  lines.push(
    "",
    problems.length === 0 ? "No problems" : `Problems: ${problems.length}`,
    ...problems.map((problem) => `  ${problem}`),
  );
  return `${lines.map(withoutControls).join("\n")}\n`;
}

/** One JSON document; docs/json.md describes it. */
export function verifyJson(report: ArchiveReport): string {
  const document = object({
    server: report.server,
    system_identifier: report.systemIdentifier === null ? null : String(report.systemIdentifier),
    segment_size: report.segmentSize,
    files: report.objects,
    timelines: report.timelines.map((each) =>
      object({
        timeline: each.timeline,
        first: each.first,
        last: each.last,
        segments: each.segments,
        bytes: each.bytes,
        gaps: each.gaps,
        missing: each.missing,
        parent: each.parent?.timeline ?? null,
        switch_lsn: each.parent === null ? null : formatLsn(each.parent.lsn),
        history: each.history,
      })
    ),
    backups: report.backups.map((each) =>
      object({
        backup_id: each.id,
        status: each.status,
        begin_wal: each.begin,
        end_wal: each.end,
        missing: each.missing,
        recoverable_to: each.recoverableTo,
      })
    ),
    gaps: list(
      report.gaps,
      ({ timeline, first, last, segments, expected }) =>
        object({ timeline, first, last, segments, expected }),
    ),
    duplicates: list(
      report.duplicates,
      ({ segment, keys, same }) => object({ segment, keys, same }),
    ),
    partials: list(report.partials, (segment) => segment),
    suspects: list(report.suspects, ({ key, reason }) => object({ key, reason })),
    problems: report.problems,
  });
  return `${pythonJson(document)}\n`;
}

function list<T>({ items, total }: Listed<T>, describe: (item: T) => PyValue): PyValue {
  return object({ total, items: items.map(describe) });
}

function object(fields: Readonly<Record<string, PyValue>>): PyValue {
  return new Map<PyValue, PyValue>(Object.entries(fields));
}

/** Rows as wide as their widest cells, two blanks between. */
function columns(rows: readonly (readonly string[])[]): string[] {
  const widths = (rows[0] ?? []).map((_, at) =>
    Math.max(...rows.map((row) => row[at]?.length ?? 0))
  );
  return rows.map((row) =>
    row.map((cell, at) => cell.padEnd(widths[at] ?? 0)).join("  ").trimEnd()
  );
}
