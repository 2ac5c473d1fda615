/** The decoders of all six codecs. Damage ends in one error, and never in more data than a stream can stand for. */
import assert from "node:assert/strict";
import fc from "fast-check";
import { CorruptDataError } from "../../lib/compression/corrupt_data_error.ts";
import {
  COMPRESSION_NAMES,
  type CompressionName,
  decompressStream,
} from "../../lib/compression/table.ts";
import { compress, randomBytes, walLike } from "../lib/compression/samples.ts";
import {
  bytesNear,
  encoded,
  fuzz,
  inPieces,
  joined,
  pieceSizes,
  requireDocumented,
} from "./hostile_inputs.ts";

const MIB = 1024 ** 2;
/** More than any sample has; who makes more of it has made it up, which is fine as long as nobody keeps it. */
const ENOUGH = 8 * MIB;

const CONTENTS = [
  new Uint8Array(0),
  encoded("a"),
  walLike(3000),
  randomBytes(500),
  new Uint8Array(200_000),
  joined(walLike(1500), randomBytes(200), new Uint8Array(3000).fill(7)),
];

/** A digest that is cheap, and the length: outputs are compared, not kept. */
interface Result {
  readonly size: number;
  readonly sum: number;
  readonly error: string | null;
}

async function decoded(
  name: CompressionName,
  bytes: Uint8Array,
  sizes: readonly number[],
): Promise<Result> {
  let size = 0;
  let sum = 0;
  try {
    for await (const chunk of decompressStream(name, inPieces(bytes, sizes))) {
      assert.ok(chunk.length <= 4 * MIB, `one chunk has ${chunk.length} bytes`);
      for (let i = 0; i < chunk.length; i++) sum = (Math.imul(sum, 31) + (chunk[i] ?? 0)) | 0;
      size += chunk.length;
      if (size > ENOUGH) return { size: ENOUGH, sum: 0, error: "enough" };
    }
  } catch (error) {
    requireDocumented(error, [CorruptDataError]);
    assert.equal((error as CorruptDataError).codec, name);
    return { size, sum, error: (error as Error).message };
  }
  return { size, sum, error: null };
}

for (const name of COMPRESSION_NAMES) {
  const samples = await Promise.all(CONTENTS.map((content) => compress(name, content)));
  const several = joined(...samples.slice(0, 4));
  /** bzip2 and xz take memory for whole blocks, and time to clear it. */
  const runs = name === "bzip2" ? 700 : name === "xz" ? 1000 : 1500;

  fuzz(`${name}: damaged streams`, {
    runs,
    input: fc.tuple(
      bytesNear([...samples, several], { places: [0, 4, 8, 10, 12, 16, 24] }),
      pieceSizes,
    ),
  }, async ([bytes, sizes]) => {
    const whole = await decoded(name, bytes, []);
    const inParts = await decoded(name, bytes, sizes);
    // The runtime's own decoders stop at other places for other pieces; that they stop is what counts.
    assert.equal(inParts.error === null, whole.error === null);
    if (whole.error === null) assert.deepEqual(inParts, whole);
  });

  fuzz(`${name}: bytes that are nothing`, {
    runs: 300,
    input: fc.tuple(
      fc.uint8Array({ maxLength: 200 }),
      fc.nat(20),
      fc.constantFrom(...samples),
    ).map(([bytes, start, sample]) => joined(sample.subarray(0, start), bytes)),
  }, async (bytes) => {
    await decoded(name, bytes, []);
  });

  fuzz(`${name}: streams one behind the other, and cut`, {
    runs: 300,
    input: fc.record({
      which: fc.array(fc.nat(CONTENTS.length - 1), { minLength: 1, maxLength: 4 }),
      missing: fc.oneof(fc.constant(0), fc.nat(300)),
      sizes: pieceSizes,
    }),
  }, async ({ which, missing, sizes }) => {
    const streams = which.map((index) => samples[index] ?? new Uint8Array(0));
    const bytes = joined(...streams);
    const cut = bytes.subarray(0, Math.max(0, bytes.length - missing));
    const { error, size } = await decoded(name, cut, sizes);
    // Up to here the streams are whole, so what is behind them is not missed.
    let [end, whole] = [0, 0];
    for (const [i, stream] of streams.entries()) {
      if (end + stream.length > cut.length) break;
      end += stream.length;
      whole += CONTENTS[which[i] ?? 0]?.length ?? 0;
    }
    if (end === cut.length && end > 0) {
      assert.deepEqual({ error, size }, { error: null, size: whole });
    } else if (name !== "snappy") assert.notEqual(error, null, "a cut went unnoticed");
  });
}
