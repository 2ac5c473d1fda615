/** Signed requests to S3 and their answers; errors have the shape of the AWS SDK's, which `errors.ts` looks at. */
import { Buffer } from "node:buffer";
import { createHash } from "node:crypto";
import { isIP } from "node:net";
import { crc32 } from "node:zlib";
import { collectAnswer } from "./answer.ts";
import { isPage, PageError, type SendOptions } from "./api.ts";
import type { ObjectContent } from "../object_store.ts";
import type { S3Config } from "./config.ts";
import type { Credentials } from "./credentials.ts";
import { escaped, type HttpHandler, queryString } from "./http_handler.ts";
import { signed, UNSIGNED } from "./sign.ts";
import { textOf } from "./xml.ts";

/** Of an error's body; it is for people and codes. */
const MAX_ERROR = 64 * 1024;
const EMPTY = new Uint8Array(0);

export interface Request {
  readonly method: string;
  readonly bucket: string | undefined;
  readonly key?: string | undefined;
  readonly query?: Readonly<Record<string, string | number | undefined>>;
  readonly headers?: Readonly<Record<string, string | undefined>>;
  readonly body?: Uint8Array | ObjectContent | string;
  /**
   * Whether the operation takes the body's checksum, or insists on it. For others the header means something else: when
   * an upload is completed, the checksum of the whole object.
   */
  readonly checksum?: "supported" | "required";
}

export interface Answer {
  readonly status: number;
  readonly headers: Readonly<Record<string, string>>;
  readonly body: AnswerBody;
}

/** What comes from `node:http`. */
export interface AnswerBody extends AsyncIterable<Uint8Array> {
  destroy(): void;
  on(event: "error", listener: () => void): unknown;
}

export interface Requests {
  /** @throws an error as the SDK's for anything but a success */
  send(request: Request, options: SendOptions): Promise<Answer>;
  /** The same where the answer is XML, or nothing. */
  ask(request: Request, options: SendOptions): Promise<Answer & { readonly xml: string }>;
}

export function openRequests(
  config: S3Config,
  region: () => Promise<string>,
  credentials: () => Promise<Credentials>,
  handler: HttpHandler,
): Requests {
  const checksums = config.requestChecksums === "WHEN_SUPPORTED";

  const send = async (request: Request, { abortSignal }: SendOptions): Promise<Answer> => {
    abortSignal?.throwIfAborted();
    const where = await region();
    const url = urlOf(config, where, request);
    const query = queryString(definedOf(request.query ?? {}));
    const body = typeof request.body === "string"
      ? new TextEncoder().encode(request.body)
      : request.body;
    const summed = request.checksum === "required" ||
      (request.checksum === "supported" && checksums);
    // Over TLS the checksum is protection enough; SHA-256 would be most of the CPU time of an upload.
    const isUnsigned = summed && url.protocol === "https:" && typeof request.body !== "string";
    const { sha256, crc32 } = await sumsOf(body ?? EMPTY, !isUnsigned, summed, abortSignal);
    const unsigned = {
      method: request.method,
      path: url.path,
      query,
      headers: {
        host: url.host,
        ...definedOf(request.headers ?? {}),
        ...(body === undefined ? {} : { "content-length": String(body.length) }),
        ...(crc32 === undefined ? {} : checksumHeaders(crc32)),
      },
    };
    const headers = signed(unsigned, sha256 ?? UNSIGNED, where, await credentials(), new Date());
    const { response } = await handler.handle(
      {
        method: request.method,
        protocol: url.protocol,
        hostname: url.hostname,
        ...(url.port === undefined ? {} : { port: url.port }),
        path: url.path,
        query: definedOf(request.query ?? {}),
        headers: { ...headers, "user-agent": "barman-cloud" },
        body,
      },
      abortSignal === undefined ? {} : { abortSignal },
    );
    const answer = {
      status: response.statusCode,
      headers: response.headers,
      body: response.body as AnswerBody,
    };
    if (answer.status >= 200 && answer.status < 300) return answer;
    throw errorOf(
      answer,
      request.method === "HEAD" ? "" : await beginningOf(answer.body, MAX_ERROR),
    );
  };

  const ask = async (request: Request, options: SendOptions): Promise<Answer & { xml: string }> => {
    const answer = await send(request, options);
    if (isPage(answer.headers)) {
      answer.body.destroy();
      throw new PageError(`HTTP ${answer.status}, ${answer.headers["content-type"]}`);
    }
    const xml = Buffer.from(await collectAnswer(answer.body)).toString("utf8");
    // Amazon begins to answer before it knows how it ends.
    if (/^\s*(<\?xml[^>]*>\s*)?<Error[\s>]/.test(xml)) throw errorOf(answer, xml);
    return { ...answer, xml };
  };

  return { send, ask };
}

interface RequestUrl {
  readonly protocol: string;
  readonly hostname: string;
  readonly port: number | undefined;
  /** As in the header: with the port, unless it is the protocol's own. */
  readonly host: string;
  /** Encoded. */
  readonly path: string;
}

function urlOf(config: S3Config, region: string, { bucket = "", key = "" }: Request): RequestUrl {
  const suffix = region.startsWith("cn-") ? "amazonaws.com.cn" : "amazonaws.com";
  const base = new URL(config.endpoint ?? `https://s3.${region}.${suffix}`);
  const inPath = config.forcePathStyle || isIP(base.hostname.replace(/^\[|\]$/g, "")) !== 0;
  const port = base.port === "" ? undefined : Number(base.port);
  const hostname = inPath ? base.hostname : `${bucket}.${base.hostname}`;
  const parts = [
    base.pathname.replace(/\/+$/, ""),
    ...inPath ? [bucket] : [],
    key.split("/").map(escaped).join("/"),
  ];
  return {
    protocol: base.protocol,
    hostname,
    port,
    host: port === undefined ? hostname : `${hostname}:${port}`,
    path: parts.join("/"),
  };
}

interface Sums {
  /** In hexadecimal digits. */
  readonly sha256?: string;
  readonly crc32?: number;
}

/** Those that are asked for. What is not in memory is read for them, and once more to be sent. */
async function sumsOf(
  body: Uint8Array | ObjectContent,
  withSha256: boolean,
  withCrc32: boolean,
  signal: AbortSignal | undefined,
): Promise<Sums> {
  if (!withSha256 && !withCrc32) return {};
  const hash = withSha256 ? createHash("sha256") : undefined;
  let sum = 0;
  for await (const chunk of body instanceof Uint8Array ? [body] : body.read()) {
    signal?.throwIfAborted();
    hash?.update(chunk);
    if (withCrc32) sum = crc32(chunk, sum);
  }
  return {
    ...(hash === undefined ? {} : { sha256: hash.digest("hex") }),
    ...(withCrc32 ? { crc32: sum } : {}),
  };
}

function checksumHeaders(sum: number): Record<string, string> {
  return {
    "x-amz-sdk-checksum-algorithm": "CRC32",
    "x-amz-checksum-crc32": crc32Base64(sum),
  };
}

export function crc32Base64(sum: number): string {
  const bytes = Buffer.alloc(4);
  bytes.writeUInt32BE(sum);
  return bytes.toString("base64");
}

async function beginningOf(body: AnswerBody, limit: number): Promise<string> {
  const chunks: Uint8Array[] = [];
  let length = 0;
  for await (const chunk of body) {
    chunks.push(chunk);
    length += chunk.length;
    if (length > limit) break;
  }
  return Buffer.concat(chunks).toString("utf8");
}

/** As the SDK's errors: what `errors.ts` looks at. */
function errorOf({ status, headers }: Answer, xml: string): Error {
  const inner = /<Error[\s>]/.test(xml) ? xml : "";
  const told: Record<string, string> = {};
  for (const name of ["Code", "Region", "ServerTime", "RequestTime", "Endpoint"]) {
    const text = textOf(inner, name);
    if (text !== undefined) told[name] = text;
  }
  const message = textOf(inner, "Message") ?? told["Code"] ?? (inner === "" ? xml : "");
  return Object.assign(new Error(message), told, {
    $metadata: { httpStatusCode: status },
    $response: { statusCode: status, headers },
  });
}

function definedOf<T>(record: Readonly<Record<string, T | undefined>>): Record<string, string> {
  const defined: Record<string, string> = {};
  for (const [name, value] of Object.entries(record)) {
    if (value !== undefined) defined[name] = String(value);
  }
  return defined;
}
