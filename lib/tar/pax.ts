/** Extended headers of POSIX's pax: records of the form "LENGTH KEYWORD=VALUE". */
import { MAX_ID } from "./header.ts";

/** What is used of them. Absent: not said, or taken back. */
export interface PaxValues {
  path?: Uint8Array | undefined;
  linkpath?: Uint8Array | undefined;
  uname?: Uint8Array | undefined;
  gname?: Uint8Array | undefined;
  size?: number | undefined;
  uid?: number | undefined;
  gid?: number | undefined;
  mtime?: number | undefined;
  sparse?: boolean | undefined;
}

/** @returns a text when it is malformed: why */
export function parsePax(bytes: Uint8Array): PaxValues | string {
  const values: PaxValues = {};
  for (let at = 0; at < bytes.length;) {
    // Some writers fill up with NULs.
    if (bytes[at] === 0) break;
    const blank = bytes.indexOf(0x20, at);
    const digits = blank < 0 ? "" : latin1(bytes.subarray(at, Math.min(blank, at + 8)));
    const length = /^[0-9]{1,7}$/.test(digits) ? Number(digits) : 0;
    const end = at + length;
    const equals = bytes.indexOf(0x3d, blank + 1);
    const wellFormed = length > 0 && end <= bytes.length && equals > blank && equals < end &&
      bytes[end - 1] === 0x0a;
    if (!wellFormed) {
      return `record at byte ${at} is not of the form "LENGTH KEYWORD=VALUE"`;
    }
    const problem = setPaxValue(
      values,
      latin1(bytes.subarray(blank + 1, equals)),
      bytes.subarray(equals + 1, end - 1),
    );
    if (problem !== undefined) return problem;
    at = end;
  }
  return values;
}

/** An empty value takes back what a header before it said. */
function setPaxValue(values: PaxValues, keyword: string, bytes: Uint8Array): string | undefined {
  const empty = bytes.length === 0;
  switch (keyword) {
    case "path":
    case "linkpath":
    case "uname":
    case "gname":
      if (bytes.includes(0)) return `${keyword} holds a NUL`;
      values[keyword] = empty ? undefined : bytes;
      return undefined;
    case "size":
    case "uid":
    case "gid": {
      const text = latin1(bytes);
      const number = Number(text);
      const max = keyword === "size" ? Number.MAX_SAFE_INTEGER : MAX_ID;
      if (!empty && (!/^[0-9]+$/.test(text) || number > max)) {
        return `${keyword} '${text.slice(0, 40)}' is out of range`;
      }
      values[keyword] = empty ? undefined : number;
      return undefined;
    }
    case "mtime": {
      const text = latin1(bytes);
      if (!empty && !/^-?[0-9]{1,15}(\.[0-9]*)?$/.test(text)) {
        return `mtime '${text.slice(0, 40)}' is no number`;
      }
      values.mtime = empty ? undefined : Number(text);
      return undefined;
    }
    default:
      if (keyword.startsWith("GNU.sparse.")) values.sparse = true;
      return undefined;
  }
}

function latin1(bytes: Uint8Array): string {
  return String.fromCharCode(...bytes.subarray(0, 256));
}
