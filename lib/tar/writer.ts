/** Headers of tar members and the end of an archive, as bytes. Contents are the caller's. */
import {
  BLOCK_SIZE,
  checksumOf,
  encodeName,
  FIELD,
  hasEscapedBytes,
  paddingOf,
  paxRecord,
  RECORD_SIZE,
  TYPE,
} from "./format.ts";

/** What an archive says of a member. */
export interface TarMember {
  readonly type: "file" | "directory" | "symlink";
  /** Path inside the archive; directories get their trailing slash here. See `encodeName` for odd bytes. */
  readonly name: string;
  /** Target of a symlink. */
  readonly linkTarget?: string | undefined;
  /** Bytes of content that follow the header; 0 unless a file. */
  readonly size: number;
  /** Permission bits, 0..0o7777. */
  readonly mode: number;
  readonly uid: number;
  readonly gid: number;
  /** Empty when not known. */
  readonly userName: string;
  readonly groupName: string;
  /** Nanoseconds since 1970. */
  readonly mtime: bigint;
}

/**
 * The header of a member: one block, with an extended header in front when something does not fit in it
 * (fractions of seconds, long or non-ASCII names, large numbers).
 */
export function memberHeader(member: TarMember): Uint8Array {
  const name = encodeName(member.type === "directory" ? `${member.name}/` : member.name);
  const link = member.linkTarget === undefined ? NOTHING : encodeName(member.linkTarget);
  const records = paxRecords(member, name, link);
  const header = ustarHeader({
    type: TYPE[member.type],
    name,
    link,
    size: member.size,
    mode: member.mode,
    uid: member.uid,
    gid: member.gid,
    userName: encodeName(member.userName),
    groupName: encodeName(member.groupName),
    seconds: floorSeconds(member.mtime),
  });
  if (records.length === 0) return header;
  const length = records.reduce((sum, record) => sum + record.length, 0);
  const bytes = new Uint8Array(BLOCK_SIZE + length + paddingOf(length) + BLOCK_SIZE);
  bytes.set(ustarHeader({ ...EXTENDED_HEADER, size: length }), 0);
  let at = BLOCK_SIZE;
  for (const record of records) {
    bytes.set(record, at);
    at += record.length;
  }
  bytes.set(header, bytes.length - BLOCK_SIZE);
  return bytes;
}

/**
 * The end of an archive: two zero blocks, filled up to a whole record.
 * @param size bytes of the archive so far: headers, contents and their padding
 */
export function endOfArchive(size: number): Uint8Array {
  const whole = Math.ceil((size + 2 * BLOCK_SIZE) / RECORD_SIZE) * RECORD_SIZE;
  return new Uint8Array(whole - size);
}

const NOTHING = new Uint8Array(0);
const NANOSECONDS = 1_000_000_000n;
const encoder = new TextEncoder();

interface HeaderFields {
  readonly type: string;
  readonly name: Uint8Array;
  readonly link: Uint8Array;
  readonly size: number;
  readonly mode: number;
  readonly uid: number;
  readonly gid: number;
  readonly userName: Uint8Array;
  readonly groupName: Uint8Array;
  readonly seconds: bigint;
}

const EXTENDED_HEADER: Omit<HeaderFields, "size"> = {
  type: TYPE.pax,
  name: encoder.encode("././@PaxHeader"),
  link: NOTHING,
  mode: 0o644,
  uid: 0,
  gid: 0,
  userName: NOTHING,
  groupName: NOTHING,
  seconds: 0n,
};

function ustarHeader(fields: HeaderFields): Uint8Array {
  const header = new Uint8Array(BLOCK_SIZE);
  const put = ([offset, length]: readonly [number, number], bytes: Uint8Array) =>
    header.set(bytes.length > length ? bytes.subarray(0, length) : bytes, offset);
  const octal = ([offset, length]: readonly [number, number], number: number) => {
    // What does not fit is in the extended header; the field then holds 0.
    const digits = fits(number, length) ? number.toString(8) : "0";
    put([offset, length - 1], encoder.encode(digits.padStart(length - 1, "0")));
  };
  put(FIELD.name, fields.name);
  octal(FIELD.mode, fields.mode);
  octal(FIELD.uid, fields.uid);
  octal(FIELD.gid, fields.gid);
  octal(FIELD.size, fields.size);
  octal(FIELD.mtime, Number(fields.seconds));
  put(FIELD.type, encoder.encode(fields.type));
  put(FIELD.linkName, fields.link);
  put(FIELD.magic, encoder.encode("ustar\0"));
  put(FIELD.version, encoder.encode("00"));
  put(FIELD.userName, fields.userName);
  put(FIELD.groupName, fields.groupName);
  octal(FIELD.deviceMajor, 0);
  octal(FIELD.deviceMinor, 0);
  put(FIELD.checksum, encoder.encode(`${checksumOf(header).toString(8).padStart(6, "0")}\0 `));
  return header;
}

/** Can a field of this length (the last byte is a terminator) hold the number in octal? */
function fits(number: number, length: number): boolean {
  return number >= 0 && number < 8 ** (length - 1);
}

function paxRecords(member: TarMember, name: Uint8Array, link: Uint8Array): Uint8Array[] {
  const records: Uint8Array[] = [];
  let binary = false;
  const text = (keyword: string, value: string, bytes: Uint8Array, room: number) => {
    const odd = hasEscapedBytes(value);
    // Bytes that are not UTF-8 stay in the plain header as long as they fit: every reader takes them there.
    if (bytes.length <= room && (odd || isAscii(bytes))) return;
    binary ||= odd;
    records.push(paxRecord(keyword, bytes));
  };
  text("path", member.name, name, FIELD.name[1]);
  text("linkpath", member.linkTarget ?? "", link, FIELD.linkName[1]);
  // A name that fills its field has no terminator, which some readers want here.
  text("uname", member.userName, encodeName(member.userName), FIELD.userName[1] - 1);
  text("gname", member.groupName, encodeName(member.groupName), FIELD.groupName[1] - 1);
  if (!fits(member.uid, FIELD.uid[1])) records.push(paxRecord("uid", String(member.uid)));
  if (!fits(member.gid, FIELD.gid[1])) records.push(paxRecord("gid", String(member.gid)));
  if (!fits(member.size, FIELD.size[1])) records.push(paxRecord("size", String(member.size)));
  if (
    member.mtime % NANOSECONDS !== 0n || !fits(Number(floorSeconds(member.mtime)), FIELD.mtime[1])
  ) {
    records.push(paxRecord("mtime", decimalSeconds(member.mtime)));
  }
  // Tells readers that the values above are bytes, not UTF-8; it has to come first.
  return binary ? [paxRecord("hdrcharset", "BINARY"), ...records] : records;
}

function isAscii(bytes: Uint8Array): boolean {
  for (let i = 0; i < bytes.length; i++) if ((bytes[i] ?? 0) >= 0x80) return false;
  return true;
}

/** Whole seconds, rounded down also before 1970. */
function floorSeconds(nanoseconds: bigint): bigint {
  const seconds = nanoseconds / NANOSECONDS;
  return nanoseconds % NANOSECONDS < 0n ? seconds - 1n : seconds;
}

/** `1795378770.823295`, with as many digits as needed. */
function decimalSeconds(nanoseconds: bigint): string {
  const sign = nanoseconds < 0n ? "-" : "";
  const absolute = nanoseconds < 0n ? -nanoseconds : nanoseconds;
  const fraction = String(absolute % NANOSECONDS).padStart(9, "0").replace(/0+$/, "");
  return `${sign}${absolute / NANOSECONDS}${fraction === "" ? "" : `.${fraction}`}`;
}
