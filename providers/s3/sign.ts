/** AWS Signature Version 4, by Amazon's description of it, for S3. */
import { createHash, createHmac } from "node:crypto";
import type { Credentials } from "./credentials.ts";

export interface SignableRequest {
  readonly method: string;
  /** Encoded. */
  readonly path: string;
  /** Encoded and sorted. */
  readonly query: string;
  /** Lower-case names, `host` among them. */
  readonly headers: Readonly<Record<string, string>>;
}

/** What may stand for the hash of a body, where something else protects it. */
export const UNSIGNED = "UNSIGNED-PAYLOAD";

export function sha256Hex(bytes: Uint8Array | string): string {
  return createHash("sha256").update(bytes).digest("hex");
}

/**
 * The headers with those that sign the request; all of them are signed.
 * @param payload SHA-256 of the body in hexadecimal digits, or `UNSIGNED`
 */
export function signed(
  request: SignableRequest,
  payload: string,
  region: string,
  { accessKeyId, secretAccessKey, sessionToken }: Credentials,
  now: Date,
): Record<string, string> {
  const time = now.toISOString().replace(/[-:]|\.\d+/g, "");
  const date = time.slice(0, 8);
  const headers: Record<string, string> = {
    ...request.headers,
    "x-amz-content-sha256": payload,
    "x-amz-date": time,
    ...(sessionToken === undefined ? {} : { "x-amz-security-token": sessionToken }),
  };
  const names = Object.keys(headers).sort();
  const canonical = [
    request.method,
    request.path,
    request.query,
    ...names.map((name) => `${name}:${headers[name]?.trim().replace(/\s+/g, " ")}`),
    "",
    names.join(";"),
    payload,
  ].join("\n");
  const scope = `${date}/${region}/s3/aws4_request`;
  const toSign = `AWS4-HMAC-SHA256\n${time}\n${scope}\n${sha256Hex(canonical)}`;
  let key: string | Uint8Array = `AWS4${secretAccessKey}`;
  for (const word of [date, region, "s3", "aws4_request"]) key = hmac(key, word);
  const signature = Buffer.from(hmac(key, toSign)).toString("hex");
  headers["authorization"] = `AWS4-HMAC-SHA256 Credential=${accessKeyId}/${scope}, ` +
    `SignedHeaders=${names.join(";")}, Signature=${signature}`;
  return headers;
}

function hmac(key: string | Uint8Array, text: string): Uint8Array {
  return createHmac("sha256", key).update(text).digest();
}
