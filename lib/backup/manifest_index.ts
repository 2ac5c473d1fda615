/** A manifest in memory, to compare members with: about 150 bytes a file. */
import { Buffer } from "node:buffer";
import type { FileChecksum, ManifestFile } from "./backup_manifest.ts";

export interface ExpectedFile {
  readonly size: number;
  readonly checksum: FileChecksum | null;
}

/** Filled from a manifest; then members are crossed off. */
export class ManifestIndex {
  readonly #numbers = new Map<string, number>();
  readonly #sizes: number[] = [];
  /** As strings of a character a byte, half of what the hexadecimal digits take. */
  readonly #sums: string[] = [];
  readonly #algorithms: string[] = [];
  readonly #seen: boolean[] = [];

  /** Of a path that comes twice the first one counts; `pg_verifybackup` refuses such a manifest. */
  add({ path, size, checksum }: Omit<ManifestFile, "mtime">): void {
    if (this.#numbers.has(path)) return;
    this.#numbers.set(path, this.#sizes.length);
    this.#sizes.push(size);
    this.#sums.push(Buffer.from(checksum?.value ?? "", "hex").toString("latin1"));
    this.#algorithms.push(checksum?.algorithm ?? "none");
    this.#seen.push(false);
  }

  get files(): number {
    return this.#sizes.length;
  }

  /** What is to be expected of a member, which counts as there from now on. */
  expect(path: string): ExpectedFile | undefined {
    const number = this.#numbers.get(path);
    if (number === undefined) return undefined;
    this.#seen[number] = true;
    const algorithm = this.#algorithms[number] ?? "none";
    const value = Buffer.from(this.#sums[number] ?? "", "latin1").toString("hex");
    return {
      size: this.#sizes[number] ?? 0,
      checksum: algorithm === "none" ? null : { algorithm, value },
    };
  }

  has(path: string): boolean {
    return this.#numbers.has(path);
  }

  /** Files that no archive had. */
  *missing(): Generator<string> {
    for (const [path, number] of this.#numbers) if (this.#seen[number] !== true) yield path;
  }
}
