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
import { Buffer } from "node:buffer";
import { chmodSync, chownSync, mkdirSync, mkdtempSync } from "node:fs";
import { mkdir, readdir, readFile, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { dirname, join } from "node:path";
import { openStore } from "../../providers/open.ts";
import { type AzureForTests, startAzuriteForTests } from "../../scripts/servers/azurite.ts";
import { type GcsForTests, startGcsFakeForTests } from "../../scripts/servers/fake_gcs_server.ts";
import { minioForTests, startMinio } from "../../scripts/servers/minio.ts";
import { serverUser } from "../../scripts/servers/postgres_binaries.ts";
import type { S3Server } from "../../scripts/servers/s3_access.ts";
import { type S3ForTests, startS3ForTests } from "../../scripts/servers/s3_for_tests.ts";

/** The last two are looked at by our own provider, since their servers understand little else. */
export type StoreKind = "file" | "s3" | "minio" | "azure" | "google";

export const ALL_STORES: readonly StoreKind[] = ["file", "s3", "azure", "google"];

export interface TestStore extends AsyncDisposable {
  readonly kind: StoreKind;
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

let minio: Promise<S3Server | null> | undefined;
Deno.test.afterAll(async () => await (await minio)?.stop());

async function startMinioIfThere(): Promise<S3Server | null> {
  const program = await minioForTests();
  return program === null ? null : await startMinio(program);
}

let others: Promise<{ azure: AzureForTests | null; google: GcsForTests | null }> | undefined;

/** Started only where a test asks for them. */
function otherServers() {
  others ??= (async () => ({
    azure: await startAzuriteForTests(),
    google: await startGcsFakeForTests(),
  }))();
  return others;
}
Deno.test.afterAll(async () => {
  const { azure, google } = await others ?? {};
  await azure?.stop();
  await google?.stop();
});

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
        const store = await newStoreIfThere(kind);
        if (store === null) return;
        await using _ = store;
        await body(store);
      },
    });
  }
}

/** @returns null where there is no server, which has been said */
async function newStoreIfThere(kind: StoreKind): Promise<TestStore | null> {
  if (kind === "azure") {
    const { azure } = await otherServers();
    if (azure === null) return null;
    const url = `${azure.url}/${await azure.newContainer()}`;
    return await storeByProvider(kind, url, azure.env, ["--cloud-provider", "azure-blob-storage"]);
  }
  if (kind === "google") {
    const { google } = await otherServers();
    if (google === null) return null;
    return await storeByProvider(kind, `gs://${await google.newBucket()}`, google.env, []);
  }
  if (kind === "minio") {
    const server = await (minio ??= startMinioIfThere());
    return server === null ? null : await s3Store(kind, server);
  }
  return await newStore(kind);
}

async function storeByProvider(
  kind: StoreKind,
  bucketUrl: string,
  env: Readonly<Record<string, string>>,
  options: readonly string[],
): Promise<TestStore> {
  const url = `${bucketUrl}/e2e`;
  const { store, location } = await openStore(url, {
    env,
    ...(kind === "azure" ? { provider: "azure-blob-storage" } : {}),
  });
  const root = `${location.prefix}/`;
  const paths = async () => {
    const entries = await Array.fromAsync(store.list(root));
    return entries.flatMap((entry) => entry.kind === "object" ? entry.key.slice(root.length) : []);
  };
  return {
    kind,
    url,
    options,
    env,
    endpoint: undefined,
    paths,
    async read(path) {
      const { body } = await store.get(root + path);
      return Buffer.concat(await Array.fromAsync(body));
    },
    write: (path, bytes) => store.put(root + path, bytes),
    async remove(path) {
      const [failure] = await store.deleteMany([root + path]);
      if (failure !== undefined) throw failure.error;
    },
    leftovers: async () =>
      (await Array.fromAsync(store.listUploads(root))).map(({ key }) => key.slice(root.length)),
    async [Symbol.asyncDispose]() {
      await store.deleteMany((await paths()).map((path) => root + path));
      await store.close();
    },
  };
}

/** An empty store. */
export async function newStore(kind: "file" | "s3"): Promise<TestStore> {
  if (kind === "file") return fileStore();
  if (s3 === null) throw new Error("There is no S3 server for tests");
  return await s3Store("s3", s3);
}

function fileStore(): TestStore {
  const directory = mkdtempSync(join(tmpdir(), "bce2e-store-"));
  chmodSync(directory, 0o755);
  const root = join(directory, "store");
  mkdirSync(root);
  const user = serverUser();
  if (user !== undefined) chownSync(root, user.uid, user.gid);
  // A directory may be deleted by others while it is looked at.
  const filesIn = async (directory: string): Promise<string[]> => {
    const entries = await readdir(directory, { withFileTypes: true }).catch((error) => {
      if (error.code === "ENOENT") return [];
      throw error;
    });
    const found = await Promise.all(entries.map((entry) => {
      const path = join(directory, entry.name);
      return entry.isDirectory() ? filesIn(path) : entry.isFile() ? [path] : [];
    }));
    return found.flat();
  };
  const files = async () => (await filesIn(root)).map((path) => path.slice(root.length + 1)).sort();
  const isTemporary = (path: string) => /(^|\/)\.barman-cloud\.[^/]*$/.test(path);
  return {
    kind: "file",
    url: `file://${root}`,
    options: [],
    env: {},
    endpoint: undefined,
    paths: async () => (await files()).filter((path) => !isTemporary(path)),
    read: (path) => readFile(join(root, path)),
    async write(path, bytes) {
      await mkdir(dirname(join(root, path)), { recursive: true });
      await writeFile(join(root, path), bytes);
    },
    remove: (path) => rm(join(root, path)),
    leftovers: async () => (await files()).filter(isTemporary),
    [Symbol.asyncDispose]: () => rm(directory, { recursive: true, force: true }),
  };
}

async function s3Store(
  kind: StoreKind,
  server: Pick<S3ForTests, "endpoint" | "env" | "newBucket">,
): Promise<TestStore> {
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
    kind,
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
