import assert from "node:assert/strict";
import { readAzureConfig } from "../../../providers/azure/config.ts";
import { parseConnectionString } from "../../../providers/azure/connection_string.ts";
import { isStoreError } from "../../../providers/object_store.ts";
import { providerOfUrl, type StoreOptions } from "../../../providers/open.ts";

const KEY = Buffer.from("this is the key of an account").toString("base64");
const SAS = "sv=2024-11-04&sp=rl&sig=c2VjcmV0c2lnbmF0dXJl";
const CONNECTION_STRING =
  `DefaultEndpointsProtocol=https;AccountName=theirs;AccountKey=${KEY};EndpointSuffix=core.windows.net`;

Deno.test("hosts of Azure's clouds are recognised, others are not", () => {
  for (
    const host of [
      "a.blob.core.windows.net",
      "a-secondary.blob.core.windows.net",
      "a.privatelink.blob.core.windows.net",
      "a.z12.blob.storage.azure.net",
      "a.blob.core.chinacloudapi.cn",
      "A.Blob.Core.UsGovCloudApi.net",
      "a.blob.core.cloudapi.de",
    ]
  ) assert.equal(providerOfUrl(`https://${host}/c/p`), "azure-blob-storage", host);
  for (
    const url of [
      "https://a.blob.core.windows.net.example.com/c",
      "https://blob.core.windows.net/c",
      "https://example.com/a.blob.core.windows.net/c",
      "http://127.0.0.1:10000/a/c",
      "https://a.queue.core.windows.net/c",
    ]
  ) assert.equal(providerOfUrl(url), "aws-s3", url);
  assert.equal(providerOfUrl("https://a.blob.core.windows.net"), "azure-blob-storage");
});

Deno.test("a URL of an account gives endpoint, container and path as they are", async () => {
  const cases: Record<string, [endpoint: string, container: string, prefix: string]> = {
    "https://a.blob.core.windows.net/c": ["https://a.blob.core.windows.net", "c", ""],
    "https://a.blob.core.windows.net/c/": ["https://a.blob.core.windows.net", "c", ""],
    "https://a.blob.core.windows.net/c/p": ["https://a.blob.core.windows.net", "c", "p"],
    "https://a.blob.core.windows.net/c/p/": ["https://a.blob.core.windows.net", "c", "p/"],
    "https://a.blob.core.windows.net/c//p/q": ["https://a.blob.core.windows.net", "c", "p/q"],
    "http://a.blob.core.windows.net/c/%20x?y#z": ["http://a.blob.core.windows.net", "c", "%20x"],
    "https://a.blob.core.chinacloudapi.cn/c/p": ["https://a.blob.core.chinacloudapi.cn", "c", "p"],
    "https://backup.example.com/c/p": ["https://backup.example.com", "c", "p"],
  };
  for (const [url, expected] of Object.entries(cases)) {
    const { endpoint, container, prefix } = await config(url, { AZURE_STORAGE_SAS_TOKEN: SAS });
    assert.deepEqual([endpoint, container, prefix], expected, url);
  }
});

Deno.test("URLs that can't be right are refused without repeating secrets", async () => {
  const env = { AZURE_STORAGE_SAS_TOKEN: SAS };
  for (
    const [url, reason] of [
      ["https://a.blob.core.windows.net", /names no container/],
      ["https://a.blob.core.windows.net/", /names no container/],
      ["azure://a/c", /write https:\/\/ACCOUNT/],
      ["https:///c", /write https:\/\/ACCOUNT/],
      ["https://user:hunter2@a.blob.core.windows.net/c", /user name/],
      [`https://a.blob.core.windows.net/c?${SAS}`, /AZURE_STORAGE_SAS_TOKEN/],
      ["http://127.0.0.1:10000/a/c", /AZURE_STORAGE_CONNECTION_STRING/],
      ["http://azurite/a/c", /AZURE_STORAGE_CONNECTION_STRING/],
      ["https://[::1]/a/c", /AZURE_STORAGE_CONNECTION_STRING/],
    ] as const
  ) await refused(config(url, env), reason);
  await refused(
    config("http://127.0.0.1:10000/a/c", { AZURE_STORAGE_CONNECTION_STRING: CONNECTION_STRING }, {
      azureCredential: "default",
    }),
    /--azure-credential/,
  );
});

Deno.test("credentials come by Barman's precedence", async () => {
  const url = "https://mine.blob.core.usgovcloudapi.net/c/p";
  const all = {
    AZURE_STORAGE_CONNECTION_STRING: CONNECTION_STRING,
    AZURE_STORAGE_SAS_TOKEN: `?${SAS}`,
    AZURE_STORAGE_KEY: KEY,
  };
  const { AZURE_STORAGE_CONNECTION_STRING: _, ...withoutString } = all;
  const authorityHost = "https://login.microsoftonline.us";

  const byOption = await config(url, all, { azureCredential: "managed-identity" });
  assert.deepEqual(byOption.credential, {
    kind: "token",
    choice: "managed-identity",
    authorityHost,
  });
  assert.equal(byOption.endpoint, "https://mine.blob.core.usgovcloudapi.net");

  const byString = await config(url, all);
  assert.deepEqual(byString.credential, { kind: "key", account: "theirs", key: KEY });
  assert.equal(byString.endpoint, "https://theirs.blob.core.windows.net");
  assert.deepEqual([byString.container, byString.prefix], ["c", "p"]);

  assert.deepEqual((await config(url, withoutString)).credential, { kind: "sas", token: SAS });
  assert.deepEqual((await config(url, { AZURE_STORAGE_KEY: KEY })).credential, {
    kind: "key",
    account: "mine",
    key: KEY,
  });
  assert.deepEqual((await config(url, { AZURE_STORAGE_KEY: "" })).credential, {
    kind: "token",
    choice: "default",
    authorityHost,
  });
});

Deno.test("with a connection string Barman's URLs of other hosts name the account first", async () => {
  const env = { AZURE_STORAGE_CONNECTION_STRING: CONNECTION_STRING };
  const cases: Record<string, [container: string, prefix: string]> = {
    "http://127.0.0.1:10000/theirs/c/p/": ["c", "p/"],
    "https://backup.example.com/theirs/c/p": ["c", "p"],
    "https://theirs.blob.core.chinacloudapi.cn/theirs/c/p": ["c", "p"],
    "https://theirs.blob.core.chinacloudapi.cn/c/p": ["c", "p"],
    "https://theirs.blob.core.chinacloudapi.cn/theirs": ["theirs", ""],
    "https://theirs.blob.core.windows.net/theirs/c/p": ["theirs", "c/p"],
  };
  for (const [url, expected] of Object.entries(cases)) {
    const { container, prefix } = await config(url, env);
    assert.deepEqual([container, prefix], expected, url);
  }
  await refused(config("http://127.0.0.1:10000/theirs", env), /names no container/);
});

Deno.test("a key on a custom domain needs the account's name", async () => {
  const url = "https://backup.example.com/c";
  await refused(config(url, { AZURE_STORAGE_KEY: KEY }), /AZURE_STORAGE_ACCOUNT/);
  const { credential } = await config(url, {
    AZURE_STORAGE_KEY: KEY,
    AZURE_STORAGE_ACCOUNT: "acc",
  });
  assert.deepEqual(credential, { kind: "key", account: "acc", key: KEY });
});

Deno.test("secrets that can't be right are refused without being repeated", async () => {
  const url = "https://a.blob.core.windows.net/c";
  await refused(config(url, { AZURE_STORAGE_KEY: "hunter2 hunter2" }), /AZURE_STORAGE_KEY/);
  await refused(config(url, { AZURE_STORAGE_KEY: "aHVudGVyMg==" }), /AZURE_STORAGE_KEY/);
  await refused(config(url, { AZURE_STORAGE_SAS_TOKEN: "hunter2" }), /AZURE_STORAGE_SAS_TOKEN/);
  await refused(config(url, { REQUESTS_CA_BUNDLE: "/nowhere/ca.pem" }), /REQUESTS_CA_BUNDLE/);
});

Deno.test("connection strings are read in all their forms", () => {
  const endpoint = (text: string) => parseConnectionString(text).endpoint;
  assert.equal(endpoint(CONNECTION_STRING), "https://theirs.blob.core.windows.net");
  assert.equal(
    endpoint(`AccountName=a;AccountKey=${KEY};DefaultEndpointsProtocol=http;EndpointSuffix=x.cn;`),
    "http://a.blob.x.cn",
  );
  assert.equal(endpoint(`AccountName=a;AccountKey=${KEY}`), "https://a.blob.core.windows.net");
  assert.deepEqual(
    parseConnectionString(`BlobEndpoint=https://b.example/;SharedAccessSignature=?${SAS}`),
    {
      endpoint: "https://b.example",
      account: undefined,
      key: undefined,
      sas: SAS,
    },
  );
  assert.equal(endpoint("UseDevelopmentStorage=true"), "http://127.0.0.1:10000/devstoreaccount1");
  assert.equal(
    endpoint(`accountname=a; ACCOUNTKEY=${KEY} ;blobendpoint=http://h:1/a/`),
    "http://h:1/a",
  );
  for (
    const [text, reason] of [
      ["hunter2", /NAME=VALUE/],
      ["AccountName=a", /neither AccountKey nor SharedAccessSignature/],
      [`AccountKey=${KEY}`, /neither BlobEndpoint nor AccountName/],
      [`AccountKey=${KEY};BlobEndpoint=https://b.example`, /no AccountName/],
      [`AccountName=a;AccountKey=${KEY};BlobEndpoint=nonsense`, /BlobEndpoint/],
      [`AccountName=a;AccountKey=${KEY};DefaultEndpointsProtocol=ftp`, /DefaultEndpointsProtocol/],
    ] as const
  ) {
    assert.throws(() => parseConnectionString(text), (error) => {
      assert.ok(isStoreError(error, "invalid"), text);
      assert.match(error.message, reason);
      assert.doesNotMatch(error.message, /hunter2/);
      assert.ok(!error.message.includes(KEY));
      return true;
    });
  }
});

Deno.test("sizes are Barman's, a connection string's its SDK's", async () => {
  const MiB = 1024 ** 2;
  const url = "https://a.blob.core.windows.net/c";
  const sas = { AZURE_STORAGE_SAS_TOKEN: SAS };
  const string = { AZURE_STORAGE_CONNECTION_STRING: CONNECTION_STRING };
  const archive = { maxBlockSize: 3 * MiB, maxConcurrency: 2, maxSinglePutSize: 5 * MiB };
  const sizes = async (...words: Parameters<typeof config>) => (await config(...words)).sizes;
  assert.deepEqual(await sizes(url, sas), { singlePut: 4 * MiB, block: 2 * MiB, concurrency: 8 });
  assert.deepEqual(await sizes(url, sas, archive), {
    singlePut: 5 * MiB,
    block: 3 * MiB,
    concurrency: 2,
  });
  assert.deepEqual(await sizes(url, string), {
    singlePut: 64 * MiB,
    block: 4 * MiB,
    concurrency: 8,
  });
  assert.deepEqual(await sizes(url, string, archive), {
    singlePut: 64 * MiB,
    block: 4 * MiB,
    concurrency: 2,
  });
});

function config(
  url: string,
  env: Record<string, string>,
  options: Partial<StoreOptions> = {},
): ReturnType<typeof readAzureConfig> {
  return readAzureConfig(url, { ...options, env });
}

async function refused(promise: Promise<unknown>, reason: RegExp): Promise<void> {
  await assert.rejects(promise, (error) => {
    assert.ok(isStoreError(error, "invalid"), `${error}`);
    assert.match(error.message, reason);
    assert.doesNotMatch(error.message, /hunter2|c2VjcmV0|\.$/);
    return true;
  });
}
