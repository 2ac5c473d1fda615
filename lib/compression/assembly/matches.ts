/** What formats made of literals and matches share. Sixteen bytes are copied at a time, a few too many. */

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

/** Copies 16 bytes from where they are, or 8 bytes twice when they are 8 to 15 bytes back. Most need no more. */
export function copy16(to: usize, from: usize): void {
  store<u64>(to, load<u64>(from));
  store<u64>(to + 8, load<u64>(from + 8));
}

/** Copies what does not overlap, and up to 15 bytes behind it. */
export function copyForward(to: usize, from: usize, count: usize): void {
  if (count > 256) {
    memory.copy(to, from, count);
    return;
  }
  for (const end = to + count; to < end; to += 16, from += 16) copy16(to, from);
}

/** Repeats what lies `distance` bytes back, and up to 15 bytes behind it. */
export function copyMatch(to: usize, distance: usize, count: usize): void {
  const end = to + count;
  let from = to - distance;
  if (distance >= 8) {
    for (; to < end; to += 16, from += 16) copy16(to, from);
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
