/**
 * An S3 server of objects that are not there, for catalogues too large to make: it lists, serves and deletes keys that
 * it is told, from memory. It follows Amazon's API reference (ListObjectsV2, ListObjects, GetObject, HeadObject,
 * HeadBucket, PutObject, DeleteObjects, DeleteObject) and checks no signatures. For benchmarks only.
 */
import { createHash } from "node:crypto";
import http from "node:http";

export interface ListingS3 extends AsyncDisposable {
  readonly endpoint: string;
  /** Requests since the last call. */
  takeRequests(): number;
  /** Objects that are (still) there. */
  readonly count: number;
}

const PAGE = 1000;

/** @param objects content by key; keys in the order of their bytes, ASCII only */
export async function startListingS3(
  bucket: string,
  objects: ReadonlyMap<string, string>,
): Promise<ListingS3> {
  let contents = new Map(objects);
  // Sorted; keys that were deleted stay until the listing is made anew.
  let sorted = [...contents.keys()];
  let requests = 0;

  const keys = (): string[] => {
    if (sorted.length > 2 * contents.size) sorted = sorted.filter((key) => contents.has(key));
    return sorted;
  };

  const list = (query: URLSearchParams): string => {
    const prefix = query.get("prefix") ?? "";
    const delimiter = query.get("delimiter") ?? "";
    const after = query.get("continuation-token") ?? query.get("start-after") ??
      query.get("marker") ?? "";
    const limit = Math.min(PAGE, Number(query.get("max-keys") ?? PAGE));
    const entries: string[] = [];
    const groups: string[] = [];
    let last = "";
    const all = keys();
    let at = lowerBound(all, after > prefix ? after : prefix);
    for (; at < all.length && entries.length + groups.length < limit; at++) {
      const key = all[at] ?? "";
      if (!key.startsWith(prefix)) break;
      if (key <= after || !contents.has(key)) continue;
      const end = delimiter === "" ? -1 : key.indexOf(delimiter, prefix.length);
      if (end >= 0) {
        const group = key.slice(0, end + delimiter.length);
        last = group + "\u{10ffff}";
        if (group + "\u{10ffff}" !== after) groups.push(group);
        at = lowerBound(all, last) - 1;
        continue;
      }
      last = key;
      const content = contents.get(key) ?? "";
      entries.push(
        `<Contents><Key>${key}</Key><LastModified>2026-01-01T00:00:00.000Z</LastModified>` +
          `<ETag>&quot;${etagOf(content)}&quot;</ETag><Size>${content.length}</Size>` +
          "<StorageClass>STANDARD</StorageClass></Contents>",
      );
    }
    while (at < all.length && !contents.has(all[at] ?? "")) at++;
    const truncated = (all[at] ?? "").startsWith(prefix) && at < all.length;
    return `${HEAD}<ListBucketResult xmlns="http://s3.amazonaws.com/doc/2006-03-01/"><Name>${bucket}</Name>` +
      `<Prefix>${prefix}</Prefix><KeyCount>${entries.length + groups.length}</KeyCount>` +
      `<MaxKeys>${limit}</MaxKeys><IsTruncated>${truncated}</IsTruncated>` +
      (query.has("encoding-type") ? "<EncodingType>url</EncodingType>" : "") +
      (truncated
        ? `<NextContinuationToken>${encodeXml(last)}</NextContinuationToken>` +
          `<NextMarker>${encodeXml(last)}</NextMarker>`
        : "") +
      entries.join("") +
      groups.map((group) => `<CommonPrefixes><Prefix>${group}</Prefix></CommonPrefixes>`).join("") +
      "</ListBucketResult>";
  };

  const deleteMany = (body: string): string => {
    const quiet = /<Quiet>true<\/Quiet>/.test(body);
    const answers: string[] = [];
    for (const [, key = ""] of body.matchAll(/<Key>(.*?)<\/Key>/g)) {
      contents.delete(key);
      if (!quiet) answers.push(`<Deleted><Key>${key}</Key></Deleted>`);
    }
    return `${HEAD}<DeleteResult>${answers.join("")}</DeleteResult>`;
  };

  const server = http.createServer(async (request, response) => {
    requests++;
    const { method = "GET", url = "/" } = request;
    const { pathname, searchParams } = new URL(url, "http://store");
    const key = decodeURIComponent(pathname).split("/").slice(2).join("/");
    const chunks: Uint8Array[] = [];
    for await (const chunk of request) chunks.push(chunk);
    const answer = (status: number, text: string, headers: Record<string, string> = {}) => {
      const bytes = new TextEncoder().encode(text);
      response.writeHead(status, { "content-length": String(bytes.length), ...headers });
      response.end(method === "HEAD" ? undefined : bytes);
    };
    const xml = { "content-type": "application/xml" };
    if (key === "" && method === "GET") return answer(200, list(searchParams), xml);
    if (key === "" && method === "POST") {
      return answer(
        200,
        deleteMany(new TextDecoder().decode(await new Blob(chunks as BlobPart[]).arrayBuffer())),
        xml,
      );
    }
    if (key === "") return answer(200, "");
    const content = contents.get(key);
    if (method === "DELETE") {
      contents.delete(key);
      return answer(204, "");
    }
    if (method === "PUT") {
      if (content !== undefined && request.headers["if-none-match"] === "*") {
        const message = "<Message>The object is there</Message>";
        return answer(412, `${HEAD}<Error><Code>PreconditionFailed</Code>${message}</Error>`, xml);
      }
      const text = new TextDecoder().decode(await new Blob(chunks as BlobPart[]).arrayBuffer());
      if (content === undefined) {
        const at = lowerBound(sorted, key);
        if (sorted[at] !== key) sorted.splice(at, 0, key);
      }
      contents.set(key, text);
      return answer(200, "", { etag: `"${etagOf(text)}"` });
    }
    if (content === undefined) {
      return answer(
        404,
        `${HEAD}<Error><Code>NoSuchKey</Code><Message>None</Message></Error>`,
        xml,
      );
    }
    answer(200, content, {
      etag: `"${etagOf(content)}"`,
      "last-modified": "Thu, 01 Jan 2026 00:00:00 GMT",
      "accept-ranges": "bytes",
    });
  });
  await new Promise<void>((resolve, reject) => {
    server.once("error", reject);
    server.listen(0, "127.0.0.1", resolve);
  });
  const address = server.address();
  if (address === null || typeof address === "string") throw new Error("The server has no port");
  return {
    endpoint: `http://127.0.0.1:${address.port}`,
    takeRequests() {
      const taken = requests;
      requests = 0;
      return taken;
    },
    get count() {
      return contents.size;
    },
    async [Symbol.asyncDispose]() {
      server.closeAllConnections();
      await new Promise((resolve) => server.close(resolve));
      contents = new Map();
    },
  };
}

const HEAD = '<?xml version="1.0" encoding="UTF-8"?>\n';

/** The first index whose key is not below. */
function lowerBound(sorted: readonly string[], key: string): number {
  let [low, high] = [0, sorted.length];
  while (low < high) {
    const middle = (low + high) >>> 1;
    if ((sorted[middle] ?? "") < key) low = middle + 1;
    else high = middle;
  }
  return low;
}

const etags = new Map<string, string>();

function etagOf(content: string): string {
  const known = etags.get(content);
  if (known !== undefined) return known;
  const etag = createHash("md5").update(content).digest("hex");
  if (etags.size < 10) etags.set(content, etag);
  return etag;
}

function encodeXml(text: string): string {
  return text.replaceAll("&", "&amp;").replaceAll("<", "&lt;");
}
