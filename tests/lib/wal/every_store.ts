/** The stores that tests of the WAL archive run on: all for which a server can be had. */
import { mkdtemp, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { pathToFileURL } from "node:url";
import type { ObjectStore } from "../../../providers/object_store.ts";
import { openStore } from "../../../providers/open.ts";
import { startAzuriteForTests } from "../../../scripts/servers/azurite.ts";
import {
  type GcsForTests,
  startFakeGcsServerForTests,
  startGcsFakeForTests,
} from "../../../scripts/servers/fake_gcs_server.ts";
import { startS3ForTests } from "../../../scripts/servers/s3_for_tests.ts";

export interface StoreUnderTest {
  readonly name: string;
  /** A new client of a bucket with nothing in it that the test has not put there. */
  open(bucket: string): Promise<ObjectStore>;
  newBucket(): Promise<string>;
}

/** Start what there is; what is missing has then been said. Ended after all tests of the file. */
export async function everyStore(): Promise<StoreUnderTest[]> {
  const stores: StoreUnderTest[] = [await directories()];
  const s3 = await startS3ForTests();
  if (s3 !== null) {
    Deno.test.afterAll(() => s3.stop());
    stores.push({
      name: "S3",
      newBucket: () => s3.newBucket(),
      open: async (bucket) =>
        (await openStore(`s3://${bucket}`, { endpointUrl: s3.endpoint, env: s3.env })).store,
    });
  }
  const azure = await startAzuriteForTests();
  if (azure !== null) {
    Deno.test.afterAll(() => azure.stop());
    stores.push({
      name: "Azure",
      newBucket: () => azure.newContainer(),
      open: async (container) =>
        (await openStore(`${azure.url}/${container}`, {
          provider: "azure-blob-storage",
          env: azure.env,
        })).store,
    });
  }
  const google: (GcsForTests | null)[] = [
    await startGcsFakeForTests(),
    await startFakeGcsServerForTests(),
  ];
  for (const server of google) {
    if (server === null) continue;
    Deno.test.afterAll(() => server.stop());
    stores.push({
      name: `Google (${server.name})`,
      newBucket: () => server.newBucket(),
      open: async (bucket) => (await openStore(`gs://${bucket}`, { env: server.env })).store,
    });
  }
  return stores;
}

async function directories(): Promise<StoreUnderTest> {
  const directory = await mkdtemp(join(tmpdir(), "barman-cloud-stores-"));
  Deno.test.afterAll(() => rm(directory, { recursive: true, force: true }));
  let number = 0;
  return {
    name: "directory",
    async newBucket() {
      const url = pathToFileURL(join(directory, `bucket${++number}`)).href;
      const { store } = await openStore(url, { env: {} });
      await store.createBucket();
      await store.close();
      return url;
    },
    open: async (url) => (await openStore(url, { env: {} })).store,
  };
}
