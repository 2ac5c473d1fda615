/** The report of backup-verify, for people and for programs. */
import { pythonJson } from "../cli/json.ts";
import { readableSize } from "../cli/table.ts";
import { nameOf } from "../wal/scan.ts";
import { spanText } from "../wal/presence.ts";
import type { PyValue } from "./python_literal.ts";
import type { BackupReport } from "./verify.ts";

/** For a terminal. */
export function verificationText(report: BackupReport): string {
  const { archives, manifest, pages, wal, problems, problemCount } = report;
  const sum = (value: (archive: BackupReport["archives"][number]) => number) =>
    archives.reduce((total, archive) => total + value(archive), 0);
  const broken = archives.filter(({ whole }) => !whole).length;
  const rows = [
    ["Backup", `${report.backupId} of ${report.serverName}, status ${report.status}`],
    [
      "Archives",
      `${archives.length} read, ${readableSize(sum(({ size }) => size))} stored, ` +
      `${sum(({ members }) => members)} members, ${
        readableSize(sum(({ contentBytes }) => contentBytes))
      } of files` + (broken === 0 ? "" : `; ${broken} DAMAGED`),
    ],
    ["Manifest", manifest === null ? "none" : `${manifest.files} files compared`],
    [
      "Pages",
      pages === null
        ? "without checksums"
        : `${pages.checked} looked at, ${pages.failures === 0 ? "none" : pages.failures} damaged`,
    ],
    ["WAL", walText(wal)],
  ];
  const lines = rows.map(([label = "", value = ""]) => `${label.padEnd(9)} ${value}`);
  lines.push(
    problemCount === 0 ? "No problems" : `Problems: ${problemCount}`,
    ...problems.map((problem) => `  ${problem}`),
  );
  if (problemCount > problems.length) lines.push(`  and ${problemCount - problems.length} more`);
  return `${lines.join("\n")}\n`;
}

function walText(wal: BackupReport["wal"]): string {
  if (wal === null) return "not looked at";
  const { span, missing } = wal;
  const all = span.last - span.first + 1;
  const of = `${spanText(span, span)}`;
  return missing === null ? `${of}: complete` : `${of}: ${missing.segments} of ${all} MISSING`;
}

/** One JSON document; docs/json.md describes it. */
export function verificationJson(report: BackupReport): string {
  const { manifest, pages, wal } = report;
  const document = object({
    backup_id: report.backupId,
    server: report.serverName,
    status: report.status,
    ok: report.problemCount === 0,
    archives: report.archives.map(({ key, size, members, contentBytes, whole }) =>
      object({ key, size, members, content_bytes: contentBytes, ok: whole })
    ),
    manifest: manifest === null
      ? null
      : object({ version: manifest.version, files: manifest.files }),
    pages: pages === null ? null : object({
      checked: pages.checked,
      failures: pages.failures,
      failed_pages: pages.listed.map(({ file, block, found, expected }) =>
        object({ file, block, found, expected })
      ),
    }),
    wal: wal === null ? null : object({
      begin: nameOf(wal.span.first, wal.span.timeline, wal.span.segmentSize),
      end: nameOf(wal.span.last, wal.span.timeline, wal.span.segmentSize),
      missing: wal.missing?.segments ?? 0,
      missing_ranges: (wal.missing?.ranges.items ?? []).map(({ first, last }) =>
        object({
          first: nameOf(first, wal.span.timeline, wal.span.segmentSize),
          last: nameOf(last, wal.span.timeline, wal.span.segmentSize),
        })
      ),
    }),
    problem_count: report.problemCount,
    problems: report.problems,
    warnings: report.warnings,
  });
  return `${pythonJson(document)}\n`;
}

function object(fields: Readonly<Record<string, PyValue>>): PyValue {
  return new Map<PyValue, PyValue>(Object.entries(fields));
}
