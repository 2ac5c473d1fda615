import type { Arena } from "./arena.ts";

/**
 * Sorts the suffixes of a text by induced sorting (SA-IS: Nong, Zhang, Chan 2009): linear time for
 * every input, which comparing sorts don't give for the zero pages and repeated rows of databases.
 *
 * @param text symbols from 0 to `alphabet` - 1; the end of the text is smaller than any of them
 * @returns the starts of the suffixes, in order; the arena's, with nothing behind it
 */
export function suffixArray(
  text: Uint8Array | Int32Array,
  length: number,
  alphabet: number,
  arena: Arena,
): Int32Array {
  const n = length;
  const sa = arena.int32(n);
  if (n < 2) return sa.fill(0);
  const mark = arena.mark();
  const buckets = bucketsOf(text, n, alphabet, arena);
  const next = arena.int32(alphabet);
  // Two instances of what takes the time, so that each sees one kind of array only and stays fast.
  const induce = (starts: Int32Array) =>
    text instanceof Uint8Array
      ? induceBytes(text, n, sa, starts, buckets, next)
      : induceWords(text, n, sa, starts, buckets, next);
  const lms = smallStarts(text, n, arena);
  induce(lms);
  induce(orderOf(text, n, sa, lms, arena));
  arena.release(mark);
  return sa;
}

/** Where the suffixes that begin with each symbol start; one more entry than symbols. */
function bucketsOf(
  text: Uint8Array | Int32Array,
  n: number,
  alphabet: number,
  arena: Arena,
): Int32Array {
  const starts = arena.int32(alphabet + 1).fill(0);
  for (let i = 0; i < n; i++) {
    const c = (text[i] as number) + 1;
    starts[c] = (starts[c] as number) + 1;
  }
  for (let c = 0; c < alphabet; c++) {
    starts[c + 1] = (starts[c + 1] as number) + (starts[c] as number);
  }
  return starts;
}

/** Positions of "leftmost small" suffixes: smaller than the one behind, after a larger one. Ascending. */
function smallStarts(text: Uint8Array | Int32Array, n: number, arena: Arena): Int32Array {
  const found = arena.int32((n >>> 1) + 1);
  let at = found.length;
  let small = false;
  for (let i = n - 2; i >= 0; i--) {
    const a = text[i] as number;
    const b = text[i + 1] as number;
    const isSmall: boolean = a < b || (a === b && small);
    if (small && !isSmall) found[--at] = i + 1;
    small = isSmall;
  }
  return found.subarray(at);
}

/** Gives the sorted order of the leftmost-small suffixes, whose substrings `sa` holds sorted. */
function orderOf(
  text: Uint8Array | Int32Array,
  n: number,
  sa: Int32Array,
  lms: Int32Array,
  arena: Arena,
): Int32Array {
  const m = lms.length;
  if (m === 0) return lms;
  const names = arena.int32(m);
  const mark = arena.mark();
  // Rank of the LMS position p, at p >> 1: two of them are never neighbours.
  const rankAt = arena.int32((n >>> 1) + 1).fill(-1);
  for (let k = 0; k < m; k++) rankAt[(lms[k] as number) >>> 1] = k;
  const sorted = arena.int32(m);
  let count = 0;
  for (let i = 0; i < n; i++) {
    const position = sa[i] as number;
    const k = rankAt[position >>> 1] as number;
    if (k >= 0 && lms[k] === position) sorted[count++] = k;
  }
  let name = 0;
  names[sorted[0] as number] = 0;
  for (let i = 1; i < m; i++) {
    if (!sameSubstring(text, n, lms, sorted[i - 1] as number, sorted[i] as number)) name++;
    names[sorted[i] as number] = name;
  }
  // The names are not needed any more when their order is known.
  if (name + 1 === m) {
    for (let i = 0; i < m; i++) names[i] = lms[sorted[i] as number] as number;
  } else {
    arena.release(mark);
    const inner = suffixArray(names, m, name + 1, arena);
    for (let i = 0; i < m; i++) names[i] = lms[inner[i] as number] as number;
  }
  arena.release(mark);
  return names;
}

/** Whether two stretches from one LMS position to the next are the same; the k-th and the l-th. */
function sameSubstring(
  text: Uint8Array | Int32Array,
  n: number,
  lms: Int32Array,
  k: number,
  l: number,
): boolean {
  const m = lms.length;
  if (k + 1 === m || l + 1 === m) return false;
  let i = lms[k] as number;
  let j = lms[l] as number;
  const end = lms[k + 1] as number;
  if (end - i !== (lms[l + 1] as number) - j) return false;
  for (; i <= end; i++, j++) {
    if (j >= n || text[i] !== text[j]) return false;
  }
  return true;
}

function induceBytes(
  text: Uint8Array,
  n: number,
  sa: Int32Array,
  lms: Int32Array,
  starts: Int32Array,
  next: Int32Array,
): void {
  next.set(starts.subarray(1));
  sa.fill(-1);
  for (let k = lms.length - 1; k >= 0; k--) {
    const position = lms[k] as number;
    const c = text[position] as number;
    const to = (next[c] as number) - 1;
    next[c] = to;
    sa[to] = position;
  }
  // From left to right: larger suffixes behind the smaller ones that they precede by one symbol.
  next.set(starts.subarray(0, next.length));
  const last = text[n - 1] as number;
  sa[next[last] as number] = n - 1;
  next[last] = (next[last] as number) + 1;
  for (let i = 0; i < n; i++) {
    const position = sa[i] as number;
    if (position < 1) continue;
    const c = text[position - 1] as number;
    if (c < (text[position] as number)) continue;
    const to = next[c] as number;
    sa[to] = position - 1;
    next[c] = to + 1;
  }
  // From right to left: the small ones, over what was put there at first.
  next.set(starts.subarray(1));
  for (let i = n - 1; i >= 0; i--) {
    const position = sa[i] as number;
    if (position < 1) continue;
    const c = text[position - 1] as number;
    const d = text[position] as number;
    if (c > d || (c === d && i < (next[c] as number))) continue;
    const to = (next[c] as number) - 1;
    sa[to] = position - 1;
    next[c] = to;
  }
}

/** The same for words. */
function induceWords(
  text: Int32Array,
  n: number,
  sa: Int32Array,
  lms: Int32Array,
  starts: Int32Array,
  next: Int32Array,
): void {
  next.set(starts.subarray(1));
  sa.fill(-1);
  for (let k = lms.length - 1; k >= 0; k--) {
    const position = lms[k] as number;
    const c = text[position] as number;
    const to = (next[c] as number) - 1;
    next[c] = to;
    sa[to] = position;
  }
  next.set(starts.subarray(0, next.length));
  const last = text[n - 1] as number;
  sa[next[last] as number] = n - 1;
  next[last] = (next[last] as number) + 1;
  for (let i = 0; i < n; i++) {
    const position = sa[i] as number;
    if (position < 1) continue;
    const c = text[position - 1] as number;
    if (c < (text[position] as number)) continue;
    const to = next[c] as number;
    sa[to] = position - 1;
    next[c] = to + 1;
  }
  next.set(starts.subarray(1));
  for (let i = n - 1; i >= 0; i--) {
    const position = sa[i] as number;
    if (position < 1) continue;
    const c = text[position - 1] as number;
    const d = text[position] as number;
    if (c > d || (c === d && i < (next[c] as number))) continue;
    const to = (next[c] as number) - 1;
    sa[to] = position - 1;
    next[c] = to;
  }
}
