/**
 * A small Google Cloud Storage in memory, for tests: what Google's public references of the JSON and
 * XML APIs say about buckets, objects and multipart uploads, as far as backups need it. It is strict
 * where the service is (checksums, preconditions, sizes and etags of parts), so that what passes here
 * has a meaning there.
 *
 *   deno run -A scripts/servers/gcs_fake.ts PORT [KEY=VALUE …]
 *
 * Settings: `token=T` lets only requests with `Authorization: Bearer T` in.
 *
 * - https://cloud.google.com/storage/docs/json_api/v1
 * - https://cloud.google.com/storage/docs/xml-api/post-object-multipart and its neighbours
 */
import { Buffer } from "node:buffer";
import { createHash, randomUUID } from "node:crypto";
import { once } from "node:events";
import http from "node:http";

interface GcsObject {
  readonly name: string;
  readonly content: Buffer;
  readonly generation: string;
  readonly contentType: string;
  readonly created: string;
  updated: string;
  metadata: Record<string, string> | undefined;
  /** Parts make an object without one. */
  readonly md5Hash: string | undefined;
  readonly kmsKeyName: string | undefined;
}

interface UploadPart {
  readonly etag: string;
  readonly content: Buffer;
  readonly modified: string;
}

interface Upload {
  readonly key: string;
  readonly metadata: Record<string, string> | undefined;
  readonly kmsKeyName: string | undefined;
  readonly contentType: string;
  readonly initiated: string;
  readonly parts: Map<number, UploadPart>;
}

interface Bucket {
  readonly objects: Map<string, GcsObject>;
  readonly uploads: Map<string, Upload>;
}

export interface GcsFakeOptions {
  /** Only requests with this access token are let in. */
  readonly token?: string | undefined;
}

export interface GcsFake {
  readonly endpoint: string;
  stop(): Promise<void>;
}

const MiB = 1024 ** 2;
const MIN_PART = 5 * MiB;
const MAX_PART_NUMBER = 10_000;

/** @param port 0 for any free one */
export async function startGcsFake(port = 0, options: GcsFakeOptions = {}): Promise<GcsFake> {
  const buckets = new Map<string, Bucket>();
  const server = http.createServer((request, response) => {
    answer(buckets, options, request, response).catch((error) => {
      if (error instanceof ApiError && !response.headersSent) return error.send(response);
      // A request that was given up on the way.
      response.destroy();
    });
  });
  server.listen(port, "127.0.0.1");
  await once(server, "listening");
  const address = server.address();
  if (address === null || typeof address === "string") throw new Error("The fake has no port");
  return {
    endpoint: `http://127.0.0.1:${address.port}`,
    async stop() {
      const closed = once(server, "close");
      server.close();
      server.closeAllConnections();
      await closed;
    },
  };
}

/** What goes wrong, in the words of either API. */
class ApiError extends Error {
  constructor(
    readonly api: "json" | "xml" | "media",
    readonly status: number,
    readonly code: string,
    message: string,
  ) {
    super(message);
  }

  send(response: http.ServerResponse): void {
    const { status, code, message } = this;
    if (this.api === "json") {
      const errors = [{ message, domain: "global", reason: code }];
      return sendJson(response, { error: { code: status, message, errors } }, status);
    }
    const [type, body] = this.api === "media" ? ["text/html; charset=UTF-8", message] : [
      "application/xml; charset=UTF-8",
      `<?xml version='1.0' encoding='UTF-8'?><Error><Code>${code}</Code>` +
      `<Message>${escaped(message)}</Message></Error>`,
    ];
    response.writeHead(status, { "content-type": type, "content-length": Buffer.byteLength(body) });
    response.end(body);
  }
}

interface Call {
  readonly buckets: Map<string, Bucket>;
  readonly query: URLSearchParams;
  readonly request: http.IncomingMessage;
  readonly response: http.ServerResponse;
}

async function answer(
  buckets: Map<string, Bucket>,
  options: GcsFakeOptions,
  request: http.IncomingMessage,
  response: http.ServerResponse,
): Promise<void> {
  const [path = "", search = ""] = splitOnce(request.url ?? "", "?");
  const call: Call = { buckets, query: new URLSearchParams(search), request, response };
  const { method = "" } = request;
  const isJson = /^\/(upload\/)?storage\/v1\//.test(path);
  if (options.token !== undefined && request.headers.authorization !== `Bearer ${options.token}`) {
    await bodyOf(request);
    throw new ApiError(isJson ? "json" : "xml", 401, "authError", "Invalid Credentials");
  }
  const [, b, , o] = /^\/storage\/v1\/b(?:\/([^/]+)(\/o(?:\/(.+))?)?)?$/.exec(path)?.slice(0) ?? [];
  if (path === "/storage/v1/b" && method === "POST") return await insertBucket(call);
  if (path.startsWith("/upload/storage/v1/b/") && method === "POST") {
    const name = /^\/upload\/storage\/v1\/b\/([^/]+)\/o$/.exec(path)?.[1];
    if (name !== undefined) return await insertObject(call, decodeURIComponent(name));
  }
  if (b !== undefined) {
    const name = decodeURIComponent(b);
    if (o !== undefined) return await onObject(call, method, name, decodeURIComponent(o));
    if (method === "GET") {
      bucketOf(call, name, "json");
      if (path.endsWith("/o")) return listObjects(call, name);
      return sendJson(response, { kind: "storage#bucket", name, location: "US" });
    }
  }
  const [, xmlBucket, xmlKey] = isJson ? [] : /^\/([^/]+)(?:\/(.+))?$/.exec(path) ?? [];
  if (xmlBucket !== undefined) {
    return await onXml(
      call,
      method,
      decodeURIComponent(xmlBucket),
      decodeURIComponent(xmlKey ?? ""),
    );
  }
  throw new ApiError("json", 404, "notFound", "Not Found");
}

function bucketOf({ buckets }: Call, name: string, api: ApiError["api"]): Bucket {
  const bucket = buckets.get(name);
  if (bucket !== undefined) return bucket;
  const code = api === "xml" ? "NoSuchBucket" : "notFound";
  throw new ApiError(api, 404, code, "The specified bucket does not exist.");
}

async function insertBucket({ buckets, query, request, response }: Call): Promise<void> {
  const { name } = JSON.parse((await bodyOf(request)).toString()) as { name: string };
  if (!query.has("project")) {
    throw new ApiError("json", 400, "required", "Required parameter: project");
  }
  if (buckets.has(name)) {
    throw new ApiError(
      "json",
      409,
      "conflict",
      "Your previous request to create the named bucket succeeded and you already own it.",
    );
  }
  buckets.set(name, { objects: new Map(), uploads: new Map() });
  sendJson(response, { kind: "storage#bucket", name });
}

/** uploadType=multipart: two parts of a body, the resource and the bytes. */
async function insertObject(call: Call, bucketName: string): Promise<void> {
  const { query, request, response } = call;
  const body = await bodyOf(request);
  const bucket = bucketOf(call, bucketName, "json");
  const boundary = /boundary=("?)([^";]+)\1/.exec(request.headers["content-type"] ?? "")?.[2];
  if (query.get("uploadType") !== "multipart" || boundary === undefined) {
    throw new ApiError("json", 400, "invalid", "Bad multipart upload");
  }
  const [resource, content] = relatedParts(body, boundary);
  const { name, md5Hash, metadata, contentType } = JSON.parse(resource.toString()) as {
    name: string;
    md5Hash?: string;
    metadata?: Record<string, string>;
    contentType?: string;
  };
  const md5 = md5Of(content);
  if (md5Hash !== undefined && md5Hash !== md5) {
    const told = `Provided MD5 hash "${md5Hash}" doesn't match calculated MD5 hash "${md5}".`;
    throw new ApiError("json", 400, "invalid", told);
  }
  requireGeneration(bucket.objects.get(name), query, "json");
  const object = makeObject(name, content, {
    metadata,
    contentType,
    md5Hash: md5,
    kmsKeyName: query.get("kmsKeyName") ?? undefined,
  });
  bucket.objects.set(name, object);
  sendJson(response, resourceOf(bucketName, object));
}

function relatedParts(body: Buffer, boundary: string): [Buffer, Buffer] {
  const found: Buffer[] = [];
  let at = body.indexOf(`--${boundary}\r\n`);
  for (const _ of [1, 2]) {
    const start = body.indexOf("\r\n\r\n", at) + 4;
    const end = body.indexOf(`\r\n--${boundary}`, start);
    if (at < 0 || start < 4 || end < 0) {
      throw new ApiError("json", 400, "badContent", "Malformed multipart body.");
    }
    found.push(Buffer.from(body.subarray(start, end)));
    at = end + 2;
  }
  return found as [Buffer, Buffer];
}

async function onObject(
  call: Call,
  method: string,
  bucketName: string,
  name: string,
): Promise<void> {
  const { query, request, response } = call;
  const body = await bodyOf(request);
  const media = query.get("alt") === "media";
  const api = media ? "media" : "json";
  const bucket = bucketOf(call, bucketName, "json");
  const object = bucket.objects.get(name);
  if (object === undefined) {
    throw new ApiError(api, 404, "notFound", `No such object: ${bucketName}/${name}`);
  }
  requireGeneration(object, query, api);
  if (method === "GET" && media) return await sendMedia(call, object);
  if (method === "GET") return sendJson(response, resourceOf(bucketName, object));
  if (method === "DELETE") {
    bucket.objects.delete(name);
    response.writeHead(204).end();
    return;
  }
  if (method === "PATCH") {
    const { metadata } = JSON.parse(body.toString()) as { metadata: Record<string, string> };
    object.metadata = { ...object.metadata, ...metadata };
    object.updated = new Date().toISOString();
    return sendJson(response, resourceOf(bucketName, object));
  }
  throw new ApiError("json", 405, "methodNotAllowed", "Method Not Allowed");
}

/** In pieces, each when the last is taken. */
async function sendMedia({ request, response }: Call, object: GcsObject): Promise<void> {
  const { content } = object;
  const range = /^bytes=(\d+)-(\d*)$/.exec(request.headers.range ?? "");
  const start = range === null ? 0 : Number(range[1]);
  const end = range === null || range[2] === ""
    ? content.length
    : Math.min(Number(range[2]) + 1, content.length);
  if (range !== null && start >= content.length) {
    throw new ApiError("xml", 416, "InvalidRange", "The requested range cannot be satisfied.");
  }
  response.writeHead(range === null ? 200 : 206, {
    "content-type": object.contentType,
    "content-length": end - start,
    "x-goog-generation": object.generation,
    "x-goog-stored-content-length": content.length,
    "x-goog-stored-content-encoding": "identity",
    "last-modified": new Date(object.updated).toUTCString(),
    etag: etagOf(object),
    ...(range === null ? {} : { "content-range": `bytes ${start}-${end - 1}/${content.length}` }),
  });
  for (let at = start; at < end; at += 256 * 1024) {
    if (response.destroyed) return;
    if (!response.write(content.subarray(at, Math.min(end, at + 256 * 1024)))) {
      await new Promise<void>((resolve) => {
        const done = () => {
          response.off("drain", done).off("close", done);
          resolve();
        };
        response.on("drain", done).on("close", done);
      });
    }
  }
  response.end();
}

function listObjects(call: Call, bucketName: string): void {
  const { query, response } = call;
  const { objects } = bucketOf(call, bucketName, "json");
  const prefix = query.get("prefix") ?? "";
  const delimiter = query.get("delimiter") ?? "";
  const offset = query.get("startOffset") ?? "";
  const token = query.get("pageToken");
  const after = token === null ? undefined : Buffer.from(token, "base64url");
  const most = Math.min(Number(query.get("maxResults") ?? 1000), 1000);
  const names = [...objects.keys()]
    .filter((name) => name.startsWith(prefix))
    .map((name) => ({ name, bytes: Buffer.from(name) }))
    .filter(({ bytes }) => Buffer.compare(bytes, Buffer.from(offset)) >= 0)
    .sort((a, b) => Buffer.compare(a.bytes, b.bytes));
  const items: unknown[] = [];
  const prefixes: string[] = [];
  let last: string | undefined;
  let more = false;
  for (const { name, bytes } of names) {
    const cut = delimiter === "" ? -1 : name.indexOf(delimiter, prefix.length);
    const group = cut < 0 ? undefined : name.slice(0, cut + delimiter.length);
    const shown = group ?? name;
    const isPast = after !== undefined &&
      (Buffer.compare(group === undefined ? bytes : Buffer.from(group), after) <= 0);
    if (isPast || shown === last) continue;
    if (items.length + prefixes.length >= most) {
      more = true;
      break;
    }
    last = shown;
    const object = objects.get(name);
    if (group !== undefined) prefixes.push(group);
    else if (object !== undefined) items.push(resourceOf(bucketName, object));
  }
  sendJson(response, {
    kind: "storage#objects",
    ...(items.length > 0 ? { items } : {}),
    ...(prefixes.length > 0 ? { prefixes } : {}),
    ...(more && last !== undefined
      ? { nextPageToken: Buffer.from(last).toString("base64url") }
      : {}),
  });
}

async function onXml(call: Call, method: string, bucketName: string, key: string): Promise<void> {
  const { query, request, response } = call;
  const body = await bodyOf(request);
  const bucket = bucketOf(call, bucketName, "xml");
  if (method === "GET" && key === "" && query.has("uploads")) return listUploads(call, bucket);
  if (method === "POST" && query.has("uploads")) {
    const id = `${randomUUID()}+/=`;
    bucket.uploads.set(id, {
      key,
      metadata: metadataIn(request.headers),
      kmsKeyName: single(request.headers["x-goog-encryption-kms-key-name"]),
      contentType: request.headers["content-type"] ?? "application/octet-stream",
      initiated: new Date().toISOString(),
      parts: new Map(),
    });
    return sendXml(
      response,
      `<InitiateMultipartUploadResult><Bucket>${bucketName}</Bucket><Key>${escaped(key)}</Key>` +
        `<UploadId>${id}</UploadId></InitiateMultipartUploadResult>`,
    );
  }
  const id = query.get("uploadId") ?? "";
  const upload = bucket.uploads.get(id);
  if (upload === undefined || upload.key !== key) {
    throw new ApiError("xml", 404, "NoSuchUpload", "The requested upload was not found.");
  }
  if (method === "GET") return listParts(call, upload);
  if (method === "PUT") return putPart(call, upload, body);
  if (method === "POST") {
    const object = joined(upload, body.toString());
    bucket.uploads.delete(id);
    bucket.objects.set(key, object);
    const etag = escaped(etagOf(object));
    return sendXml(
      response,
      `<CompleteMultipartUploadResult><Key>${escaped(key)}</Key><ETag>${etag}</ETag>` +
        "</CompleteMultipartUploadResult>",
    );
  }
  if (method === "DELETE") {
    bucket.uploads.delete(id);
    response.writeHead(204).end();
    return;
  }
  throw new ApiError("xml", 405, "MethodNotAllowed", "The method is not allowed.");
}

/** In the order of keys, a page at a time. */
function listUploads({ query, response }: Call, bucket: Bucket): void {
  const most = Math.min(Number(query.get("max-uploads") ?? 1000), 1000);
  const [keyMarker, idMarker] = [query.get("key-marker"), query.get("upload-id-marker") ?? ""];
  const place = (key: string, id: string) => `${key}\n${id}`;
  const found = [...bucket.uploads]
    .filter(([, { key }]) => key.startsWith(query.get("prefix") ?? ""))
    .map(([id, upload]) => ({ id, upload, place: place(upload.key, id) }))
    .sort((a, b) => a.place < b.place ? -1 : 1)
    .filter((each) => keyMarker === null || each.place > place(keyMarker, idMarker));
  const page = found.slice(0, most);
  const last = page.at(-1);
  const encodes = query.get("encoding-type") === "url";
  const encoding = encodes ? "<EncodingType>url</EncodingType>" : "";
  const named = (key: string) => encodes ? encodeURIComponent(key) : escaped(key);
  const list = page.map(({ id, upload }) =>
    `<Upload><Key>${named(upload.key)}</Key><UploadId>${id}</UploadId>` +
    `<StorageClass>STANDARD</StorageClass><Initiated>${upload.initiated}</Initiated></Upload>`
  );
  const more = page.length < found.length && last !== undefined
    ? `<NextKeyMarker>${named(last.upload.key)}</NextKeyMarker>` +
      `<NextUploadIdMarker>${last.id}</NextUploadIdMarker><IsTruncated>true</IsTruncated>`
    : "<IsTruncated>false</IsTruncated>";
  sendXml(
    response,
    `<ListMultipartUploadsResult>${encoding}${more}${list.join("")}</ListMultipartUploadsResult>`,
  );
}

function listParts({ query, response }: Call, { parts }: Upload): void {
  const most = Math.min(Number(query.get("max-parts") ?? 1000), 1000);
  const after = Number(query.get("part-number-marker") ?? 0);
  const found = [...parts].filter(([number]) => number > after).sort(([a], [b]) => a - b);
  const page = found.slice(0, most);
  const list = page.map(([number, { etag, content, modified }]) =>
    `<Part><PartNumber>${number}</PartNumber><LastModified>${modified}</LastModified>` +
    `<ETag>${escaped(etag)}</ETag><Size>${content.length}</Size></Part>`
  );
  const more = page.length < found.length
    ? `<NextPartNumberMarker>${
      page.at(-1)?.[0]
    }</NextPartNumberMarker><IsTruncated>true</IsTruncated>`
    : "<IsTruncated>false</IsTruncated>";
  sendXml(response, `<ListPartsResult>${more}${list.join("")}</ListPartsResult>`);
}

function putPart({ query, request, response }: Call, upload: Upload, content: Buffer): void {
  const number = Number(query.get("partNumber"));
  if (!Number.isInteger(number) || number < 1 || number > MAX_PART_NUMBER) {
    throw new ApiError("xml", 400, "InvalidArgument", "Part number must be from 1 to 10000.");
  }
  const wanted = request.headers["content-md5"];
  if (wanted !== undefined && wanted !== md5Of(content)) {
    throw new ApiError("xml", 400, "BadDigest", "The MD5 you specified did not match.");
  }
  const etag = `"${createHash("md5").update(content).digest("hex")}"`;
  upload.parts.set(number, { etag, content, modified: new Date().toISOString() });
  response.writeHead(200, { etag, "content-length": 0 }).end();
}

function joined(upload: Upload, xml: string): GcsObject {
  const contents: Buffer[] = [];
  let previous = 0;
  for (const [, part = ""] of xml.matchAll(/<Part>(.*?)<\/Part>/gs)) {
    const number = Number(/<PartNumber>(\d+)</.exec(part)?.[1]);
    const etag = /<ETag>([^<]*)</.exec(part)?.[1]?.replaceAll("&quot;", '"');
    const sent = upload.parts.get(number);
    if (number <= previous) {
      throw new ApiError("xml", 400, "InvalidPartOrder", "Parts must be in ascending order.");
    }
    if (sent === undefined || sent.etag !== etag) {
      throw new ApiError(
        "xml",
        400,
        "InvalidPart",
        "A part could not be found or its etag differs.",
      );
    }
    previous = number;
    contents.push(sent.content);
  }
  if (contents.length === 0) {
    throw new ApiError("xml", 400, "MalformedCompleteMultipartUploadRequest", "No parts.");
  }
  if (contents.slice(0, -1).some(({ length }) => length < MIN_PART)) {
    throw new ApiError("xml", 400, "EntityTooSmall", "A part is smaller than 5 MiB.");
  }
  const { key, metadata, kmsKeyName, contentType } = upload;
  return makeObject(key, Buffer.concat(contents), {
    metadata,
    kmsKeyName,
    contentType,
    md5Hash: undefined,
  });
}

function metadataIn(headers: http.IncomingHttpHeaders): Record<string, string> | undefined {
  const metadata: Record<string, string> = {};
  for (const [name, value] of Object.entries(headers)) {
    const key = /^x-goog-meta-(.+)$/.exec(name)?.[1];
    if (key !== undefined) metadata[key] = single(value) ?? "";
  }
  return Object.keys(metadata).length > 0 ? metadata : undefined;
}

let generations = BigInt(Date.now()) * 1000n;

function makeObject(
  name: string,
  content: Buffer,
  more: Pick<GcsObject, "metadata" | "md5Hash" | "kmsKeyName"> & {
    readonly contentType?: string | undefined;
  },
): GcsObject {
  const now = new Date().toISOString();
  const { metadata, md5Hash, kmsKeyName, contentType = "application/octet-stream" } = more;
  return {
    name,
    content,
    generation: String(++generations),
    contentType,
    created: now,
    updated: now,
    metadata,
    md5Hash,
    kmsKeyName,
  };
}

function requireGeneration(
  object: GcsObject | undefined,
  query: URLSearchParams,
  api: ApiError["api"],
): void {
  const wanted = query.get("ifGenerationMatch");
  if (wanted === null || wanted === (object?.generation ?? "0")) return;
  throw new ApiError(
    api,
    412,
    "conditionNotMet",
    "At least one of the pre-conditions you specified did not hold.",
  );
}

function resourceOf(bucket: string, object: GcsObject): Record<string, unknown> {
  const { name, generation, contentType, updated, created, metadata, md5Hash, kmsKeyName } = object;
  return {
    kind: "storage#object",
    bucket,
    name,
    generation,
    contentType,
    size: String(object.content.length),
    timeCreated: created,
    updated,
    etag: etagOf(object),
    ...(metadata === undefined ? {} : { metadata }),
    ...(md5Hash === undefined ? {} : { md5Hash }),
    ...(kmsKeyName === undefined ? {} : { kmsKeyName: `${kmsKeyName}/cryptoKeyVersions/1` }),
  };
}

function etagOf({ generation }: GcsObject): string {
  return `"C${Buffer.from(generation).toString("base64")}"`;
}

function md5Of(content: Buffer): string {
  return createHash("md5").update(content).digest("base64");
}

async function bodyOf(request: http.IncomingMessage): Promise<Buffer> {
  const chunks: Uint8Array[] = [];
  for await (const chunk of request) chunks.push(chunk);
  const body = Buffer.concat(chunks);
  const announced = request.headers["content-length"];
  if (announced !== undefined && body.length !== Number(announced)) throw new Error("cut short");
  return body;
}

function sendJson(response: http.ServerResponse, value: unknown, status = 200): void {
  const body = JSON.stringify(value);
  const length = Buffer.byteLength(body);
  response.writeHead(status, {
    "content-type": "application/json; charset=UTF-8",
    "content-length": length,
  });
  response.end(body);
}

function sendXml(response: http.ServerResponse, element: string): void {
  const body = `<?xml version='1.0' encoding='UTF-8'?>${element}`;
  response.writeHead(200, {
    "content-type": "application/xml; charset=UTF-8",
    "content-length": Buffer.byteLength(body),
  });
  response.end(body);
}

function single(value: string | string[] | undefined): string | undefined {
  return Array.isArray(value) ? value[0] : value;
}

function splitOnce(text: string, at: string): [string, string] {
  const index = text.indexOf(at);
  return index < 0 ? [text, ""] : [text.slice(0, index), text.slice(index + at.length)];
}

function escaped(text: string): string {
  return text.replaceAll("&", "&amp;").replaceAll("<", "&lt;").replaceAll(">", "&gt;");
}

if (import.meta.main) {
  const [port = "0", ...settings] = Deno.args;
  const token = settings.find((text) => text.startsWith("token="))?.slice("token=".length);
  const { endpoint } = await startGcsFake(Number(port), { token });
  console.log(endpoint);
}
