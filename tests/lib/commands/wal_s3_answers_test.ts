import assert from "node:assert/strict";
import { mkdtemp, readdir, rm, writeFile } from "node:fs/promises";
import { createServer, type RequestListener, type Server } from "node:http";
import type { AddressInfo } from "node:net";
import { tmpdir } from "node:os";
import { join } from "node:path";
import type { Command } from "../../../lib/cli/command.ts";
import { command as check } from "../../../lib/commands/check_wal_archive.ts";
import { command as archive } from "../../../lib/commands/wal_archive.ts";
import { command as restore } from "../../../lib/commands/wal_restore.ts";
import { walBytes } from "../wal/stores.ts";
import { type CommandResult, runIn } from "./wal_command_run.ts";

const SEGMENT = "000000010000000000000001";
const ENV = {
  AWS_ACCESS_KEY_ID: "key",
  AWS_SECRET_ACCESS_KEY: "not-so-secret",
  AWS_REGION: "us-east-1",
};

/** The exit codes of the commands, run at the same time, with `-t` and without; each failure tells one error. */
async function codesAt(
  endpoint: string,
  succeeding: readonly string[] = [],
): Promise<Record<string, number>> {
  const directory = await mkdtemp(join(tmpdir(), "barman-cloud-s3-"));
  try {
    const wal = join(directory, SEGMENT);
    const destination = join(directory, "RECOVERYXLOG");
    await writeFile(wal, walBytes(1000));
    const url = ["--endpoint-url", endpoint, "s3://bucket/path", "main"];
    const runs: [string, Command, string[]][] = [
      ["restore", restore, [...url, SEGMENT, destination]],
      ["restore -t", restore, ["-t", ...url, SEGMENT, destination]],
      ["archive", archive, [...url, wal]],
      ["archive -t", archive, ["-t", ...url, wal]],
      ["check", check, url],
      ["check -t", check, ["-t", ...url]],
    ];
    const results = await Promise.all(
      runs.map(async ([name, command, words]): Promise<[string, CommandResult]> => [
        name,
        await runIn(command, words, { env: ENV }),
      ]),
    );
    for (const [name, { stdout, log }] of results) {
      assert.equal(stdout, "");
      assert.ok(!log.join().includes("not-so-secret"));
      const errors = log.filter((line) => line.startsWith("ERROR")).length;
      assert.equal(errors, succeeding.includes(name) ? 0 : 1, `${name}: ${log}`);
    }
    assert.deepEqual(await readdir(directory), [SEGMENT]);
    return Object.fromEntries(results.map(([name, { code }]) => [name, code]));
  } finally {
    await rm(directory, { recursive: true, force: true });
  }
}

async function withServer(answer: RequestListener, test: (endpoint: string) => Promise<void>) {
  const server: Server = createServer(answer);
  await new Promise<void>((listening) => server.listen(0, "127.0.0.1", listening));
  try {
    await test(`http://127.0.0.1:${(server.address() as AddressInfo).port}`);
  } finally {
    server.closeAllConnections();
    await new Promise((closed) => server.close(closed));
  }
}

/** Answers every request with an error of S3. */
function failing(status: number, code: string): RequestListener {
  return (request, response) => {
    request.resume();
    response.writeHead(status, { "content-type": "application/xml" });
    response.end(
      request.method === "HEAD"
        ? undefined
        : `<?xml version="1.0"?><Error><Code>${code}</Code><Message>No</Message></Error>`,
    );
  };
}

Deno.test("WAL commands: nobody listens at the endpoint", async () => {
  let closed = "";
  await withServer(() => {}, (endpoint) => Promise.resolve(void (closed = endpoint)));
  assert.deepEqual(await codesAt(closed), {
    "restore": 2,
    "restore -t": 2,
    "archive": 4,
    "archive -t": 2,
    "check": 2,
    "check -t": 2,
  });
});

Deno.test("WAL commands: the store is overloaded", () =>
  withServer(failing(503, "SlowDown"), async (endpoint) => {
    assert.deepEqual(await codesAt(endpoint), {
      "restore": 2,
      "restore -t": 4,
      "archive": 4,
      "archive -t": 4,
      "check": 4,
      "check -t": 4,
    });
  }));

Deno.test("WAL commands: the store says no", () =>
  withServer(failing(403, "AccessDenied"), async (endpoint) => {
    assert.deepEqual(await codesAt(endpoint), {
      "restore": 4,
      "restore -t": 4,
      "archive": 4,
      "archive -t": 4,
      "check": 4,
      "check -t": 4,
    });
  }));

Deno.test("WAL commands: there is no such bucket", () =>
  withServer(failing(404, "NoSuchBucket"), async (endpoint) => {
    assert.deepEqual(await codesAt(endpoint, ["check -t"]), {
      "restore": 4,
      "restore -t": 1,
      "archive": 4,
      "archive -t": 1,
      "check": 4,
      "check -t": 0,
    });
  }));

Deno.test("wal-restore: a body that always breaks is exit 2 and leaves nothing; an empty listing is exit 1", async () => {
  const key = `path/main/wals/0000000100000000/${SEGMENT}`;
  const listing = (contents: string) =>
    `<?xml version="1.0"?><ListBucketResult><Name>bucket</Name><IsTruncated>false</IsTruncated>` +
    `${contents}</ListBucketResult>`;
  let full = true;
  let reads = 0;
  const answer: RequestListener = (request, response) => {
    const { pathname, searchParams } = new URL(request.url ?? "", "http://localhost");
    if (searchParams.get("list-type") === "2") {
      response.writeHead(200, { "content-type": "application/xml" });
      response.end(listing(
        full ? `<Contents><Key>${key}</Key><Size>1000</Size><ETag>"e"</ETag></Contents>` : "",
      ));
      return;
    }
    assert.equal(pathname, `/bucket/${key}`);
    reads++;
    const resumed = request.headers.range !== undefined && request.headers.range !== "bytes=0-";
    response.writeHead(resumed ? 206 : 200, {
      "content-length": resumed ? 500 : 1000,
      etag: '"e"',
      ...(resumed ? { "content-range": "bytes 500-999/1000" } : {}),
    });
    if (resumed) {
      response.flushHeaders();
      setTimeout(() => response.destroy(), 10);
    } else response.write(walBytes(500), () => setTimeout(() => response.destroy(), 10));
  };
  const directory = await mkdtemp(join(tmpdir(), "barman-cloud-s3-"));
  try {
    await withServer(answer, async (endpoint) => {
      const words = ["--endpoint-url", endpoint, "s3://bucket/path", "main", SEGMENT];
      const destination = join(directory, "RECOVERYXLOG");
      const broken = await runIn(restore, [...words, destination], { env: ENV });
      assert.equal(broken.code, 2, broken.log.join("\n"));
      assert.ok(reads > 1, "it was tried again");
      assert.deepEqual(await readdir(directory), []);
      full = false;
      assert.equal((await runIn(restore, [...words, destination], { env: ENV })).code, 1);
    });
  } finally {
    await rm(directory, { recursive: true, force: true });
  }
});

Deno.test("wal-archive: tags, history tags and encryption as S3 gets them", async () => {
  const seen: Record<string, unknown>[] = [];
  let lists = 0;
  let claims = 0;
  const directory = await mkdtemp(join(tmpdir(), "barman-cloud-s3-"));
  const take: RequestListener = (request, response) => {
    const { method, headers } = request;
    if (new URL(request.url ?? "", "http://localhost").searchParams.get("list-type") === "2") {
      lists++;
      response.writeHead(200, { "content-type": "application/xml" });
      response.end("<ListBucketResult><IsTruncated>false</IsTruncated></ListBucketResult>");
      return;
    }
    // A history file is claimed before.
    if (method === "POST") {
      response.writeHead(200, { "content-type": "application/xml" }).end("<DeleteResult/>");
      return;
    }
    if (method === "HEAD" || request.url?.includes("/wal-claims/")) {
      claims++;
      request.resume();
      const isFree = method === "HEAD" && request.url?.includes("/wal-claims/");
      response.writeHead(isFree ? 404 : 200, { etag: '"e"' }).end();
      return;
    }
    seen.push({
      method,
      tags: headers["x-amz-tagging"],
      encryption: headers["x-amz-server-side-encryption"],
      kmsKey: headers["x-amz-server-side-encryption-aws-kms-key-id"],
    });
    request.resume().on("end", () => response.writeHead(200, { etag: '"e"' }).end());
  };
  try {
    await withServer(take, async (endpoint) => {
      const url = ["--endpoint-url", endpoint, "s3://bucket/path", "main"];
      const tagsOf = async (name: string, ...options: string[]): Promise<string[]> => {
        await writeFile(join(directory, name), walBytes(100));
        const words = [...url, join(directory, name), ...options];
        const result = await runIn(archive, words, { env: ENV });
        assert.equal(result.code, 0, result.log.join("\n"));
        const request = seen.shift();
        assert.equal(request?.["method"], "PUT");
        assert.deepEqual(seen, [], "one request, and those that look for copies");
        const isHistory = name.endsWith(".history");
        assert.deepEqual([lists, claims > 0], [isHistory ? 2 : 1, isHistory]);
        lists = 0;
        claims = 0;
        return [...new URLSearchParams(String(request?.["tags"] ?? ""))].map((pair) => pair.join());
      };
      const both = ["--tag", "a,b", "--tag", "c,d e", "--history-tag", "kind,history"];
      assert.deepEqual(await tagsOf(SEGMENT), []);
      assert.deepEqual(await tagsOf(SEGMENT, ...both), ["a,b", "c,d e"]);
      assert.deepEqual(await tagsOf(`${SEGMENT}.partial`, ...both), ["a,b", "c,d e"]);
      assert.deepEqual(await tagsOf("00000002.history", ...both), ["kind,history"]);
      assert.deepEqual(await tagsOf("00000002.history", "--tags", "a,b", "c,d"), ["a,b", "c,d"]);
      const old = ["--tags", "a,b", "--history-tags", 'x,"y,z"', "k,v"];
      assert.deepEqual(await tagsOf("00000002.history", ...old), ["x,y,z", "k,v"]);
      assert.deepEqual(await tagsOf(SEGMENT, ...old), ["a,b"]);

      const kms = ["-e", "aws:kms", "--sse-kms-key-id", "key-1"];
      await runIn(archive, [...url, join(directory, SEGMENT), ...kms], { env: ENV });
      const { encryption, kmsKey } = seen.shift() ?? {};
      assert.deepEqual([encryption, kmsKey], ["aws:kms", "key-1"]);
    });
  } finally {
    await rm(directory, { recursive: true, force: true });
  }
});
