/** The stores that end-to-end tests run on, as the executable's command line and environment see them. */
import {
  AbortMultipartUploadCommand,
  DeleteObjectCommand,
  GetObjectCommand,
  ListMultipartUploadsCommand,
  ListObjectsV2Command,
  PutObjectCommand,
  S3Client,
} from "@aws-sdk/client-s3";
import { chmodSync, chownSync, mkdirSync, mkdtempSync } from "node:fs";
import { readdir, readFile, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { serverUser } from "../../scripts/servers/postgres_binaries.ts";
import { type S3ForTests, startS3ForTests } from "../../scripts/servers/s3_for_tests.ts";

export type StoreKind = "file" | "s3";

export interface TestStore extends AsyncDisposable {
  readonly kind: StoreKind | "azure" | "gcs";
  readonly url: string;
  /** Options that the executable needs for it. */
  readonly options: readonly string[];
  /** The whole environment that the executable needs for it. */
  readonly env: Readonly<Record<string, string>>;
  /** Where the store answers HTTP: for a proxy before it. */
  readonly endpoint: string | undefined;
  /** Paths below the URL, sorted. */
  paths(): Promise<string[]>;
  read(path: string): Promise<Uint8Array>;
  write(path: string, bytes: Uint8Array): Promise<void>;
  remove(path: string): Promise<void>;
  /** What unfinished uploads have left behind. */
  leftovers(): Promise<string[]>;
}

/** Null where there is none; it has then been said what would enable it. */
const s3 = await startS3ForTests();
if (s3 !== null) Deno.test.afterAll(() => s3.stop());

export const haveS3 = s3 !== null;

/** Register a test for each store. On S3 it is ignored where there is no server, which was said loudly. */
export function testOnStores(
  name: string,
  body: (store: TestStore) => Promise<void>,
  kinds: readonly StoreKind[] = ["file", "s3"],
): void {
  for (const kind of kinds) {
    Deno.test({
      name: `${name} (${kind})`,
      ignore: kind === "s3" && !haveS3,
      fn: async () => {
        await using store = await newStore(kind);
        await body(store);
      },
    });
  }
}

/** An empty store. */
export async function newStore(kind: StoreKind): Promise<TestStore> {
  if (kind === "file") return fileStore();
  if (s3 === null) throw new Error("There is no S3 server for tests");
  return await s3Store(s3);
}

function fileStore(): TestStore {
  const directory = mkdtempSync(join(tmpdir(), "bce2e-store-"));
  chmodSync(directory, 0o755);
  const root = join(directory, "store");
  mkdirSync(root);
  const user = serverUser();
  if (user !== undefined) chownSync(root, user.uid, user.gid);
  const files = async (): Promise<string[]> => {
    const entries = await readdir(root, { recursive: true, withFileTypes: true });
    return entries.filter((entry) => entry.isFile())
      .map((entry) => join(entry.parentPath, entry.name).slice(root.length + 1)).sort();
  };
  const isTemporary = (path: string) => /(^|\/)\.barman-cloud\.[^/]*$/.test(path);
  return {
    kind: "file",
    url: `file://${root}`,
    options: [],
    env: {},
    endpoint: undefined,
    paths: async () => (await files()).filter((path) => !isTemporary(path)),
    read: (path) => readFile(join(root, path)),
    write: (path, bytes) => writeFile(join(root, path), bytes),
    remove: (path) => rm(join(root, path)),
    leftovers: async () => (await files()).filter(isTemporary),
    [Symbol.asyncDispose]: () => rm(directory, { recursive: true, force: true }),
  };
}

async function s3Store(server: S3ForTests): Promise<TestStore> {
  const bucket = await server.newBucket();
  const prefix = `e2e-${crypto.randomUUID().slice(0, 8)}`;
  const client = new S3Client({
    endpoint: server.endpoint,
    region: server.env["AWS_REGION"] ?? "us-east-1",
    forcePathStyle: true,
    ...(server.env["AWS_ACCESS_KEY_ID"] === undefined ? {} : {
      credentials: {
        accessKeyId: server.env["AWS_ACCESS_KEY_ID"],
        secretAccessKey: server.env["AWS_SECRET_ACCESS_KEY"] ?? "",
      },
    }),
  });
  const at = (path: string) => ({ Bucket: bucket, Key: `${prefix}/${path}` });
  const uploads = async () =>
    (await client.send(new ListMultipartUploadsCommand({ Bucket: bucket }))).Uploads ?? [];
  const paths = async (): Promise<string[]> => {
    const found: string[] = [];
    let token: string | undefined;
    do {
      const page = await client.send(
        new ListObjectsV2Command({
          Bucket: bucket,
          Prefix: `${prefix}/`,
          ...(token === undefined ? {} : { ContinuationToken: token }),
        }),
      );
      for (const { Key } of page.Contents ?? []) {
        if (Key !== undefined) found.push(Key.slice(prefix.length + 1));
      }
      token = page.NextContinuationToken;
    } while (token !== undefined);
    return found.sort();
  };
  const remove = async (path: string) => {
    await client.send(new DeleteObjectCommand(at(path)));
  };
  return {
    kind: "s3",
    url: `s3://${bucket}/${prefix}`,
    options: ["--endpoint-url", server.endpoint],
    env: Object.fromEntries(
      // Without what the test processes share among themselves.
      Object.entries(server.env).filter(([name]) => !name.startsWith("TEST_")),
    ),
    endpoint: server.endpoint,
    paths,
    async read(path) {
      const { Body } = await client.send(new GetObjectCommand(at(path)));
      if (Body === undefined) throw new Error(`Nothing came with ${path}`);
      return await Body.transformToByteArray();
    },
    async write(path, bytes) {
      await client.send(new PutObjectCommand({ ...at(path), Body: bytes }));
    },
    remove,
    leftovers: async () => (await uploads()).map(({ Key }) => Key ?? "?"),
    async [Symbol.asyncDispose]() {
      for (const { Key, UploadId } of await uploads()) {
        await client.send(
          new AbortMultipartUploadCommand({ Bucket: bucket, Key, UploadId }),
        );
      }
      for (const path of await paths()) await remove(path);
      client.destroy();
    },
  };
}
