/** The same stores against a second S3 server, which refuses what the first one passes over. */
import { openS3Store } from "../../providers/s3/store.ts";
import { startVersitygwForTests, withoutAtomicCreation } from "../../scripts/servers/versitygw.ts";
import { conformance, type StoreUnderTest } from "./suite.ts";

const server = await startVersitygwForTests();
const clients = ["plain requests", "the SDK"] as const;
let open = clients.length;

for (const client of clients) {
  conformance(
    `versitygw by ${client}`,
    server === null ? undefined : async (): Promise<StoreUnderTest> => {
      const env = client === "the SDK"
        ? { ...server.env, BARMAN_CLOUD_S3_CLIENT: "sdk" }
        : server.env;
      const openBucket = async (bucket: string) =>
        (await openS3Store(`s3://${bucket}`, { endpointUrl: server.endpoint, env })).store;
      const store = await openBucket(await server.newBucket());
      return {
        store: withoutAtomicCreation(store),
        missingBucket: () => openBucket(`missing-${crypto.randomUUID()}`),
        async close() {
          await store.close();
          if (--open === 0) await server.stop();
        },
      };
    },
  );
}
