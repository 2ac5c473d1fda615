/** Positions in the write-ahead log. */

declare const lsnBrand: unique symbol;

/** A log sequence number: a byte position, 0 … 2^64 - 1. */
export type Lsn = bigint & { readonly [lsnBrand]: true };

const maximum = 0xffff_ffff_ffff_ffffn;

/**
 * Reads `X/X`, hexadecimal, each side 1 to 8 digits, padded with zeros or not (PostgreSQL pads the
 * second one since 19), in either case.
 *
 * @throws RangeError when the text is none
 */
export function parseLsn(text: string): Lsn {
  const match = /^([0-9A-Fa-f]{1,8})\/([0-9A-Fa-f]{1,8})$/.exec(text);
  if (match === null) {
    throw new RangeError(
      `Invalid LSN ${JSON.stringify(text)}: must be two hexadecimal numbers, as in 2/80000028`,
    );
  }
  return ((BigInt(`0x${match[1]}`) << 32n) | BigInt(`0x${match[2]}`)) as Lsn;
}

/** As Barman's metadata has it and PostgreSQL up to 18 prints it: upper case, not padded. */
export function formatLsn(lsn: Lsn): string {
  return `${hexadecimal(lsn >> 32n)}/${hexadecimal(lsn & 0xffff_ffffn)}`;
}

/**
 * An LSN from a number.
 *
 * @throws RangeError when it is negative or has more than 64 bits
 */
export function lsnOf(value: bigint): Lsn {
  if (value < 0n || value > maximum) {
    throw new RangeError(`Invalid LSN ${value}: must be 0 … 2^64 - 1`);
  }
  return value as Lsn;
}

/** Negative when `a` is before `b`, 0 when they are equal, else positive; for `sort`. */
export function compareLsn(a: Lsn, b: Lsn): number {
  return a < b ? -1 : a > b ? 1 : 0;
}

/**
 * The position that lies `bytes` further (or before, when negative).
 *
 * @throws RangeError when that is no LSN
 */
export function addToLsn(lsn: Lsn, bytes: bigint | number): Lsn {
  return lsnOf(lsn + BigInt(bytes));
}

/** Bytes from `from` to `to`; negative when `to` is before. */
export function lsnDistance(from: Lsn, to: Lsn): bigint {
  return to - from;
}

/** Offset in its WAL segment, in bytes. */
export function segmentOffset(lsn: Lsn, segmentSize: number): number {
  return Number(lsn % BigInt(segmentSize));
}

function hexadecimal(value: bigint): string {
  return value.toString(16).toUpperCase();
}
