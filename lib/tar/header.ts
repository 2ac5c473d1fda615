/** Fields of a header block of 512 bytes as readers meet them: ustar (POSIX), GNU, and older. */
import { BLOCK_SIZE, checksumOf, FIELD } from "./format.ts";

/** (uid_t)-1 means "leave it" to the system. */
export const MAX_ID = 2 ** 32 - 2;

/** Fields of a header that hold numbers. */
export type NumberField = "mode" | "uid" | "gid" | "size" | "mtime";

/** A field as it stands. */
export function bytesOf(header: Uint8Array, field: keyof typeof FIELD): Uint8Array {
  const [start, length] = FIELD[field];
  return header.subarray(start, start + length);
}

/** Name and prefix. GNU headers have other things where POSIX has the prefix. */
export function headerName(header: Uint8Array): Uint8Array {
  const name = untilNul(bytesOf(header, "name"));
  const magic = bytesOf(header, "magic");
  if (!startsWith(magic, "ustar\0")) return name;
  const prefix = untilNul(bytesOf(header, "prefix"));
  if (prefix.length === 0) return name;
  const whole = new Uint8Array(prefix.length + 1 + name.length);
  whole.set(prefix, 0);
  whole[prefix.length] = 0x2f;
  whole.set(name, prefix.length + 1);
  return whole;
}

/** Does it look like a POSIX or GNU header, with the right checksum? */
export function isHeader(block: Uint8Array): boolean {
  if (!startsWith(bytesOf(block, "magic"), "ustar")) return false;
  const stated = parseNumber(bytesOf(block, "checksum"));
  return stated !== null && (stated === checksumOf(block) || stated === signedSumOf(block));
}

/** Octal digits with blanks and NULs around, or GNU's base 256 for numbers that do not fit. Null: neither. */
export function parseNumber(field: Uint8Array): number | null {
  const first = field[0] ?? 0;
  if (first >= 0x80) return parseBase256(field);
  let at = 0;
  while (at < field.length && field[at] === 0x20) at++;
  let value = 0;
  for (; at < field.length; at++) {
    const digit = (field[at] ?? 0) - 0x30;
    if (digit < 0 || digit > 7) break;
    value = value * 8 + digit;
  }
  for (; at < field.length; at++) {
    if (field[at] !== 0 && field[at] !== 0x20) return null;
  }
  return value;
}

/** Two's complement, big-endian; the first bit only tells that it is this notation. */
function parseBase256(field: Uint8Array): number | null {
  const first = field[0] ?? 0;
  const negative = (first & 0x40) !== 0;
  let value = negative ? (first & 0x3f) - 0x40 : first & 0x3f;
  for (let i = 1; i < field.length; i++) {
    value = value * 256 + (field[i] ?? 0);
    if (!Number.isSafeInteger(value)) return null;
  }
  return value;
}

/** Old writers took bytes for signed. */
export function signedSumOf(header: Uint8Array): number {
  const [start, length] = FIELD.checksum;
  let sum = checksumOf(header);
  for (let i = 0; i < BLOCK_SIZE; i++) {
    if ((i < start || i >= start + length) && (header[i] ?? 0) >= 0x80) sum -= 256;
  }
  return sum;
}

/** What stands before the first NUL. */
export function untilNul(bytes: Uint8Array): Uint8Array {
  const nul = bytes.indexOf(0);
  return nul < 0 ? bytes : bytes.subarray(0, nul);
}

function startsWith(bytes: Uint8Array, text: string): boolean {
  for (let i = 0; i < text.length; i++) {
    if (bytes[i] !== text.charCodeAt(i)) return false;
  }
  return true;
}

/** Nothing but zeros? */
export function isZero(bytes: Uint8Array): boolean {
  for (let i = 0; i < bytes.length; i++) {
    if (bytes[i] !== 0) return false;
  }
  return true;
}
