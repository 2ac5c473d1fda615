/** The same stores against MinIO. */
import { openS3Store } from "../../providers/s3/store.ts";
import { minioForTests, startMinio } from "../../scripts/servers/minio.ts";
import { conformance, type StoreUnderTest } from "./suite.ts";

/** As docs/providers.md tells. */
const BROKEN = {
  "tags are accepted, also none and an empty list": "in ASCII only",
  "nothing is listed where nothing is": "prefixes with an empty component are refused",
  "unfinished uploads are listed with their size, and can be removed": "only those of one key",
  "who still works on an upload that is removed is told so": "it is not found to be removed",
};

const program = await minioForTests();

for (const client of ["plain requests", "the SDK"] as const) {
  conformance(
    `MinIO by ${client}`,
    program === null ? undefined : async (): Promise<StoreUnderTest> => {
      const server = await startMinio(program);
      const chosen = client === "the SDK" ? { BARMAN_CLOUD_S3_CLIENT: "sdk" } : {};
      const open = async (bucket: string) => {
        const options = { endpointUrl: server.endpoint, env: { ...server.env, ...chosen } };
        return (await openS3Store(`s3://${bucket}`, options)).store;
      };
      const store = await open(await server.newBucket());
      return {
        store,
        missingBucket: () => open(`missing-${crypto.randomUUID()}`),
        broken: BROKEN,
        async close() {
          await store.close();
          await server.stop();
        },
      };
    },
  );
}
