/**
 * Compare two keys by the bytes of their UTF-8 form, the order in which every store lists. JavaScript
 * compares UTF-16 code units, which differs as soon as one key has a character above U+FFFF.
 *
 * @returns a negative number, 0 or a positive number, as for `Array.prototype.sort`.
 */
export function compareKeys(a: string, b: string): number {
  const shared = Math.min(a.length, b.length);
  for (let i = 0; i < shared; i++) {
    const unitA = a.charCodeAt(i);
    const unitB = b.charCodeAt(i);
    if (unitA !== unitB) return codePointRank(unitA) - codePointRank(unitB);
  }
  return a.length - b.length;
}

/** Surrogates stand for characters above U+FFFF, so they go after all other code units. */
function codePointRank(unit: number): number {
  if (unit < 0xd800) return unit;
  return unit > 0xdfff ? unit - 0x800 : unit + 0x2000;
}
