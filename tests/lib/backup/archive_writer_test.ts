import assert from "node:assert/strict";
import { createHash } from "node:crypto";
import {
  COMPRESSION_NAMES,
  compressStream,
  decompressStream,
} from "../../../lib/compression/table.ts";

/** Half a MiB that compresses somewhat, different for each number. */
function fill(chunk: Uint8Array, number: number): void {
  let state = number * 2654435761 + 1;
  for (let i = 0; i < chunk.length; i++) {
    state = (Math.imul(state, 1664525) + 1013904223) >>> 0;
    chunk[i] = i % 3 === 0 ? state >>> 24 : number;
  }
}

Deno.test("every codec is done with a chunk when it asks for the next: the tar stream reuses its own", async () => {
  const sizes = [512 * 1024, 512 * 1024, 512 * 1024, 100_000, 1, 512 * 1024];
  for (const name of COMPRESSION_NAMES) {
    const expected = createHash("sha256");
    const buffer = new Uint8Array(512 * 1024);
    const source = async function* () {
      for (const [number, size] of sizes.entries()) {
        const chunk = buffer.subarray(0, size);
        fill(chunk, number);
        expected.update(chunk);
        yield chunk;
        buffer.fill(0xee);
      }
    };
    const seen = createHash("sha256");
    const compressed = compressStream(name, source(), { level: 1 });
    for await (const chunk of decompressStream(name, compressed)) seen.update(chunk);
    assert.equal(seen.digest("hex"), expected.digest("hex"), name);
  }
});
