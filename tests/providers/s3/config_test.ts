import assert from "node:assert/strict";
import { mkdtemp, rm, writeFile } from "node:fs/promises";
import { createServer } from "node:http";
import { tmpdir, userInfo } from "node:os";
import { join } from "node:path";
import { isStoreError } from "../../../providers/object_store.ts";
import type { StoreOptions } from "../../../providers/open.ts";
import { instanceRegion, readS3Config } from "../../../providers/s3/config.ts";
import { AUTHORITY } from "./test_certificate.ts";

const CONFIG = `[default]
region = eu-south-1
[profile minio]
region = eu-west-3
endpoint_url = http://minio:9000
max_attempts = 7
request_checksum_calculation = when_required
s3 =
  addressing_style = virtual
[profile split]
services = mine
[services mine]
s3 =
  endpoint_url = http://split:1
`;

async function withFiles(run: (env: Record<string, string>) => Promise<void>): Promise<void> {
  const directory = await mkdtemp(join(tmpdir(), "s3-config-"));
  const at = (name: string) => join(directory, name);
  await writeFile(at("config"), CONFIG);
  await writeFile(
    at("credentials"),
    "[only-keys]\naws_access_key_id = a\naws_secret_access_key = b\n" +
      "[all-in-one]\naws_access_key_id = a\naws_secret_access_key = b\n" +
      "region = eu-north-1\nendpoint_url = http://one:9000\n",
  );
  await writeFile(at("ca.pem"), AUTHORITY);
  await writeFile(at("empty.pem"), "nothing");
  try {
    await run({
      HOME: directory,
      AWS_CONFIG_FILE: at("config"),
      AWS_SHARED_CREDENTIALS_FILE: at("credentials"),
    });
  } finally {
    await rm(directory, { recursive: true });
  }
}

const read = (env: Record<string, string>, options: Omit<StoreOptions, "env"> = {}) =>
  readS3Config({ ...options, env });

Deno.test("S3 settings: option, then environment, then the profile", async () => {
  await withFiles(async (env) => {
    const plain = await read(env);
    assert.equal(plain.region, "eu-south-1");
    assert.equal(plain.endpoint, undefined);
    assert.equal(plain.forcePathStyle, false);
    assert.equal(plain.requestChecksums, "WHEN_SUPPORTED");
    assert.equal(plain.maxAttempts, undefined);

    const minio = await read({ ...env, AWS_PROFILE: "minio" });
    assert.equal(minio.region, "eu-west-3");
    assert.equal(minio.endpoint, "http://minio:9000");
    assert.equal(minio.forcePathStyle, false, "the profile says virtual");
    assert.equal(minio.requestChecksums, "WHEN_REQUIRED");
    assert.equal(minio.maxAttempts, 7);

    const over = await read({
      ...env,
      AWS_PROFILE: "minio",
      AWS_ENDPOINT_URL: "http://e:1",
      AWS_ENDPOINT_URL_S3: "http://e:2",
      AWS_DEFAULT_REGION: "r-2",
      AWS_MAX_ATTEMPTS: "2",
      AWS_REQUEST_CHECKSUM_CALCULATION: "when_supported",
    }, { addressingStyle: "path" });
    assert.equal(over.endpoint, "http://e:2");
    assert.equal(over.region, "r-2");
    assert.equal(over.maxAttempts, 2);
    assert.equal(over.forcePathStyle, true);
    assert.equal(over.requestChecksums, "WHEN_SUPPORTED");

    const option = await read({ ...env, AWS_ENDPOINT_URL_S3: "http://e:2" }, {
      endpointUrl: "https://o",
    });
    assert.equal(option.endpoint, "https://o");
    assert.equal(option.forcePathStyle, true);
    const virtual = await read(env, { endpointUrl: "https://o", addressingStyle: "virtual" });
    assert.equal(virtual.forcePathStyle, false);
    assert.equal((await read({ ...env, AWS_PROFILE: "split" })).endpoint, "http://split:1");
    const ignored = {
      ...env,
      AWS_PROFILE: "minio",
      AWS_IGNORE_CONFIGURED_ENDPOINT_URLS: "true",
    };
    assert.equal((await read(ignored)).endpoint, undefined);
  });
});

Deno.test("S3 settings: those in the credentials file count, as for boto3", async () => {
  await withFiles(async (env) => {
    const one = await read({ ...env, AWS_PROFILE: "all-in-one" });
    assert.equal(one.region, "eu-north-1");
    assert.equal(one.endpoint, "http://one:9000");
  });
});

Deno.test("S3 settings: without HOME the home of the user is the system's", async () => {
  assert.equal((await read({})).configFile, join(userInfo().homedir ?? "", ".aws", "config"));
});

Deno.test("S3 settings: keys of the environment win over AWS_PROFILE, not over the option", async () => {
  await withFiles(async (env) => {
    const keys = {
      ...env,
      AWS_ACCESS_KEY_ID: "k",
      AWS_SECRET_ACCESS_KEY: "s",
      AWS_PROFILE: "minio",
    };
    assert.deepEqual((await read(keys)).environmentKeys, {
      accessKeyId: "k",
      secretAccessKey: "s",
    });
    assert.equal((await read(keys, { awsProfile: "only-keys" })).environmentKeys, undefined);
    const token = { ...keys, AWS_SESSION_TOKEN: "t" };
    assert.equal((await read(token)).environmentKeys?.sessionToken, "t");
  });
});

Deno.test("S3 settings: certificates from AWS_CA_BUNDLE, else REQUESTS_CA_BUNDLE", async () => {
  await withFiles(async (env) => {
    const ca = join(env["HOME"] ?? "", "ca.pem");
    assert.equal((await read({ ...env, AWS_CA_BUNDLE: ca })).ca, AUTHORITY);
    assert.equal((await read({ ...env, REQUESTS_CA_BUNDLE: ca })).ca, AUTHORITY);
    assert.equal((await read(env)).ca, undefined);
  });
});

Deno.test("S3 settings: what can't be right is refused, and named", async () => {
  await withFiles(async (env) => {
    const home = env["HOME"] ?? "";
    const cases: Array<[Record<string, string>, Omit<StoreOptions, "env">, RegExp]> = [
      [{}, { awsProfile: "nope" }, /no AWS profile "nope"/],
      [{}, { endpointUrl: "localhost:9000" }, /localhost:9000.*http:\/\//],
      [{ AWS_MAX_ATTEMPTS: "0" }, {}, /AWS_MAX_ATTEMPTS/],
      [{ AWS_MAX_ATTEMPTS: "x" }, {}, /AWS_MAX_ATTEMPTS/],
      [{ AWS_RESPONSE_CHECKSUM_VALIDATION: "no" }, {}, /AWS_RESPONSE_CHECKSUM_VALIDATION/],
      [{ AWS_CA_BUNDLE: join(home, "absent.pem") }, {}, /AWS_CA_BUNDLE.*ENOENT/],
      [{ AWS_CA_BUNDLE: join(home, "empty.pem") }, {}, /no PEM certificate/],
    ];
    for (const [more, options, message] of cases) {
      await assert.rejects(
        read({ ...env, ...more }, options),
        (error) => isStoreError(error, "invalid") && message.test(error.message),
        String(message),
      );
    }
  });
});

Deno.test("S3 settings: the region of an instance comes from its metadata, with a token", async () => {
  const server = createServer((request, response) => {
    if (request.method === "PUT" && request.url === "/latest/api/token") response.end("tok");
    else if (
      request.url === "/latest/meta-data/placement/region" &&
      request.headers["x-aws-ec2-metadata-token"] === "tok"
    ) response.end("ap-south-2");
    else response.writeHead(404).end();
  });
  await new Promise<void>((resolve) => server.listen(0, "127.0.0.1", resolve));
  const address = server.address();
  assert.ok(address !== null && typeof address !== "string");
  const env = { AWS_EC2_METADATA_SERVICE_ENDPOINT: `http://127.0.0.1:${address.port}` };
  try {
    assert.equal(await instanceRegion(env), "ap-south-2");
    assert.equal(await instanceRegion({ ...env, AWS_EC2_METADATA_DISABLED: "true" }), undefined);
  } finally {
    server.closeAllConnections();
    await new Promise((resolve) => server.close(resolve));
  }
  assert.equal(await instanceRegion(env), undefined);
});
