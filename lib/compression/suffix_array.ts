/**
 * Sorts the suffixes of a text by induced sorting (SA-IS: Nong, Zhang, Chan 2009): linear time for
 * every input, which comparing sorts don't give for the zero pages and repeated rows of databases.
 *
 * @param text symbols from 0 to `alphabet` - 1; the end of the text is smaller than any of them
 * @returns the starts of the suffixes, in order
 */
export function suffixArray(
  text: Uint8Array | Int32Array,
  length: number,
  alphabet: number,
): Int32Array {
  // Two instances of the sort, so that each sees one kind of array only and stays fast.
  return text instanceof Uint8Array
    ? sortBytes(text, length, alphabet)
    : sortWords(text, length, alphabet);
}

function sortBytes(text: Uint8Array, n: number, alphabet: number): Int32Array {
  const sa = new Int32Array(n);
  if (n < 2) return sa;
  const buckets = bucketsOf(text, n, alphabet);
  const lms = smallStarts(text, n);
  induceBytes(text, n, sa, lms, buckets);
  const order = orderOf(text, n, sa, lms);
  induceBytes(text, n, sa, order, buckets);
  return sa;
}

function sortWords(text: Int32Array, n: number, alphabet: number): Int32Array {
  const sa = new Int32Array(n);
  if (n < 2) return sa;
  const buckets = bucketsOf(text, n, alphabet);
  const lms = smallStarts(text, n);
  induceWords(text, n, sa, lms, buckets);
  const order = orderOf(text, n, sa, lms);
  induceWords(text, n, sa, order, buckets);
  return sa;
}

/** Where the suffixes that begin with each symbol start; one more entry than symbols. */
function bucketsOf(text: Uint8Array | Int32Array, n: number, alphabet: number): Int32Array {
  const starts = new Int32Array(alphabet + 1);
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
function smallStarts(text: Uint8Array | Int32Array, n: number): Int32Array {
  const found = new Int32Array((n >>> 1) + 1);
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
): Int32Array {
  const m = lms.length;
  if (m === 0) return lms;
  // Rank of the LMS position p, at p >> 1: two of them are never neighbours.
  const rankAt = new Int32Array((n >>> 1) + 1).fill(-1);
  for (let k = 0; k < m; k++) rankAt[(lms[k] as number) >>> 1] = k;
  const sorted = new Int32Array(m);
  let count = 0;
  for (let i = 0; i < n; i++) {
    const position = sa[i] as number;
    const k = rankAt[position >>> 1] as number;
    if (k >= 0 && lms[k] === position) sorted[count++] = k;
  }
  const names = new Int32Array(m);
  let name = 0;
  names[sorted[0] as number] = 0;
  for (let i = 1; i < m; i++) {
    if (!sameSubstring(text, n, lms, sorted[i - 1] as number, sorted[i] as number)) name++;
    names[sorted[i] as number] = name;
  }
  const result = new Int32Array(m);
  if (name + 1 === m) {
    for (let i = 0; i < m; i++) result[i] = lms[sorted[i] as number] as number;
  } else {
    const inner = sortWords(names, m, name + 1);
    for (let i = 0; i < m; i++) result[i] = lms[inner[i] as number] as number;
  }
  return result;
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
): void {
  const next = starts.slice(1);
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
): void {
  const next = starts.slice(1);
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
