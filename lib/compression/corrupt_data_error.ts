import type { CompressionName } from "./table.ts";

/** Compressed data that is damaged, cut off, or not of the format at all. */
export class CorruptDataError extends Error {
  override readonly name = "CorruptDataError";
  /** The format it was read as. */
  readonly codec: CompressionName;
  /** What is wrong, without the format's name. */
  readonly reason: string;

  constructor(codec: CompressionName, reason: string, options?: ErrorOptions) {
    super(`Cannot decompress ${codec} data: ${reason}`, options);
    this.codec = codec;
    this.reason = reason;
  }
}
