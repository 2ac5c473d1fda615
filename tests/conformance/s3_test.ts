import { openS3Store } from "../../providers/s3/store.ts";
import { startS3ForTests } from "../../scripts/servers/s3_for_tests.ts";
import { withoutAtomicCreation } from "../../scripts/servers/versitygw.ts";
import { conformance, type StoreUnderTest } from "./suite.ts";

/** Says itself, loudly, why there is none and what would enable it. */
const server = await startS3ForTests();

conformance(
  "S3",
  server === null ? undefined : async (): Promise<StoreUnderTest> => {
    const open = async (bucket: string) => {
      const options = { endpointUrl: server.endpoint, env: server.env };
      return (await openS3Store(`s3://${bucket}`, options)).store;
    };
    const store = await open(await server.newBucket());
    return {
      store: server.kind === "versitygw" ? withoutAtomicCreation(store) : store,
      missingBucket: () => open(`missing-${crypto.randomUUID()}`),
      async close() {
        await store.close();
        await server.stop();
      },
    };
  },
);
