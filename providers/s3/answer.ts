import { Buffer } from "node:buffer";

/** Most that is read of an answer that is not streamed: a page of a listing is a few MiB. */
const MAX_ANSWER = 64 * 1024 ** 2;

/** All of an answer. @throws when it is larger than any that S3 gives */
export async function collectAnswer(body: AsyncIterable<Uint8Array>): Promise<Uint8Array> {
  const chunks: Uint8Array[] = [];
  let size = 0;
  for await (const chunk of body) {
    size += chunk.length;
    if (size > MAX_ANSWER) throw new Error(`the answer is larger than ${MAX_ANSWER} bytes`);
    chunks.push(chunk);
  }
  return Buffer.concat(chunks);
}
