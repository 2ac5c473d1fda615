/**
 * What the HTTP handler must do on a good and on a bad network, against real sockets. Only `node:`
 * modules are used, so that the same cases run in Deno, where the tests run, and in Bun, which the
 * released executable is made of (`http_handler_test.ts`; alone: `bun http_cases.ts`).
 */
import assert from "node:assert/strict";
import { once } from "node:events";
import http from "node:http";
import https from "node:https";
import net from "node:net";
import { setTimeout as sleep } from "node:timers/promises";
import { HttpRequest } from "@smithy/core/protocols";
import {
  createHttpHandler,
  type HttpHandler,
  type HttpHandlerOptions,
} from "../../../providers/s3/http_handler.ts";
import { proxyChoice } from "../../../providers/s3/proxy.ts";
import { startFaultProxy } from "../../../scripts/servers/fault_proxy.ts";
import { AUTHORITY, CERTIFICATE, KEY } from "./test_certificate.ts";

const MiB = 1024 ** 2;

export const HTTP_CASES: ReadonlyArray<readonly [name: string, run: () => Promise<void>]> = [
  ["a body goes there and comes back, on one kept connection", async () => {
    await using server = await serve(echo);
    await using client = connect({}, server.url);
    for (const size of [0, 1, 256 * 1024, 3 * MiB + 17]) {
      const sent = pattern(size);
      const { statusCode, body } = await client.exchange("PUT", "/x", sent);
      assert.equal(statusCode, 200);
      assert.deepEqual(Buffer.compare(await collect(body), Buffer.from(sent)), 0);
    }
    assert.equal(server.connections(), 1);
  }],
  ["a refusal is heard while the body is still being sent", async () => {
    // It answers after the first bytes, reads no more, and closes: what S3 does with bad credentials.
    await using server = await serveRaw((socket) => {
      socket.once("data", () => {
        socket.pause();
        socket.write(
          "HTTP/1.1 403 Forbidden\r\nContent-Length: 4\r\nConnection: close\r\n\r\nno!!",
        );
        setTimeout(() => socket.destroy(), 300);
      });
    });
    await using client = connect({}, server.url);
    const { statusCode, body } = await client.exchange("PUT", "/x", pattern(32 * MiB));
    assert.equal(statusCode, 403);
    assert.equal((await collect(body)).toString(), "no!!");
  }],
  ["a body that is cut short is an error, by FIN and by RST", async () => {
    await using server = await serve(echo);
    for (const reset of [false, true]) {
      const proxy = await startFaultProxy(server.url, { cutAfterDown: 300_000, reset });
      try {
        await using client = connect({}, proxy.endpoint);
        const { body } = await client.exchange("PUT", "/x", pattern(MiB));
        await assert.rejects(collect(body), { code: "ECONNRESET" });
      } finally {
        await proxy.stop();
      }
    }
  }],
  ["a connection that is cut while sending is an error", async () => {
    await using server = await serve(echo);
    const proxy = await startFaultProxy(server.url, { cutAfterUp: 500_000, reset: true });
    try {
      await using client = connect({}, proxy.endpoint);
      await assert.rejects(
        client.exchange("PUT", "/x", pattern(32 * MiB)),
        (error: NodeJS.ErrnoException) => error.code === "ECONNRESET" || error.code === "EPIPE",
      );
    } finally {
      await proxy.stop();
    }
  }],
  ["nobody listening is ECONNREFUSED, an unknown host ENOTFOUND or EAI_AGAIN", async () => {
    const port = await freePort();
    await using client = connect({}, `http://127.0.0.1:${port}`);
    await assert.rejects(client.exchange("GET", "/"), { code: "ECONNREFUSED" });
    await using nowhere = connect({}, "http://no-such-host.invalid");
    await assert.rejects(
      nowhere.exchange("GET", "/"),
      (error: NodeJS.ErrnoException) => /^(ENOTFOUND|EAI_AGAIN)$/.test(error.code ?? ""),
    );
  }],
  ["silence ends the request: no answer, no further bytes, nothing taken", async () => {
    await using server = await serve(echo);
    const plans = [{ blackhole: true }, { stallAfterDown: 300_000 }, { stallAfterUp: 100_000 }];
    for (const plan of plans) {
      const proxy = await startFaultProxy(server.url, plan);
      try {
        await using client = connect({ readTimeout: 300 }, proxy.endpoint);
        const began = performance.now();
        const size = "stallAfterUp" in plan ? 32 * MiB : MiB;
        const attempt = async () =>
          await collect((await client.exchange("PUT", "/x", pattern(size))).body);
        await assert.rejects(attempt(), { code: "READ_TIMEOUT" });
        const took = performance.now() - began;
        assert.ok(took >= 290 && took < 3000, `${took} ms`);
      } finally {
        await proxy.stop();
      }
    }
  }],
  ["slow is not silent: neither a slow line nor a slow reader", async () => {
    await using server = await serve((request, response) => {
      request.resume();
      response.writeHead(200, { "content-length": "2000000" });
      void (async () => {
        for (let i = 0; i < 10; i++) {
          await sleep(150);
          response.write(Buffer.alloc(200_000, i));
        }
        response.end();
      })();
    });
    await using client = connect({ readTimeout: 1000 }, server.url);
    const slow = await client.exchange("GET", "/");
    assert.equal((await collect(slow.body)).length, 2_000_000);

    await using quick = await serve(echo);
    await using reader = connect({ readTimeout: 1000 }, quick.url);
    const { body } = await reader.exchange("PUT", "/x", pattern(8 * MiB));
    let size = 0;
    for await (const chunk of body) {
      if (size === 0) await sleep(2000);
      size += chunk.length;
    }
    assert.equal(size, 8 * MiB);
  }],
  ["a connection that is never made ends in time", async () => {
    // The handshake of TLS counts: this server says nothing.
    await using server = await serveRaw(() => {});
    await using client = connect(
      { connectTimeout: 300 },
      server.url.replace("http:", "https:"),
    );
    const began = performance.now();
    await assert.rejects(client.exchange("GET", "/"), { code: "CONNECT_TIMEOUT" });
    assert.ok(performance.now() - began < 3000);
  }],
  ["a signal ends the request and the body", async () => {
    await using server = await serveRaw(() => {});
    await using client = connect({}, server.url);
    const reason = new Error("stop it");
    const abort = new AbortController();
    setTimeout(() => abort.abort(reason), 50);
    await assert.rejects(client.exchange("GET", "/", undefined, abort.signal), reason);

    await using echoing = await serve(echo);
    const proxy = await startFaultProxy(echoing.url, { stallAfterDown: 300_000 });
    try {
      await using other = connect({}, proxy.endpoint);
      const later = new AbortController();
      const { body } = await other.exchange("PUT", "/x", pattern(MiB), later.signal);
      setTimeout(() => later.abort(reason), 50);
      await assert.rejects(collect(body), reason);
    } finally {
      await proxy.stop();
    }
    const early = AbortSignal.abort(reason);
    await assert.rejects(client.exchange("GET", "/", undefined, early), reason);
  }],
  ["leaving a body early closes its connection", async () => {
    const closed: Promise<unknown>[] = [];
    await using server = await serve((request, response) => {
      request.resume();
      closed.push(once(response, "close"));
      response.writeHead(200, { "content-length": String(64 * MiB) });
      response.write(Buffer.alloc(MiB));
    });
    await using client = connect({}, server.url);
    const { body } = await client.exchange("GET", "/");
    for await (const _ of body) break;
    const [ended] = closed;
    assert.ok(ended !== undefined);
    await Promise.race([ended, timeLimit()]);
  }],
  ["Content-Encoding is left alone", async () => {
    await using server = await serve((_, response) => {
      response.writeHead(200, { "content-encoding": "gzip", "content-length": "4" });
      response.end("abcd");
    });
    await using client = connect({}, server.url);
    const { body } = await client.exchange("GET", "/");
    assert.equal((await collect(body)).toString(), "abcd");
  }],
  ["TLS: the authority given is trusted, no other, and only for its hosts", async () => {
    await using server = await serveTls();
    await using client = connect({ ca: AUTHORITY }, server.url);
    for (let i = 0; i < 3; i++) {
      const { body } = await client.exchange("PUT", "/x", pattern(MiB));
      assert.equal((await collect(body)).length, MiB);
    }
    assert.equal(server.connections(), 1);
    await using distrusting = connect({}, server.url);
    await assert.rejects(
      distrusting.exchange("GET", "/"),
      (error: NodeJS.ErrnoException) => /CERT|VERIFY/.test(`${error.code} ${error.message}`),
    );
    // The certificate is for localhost alone.
    await using elsewhere = connect(
      { ca: AUTHORITY },
      server.url.replace("localhost", "127.0.0.1"),
    );
    await assert.rejects(
      elsewhere.exchange("GET", "/"),
      (error: NodeJS.ErrnoException) => /CERT_ALTNAME/.test(error.code ?? ""),
    );
  }],
  [
    "a proxy passes on http by its URL and https through a tunnel, and is told the user",
    async () => {
      await using plain = await serve(echo);
      await using secure = await serveTls();
      const seen: string[] = [];
      await using proxy = await serveProxy(seen);
      const withUser = proxy.url.replace("http://", "http://me:p%40ss@");
      const env = { HTTP_PROXY: withUser, https_proxy: withUser, NO_PROXY: "example.org" };
      for (const url of [plain.url, secure.url]) {
        await using client = connect({ ca: AUTHORITY, proxyFor: proxyChoice(env) }, url);
        for (let i = 0; i < 2; i++) {
          const { statusCode, body } = await client.exchange("PUT", "/x?a=b", pattern(MiB));
          assert.equal(statusCode, 200);
          assert.equal((await collect(body)).length, MiB);
        }
      }
      const user = `Basic ${Buffer.from("me:p@ss").toString("base64")}`;
      assert.deepEqual(seen, [
        `PUT ${plain.url}/x?a=b ${user}`,
        `PUT ${plain.url}/x?a=b ${user}`,
        `CONNECT ${new URL(secure.url).host} ${user}`,
      ]);
      assert.equal(secure.connections(), 1);
    },
  ],
  ["a proxy that refuses the tunnel is an error, one that is not there too", async () => {
    await using refusing = await serveRaw((socket) => {
      socket.once("data", () => socket.end("HTTP/1.1 407 No\r\nContent-Length: 0\r\n\r\n"));
    });
    await using client = connect(
      { proxyFor: proxyChoice({ HTTPS_PROXY: refusing.url }) },
      "https://localhost:1",
    );
    await assert.rejects(client.exchange("GET", "/"), /the proxy answered 407/);
    const port = await freePort();
    const nobody = `127.0.0.1:${port}`;
    const proxyFor = proxyChoice({ HTTPS_PROXY: nobody, HTTP_PROXY: nobody });
    for (const url of ["https://localhost:1", "http://localhost:1"]) {
      await using other = connect({ proxyFor }, url);
      await assert.rejects(other.exchange("GET", "/"), (error: NodeJS.ErrnoException) => {
        assert.equal(error.code, "PROXY_UNREACHABLE", url);
        assert.match(error.message, new RegExp(`proxy 127.0.0.1:${port} .*(REFUSED|Refused)`));
        return true;
      });
    }
  }],
];

interface Client extends AsyncDisposable {
  exchange(
    method: string,
    path: string,
    body?: Uint8Array,
    signal?: AbortSignal,
  ): Promise<{ statusCode: number; body: AsyncIterable<Uint8Array> }>;
}

function connect(options: Partial<HttpHandlerOptions>, url: string): Client {
  const handler: HttpHandler = createHttpHandler({
    connectTimeout: 5000,
    readTimeout: 5000,
    proxyFor: () => undefined,
    ...options,
  });
  const { protocol, hostname, port } = new URL(url);
  return {
    async exchange(method, path, body, abortSignal) {
      const [pathname = "", query] = path.split("?");
      const { response } = await handler.handle(
        new HttpRequest({
          protocol,
          hostname,
          ...(port === "" ? {} : { port: Number(port) }),
          method,
          path: pathname,
          query: Object.fromEntries(new URLSearchParams(query)),
          headers: {
            host: `${hostname}:${port}`,
            ...(body === undefined ? {} : { "content-length": String(body.length) }),
          },
          body,
        }),
        { abortSignal },
      );
      assert.ok(response.body !== undefined);
      return { statusCode: response.statusCode, body: response.body };
    },
    [Symbol.asyncDispose]() {
      handler.destroy();
      return Promise.resolve();
    },
  };
}

interface TestServer extends AsyncDisposable {
  readonly url: string;
  connections(): number;
}

const echo: http.RequestListener = (request, response) => {
  const chunks: Uint8Array[] = [];
  request.on("data", (chunk: Uint8Array) => chunks.push(chunk));
  request.on("end", () => {
    const body = Buffer.concat(chunks);
    response.writeHead(200, { "content-length": String(body.length) });
    response.end(body);
  });
};

function serve(listener: http.RequestListener): Promise<TestServer> {
  return listening(http.createServer(listener), "http://127.0.0.1");
}

function serveTls(): Promise<TestServer> {
  return listening(https.createServer({ cert: CERTIFICATE, key: KEY }, echo), "https://localhost");
}

function serveRaw(onConnection: (socket: net.Socket) => void): Promise<TestServer> {
  return listening(
    net.createServer((socket) => {
      socket.on("error", () => {});
      onConnection(socket);
    }),
    "http://127.0.0.1",
  );
}

/** A forwarding proxy that notes what it is asked. */
function serveProxy(seen: string[]): Promise<TestServer> {
  const note = (request: http.IncomingMessage) =>
    seen.push(`${request.method} ${request.url} ${request.headers["proxy-authorization"]}`);
  const server = http.createServer((request, response) => {
    note(request);
    const { method, headers } = request;
    const onward = http.request(new URL(request.url ?? ""), { method, headers }, (answer) => {
      response.writeHead(answer.statusCode ?? 0, answer.headers);
      answer.pipe(response);
    });
    request.pipe(onward);
  });
  server.on("connect", (request: http.IncomingMessage, socket: net.Socket) => {
    note(request);
    const [, port] = (request.url ?? "").split(":");
    const onward = net.connect(Number(port), "127.0.0.1", () => {
      socket.write("HTTP/1.1 200 Connection established\r\n\r\n");
      onward.pipe(socket);
      socket.pipe(onward);
    });
    onward.on("error", () => socket.destroy());
    socket.on("error", () => onward.destroy());
    socket.on("close", () => onward.destroy());
  });
  return listening(server, "http://127.0.0.1");
}

async function listening(server: net.Server, base: string): Promise<TestServer> {
  const sockets = new Set<net.Socket>();
  let connections = 0;
  server.on("connection", (socket: net.Socket) => {
    connections++;
    sockets.add(socket);
    socket.on("close", () => sockets.delete(socket));
  });
  server.on("tlsClientError", () => {});
  server.listen(0, "127.0.0.1");
  await once(server, "listening");
  return {
    url: `${base}:${portOf(server)}`,
    connections: () => connections,
    async [Symbol.asyncDispose]() {
      const closed = once(server, "close");
      server.close();
      for (const socket of sockets) socket.destroy();
      await Promise.race([closed, timeLimit()]);
    },
  };
}

function portOf(server: net.Server): number {
  const address = server.address();
  assert.ok(address !== null && typeof address !== "string");
  return address.port;
}

async function freePort(): Promise<number> {
  const server = net.createServer();
  server.listen(0, "127.0.0.1");
  await once(server, "listening");
  const port = portOf(server);
  server.close();
  await once(server, "close");
  return port;
}

async function timeLimit(): Promise<never> {
  await sleep(5000, undefined, { ref: false });
  throw new Error("Not within 5 s");
}

function pattern(size: number): Uint8Array {
  const bytes = new Uint8Array(size);
  for (let i = 0; i < size; i++) bytes[i] = (i * 31 + (i >> 8)) & 0xff;
  return bytes;
}

async function collect(body: AsyncIterable<Uint8Array>): Promise<Buffer> {
  const chunks: Uint8Array[] = [];
  for await (const chunk of body) chunks.push(chunk);
  return Buffer.concat(chunks);
}

/** Run all by themselves: the way Bun runs them. */
if ("Bun" in globalThis && import.meta.main) {
  let failed = 0;
  for (const [name, run] of HTTP_CASES) {
    try {
      await run();
      console.log(`ok ${name}`);
    } catch (error) {
      failed++;
      console.log(`FAILED ${name}: ${error instanceof Error ? error.stack : error}`);
    }
  }
  process.exit(failed === 0 ? 0 : 1);
}
