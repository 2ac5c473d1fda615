/** What formats made of literals and matches share. Eight bytes are copied at a time, a few too many. */

/** Where what begins at `at` and `distance` before it ceases to be the same; `end` at most. */
export function endOfMatch(at: usize, distance: u32, end: usize): usize {
  while (at + 8 <= end) {
    const difference = load<u64>(at) ^ load<u64>(at - distance);
    // The lowest bit that differs tells the byte.
    if (difference != 0) return at + <usize>(ctz(difference) >>> 3);
    at += 8;
  }
  while (at < end && load<u8>(at) == load<u8>(at - distance)) at++;
  return at;
}

/** Copies what does not overlap, and up to 15 bytes behind it. */
export function copyForward(to: usize, from: usize, count: usize): void {
  if (count > 64) {
    memory.copy(to, from, count);
    return;
  }
  for (const end = to + count; to < end; to += 16, from += 16) {
    store<u64>(to, load<u64>(from));
    store<u64>(to + 8, load<u64>(from + 8));
  }
}

/** Repeats what lies `distance` bytes back, and up to 7 bytes behind it. */
export function copyMatch(to: usize, distance: usize, count: usize): void {
  const end = to + count;
  let from = to - distance;
  if (distance >= 8) {
    for (; to < end; to += 8, from += 8) store<u64>(to, load<u64>(from));
  } else if (distance == 1) {
    memory.fill(to, load<u8>(from), count);
  } else if (count <= 16) {
    for (; to < end; to++, from++) store<u8>(to, load<u8>(from));
  } else {
    // Each copy doubles the stretch that can be copied at once.
    while (to < end) {
      const part = min<usize>(to - from, end - to);
      memory.copy(to, from, part);
      to += part;
    }
  }
}
