/** The same stores against a second S3 server, which refuses what the first one passes over. */
import { openS3Store } from "../../providers/s3/store.ts";
import {
  startVersitygw,
  versitygwForTests,
  withoutAtomicCreation,
} from "../../scripts/servers/versitygw.ts";
import { conformance, type StoreUnderTest } from "./suite.ts";

const BROKEN = {
  "readers see one version or the other while it is overwritten": {
    how: "it may open another object than it has announced",
    message: /was replaced in the meantime/,
    sometimes: true,
  },
};

const program = await versitygwForTests();

for (const client of ["plain requests", "the SDK"] as const) {
  conformance(
    `versitygw by ${client}`,
    program === null ? undefined : async (): Promise<StoreUnderTest> => {
      const server = await startVersitygw(program);
      const chosen = client === "the SDK" ? { BARMAN_CLOUD_S3_CLIENT: "sdk" } : {};
      const open = async (bucket: string) => {
        const options = { endpointUrl: server.endpoint, env: { ...server.env, ...chosen } };
        return (await openS3Store(`s3://${bucket}`, options)).store;
      };
      const store = await open(await server.newBucket());
      return {
        store: withoutAtomicCreation(store),
        broken: BROKEN,
        missingBucket: () => open(`missing-${crypto.randomUUID()}`),
        async close() {
          await store.close();
          await server.stop();
        },
      };
    },
  );
}
