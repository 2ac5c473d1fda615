/**
 * The S3 server that tests use: a throwaway Ceph RGW where its packages are installed, else the one
 * that the environment names, else versitygw, which Go builds, else none.
 *
 * - `TEST_S3_ENDPOINT` with the AWS SDK's variables (AWS_ACCESS_KEY_ID, AWS_PROFILE, AWS_REGION …)
 * - `TEST_S3_BUCKET`: use this bucket instead of making and removing one for each test file
 */
import {
  DeleteBucketCommand,
  DeleteObjectCommand,
  ListObjectsV2Command,
  S3Client,
} from "@aws-sdk/client-s3";
import { skipUnless } from "../../tests/skips.ts";
import { CEPH_RGW_INSTALL, cephRgwInstalled, startCephRgw } from "./ceph_rgw.ts";
import { clientOf, environmentOf, type Keys, makeBucket } from "./s3_access.ts";
import { startVersitygw, versitygwForTests } from "./versitygw.ts";

export interface S3ForTests {
  /** `named` by the environment. */
  readonly kind: "ceph" | "versitygw" | "named";
  readonly endpoint: string;
  /**
   * The environment for stores and for processes under test: credentials, and nothing of the
   * developer's own. A process with it that calls `startS3ForTests` shares this server.
   */
  readonly env: Readonly<Record<string, string>>;
  /** What only Ceph RGW has; undefined on other servers. */
  readonly rgw: RgwForTests | undefined;
  /** The name of an empty bucket, or of TEST_S3_BUCKET. */
  newBucket(): Promise<string>;
  /** End the server if this call started it; remove the buckets if it is somebody else's. */
  stop(): Promise<void>;
}

export interface RgwForTests {
  readonly tlsEndpoint: string;
  readonly caFile: string;
  readonly kmsKeyId: string;
  /** A user who may not touch the first one's buckets. */
  readonly stranger: { readonly accessKeyId: string; readonly secretAccessKey: string };
}

/** Holds the server that another process of the same test run has started, as JSON. */
const SHARED = "TEST_S3_SHARED";

interface Shared {
  readonly endpoint: string;
  readonly keys: Keys;
  readonly rgw?: RgwForTests | undefined;
}

/** @returns null when there is none; what would enable it has then been said. */
export async function startS3ForTests(): Promise<S3ForTests | null> {
  const shared = Deno.env.get(SHARED);
  if (shared !== undefined && shared !== "") return fromShared(JSON.parse(shared), async () => {});
  if (await cephRgwInstalled()) return await startRgw();
  const endpoint = Deno.env.get("TEST_S3_ENDPOINT");
  if (endpoint !== undefined && endpoint !== "") return named(endpoint);
  const program = await versitygwForTests();
  if (program !== null) {
    skipUnless(
      false,
      "What versitygw lacks of S3: KMS and customers' keys, TLS, permissions, object lock",
      CEPH_RGW_INSTALL,
    );
    const { endpoint, accessKeyId, secretAccessKey, stop } = await startVersitygw(program);
    return fromShared({ endpoint, keys: { accessKeyId, secretAccessKey } }, stop);
  }
  skipUnless(
    false,
    "Tests against a real S3 server",
    `${CEPH_RGW_INSTALL}   (or set TEST_S3_ENDPOINT, TEST_S3_BUCKET, AWS_ACCESS_KEY_ID, ` +
      "AWS_SECRET_ACCESS_KEY, AWS_REGION)",
  );
  return null;
}

async function startRgw(): Promise<S3ForTests> {
  const server = await startCephRgw({ tls: true });
  const { tlsEndpoint, caFile } = server;
  if (tlsEndpoint === undefined || caFile === undefined) throw new Error("RGW came without TLS");
  const { endpoint, accessKeyId, secretAccessKey, kmsKeyId } = server;
  const rgw = { tlsEndpoint, caFile, kmsKeyId, stranger: await server.addUser() };
  return fromShared({ endpoint, keys: { accessKeyId, secretAccessKey }, rgw }, server.stop);
}

function fromShared(shared: Shared, stop: () => Promise<void>): S3ForTests {
  const { endpoint, keys, rgw } = shared;
  const env = { ...environmentOf(keys), [SHARED]: JSON.stringify(shared) };
  const client = clientOf(endpoint, keys);
  return {
    kind: rgw === undefined ? "versitygw" : "ceph",
    endpoint,
    env,
    rgw,
    newBucket: () => makeBucket(client),
    async stop() {
      client.destroy();
      await stop();
    },
  };
}

function named(endpoint: string): S3ForTests {
  const env: Record<string, string> = {};
  for (const [name, value] of Object.entries(Deno.env.toObject())) {
    if (name.startsWith("AWS_") || name === "HOME" || /^(https?|no)_proxy$/i.test(name)) {
      env[name] = value;
    }
  }
  const client = new S3Client({
    endpoint,
    region: env["AWS_REGION"] ?? env["AWS_DEFAULT_REGION"] ?? "us-east-1",
    forcePathStyle: true,
  });
  const bucket = Deno.env.get("TEST_S3_BUCKET");
  const made: string[] = [];
  return {
    kind: "named",
    endpoint,
    env,
    rgw: undefined,
    async newBucket() {
      if (bucket !== undefined && bucket !== "") return bucket;
      const name = await makeBucket(client);
      made.push(name);
      return name;
    },
    async stop() {
      for (const name of made) await removeBucket(client, name);
      client.destroy();
    },
  };
}

async function removeBucket(client: S3Client, Bucket: string): Promise<void> {
  for (;;) {
    const { Contents = [] } = await client.send(new ListObjectsV2Command({ Bucket }));
    if (Contents.length === 0) break;
    for (const { Key } of Contents) await client.send(new DeleteObjectCommand({ Bucket, Key }));
  }
  await client.send(new DeleteBucketCommand({ Bucket }));
}
