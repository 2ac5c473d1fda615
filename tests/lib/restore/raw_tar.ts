/** Tar archives made block by block, also wrong ones. Shares nothing with the code under test. */
export interface RawMember {
  readonly name: string;
  /** Type flag; "0" by default. */
  readonly type?: string;
  readonly content?: Uint8Array | string;
  readonly linkTarget?: string;
  readonly mode?: number;
  readonly uid?: number;
  readonly gid?: number;
  readonly userName?: string;
  readonly groupName?: string;
  readonly mtime?: number;
  readonly prefix?: string;
  /** "ustar\x0000" by default, "ustar  \0" for GNU, "" for the oldest format. */
  readonly magic?: string;
  /** Raw texts of fields instead of octal numbers. */
  readonly raw?: Readonly<Record<"size" | "uid" | "mtime" | "checksum", Uint8Array | undefined>>;
}

const encoder = new TextEncoder();
const latin1 = (text: string) => Uint8Array.from(text, (char) => char.charCodeAt(0));

export function bytes(content: Uint8Array | string | undefined): Uint8Array {
  return typeof content === "string" ? encoder.encode(content) : content ?? new Uint8Array(0);
}

/** Header, content and padding. */
export function member(fields: RawMember): Uint8Array {
  const content = bytes(fields.content);
  const block = new Uint8Array(512);
  const put = (at: number, value: Uint8Array) => block.set(value, at);
  const octal = (value: number, digits: number) =>
    encoder.encode(value.toString(8).padStart(digits, "0"));
  put(0, encoder.encode(fields.name));
  put(100, octal(fields.mode ?? 0o600, 7));
  put(108, fields.raw?.uid ?? octal(fields.uid ?? 0, 7));
  put(116, octal(fields.gid ?? 0, 7));
  put(124, fields.raw?.size ?? octal(content.length, 11));
  put(136, fields.raw?.mtime ?? octal(fields.mtime ?? 0, 11));
  put(156, latin1(fields.type ?? "0"));
  put(157, encoder.encode(fields.linkTarget ?? ""));
  put(257, latin1(fields.magic ?? "ustar\x0000"));
  put(265, encoder.encode(fields.userName ?? ""));
  put(297, encoder.encode(fields.groupName ?? ""));
  put(345, encoder.encode(fields.prefix ?? ""));
  put(148, encoder.encode("        "));
  const sum = block.reduce((total, byte) => total + byte, 0);
  put(148, fields.raw?.checksum ?? encoder.encode(`${octalText(sum, 6)}\0 `));
  return concat([block, content, new Uint8Array((512 - content.length % 512) % 512)]);
}

/** An extended header ("x" or "g") of the given records. */
export function pax(records: Readonly<Record<string, string>>, type = "x"): Uint8Array {
  const text = Object.entries(records).map(([key, value]) => {
    const rest = encoder.encode(` ${key}=${value}\n`).length;
    let length = rest + 1;
    while (String(length).length + rest !== length) length++;
    return `${length} ${key}=${value}\n`;
  }).join("");
  return member({ name: "PaxHeader", type, content: text });
}

export const END = new Uint8Array(1024);

/** The parts, the end mark, and zeros up to a record. */
export function archive(...parts: readonly Uint8Array[]): Uint8Array {
  const whole = concat([...parts, END]);
  return concat([whole, new Uint8Array((10240 - whole.length % 10240) % 10240)]);
}

export function concat(parts: readonly Uint8Array[]): Uint8Array {
  const whole = new Uint8Array(parts.reduce((sum, part) => sum + part.length, 0));
  let at = 0;
  for (const part of parts) {
    whole.set(part, at);
    at += part.length;
  }
  return whole;
}

/** The bytes in chunks of these sizes, over and over; one chunk when there are none. */
export async function* chunks(
  whole: Uint8Array,
  sizes: readonly number[] = [],
): AsyncGenerator<Uint8Array> {
  for (let at = 0, i = 0; at < whole.length; i++) {
    await Promise.resolve();
    const size = sizes.length === 0 ? whole.length : sizes[i % sizes.length] ?? 1;
    yield whole.subarray(at, at + size);
    at += size;
  }
}

function octalText(value: number, digits: number): string {
  return value.toString(8).padStart(digits, "0");
}
