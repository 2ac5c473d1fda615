/**
 * The manifest of a backup's files in PostgreSQL's own format (its documentation: "Backup Manifest Format"), so that
 * `pg_verifybackup` accepts what is restored. Written and read line by line, as the server writes it: a file of it each.
 */
import { Buffer } from "node:buffer";
import { createHash, type Hash } from "node:crypto";
import { crc32c } from "../compression/checksums.ts";
import { decodeName, encodeName, hasEscapedBytes } from "../tar/format.ts";
import { lsnText } from "./steps.ts";

export const MANIFEST_CHECKSUMS = ["sha256", "crc32c", "none"] as const;
/** How the contents of files are summed up. */
export type ManifestChecksum = (typeof MANIFEST_CHECKSUMS)[number];

export interface ManifestFile {
  /** Relative to the data directory; bytes that are not UTF-8 as `decodeName` has them. */
  readonly path: string;
  /** Bytes. */
  readonly size: number;
  /** Nanoseconds since 1970. */
  readonly mtime: bigint;
  readonly checksum: FileChecksum | null;
}

export interface FileChecksum {
  /** In lower case: `sha256`, `crc32c`; others as they are found. */
  readonly algorithm: string;
  /** Hexadecimal, lower case. */
  readonly value: string;
}

/** The WAL that a restored directory needs at least. */
export interface WalRange {
  readonly timeline: number;
  readonly start: bigint;
  readonly end: bigint;
}

/** Sums up the content of one file as it passes. */
export interface ContentSum {
  update(bytes: Uint8Array): void;
  digest(): FileChecksum;
}

/** @returns null for an algorithm that is not known here (and for none) */
export function contentSum(algorithm: string): ContentSum | null {
  switch (algorithm) {
    case "sha224":
    case "sha256":
    case "sha384":
    case "sha512": {
      const hash = createHash(algorithm);
      return {
        update: (bytes) => hash.update(bytes),
        digest: () => ({ algorithm, value: hash.digest("hex") }),
      };
    }
    case "crc32c": {
      let sum = 0;
      return {
        update: (bytes) => sum = crc32c(bytes, sum),
        // The server writes the number as it is in the memory of a little-endian machine.
        digest: () => ({ algorithm, value: littleEndian(sum) }),
      };
    }
    default:
      return null;
  }
}

/** Makes the text of a manifest, piece by piece. */
export class ManifestText {
  readonly #hash: Hash = createHash("sha256");
  #first = true;

  /**
   * @param version 1, or 2 (from PostgreSQL 17 on), which tells the cluster too
   * @param systemIdentifier needed for version 2
   */
  begin(version: 1 | 2, systemIdentifier: string | null): string {
    const cluster = version === 2 ? `"System-Identifier": ${systemIdentifier},\n` : "";
    return this.#counted(
      `{ "PostgreSQL-Backup-Manifest-Version": ${version},\n${cluster}"Files": [`,
    );
  }

  file(file: ManifestFile): string {
    const comma = this.#first ? "\n" : ",\n";
    this.#first = false;
    return this.#counted(comma + fileLine(file));
  }

  end(ranges: readonly WalRange[]): string {
    const lines = ranges.map(({ timeline, start, end }) =>
      `{ "Timeline": ${timeline}, "Start-LSN": "${lsnText(start)}", "End-LSN": "${lsnText(end)}" }`
    );
    const text = this.#counted(`\n],\n"WAL-Ranges": [\n${lines.join(",\n")}\n],\n`);
    return `${text}"Manifest-Checksum": "${this.#hash.digest("hex")}"}\n`;
  }

  #counted(text: string): string {
    this.#hash.update(text);
    return text;
  }
}

function fileLine({ path, size, mtime, checksum }: ManifestFile): string {
  const name = hasEscapedBytes(path)
    ? `"Encoded-Path": "${Buffer.from(encodeName(path)).toString("hex")}"`
    : `"Path": ${JSON.stringify(path)}`;
  const sum = checksum === null
    ? ""
    : `, "Checksum-Algorithm": "${checksum.algorithm.toUpperCase()}", "Checksum": "${checksum.value}"`;
  return `{ ${name}, "Size": ${size}, "Last-Modified": "${gmt(mtime)}"${sum} }`;
}

/** `2026-11-25 21:40:00 GMT` */
function gmt(nanoseconds: bigint): string {
  const text = new Date(Number(nanoseconds / 1_000_000n)).toISOString();
  return `${text.slice(0, 10)} ${text.slice(11, 19)} GMT`;
}

function littleEndian(value: number): string {
  const bytes = Buffer.alloc(4);
  bytes.writeUInt32LE(value);
  return bytes.toString("hex");
}

/** A manifest that is damaged or none. */
export class MalformedManifest extends Error {
  override readonly name = "MalformedManifest";
}

export interface ManifestFacts {
  readonly version: number;
  /** Null in version 1. */
  readonly systemIdentifier: string | null;
  readonly files: number;
  readonly ranges: readonly WalRange[];
}

/** A longer line is no file's. Bytes. */
const MAX_LINE = 64 * 1024;

/**
 * Read a manifest that is written as the server (and this module) writes it: one file a line. Nothing of it is kept.
 * @param onFile told each file; what it is told counts only if the promise resolves
 * @throws {MalformedManifest} also when the manifest's own checksum is wrong
 */
export async function readManifest(
  source: AsyncIterable<Uint8Array>,
  onFile: (file: Omit<ManifestFile, "mtime">) => void,
): Promise<ManifestFacts> {
  const hash = createHash("sha256");
  let version: number | undefined;
  let systemIdentifier: string | null = null;
  let section: "top" | "files" | "ranges" | "end" = "top";
  let stated: string | undefined;
  let files = 0;
  let number = 0;
  const ranges: WalRange[] = [];
  for await (const line of linesOf(source)) {
    number += 1;
    const refuse = (why: string) => new MalformedManifest(`line ${number} ${why}`);
    if (section === "end") throw refuse("follows the end");
    const text = decoded(line);
    if (text === undefined) throw refuse("is no UTF-8");
    stated = /^"Manifest-Checksum": "([0-9a-f]{64})"\}$/.exec(text)?.[1];
    if (stated !== undefined) {
      if (section !== "top" || version === undefined) throw refuse("is not where it should be");
      section = "end";
      continue;
    }
    hash.update(line).update("\n");
    if (section === "top") {
      const begun = /^\{ "PostgreSQL-Backup-Manifest-Version": ([12]),$/.exec(text)?.[1];
      const cluster = /^"System-Identifier": ([0-9]+),$/.exec(text)?.[1];
      if (begun !== undefined && version === undefined) version = Number(begun);
      else if (version === undefined) throw refuse("does not begin a manifest of a known version");
      else if (cluster !== undefined) systemIdentifier = cluster;
      else if (text === '"Files": [') section = "files";
      else if (text === '"WAL-Ranges": [') section = "ranges";
      else throw refuse("is not known");
    } else if (text === "],") section = "top";
    else if (text === "") continue;
    else if (section === "files") {
      files += 1;
      onFile(parseFile(text, refuse));
    } else ranges.push(parseRange(text, refuse));
  }
  if (section !== "end" || version === undefined) {
    throw new MalformedManifest("it ends before its checksum");
  }
  if (stated !== undefined && stated !== hash.digest("hex")) {
    throw new MalformedManifest("its own checksum is wrong");
  }
  return { version, systemIdentifier, files, ranges };
}

type Refuse = (why: string) => MalformedManifest;

function parseFile(text: string, refuse: Refuse): Omit<ManifestFile, "mtime"> {
  const entry = parseLine(text, refuse);
  const { Path: plain, "Encoded-Path": encoded, Size: size } = entry;
  const { "Checksum-Algorithm": algorithm, Checksum: value } = entry;
  const path = typeof plain === "string"
    ? plain
    : typeof encoded === "string" && /^([0-9a-f]{2})+$/i.test(encoded)
    ? decodeName(Buffer.from(encoded, "hex"))
    : undefined;
  if (path === undefined) throw refuse("has no path");
  if (typeof size !== "number" || !Number.isSafeInteger(size) || size < 0) {
    throw refuse("has no size");
  }
  if (value === undefined && algorithm === undefined) return { path, size, checksum: null };
  if (typeof value !== "string" || typeof algorithm !== "string" || !/^[0-9a-f]+$/i.test(value)) {
    throw refuse("has no checksum");
  }
  const checksum = { algorithm: algorithm.toLowerCase(), value: value.toLowerCase() };
  return { path, size, checksum };
}

function parseRange(text: string, refuse: Refuse): WalRange {
  const { Timeline: timeline, "Start-LSN": start, "End-LSN": end } = parseLine(text, refuse);
  const [from, to] = [parseLsnText(start), parseLsnText(end)];
  if (typeof timeline !== "number" || from === null || to === null) {
    throw refuse("is no range of WAL");
  }
  return { timeline, start: from, end: to };
}

function parseLsnText(value: unknown): bigint | null {
  const match = /^([0-9A-F]{1,8})\/([0-9A-F]{1,8})$/i.exec(typeof value === "string" ? value : "");
  return match === null ? null : (BigInt(`0x${match[1]}`) << 32n) | BigInt(`0x${match[2]}`);
}

function parseLine(text: string, refuse: Refuse): Record<string, unknown> {
  let value: unknown;
  try {
    value = JSON.parse(text.endsWith(",") ? text.slice(0, -1) : text);
  } catch {
    throw refuse("is no JSON object");
  }
  if (typeof value !== "object" || value === null) throw refuse("is no JSON object");
  return { ...value };
}

function decoded(line: Uint8Array): string | undefined {
  try {
    return new TextDecoder("utf-8", { fatal: true }).decode(line);
  } catch {
    return undefined;
  }
}

/** Lines without their end. The last one must have an end too. */
async function* linesOf(source: AsyncIterable<Uint8Array>): AsyncGenerator<Uint8Array> {
  let rest: Uint8Array = new Uint8Array(0);
  for await (const chunk of source) {
    const bytes: Uint8Array = rest.length === 0 ? chunk : Buffer.concat([rest, chunk]);
    let at = 0;
    for (let end = bytes.indexOf(10); end >= 0; end = bytes.indexOf(10, at)) {
      if (end - at > MAX_LINE) throw new MalformedManifest("it has a line that is too long");
      yield bytes.subarray(at, end);
      at = end + 1;
    }
    // A copy: the source may use its chunk again.
    rest = new Uint8Array(bytes.subarray(at));
    if (rest.length > MAX_LINE) throw new MalformedManifest("it has a line that is too long");
  }
  if (rest.length > 0) throw new MalformedManifest("its last line is cut off");
}
