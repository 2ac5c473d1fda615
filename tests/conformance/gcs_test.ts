/** Google Cloud Storage on each server that can be had; the names of the tests say which ones ran. */
import { openGcsStore } from "../../providers/gcs/store.ts";
import {
  type GcsForTests,
  googleForTests,
  startFakeGcsServerForTests,
  startGcsFakeForTests,
} from "../../scripts/servers/fake_gcs_server.ts";
import { conformance, type StoreUnderTest } from "./suite.ts";

const servers = [
  await startGcsFakeForTests(),
  /** Says itself, loudly, why there is none and what would enable it. */
  await startFakeGcsServerForTests(),
  googleForTests(),
].filter((server): server is GcsForTests => server !== null);

for (const server of servers) {
  conformance(`Google Cloud Storage (${server.name})`, async (): Promise<StoreUnderTest> => {
    const open = async (bucket: string) => {
      return (await openGcsStore(`gs://${bucket}`, { env: server.env })).store;
    };
    const store = await open(await server.newBucket());
    return {
      store,
      missingBucket: () => open(`missing-${crypto.randomUUID()}`),
      async close() {
        await store.close();
        await server.stop();
      },
    };
  });
}
