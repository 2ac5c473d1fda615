/** What a reader notices of damage in formats that need not have a checksum. */
import assert from "node:assert/strict";
import { Buffer } from "node:buffer";
import { CorruptDataError } from "../../../lib/compression/corrupt_data_error.ts";
import { compressStream, decompressStream } from "../../../lib/compression/table.ts";

async function all(chunks: AsyncIterable<Uint8Array>): Promise<Buffer> {
  const copies: Uint8Array[] = [];
  for await (const chunk of chunks) copies.push(chunk.slice());
  return Buffer.concat(copies);
}

async function* once(bytes: Uint8Array): AsyncGenerator<Uint8Array> {
  yield bytes;
}

for (const codec of ["zstd", "lz4"] as const) {
  Deno.test(`${codec}: with a checksum of the content a single wrong byte is noticed`, async () => {
    // What can't be compressed is stored as it is: nothing else would notice.
    const content = new Uint8Array(1_300_000);
    for (let at = 0; at < content.length; at += 65_536) {
      crypto.getRandomValues(content.subarray(at, at + 65_536));
    }
    for (const concurrency of [1, 3]) {
      const options = { contentChecksum: true, concurrency };
      const stored = await all(compressStream(codec, once(content), options));
      assert.ok((await all(decompressStream(codec, once(stored)))).equals(content));
      const at = stored.length >> 1;
      stored[at] = (stored[at] ?? 0) ^ 1;
      await assert.rejects(all(decompressStream(codec, once(stored))), CorruptDataError);
    }
    const without = await all(compressStream(codec, once(content)));
    const size =
      (await all(compressStream(codec, once(content), { contentChecksum: true }))).length;
    assert.equal(size - without.length, 4);
  });
}
