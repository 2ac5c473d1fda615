/**
 * The tar format that base backups are stored in: POSIX pax (ustar headers, with extended headers in front
 * of members that need them). What writer and reader share.
 */

/** Headers are one block; contents are filled up to whole blocks. Bytes. */
export const BLOCK_SIZE = 512;
/** An archive is filled up with zero blocks to a multiple of this. Bytes. */
export const RECORD_SIZE = 20 * BLOCK_SIZE;

/** Type flags of headers. */
export const TYPE = {
  file: "0",
  hardLink: "1",
  symlink: "2",
  characterDevice: "3",
  blockDevice: "4",
  directory: "5",
  fifo: "6",
  /** Extended header of the next member. */
  pax: "x",
  /** Extended header of all following members. */
  paxGlobal: "g",
  gnuLongName: "L",
  gnuLongLink: "K",
} as const;

/** Where the fields of a ustar header are: offset and length in bytes. */
export const FIELD = {
  name: [0, 100],
  mode: [100, 8],
  uid: [108, 8],
  gid: [116, 8],
  size: [124, 12],
  mtime: [136, 12],
  checksum: [148, 8],
  type: [156, 1],
  linkName: [157, 100],
  magic: [257, 6],
  version: [263, 2],
  userName: [265, 32],
  groupName: [297, 32],
  deviceMajor: [329, 8],
  deviceMinor: [337, 8],
  prefix: [345, 155],
} as const;

/** Zero bytes that fill a content of this size up to whole blocks: 0..511. */
export function paddingOf(size: number): number {
  return (BLOCK_SIZE - size % BLOCK_SIZE) % BLOCK_SIZE;
}

/** Sum of a header block's bytes with its checksum field taken as blanks. */
export function checksumOf(header: Uint8Array): number {
  const [start, length] = FIELD.checksum;
  let sum = 0x20 * length;
  for (let i = 0; i < start; i++) sum += header[i] ?? 0;
  for (let i = start + length; i < BLOCK_SIZE; i++) sum += header[i] ?? 0;
  return sum;
}

/**
 * One record of an extended header, `LENGTH KEYWORD=VALUE\n`, where LENGTH is that of the whole record in
 * bytes, its own digits included.
 */
export function paxRecord(keyword: string, value: Uint8Array | string): Uint8Array {
  const content = typeof value === "string" && !isAscii(value) ? encoder.encode(value) : value;
  const rest = encoder.encode(keyword).length + content.length + 3;
  let length = rest + String(rest).length;
  // One digit more can make the length itself longer, once.
  length = rest + String(length).length;
  const record = new Uint8Array(length);
  const start = `${length} ${keyword}=`;
  if (isAscii(start)) putAscii(record, 0, start);
  else record.set(encoder.encode(start), 0);
  const at = length - 1 - content.length;
  if (typeof content === "string") putAscii(record, at, content);
  else record.set(content, at);
  record[length - 1] = 0x0a;
  return record;
}

export function isAscii(text: string): boolean {
  for (let i = 0; i < text.length; i++) if (text.charCodeAt(i) >= 0x80) return false;
  return true;
}

/** Write an ASCII text; spares the garbage of encoding, of which an archive of many files makes a lot. */
export function putAscii(target: Uint8Array, offset: number, text: string): void {
  for (let i = 0; i < text.length; i++) target[offset + i] = text.charCodeAt(i);
}

const encoder = new TextEncoder();
const strictDecoder = new TextDecoder("utf-8", { fatal: true, ignoreBOM: true });

/**
 * File names are bytes. In strings, bytes that are not UTF-8 are carried as lone surrogates U+DC80 to U+DCFF
 * (as Python's `surrogateescape` does), so that every name survives the way there and back.
 */
export function encodeName(name: string): Uint8Array {
  if (!/[\udc80-\udcff]/.test(name)) return encoder.encode(name);
  const bytes: number[] = [];
  for (const char of name) {
    const code = char.codePointAt(0) ?? 0;
    if (code >= 0xdc80 && code <= 0xdcff) bytes.push(code - 0xdc00);
    else bytes.push(...encoder.encode(char));
  }
  return Uint8Array.from(bytes);
}

/** The reverse of `encodeName`. */
export function decodeName(bytes: Uint8Array): string {
  try {
    return strictDecoder.decode(bytes);
  } catch {
    return decodeLoosely(bytes);
  }
}

/** Does the name hold bytes that are not UTF-8? */
export function hasEscapedBytes(name: string): boolean {
  // With the u flag a surrogate that is half of a pair does not match.
  return /[\udc80-\udcff]/u.test(name);
}

function decodeLoosely(bytes: Uint8Array): string {
  let name = "";
  let at = 0;
  while (at < bytes.length) {
    const first = bytes[at] ?? 0;
    const length = first < 0x80 ? 1 : first < 0xc2 ? 0 : first < 0xe0 ? 2 : first < 0xf0 ? 3 : 4;
    let char: string | undefined;
    if (length > 0 && at + length <= bytes.length) {
      try {
        char = strictDecoder.decode(bytes.subarray(at, at + length));
      } catch {
        char = undefined;
      }
    }
    if (char === undefined) {
      name += String.fromCharCode(0xdc00 + first);
      at += 1;
    } else {
      name += char;
      at += length;
    }
  }
  return name;
}
