/** Buckets of the test's S3 server, looked at and filled without the code under test. */
import {
  DeleteObjectsCommand,
  GetObjectCommand,
  GetObjectTaggingCommand,
  HeadObjectCommand,
  ListMultipartUploadsCommand,
  ListObjectsV2Command,
  PutObjectCommand,
  S3Client,
} from "@aws-sdk/client-s3";
import type { S3ForTests } from "../../scripts/servers/s3_for_tests.ts";

/** Disposing removes the objects: the test server keeps all in memory. */
export interface Bucket extends AsyncDisposable {
  readonly name: string;
  readonly url: string;
  /** `--endpoint-url …`, which each command line needs. */
  readonly words: readonly string[];
  readonly env: Readonly<Record<string, string>>;
  /** All keys below a prefix, ascending. */
  keys(prefix?: string): Promise<string[]>;
  get(key: string): Promise<Uint8Array>;
  text(key: string): Promise<string>;
  put(key: string, content: Uint8Array | string): Promise<void>;
  tags(key: string): Promise<Record<string, string>>;
  /** What the store says about an object's encryption. */
  encryption(key: string): Promise<{ algorithm: string | null; key: string | null }>;
  /** Uploads that were begun and neither completed nor aborted. */
  unfinishedUploads(): Promise<string[]>;
}

/** A bucket that is not there. */
export function missingBucket(server: S3ForTests): Bucket {
  return bucketNamed(server, `barman-cloud-missing-${crypto.randomUUID()}`, false);
}

export async function newBucket(server: S3ForTests): Promise<Bucket> {
  return bucketNamed(server, await server.newBucket(), true);
}

function bucketNamed(server: S3ForTests, name: string, exists: boolean): Bucket {
  const client = new S3Client({
    endpoint: server.endpoint,
    region: server.env["AWS_REGION"] ?? "us-east-1",
    forcePathStyle: true,
    credentials: {
      accessKeyId: server.env["AWS_ACCESS_KEY_ID"] ?? "",
      secretAccessKey: server.env["AWS_SECRET_ACCESS_KEY"] ?? "",
    },
  });
  const bucket: Bucket = {
    name,
    url: `s3://${name}/p`,
    words: ["--endpoint-url", server.endpoint],
    env: server.env,
    async keys(prefix = "") {
      const keys: string[] = [];
      let token: string | undefined;
      do {
        const page = await client.send(
          new ListObjectsV2Command({
            Bucket: name,
            Prefix: prefix,
            ...(token === undefined ? {} : { ContinuationToken: token }),
          }),
        );
        for (const { Key } of page.Contents ?? []) if (Key !== undefined) keys.push(Key);
        token = page.NextContinuationToken;
      } while (token !== undefined);
      return keys;
    },
    async get(key) {
      const { Body } = await client.send(new GetObjectCommand({ Bucket: name, Key: key }));
      if (Body === undefined) throw new Error(`${key} came without a body`);
      return await Body.transformToByteArray();
    },
    async text(key) {
      return new TextDecoder().decode(await bucket.get(key));
    },
    async put(key, content) {
      const Body = typeof content === "string" ? new TextEncoder().encode(content) : content;
      await client.send(new PutObjectCommand({ Bucket: name, Key: key, Body }));
    },
    async tags(key) {
      const answer = await client.send(new GetObjectTaggingCommand({ Bucket: name, Key: key }));
      return Object.fromEntries(
        (answer.TagSet ?? []).map((tag) => [tag.Key ?? "", tag.Value ?? ""]),
      );
    },
    async encryption(key) {
      const head = await client.send(new HeadObjectCommand({ Bucket: name, Key: key }));
      return { algorithm: head.ServerSideEncryption ?? null, key: head.SSEKMSKeyId ?? null };
    },
    async unfinishedUploads() {
      const answer = await client.send(new ListMultipartUploadsCommand({ Bucket: name }));
      return (answer.Uploads ?? []).map(({ Key }) => Key ?? "");
    },
    async [Symbol.asyncDispose]() {
      if (exists) {
        const keys = await bucket.keys();
        for (let at = 0; at < keys.length; at += 1000) {
          const Objects = keys.slice(at, at + 1000).map((Key) => ({ Key }));
          await client.send(new DeleteObjectsCommand({ Bucket: name, Delete: { Objects } }));
        }
      }
      client.destroy();
    },
  };
  return bucket;
}
