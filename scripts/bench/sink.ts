/**
 * The plainest way to get a stream into S3, as a yardstick: standard input to one object, in parts, two at a time, over
 * Bun's fetch, with nothing compressed and no checksum of the content.
 *
 *   tar -cf - DIRECTORY | bun sink.ts ENDPOINT BUCKET KEY
 */
import { createHash, createHmac } from "node:crypto";
import { read } from "node:fs";

const [endpoint = "", bucket = "", key = ""] = process.argv.slice(2);
const PART = 5 * 1024 ** 2;
const AT_ONCE = 2;
const REGION = "us-east-1";

const begun = await request("POST", "uploads=");
const uploadId = /<UploadId>(.*?)<\/UploadId>/.exec(begun.text)?.[1] ?? "";
const etags: string[] = [];
const underWay = new Set<Promise<void>>();
const free = Array.from({ length: AT_ONCE + 1 }, () => new Uint8Array(PART));
let part = free.pop() ?? new Uint8Array(PART);
let filled = 0;
let number = 0;
// By the file descriptor: the runtime's stream of standard input has small chunks and costs more than all else.
const readInput = (into: Uint8Array, at: number) =>
  new Promise<number>((resolve, reject) =>
    read(
      0,
      into,
      at,
      into.length - at,
      null,
      (error, count) => error ? reject(error) : resolve(count),
    )
  );
for (;;) {
  const bytesRead = await readInput(part, filled);
  if (bytesRead === 0) break;
  filled += bytesRead;
  if (filled === PART) await send();
}
if (filled > 0 || number === 0) await send();
await Promise.all(underWay);
const parts = etags.map((etag, index) =>
  `<Part><PartNumber>${index + 1}</PartNumber><ETag>${etag}</ETag></Part>`
);
const xml = `<CompleteMultipartUpload>${parts.join("")}</CompleteMultipartUpload>`;
await request("POST", `uploadId=${encodeURIComponent(uploadId)}`, new TextEncoder().encode(xml));

async function send(): Promise<void> {
  const [bytes, body] = [part, part.subarray(0, filled)];
  const query = `partNumber=${++number}&uploadId=${encodeURIComponent(uploadId)}`;
  const index = number - 1;
  const sending = request("PUT", query, body).then(({ etag }) => {
    etags[index] = etag;
    free.push(bytes);
  }).finally(() => underWay.delete(sending));
  underWay.add(sending);
  if (underWay.size >= AT_ONCE) await Promise.race(underWay);
  part = free.pop() ?? new Uint8Array(PART);
  filled = 0;
}

/** Signed by AWS Signature Version 4, the body left out. */
async function request(
  method: string,
  query: string,
  body?: Uint8Array,
): Promise<{ text: string; etag: string }> {
  const url = new URL(`${endpoint}/${bucket}/${key}?${query}`);
  const time = new Date().toISOString().replace(/[-:]|\.\d+/g, "");
  const scope = `${time.slice(0, 8)}/${REGION}/s3/aws4_request`;
  const hashed = "UNSIGNED-PAYLOAD";
  const names = "host;x-amz-content-sha256;x-amz-date";
  const canonical = [
    method,
    url.pathname,
    query,
    `host:${url.host}\nx-amz-content-sha256:${hashed}\nx-amz-date:${time}\n`,
    names,
    hashed,
  ].join("\n");
  const digest = createHash("sha256").update(canonical).digest("hex");
  const toSign = `AWS4-HMAC-SHA256\n${time}\n${scope}\n${digest}`;
  const secret = `AWS4${process.env["AWS_SECRET_ACCESS_KEY"] ?? ""}`;
  const signingKey = scope.split("/").reduce<string | Buffer>(
    (signing, word) => createHmac("sha256", signing).update(word).digest(),
    secret,
  );
  const signature = createHmac("sha256", signingKey).update(toSign).digest("hex");
  const response = await fetch(url, {
    method,
    headers: {
      "x-amz-date": time,
      "x-amz-content-sha256": hashed,
      authorization: `AWS4-HMAC-SHA256 Credential=${
        process.env["AWS_ACCESS_KEY_ID"]
      }/${scope}, SignedHeaders=${names}, Signature=${signature}`,
    },
    ...(body === undefined ? {} : { body: body as BodyInit }),
  });
  const text = await response.text();
  if (!response.ok) throw new Error(`${method} ${query}: ${response.status} ${text}`);
  return { text, etag: response.headers.get("etag") ?? "" };
}
