/** The same store through the AWS SDK, which takes over where plain requests will not do, or when it is asked for. */
import { openS3Store } from "../../providers/s3/store.ts";
import { startS3ForTests } from "../../scripts/servers/s3_for_tests.ts";
import { withoutAtomicCreation } from "../../scripts/servers/versitygw.ts";
import { conformance, type StoreUnderTest } from "./suite.ts";

const server = await startS3ForTests();

conformance(
  "S3 through the SDK",
  server === null ? undefined : async (): Promise<StoreUnderTest> => {
    const open = async (bucket: string) => {
      const env = { ...server.env, BARMAN_CLOUD_S3_CLIENT: "sdk" };
      return (await openS3Store(`s3://${bucket}`, { endpointUrl: server.endpoint, env })).store;
    };
    const store = await open(await server.newBucket());
    return {
      store: server.kind === "versitygw" ? withoutAtomicCreation(store) : store,
      missingBucket: () => open(`barman-cloud-missing-${crypto.randomUUID()}`),
      async close() {
        await store.close();
        await server.stop();
      },
    };
  },
);
