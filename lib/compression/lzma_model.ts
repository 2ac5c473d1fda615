/**
 * What LZMA's encoder and decoder share: where the probabilities of each decision lie in one
 * array, and how the state follows from what was coded last.
 */
export const PROBABILITY_HALF = 1024;

export const IS_MATCH = 0;
export const IS_REP = IS_MATCH + (12 << 4);
export const IS_REP_0 = IS_REP + 12;
export const IS_REP_1 = IS_REP_0 + 12;
export const IS_REP_2 = IS_REP_1 + 12;
export const IS_REP_0_LONG = IS_REP_2 + 12;
export const DISTANCE_SLOT = IS_REP_0_LONG + (12 << 4);
/** Indexed by distance base minus slot plus the place in the tree. */
export const DISTANCE_SPECIAL = DISTANCE_SLOT + (4 << 6);
export const DISTANCE_ALIGN = DISTANCE_SPECIAL + 115;
export const MATCH_LENGTH = DISTANCE_ALIGN + 16;
/** Inside a length coder: two choices, then three trees. */
export const LENGTH_LOW = 2;
export const LENGTH_MIDDLE = LENGTH_LOW + (16 << 3);
export const LENGTH_HIGH = LENGTH_MIDDLE + (16 << 3);
const LENGTH_CODER = LENGTH_HIGH + 256;
export const REP_LENGTH = MATCH_LENGTH + LENGTH_CODER;
export const LITERAL = REP_LENGTH + LENGTH_CODER;

/** For the most literal contexts that LZMA2 allows (lc + lp = 4). */
export const PROBABILITIES = LITERAL + (0x300 << 4);

export const MIN_MATCH = 2;
export const MAX_MATCH = 273;

export function afterLiteral(state: number): number {
  return state < 4 ? 0 : state < 10 ? state - 3 : state - 6;
}

/** The dictionary size that a byte of the LZMA2 filter's properties stands for; undefined if none. */
export function dictionarySize(byte: number): number | undefined {
  if (byte > 40) return undefined;
  return byte === 40 ? 2 ** 32 - 1 : (2 | (byte & 1)) * 2 ** ((byte >>> 1) + 11);
}
