/**
 * Points in time with the offset from UTC that they were written with: what PostgreSQL's `now()` answers in a
 * session, and what backup.info stores. Six decimals, which JavaScript's `Date` does not have.
 */
export interface Timestamp {
  /** Whole seconds since 1970-01-01T00:00:00Z, rounded down. */
  readonly epochSeconds: number;
  /** 0..999999 */
  readonly microseconds: number;
  /** Seconds east of UTC. */
  readonly offsetSeconds: number;
}

/** A text that is no timestamp we know. */
export class MalformedTimestamp extends Error {
  override readonly name = "MalformedTimestamp";
}

const MONTHS = ["Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec"];
const DAYS = ["Sun", "Mon", "Tue", "Wed", "Thu", "Fri", "Sat"];

const OFFSET = String.raw`(?:\s*(Z|UTC|GMT|[+-]\d{2}(?::?\d{2}(?::?\d{2}(?:\.\d+)?)?)?))?`;
const CLOCK = String.raw`(\d{1,2}):(\d{2})(?::(\d{2})(?:[.,](\d+))?)?`;
const WEEKDAY = String.raw`(?:(?:Mon|Tue|Wed|Thu|Fri|Sat|Sun)[a-z]*,?\s+)?`;
const MONTH = String.raw`(Jan|Feb|Mar|Apr|May|Jun|Jul|Aug|Sep|Oct|Nov|Dec)[a-z]*\.?`;

/** The forms, each with the places of year, month, day, hour, minute, second, fraction, offset. */
const FORMS: readonly (readonly [RegExp, readonly number[]])[] = [
  // 2026-01-15 10:30:01.123456+00:00, also with T, without seconds, without time
  [
    new RegExp(String.raw`^(\d{4})-(\d{1,2})-(\d{1,2})(?:(?:\s+|[Tt])${CLOCK}${OFFSET})?$`, "i"),
    [1, 2, 3, 4, 5, 6, 7, 8],
  ],
  // 20260115T103001Z
  [
    new RegExp(
      String.raw`^(\d{4})(\d{2})(\d{2})(?:[T ](\d{2})(\d{2})(?:(\d{2})(?:[.,](\d+))?)?${OFFSET})?$`,
      "i",
    ),
    [1, 2, 3, 4, 5, 6, 7, 8],
  ],
  // Thu Jan 15 10:30:01 2026, with the offset where date(1) writes it
  [
    new RegExp(String.raw`^${WEEKDAY}${MONTH}\s+(\d{1,2})\s+${CLOCK}${OFFSET}\s+(\d{4})$`, "i"),
    [8, 1, 2, 3, 4, 5, 6, 7],
  ],
  // Thu Jan 15 10:30:01.5 2026 UTC, as PostgreSQL's DateStyle 'Postgres' writes
  [
    new RegExp(String.raw`^${WEEKDAY}${MONTH}\s+(\d{1,2})\s+${CLOCK}\s+(\d{4})${OFFSET}$`, "i"),
    [7, 1, 2, 3, 4, 5, 6, 8],
  ],
  // Thu, 15 Jan 2026 10:30:01 +0000
  [
    new RegExp(
      String.raw`^${WEEKDAY}(\d{1,2})[\s-]+${MONTH}[\s-]+(\d{4})(?:\s+${CLOCK}${OFFSET})?$`,
      "i",
    ),
    [3, 2, 1, 4, 5, 6, 7, 8],
  ],
  // Jan 15, 2026 10:30
  [
    new RegExp(
      String.raw`^${WEEKDAY}${MONTH}\s+(\d{1,2}),?\s+(\d{4})(?:\s+${CLOCK}${OFFSET})?$`,
      "i",
    ),
    [3, 1, 2, 4, 5, 6, 7, 8],
  ],
];

/**
 * Read a timestamp: ISO 8601 with blank or `T`, ctime, RFC 2822 and PostgreSQL's own notations. Without an
 * offset it is local time; without a time it is midnight. Digits after the sixth decimal are dropped.
 * @throws {MalformedTimestamp}
 */
export function parseTimestamp(text: string): Timestamp {
  const trimmed = text.trim();
  for (const [form, places] of FORMS) {
    const match = form.exec(trimmed);
    if (match === null) continue;
    const [year, month, day, hour, minute, second, fraction, offset] = places.map((at) =>
      match[at]
    );
    const fields = {
      year: Number(year),
      month: monthNumber(month ?? ""),
      day: Number(day),
      hour: Number(hour ?? 0),
      minute: Number(minute ?? 0),
      second: Number(second ?? 0),
    };
    if (!isValid(fields)) break;
    const microseconds = Number((fraction ?? "").padEnd(6, "0").slice(0, 6));
    const offsetSeconds = offset === undefined ? localOffset(fields) : parseOffset(offset);
    if (Math.abs(offsetSeconds) >= 86400) break;
    return { epochSeconds: utcSeconds(fields) - offsetSeconds, microseconds, offsetSeconds };
  }
  throw new MalformedTimestamp(
    `'${text.slice(0, 60)}' is not a timestamp (example: 2026-01-15 10:30:01+00:00)`,
  );
}

/** A `Date`, as it is called at the given offset (local time when absent). */
export function timestampOfDate(date: Date, offsetSeconds?: number): Timestamp {
  const milliseconds = date.getTime();
  const epochSeconds = Math.floor(milliseconds / 1000);
  return {
    epochSeconds,
    microseconds: (milliseconds - epochSeconds * 1000) * 1000,
    offsetSeconds: offsetSeconds ?? -Math.round(date.getTimezoneOffset() * 60) + 0,
  };
}

/** `2026-01-15 10:30:01.123456+00:00`: backup.info's notation; the fraction only when it is not zero. */
export function formatTimestamp(time: Timestamp): string {
  return `${date(time)} ${clock(time)}${fraction(time)}${offset(time)}`;
}

/** `2026-01-15T10:30:01.123456+00:00` */
export function formatIsoTimestamp(time: Timestamp): string {
  return `${date(time)}T${clock(time)}${fraction(time)}${offset(time)}`;
}

/** `Thu Jan  5 10:30:01 2026`, C's ctime in the stored zone. */
export function formatCtime(time: Timestamp): string {
  const wall = wallClock(time);
  const day = String(wall.getUTCDate()).padStart(2, " ");
  return `${DAYS[wall.getUTCDay()]} ${MONTHS[wall.getUTCMonth()]} ${day} ${clock(time)} ${
    year(wall)
  }`;
}

/** `2026-01-15 10:30:01`, in the stored zone. */
export function formatWallClock(time: Timestamp): string {
  return `${date(time)} ${clock(time)}`;
}

/** Negative when `a` is earlier, zero when both are the same instant (whatever their offsets). */
export function compareTimestamps(a: Timestamp, b: Timestamp): number {
  return a.epochSeconds - b.epochSeconds || a.microseconds - b.microseconds;
}

/** Milliseconds since 1970 with a fraction: for comparing with `Date`. */
export function epochMilliseconds(time: Timestamp): number {
  return time.epochSeconds * 1000 + time.microseconds / 1000;
}

interface WallFields {
  readonly year: number;
  readonly month: number;
  readonly day: number;
  readonly hour: number;
  readonly minute: number;
  readonly second: number;
}

function isValid({ year, month, day, hour, minute, second }: WallFields): boolean {
  if (year < 1 || month < 1 || month > 12 || hour > 23 || minute > 59 || second > 59) return false;
  const last = new Date(0);
  last.setUTCFullYear(year, month, 0);
  return day >= 1 && day <= last.getUTCDate();
}

function monthNumber(text: string): number {
  if (/^\d/.test(text)) return Number(text);
  return MONTHS.findIndex((name) => name.toLowerCase() === text.slice(0, 3).toLowerCase()) + 1;
}

function utcSeconds({ year, month, day, hour, minute, second }: WallFields): number {
  const midnight = new Date(0);
  // Date.UTC takes years below 100 for 19xx.
  midnight.setUTCFullYear(year, month - 1, day);
  return midnight.getTime() / 1000 + hour * 3600 + minute * 60 + second;
}

function localOffset({ year, month, day, hour, minute, second }: WallFields): number {
  const local = new Date(2000, 0, 1, hour, minute, second);
  local.setFullYear(year, month - 1, day);
  return -Math.round(local.getTimezoneOffset() * 60) + 0;
}

function parseOffset(text: string): number {
  const match = /^([+-])(\d{2}):?(\d{2})?:?(\d{2})?/.exec(text);
  if (match === null) return 0;
  const [, sign, hours, minutes, seconds] = match;
  const size = Number(hours) * 3600 + Number(minutes ?? 0) * 60 + Number(seconds ?? 0);
  // Adding zero turns -0 into 0.
  return (sign === "-" ? -size : size) + 0;
}

/** A `Date` whose UTC fields are the fields at the timestamp's own offset. */
function wallClock(time: Timestamp): Date {
  return new Date((time.epochSeconds + time.offsetSeconds) * 1000);
}

function date(time: Timestamp): string {
  const wall = wallClock(time);
  return `${year(wall)}-${two(wall.getUTCMonth() + 1)}-${two(wall.getUTCDate())}`;
}

function year(wall: Date): string {
  return String(wall.getUTCFullYear()).padStart(4, "0");
}

function clock(time: Timestamp): string {
  const wall = wallClock(time);
  return `${two(wall.getUTCHours())}:${two(wall.getUTCMinutes())}:${two(wall.getUTCSeconds())}`;
}

function fraction({ microseconds }: Timestamp): string {
  return microseconds === 0 ? "" : `.${String(microseconds).padStart(6, "0")}`;
}

function offset({ offsetSeconds }: Timestamp): string {
  const size = Math.abs(offsetSeconds);
  const seconds = size % 60 === 0 ? "" : `:${two(size % 60)}`;
  const hoursAndMinutes = `${two(Math.floor(size / 3600))}:${two(Math.floor(size / 60) % 60)}`;
  return `${offsetSeconds < 0 ? "-" : "+"}${hoursAndMinutes}${seconds}`;
}

function two(number: number): string {
  return String(number).padStart(2, "0");
}
