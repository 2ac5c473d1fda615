/** The same store through the AWS SDK, which takes over where plain requests will not do: here for a dot in the name. */
import { openS3Store } from "../../providers/s3/store.ts";
import { startS3ForTests } from "../../scripts/servers/s3_for_tests.ts";
import { conformance, type StoreUnderTest } from "./suite.ts";

const server = await startS3ForTests();

conformance(
  "S3 through the SDK",
  // Buckets are made here: not on somebody else's server, where they would stay.
  server?.rgw === undefined ? undefined : async (): Promise<StoreUnderTest> => {
    const open = async (bucket: string) => {
      const options = { endpointUrl: server.endpoint, env: server.env };
      return (await openS3Store(`s3://${bucket}`, options)).store;
    };
    const store = await open(`by.the.sdk-${crypto.randomUUID()}`);
    await store.createBucket();
    return {
      store,
      missingBucket: () => open(`missing.${crypto.randomUUID()}`),
      async close() {
        await store.close();
        await server.stop();
      },
    };
  },
);
