/** The checksums of the frames around LZ4's and snappy's blocks. */

/** Fills the 8 KiB that CRC-32C needs: table k advances a byte over k zero bytes. */
export function prepareCrc32c(table: usize): void {
  for (let n: u32 = 0; n < 256; n++) {
    let crc = n;
    for (let bit = 0; bit < 8; bit++) crc = crc & 1 ? (crc >>> 1) ^ 0x82f63b78 : crc >>> 1;
    store<u32>(table + (<usize>n << 2), crc);
  }
  for (let n: usize = 256; n < 8 * 256; n++) {
    const before = load<u32>(table + ((n - 256) << 2));
    store<u32>(table + (n << 2), load<u32>(table + (<usize>(before & 255) << 2)) ^ (before >>> 8));
  }
}

/** CRC-32C (Castagnoli) of some bytes, continuing from `before`. */
export function crc32c(table: usize, before: u32, at: usize, length: u32): u32 {
  let crc = ~before;
  const end = at + length;
  for (; at + 8 <= end; at += 8) {
    const low = load<u32>(at) ^ crc;
    const high = load<u32>(at + 4);
    crc = load<u32>(table + 0x1c00 + (<usize>(low & 255) << 2)) ^
      load<u32>(table + 0x1800 + (<usize>((low >>> 8) & 255) << 2)) ^
      load<u32>(table + 0x1400 + (<usize>((low >>> 16) & 255) << 2)) ^
      load<u32>(table + 0x1000 + (<usize>(low >>> 24) << 2)) ^
      load<u32>(table + 0xc00 + (<usize>(high & 255) << 2)) ^
      load<u32>(table + 0x800 + (<usize>((high >>> 8) & 255) << 2)) ^
      load<u32>(table + 0x400 + (<usize>((high >>> 16) & 255) << 2)) ^
      load<u32>(table + (<usize>(high >>> 24) << 2));
  }
  for (; at < end; at++) {
    crc = load<u32>(table + (<usize>((crc ^ load<u8>(at)) & 255) << 2)) ^ (crc >>> 8);
  }
  return ~crc;
}

/** Stripes of 16 bytes into the four lanes of xxHash-32, which are at `lanes`. */
export function xxHash32Stripes(lanes: usize, at: usize, length: u32): void {
  let a = load<u32>(lanes);
  let b = load<u32>(lanes + 4);
  let c = load<u32>(lanes + 8);
  let d = load<u32>(lanes + 12);
  for (const end = at + length; at < end; at += 16) {
    a = lane(a, load<u32>(at));
    b = lane(b, load<u32>(at + 4));
    c = lane(c, load<u32>(at + 8));
    d = lane(d, load<u32>(at + 12));
  }
  store<u32>(lanes, a);
  store<u32>(lanes + 4, b);
  store<u32>(lanes + 8, c);
  store<u32>(lanes + 12, d);
}

function lane(value: u32, word: u32): u32 {
  return rotl<u32>(value + word * 0x85ebca77, 13) * 0x9e3779b1;
}
