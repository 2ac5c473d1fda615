import assert from "node:assert/strict";
import { spawn } from "node:child_process";
import { mkdtemp, rm, writeFile } from "node:fs/promises";
import http from "node:http";
import { tmpdir } from "node:os";
import { join } from "node:path";
import process from "node:process";
import { fileURLToPath } from "node:url";
import {
  AccountSASPermissions,
  AccountSASResourceTypes,
  AccountSASServices,
  ContainerSASPermissions,
  generateAccountSASQueryParameters,
  generateBlobSASQueryParameters,
  SASProtocol,
  StorageSharedKeyCredential,
} from "@azure/storage-blob";
import { openAzureStore } from "../../../providers/azure/store.ts";
import type { ObjectStore } from "../../../providers/object_store.ts";
import type { StoreOptions } from "../../../providers/open.ts";
import { startAzurite, startAzuriteForTests } from "../../../scripts/servers/azurite.ts";
import { rejectsWith } from "../../conformance/checks.ts";
import { bytes, contentOf, namesIn } from "../../conformance/suite.ts";
import { AUTHORITY, CERTIFICATE, KEY } from "../s3/test_certificate.ts";
import { azureError, startHttpProxy } from "./http_proxy.ts";

const server = await startAzuriteForTests();
const azurite = server?.azurite;
const ignore = azurite === undefined;
const WRONG_KEY = Buffer.from("not the key of this account at all").toString("base64");

Deno.test.afterAll(() => server?.stop());

Deno.test({
  name: "Azure: a wrong key is refused at once, clearly, and kept secret",
  ignore,
  async fn() {
    if (server === null || azurite === undefined) return;
    const container = await server.newContainer();
    const begin = performance.now();
    await withStore(container, { AZURE_STORAGE_KEY: WRONG_KEY }, async (store) => {
      for (
        const call of [
          () => store.bucketExists(),
          () => store.head("x"),
          () => store.put("x", bytes("x")),
          () => namesIn(store, ""),
          () => store.createBucket(),
        ]
      ) {
        const error = await rejectsWith(call(), "denied");
        assert.match(error.message, /from AZURE_STORAGE_KEY/);
        assertNoSecret(error, [WRONG_KEY, azurite.key]);
      }
    });
    assert.ok(performance.now() - begin < 3000);
  },
});

Deno.test({
  name: "Azure: a SAS token of the account does everything",
  ignore,
  async fn() {
    if (server === null) return;
    const container = await server.newContainer();
    await withStore(container, { AZURE_STORAGE_SAS_TOKEN: `?${accountSas("rwdlacut")}` }, useAll);
    await withStore(`new-${crypto.randomUUID()}`, {
      AZURE_STORAGE_SAS_TOKEN: accountSas("rwdlacut"),
    }, async (store) => {
      assert.equal(await store.bucketExists(), false);
      await store.createBucket();
      await store.createBucket();
      assert.equal(await store.bucketExists(), true);
    });
  },
});

Deno.test({
  name: "Azure: a SAS token of a container does everything in it",
  ignore,
  async fn() {
    if (server === null || azurite === undefined) return;
    const container = await server.newContainer();
    const token = containerSas(container, "rcwdlt");
    await withStore(container, { AZURE_STORAGE_SAS_TOKEN: token }, useAll);
    const text = `BlobEndpoint=${azurite.origin}/${azurite.account};SharedAccessSignature=${token}`;
    const { store } = await openAzureStore(`${server.url}/${container}`, {
      env: { AZURE_STORAGE_CONNECTION_STRING: text },
    });
    await useAll(store);
    await store.close();
  },
});

Deno.test({
  name: "Azure: what a SAS token does not allow is told, without the token",
  ignore,
  async fn() {
    if (server === null) return;
    const container = await server.newContainer();
    const writeOnly = containerSas(container, "cw");
    await withStore(container, { AZURE_STORAGE_SAS_TOKEN: writeOnly }, async (store) => {
      await store.put("x", bytes("x"));
      const upload = await store.startMultipart("y");
      await upload.complete([await upload.uploadPart(1, bytes("y"))]);
      const given = await store.startMultipart("z");
      await given.uploadPart(1, bytes("z"));
      await given.abort();
      for (
        const call of [
          () => store.bucketExists(),
          () => contentOf(store, "x"),
          () => namesIn(store, ""),
        ]
      ) {
        const error = await rejectsWith(call(), "denied");
        assert.match(error.message, /SAS token \(from AZURE_STORAGE_SAS_TOKEN\)/);
        assertNoSecret(error, [writeOnly, signatureOf(writeOnly)]);
      }
      const [failure] = await store.deleteMany(["x", "y"]);
      assert.equal(failure?.error.kind, "denied");
    });

    const expired = containerSas(container, "rl", new Date(Date.now() - 60_000));
    await withStore(container, { AZURE_STORAGE_SAS_TOKEN: expired }, async (store) => {
      const error = await rejectsWith(store.bucketExists(), "denied");
      assert.match(error.message, /expired at 20/);
      assertNoSecret(error, [expired, signatureOf(expired)]);
    });

    const broken = containerSas(container, "rl").replace(/sig=.{6}/, "sig=AAAAAA");
    await withStore(container, { AZURE_STORAGE_SAS_TOKEN: broken }, async (store) => {
      const error = await rejectsWith(store.bucketExists(), "denied");
      assert.match(error.message, /(is|signature is) wrong/);
      assertNoSecret(error, [broken, signatureOf(broken)]);
    });
  },
});

Deno.test({
  name: "Azure: a missing container is named",
  ignore,
  async fn() {
    if (server === null) return;
    await withStore("there-is-none", { AZURE_STORAGE_KEY: azurite?.key ?? "" }, async (store) => {
      assert.equal(await store.bucketExists(), false);
      const error = await rejectsWith(store.put("x", bytes("x")), "no-bucket");
      assert.match(error.message, /container "there-is-none" at .*the container does not exist/);
    });
  },
});

Deno.test({
  name: "Azure: a clock that differs is named as the reason",
  ignore,
  async fn() {
    if (server === null || azurite === undefined) return;
    const proxy = await startHttpProxy(azurite.origin);
    proxy.intercept(() =>
      azureError(403, "AuthenticationFailed", { date: "Thu, 01 Jan 2026 00:00:00 GMT" })
    );
    const { store } = await openAzureStore("http://a.blob.core.windows.net/c", {
      env: { AZURE_STORAGE_KEY: WRONG_KEY, http_proxy: proxy.origin },
    });
    const error = await rejectsWith(store.head("x"), "denied");
    assert.match(error.message, /clocks differ .* 2026-01-01T00:00:00.000Z/);
    await store.close();
    await proxy.stop();
  },
});

Deno.test("Azure: tokens do not go over http", async () => {
  const { store } = await openAzureStore("http://a.blob.core.windows.net/c", {
    azureCredential: "managed-identity",
    env: { IDENTITY_ENDPOINT: "http://127.0.0.1:1/", IDENTITY_HEADER: "x" },
  });
  const error = await rejectsWith(store.head("x"), "invalid");
  assert.match(error.message, /https/);
  await store.close();
});

// The library of identities reads the environment of its process.
Deno.test("Azure: where there is no identity that is told in seconds", async (test) => {
  const cases = {
    "managed-identity": /--azure-credential managed-identity .*169\.254\.169\.254/,
    "azure-cli": /--azure-credential azure-cli .*(CLI|az)/,
    "default": /--azure-credential default/,
    "": /none of AZURE_STORAGE_CONNECTION_STRING, .* default credentials/,
  };
  for (const [choice, message] of Object.entries(cases)) {
    await test.step(choice || "nothing set", async () => {
      const begin = performance.now();
      const { kind, message: told } = await inChild({
        url: "https://account.blob.core.windows.net/container",
        choice,
      }, { PATH: "/nowhere" });
      assert.equal(kind, "denied", told);
      assert.match(told, message);
      assert.ok(!told.includes("\n"));
      assert.ok(performance.now() - begin < 15_000, `took ${performance.now() - begin} ms`);
    });
  }
});

Deno.test("Azure: a source of tokens that never answers is given up", async () => {
  const silent = http.createServer(() => {});
  await new Promise<void>((resolve) => silent.listen(0, "127.0.0.1", resolve));
  const address = silent.address();
  const port = typeof address === "object" ? address?.port : undefined;
  try {
    const { kind, message } = await inChild({
      url: "https://account.blob.core.windows.net/container",
      choice: "managed-identity",
      tokenTimeout: 1500,
    }, { IDENTITY_ENDPOINT: `http://127.0.0.1:${port}/`, IDENTITY_HEADER: "x" });
    assert.equal(kind, "denied");
    assert.match(message, /no answer within 1.5 s/);
  } finally {
    silent.closeAllConnections();
    silent.close();
  }
});

Deno.test({
  name: "Azure: tokens of a managed identity work, one for many requests",
  ignore,
  async fn() {
    const directory = await mkdtemp(join(tmpdir(), "barman-cloud-azure-"));
    const path = (name: string) => join(directory, name);
    await writeFile(path("cert.pem"), CERTIFICATE);
    await writeFile(path("key.pem"), KEY);
    await writeFile(path("ca.pem"), AUTHORITY);
    const tls = await startAzurite({
      tls: { certificate: path("cert.pem"), key: path("key.pem") },
    });
    let asked = 0;
    const identity = http.createServer((request, response) => {
      asked++;
      const resource = new URL(request.url ?? "/", "http://x").searchParams.get("resource");
      const now = Math.floor(Date.now() / 1000);
      response.setHeader("content-type", "application/json");
      response.end(JSON.stringify({
        access_token: unsignedToken({ aud: resource, nbf: now - 60, iat: now, exp: now + 3600 }),
        expires_on: `${now + 3600}`,
        resource,
        token_type: "Bearer",
      }));
    });
    await new Promise<void>((resolve) => identity.listen(0, "127.0.0.1", resolve));
    const address = identity.address();
    const port = typeof address === "object" ? address?.port : undefined;
    try {
      const { kind, message } = await inChild({
        url: `${tls.origin.replace("127.0.0.1", "localhost")}/${tls.account}`,
        choice: "managed-identity",
        use: true,
      }, {
        IDENTITY_ENDPOINT: `http://127.0.0.1:${port}/token`,
        IDENTITY_HEADER: "x",
        REQUESTS_CA_BUNDLE: path("ca.pem"),
      });
      assert.equal(kind, "fine", message);
      assert.equal(asked, 1);
    } finally {
      identity.closeAllConnections();
      identity.close();
      await tls.stop();
      await rm(directory, { recursive: true });
    }
  },
});

async function useAll(store: ObjectStore): Promise<void> {
  assert.equal(await store.bucketExists(), true);
  await store.put("a/x y", bytes("one"), { tags: [["k", "v"]] });
  const upload = await store.startMultipart("a/z");
  await upload.complete([await upload.uploadPart(1, bytes("two"))]);
  assert.deepEqual(await namesIn(store, "a/"), ["a/x y", "a/z"]);
  assert.deepEqual(await contentOf(store, "a/x y"), bytes("one"));
  assert.deepEqual(await store.deleteMany(["a/x y", "a/z", "a/none"]), []);
  await rejectsWith(store.head("a/z"), "not-found");
}

/** Over Azure's own address, with HTTP_PROXY leading to the emulator. */
async function withStore(
  container: string,
  env: Record<string, string>,
  use: (store: ObjectStore) => Promise<void>,
  options: Partial<StoreOptions> = {},
): Promise<void> {
  if (azurite === undefined) throw new Error("There is no Azurite");
  const proxy = await startHttpProxy(azurite.origin);
  const { store } = await openAzureStore(
    `http://${azurite.account}.blob.core.windows.net/${container}`,
    { ...options, env: { ...env, HTTP_PROXY: proxy.origin } },
  );
  try {
    await use(store);
  } finally {
    await store.close();
    await proxy.stop();
  }
}

function sharedKey(): StorageSharedKeyCredential {
  if (azurite === undefined) throw new Error("There is no Azurite");
  return new StorageSharedKeyCredential(azurite.account, azurite.key);
}

const IN_AN_HOUR = new Date(Date.now() + 3600_000);

function accountSas(permissions: string): string {
  return generateAccountSASQueryParameters({
    permissions: AccountSASPermissions.parse(permissions),
    services: AccountSASServices.parse("b").toString(),
    resourceTypes: AccountSASResourceTypes.parse("sco").toString(),
    expiresOn: IN_AN_HOUR,
    protocol: SASProtocol.HttpsAndHttp,
  }, sharedKey()).toString();
}

function containerSas(container: string, permissions: string, expiresOn = IN_AN_HOUR): string {
  return generateBlobSASQueryParameters({
    containerName: container,
    permissions: ContainerSASPermissions.parse(permissions),
    startsOn: new Date(Date.now() - 3600_000),
    expiresOn,
    protocol: SASProtocol.HttpsAndHttp,
  }, sharedKey()).toString();
}

function signatureOf(token: string): string {
  return new URLSearchParams(token).get("sig") ?? "no signature";
}

/** Neither the error nor its causes may show one, however they are printed. */
function assertNoSecret(error: Error, secrets: readonly string[]): void {
  const texts: string[] = [];
  for (let one: unknown = error; one instanceof Error; one = one.cause) {
    texts.push(one.message, one.stack ?? "", Deno.inspect(one, { depth: 10, showHidden: true }));
  }
  for (const secret of secrets) {
    for (const text of texts) {
      assert.ok(!text.includes(secret), `${secret} in ${text}`);
      assert.ok(!text.includes(encodeURIComponent(secret)), `${secret} in ${text}`);
    }
  }
}

interface ChildTask {
  readonly url: string;
  readonly choice: string;
  readonly tokenTimeout?: number;
  readonly use?: boolean;
}

function inChild(
  task: ChildTask,
  env: Record<string, string>,
): Promise<{ readonly kind: string; readonly message: string }> {
  const child = fileURLToPath(new URL("token_child.ts", import.meta.url));
  const root = fileURLToPath(new URL("../../../", import.meta.url));
  return new Promise((resolve, reject) => {
    const running = spawn(
      Deno.execPath(),
      ["run", "-A", "--no-check", child, JSON.stringify(task)],
      {
        cwd: root,
        env: {
          PATH: process.env["PATH"],
          HOME: process.env["HOME"],
          DENO_DIR: process.env["DENO_DIR"],
          NO_COLOR: "1",
          ...env,
        },
        stdio: ["ignore", "pipe", "pipe"],
        timeout: 60_000,
      },
    );
    let output = "";
    let errors = "";
    running.stdout.on("data", (chunk) => output += chunk);
    running.stderr.on("data", (chunk) => errors += chunk);
    running.on("error", reject);
    running.on("close", () => {
      try {
        resolve(JSON.parse(output));
      } catch {
        reject(new Error(`The child said: ${output} ${errors}`));
      }
    });
  });
}

function unsignedToken(claims: Record<string, unknown>): string {
  const part = (value: unknown) => Buffer.from(JSON.stringify(value)).toString("base64url");
  const identity = crypto.randomUUID();
  return [
    part({ alg: "RS256", typ: "JWT" }),
    part({
      iss: `https://sts.windows.net/${identity}/`,
      tid: identity,
      oid: identity,
      sub: identity,
      ver: "1.0",
      ...claims,
    }),
    Buffer.from("none").toString("base64url"),
  ].join(".");
}
