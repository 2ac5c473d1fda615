/** Headers of tar members and the end of an archive, as bytes. Contents are the caller's. */
import {
  BLOCK_SIZE,
  checksumOf,
  encodeName,
  FIELD,
  hasEscapedBytes,
  isAscii,
  paddingOf,
  paxRecord,
  putAscii,
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
  const name = member.type === "directory" ? `${member.name}/` : member.name;
  const records = paxRecords(member, name);
  const length = records.reduce((sum, record) => sum + record.length, 0);
  const extended = length === 0 ? 0 : BLOCK_SIZE + length + paddingOf(length);
  const bytes = new Uint8Array(extended + BLOCK_SIZE);
  if (length > 0) {
    putUstarHeader(bytes.subarray(0, BLOCK_SIZE), { ...EXTENDED_HEADER, size: length });
    let at = BLOCK_SIZE;
    for (const record of records) {
      bytes.set(record, at);
      at += record.length;
    }
  }
  putUstarHeader(bytes.subarray(extended), {
    type: TYPE[member.type],
    name,
    link: member.linkTarget ?? "",
    size: member.size,
    mode: member.mode,
    uid: member.uid,
    gid: member.gid,
    userName: member.userName,
    groupName: member.groupName,
    seconds: floorSeconds(member.mtime),
  });
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

const NANOSECONDS = 1_000_000_000n;

interface HeaderFields {
  readonly type: string;
  readonly name: string;
  readonly link: string;
  readonly size: number;
  readonly mode: number;
  readonly uid: number;
  readonly gid: number;
  readonly userName: string;
  readonly groupName: string;
  readonly seconds: number;
}

const EXTENDED_HEADER: Omit<HeaderFields, "size"> = {
  type: TYPE.pax,
  name: "././@PaxHeader",
  link: "",
  mode: 0o644,
  uid: 0,
  gid: 0,
  userName: "",
  groupName: "",
  seconds: 0,
};

/** @param header a block of zeros */
function putUstarHeader(header: Uint8Array, fields: HeaderFields): void {
  const text = ([offset, length]: readonly [number, number], value: string) => {
    if (isAscii(value)) putAscii(header, offset, value.slice(0, length));
    else header.set(encodeName(value).subarray(0, length), offset);
  };
  const octal = ([offset, length]: readonly [number, number], number: number) => {
    // What does not fit is in the extended header; the field then holds 0.
    const digits = fits(number, length) ? number.toString(8) : "0";
    putAscii(header, offset, digits.padStart(length - 1, "0"));
  };
  text(FIELD.name, fields.name);
  octal(FIELD.mode, fields.mode);
  octal(FIELD.uid, fields.uid);
  octal(FIELD.gid, fields.gid);
  octal(FIELD.size, fields.size);
  octal(FIELD.mtime, fields.seconds);
  text(FIELD.type, fields.type);
  text(FIELD.linkName, fields.link);
  text(FIELD.magic, "ustar\0");
  text(FIELD.version, "00");
  text(FIELD.userName, fields.userName);
  text(FIELD.groupName, fields.groupName);
  octal(FIELD.deviceMajor, 0);
  octal(FIELD.deviceMinor, 0);
  text(FIELD.checksum, `${checksumOf(header).toString(8).padStart(6, "0")}\0 `);
}

/** Can a field of this length (the last byte is a terminator) hold the number in octal? */
function fits(number: number, length: number): boolean {
  return number >= 0 && number < 8 ** (length - 1);
}

function paxRecords(member: TarMember, name: string): Uint8Array[] {
  const records: Uint8Array[] = [];
  let binary = false;
  const text = (keyword: string, value: string, room: number) => {
    if (value.length <= room && isAscii(value)) return;
    const bytes = encodeName(value);
    const odd = hasEscapedBytes(value);
    // Bytes that are not UTF-8 stay in the plain header as long as they fit: every reader takes them there.
    if (odd && bytes.length <= room) return;
    binary ||= odd;
    records.push(paxRecord(keyword, bytes));
  };
  text("path", name, FIELD.name[1]);
  text("linkpath", member.linkTarget ?? "", FIELD.linkName[1]);
  // A name that fills its field has no terminator, which some readers want here.
  text("uname", member.userName, FIELD.userName[1] - 1);
  text("gname", member.groupName, FIELD.groupName[1] - 1);
  if (!fits(member.uid, FIELD.uid[1])) records.push(paxRecord("uid", String(member.uid)));
  if (!fits(member.gid, FIELD.gid[1])) records.push(paxRecord("gid", String(member.gid)));
  if (!fits(member.size, FIELD.size[1])) records.push(paxRecord("size", String(member.size)));
  if (
    member.mtime % NANOSECONDS !== 0n || !fits(floorSeconds(member.mtime), FIELD.mtime[1])
  ) {
    records.push(paxRecord("mtime", decimalSeconds(member.mtime)));
  }
  // Tells readers that the values above are bytes, not UTF-8; it has to come first.
  return binary ? [paxRecord("hdrcharset", "BINARY"), ...records] : records;
}

/** Whole seconds, rounded down also before 1970. */
function floorSeconds(nanoseconds: bigint): number {
  const seconds = Number(nanoseconds / NANOSECONDS);
  return nanoseconds % NANOSECONDS < 0n ? seconds - 1 : seconds;
}

/** `1795378770.823295`, with as many digits as needed. */
function decimalSeconds(nanoseconds: bigint): string {
  const sign = nanoseconds < 0n ? "-" : "";
  const absolute = nanoseconds < 0n ? -nanoseconds : nanoseconds;
  const fraction = String(absolute % NANOSECONDS).padStart(9, "0").replace(/0+$/, "");
  return `${sign}${absolute / NANOSECONDS}${fraction === "" ? "" : `.${fraction}`}`;
}
