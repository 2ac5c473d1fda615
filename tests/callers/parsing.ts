/** What callers make of the JSON on stdout: which fields, of which types, and how they read times. */
import assert from "node:assert/strict";

/** The fields that CloudNativePG reads, of list (`backups_list`) and of show (under the key `cloud`). */
export const CLOUDNATIVE_PG_FIELDS = {
  backup_name: "string",
  backup_label: "string",
  begin_time: "string",
  end_time: "string",
  begin_time_iso: "string",
  end_time_iso: "string",
  begin_wal: "string",
  end_wal: "string",
  begin_xlog: "string",
  end_xlog: "string",
  systemid: "string",
  backup_id: "string",
  error: "string",
  timeline: "integer",
} as const;

/** The fields that postgres-flex reads of list. */
export const POSTGRES_FLEX_FIELDS = {
  backup_id: "string",
  backup_name: "string",
  status: "string",
  begin_time: "string",
  end_time: "string",
  begin_wal: "string",
  end_wal: "string",
} as const;

type Fields = Readonly<Record<string, "string" | "integer">>;
export type ReadBackup = Readonly<Record<string, string | number>> & {
  readonly begin: Date | null;
  readonly end: Date | null;
};

/** As CloudNativePG parses the stdout of list: one JSON document, nothing before or after it. */
export function cloudNativePgList(stdout: string): ReadBackup[] {
  const { backups_list: list } = record(JSON.parse(stdout));
  assert.ok(Array.isArray(list), "backups_list is a list");
  return list.map((item) => readBackup(record(item), CLOUDNATIVE_PG_FIELDS, true));
}

/** As CloudNativePG parses the stdout of show; a missing key would give an empty backup. */
export function cloudNativePgShow(stdout: string): ReadBackup {
  return readBackup(record(record(JSON.parse(stdout))["cloud"]), CLOUDNATIVE_PG_FIELDS, true);
}

/** As postgres-flex parses the stdout of list: times in the ctime form only. */
export function postgresFlexList(stdout: string): ReadBackup[] {
  const { backups_list: list } = record(JSON.parse(stdout));
  assert.ok(Array.isArray(list), "backups_list is a list");
  return list.map((item) => readBackup(record(item), POSTGRES_FLEX_FIELDS, false));
}

/** Go's decoder: null and a missing field leave the zero value, another type is an error, other fields are ignored. */
function readBackup(item: Record<string, unknown>, fields: Fields, iso: boolean): ReadBackup {
  const read: Record<string, string | number> = {};
  for (const [name, type] of Object.entries(fields)) {
    const value = item[name] ?? null;
    if (value === null) read[name] = type === "string" ? "" : 0;
    else if (type === "string" && typeof value === "string") read[name] = value;
    else if (type === "integer" && Number.isInteger(value)) read[name] = Number(value);
    else assert.fail(`${name} is ${JSON.stringify(value)}, no ${type}`);
  }
  const time = (name: string) =>
    iso && read[`${name}_iso`] ? rfc3339(String(read[`${name}_iso`])) : ctime(String(read[name]));
  return { ...read, begin: time("begin_time"), end: time("end_time") } as ReadBackup;
}

function rfc3339(text: string): Date {
  assert.match(text, /^\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d+)?(Z|[+-]\d\d:\d\d)$/);
  return new Date(text);
}

/** `Thu Jan 15 10:30:01 2026`, without a zone; blanks may be more than one. Empty means none. */
function ctime(text: string): Date | null {
  if (text === "") return null;
  const day = "(Mon|Tue|Wed|Thu|Fri|Sat|Sun)";
  const month = "(Jan|Feb|Mar|Apr|May|Jun|Jul|Aug|Sep|Oct|Nov|Dec)";
  assert.match(text, new RegExp(`^${day} +${month} +\\d{1,2} \\d\\d:\\d\\d:\\d\\d \\d{4}$`));
  return new Date(`${text} UTC`);
}

function record(value: unknown): Record<string, unknown> {
  assert.ok(typeof value === "object" && value !== null && !Array.isArray(value), "an object");
  return value as Record<string, unknown>;
}
