/** The same stores against MinIO. */
import { openS3Store } from "../../providers/s3/store.ts";
import { minioForTests, startMinio } from "../../scripts/servers/minio.ts";
import { conformance, type StoreUnderTest } from "./suite.ts";

/** As docs/providers.md tells. */
const BROKEN = {
  "tags of any letters are accepted": { how: "in ASCII only", message: /InvalidTag|tag/i },
  "nothing is listed under an empty component either": {
    how: "they are refused",
    message: /XMinioInvalidObjectName/,
  },
  "nothing is listed above a prefix": {
    how: "dots as a component are refused",
    message: /XMinioInvalidResourceName/,
  },
  "unfinished uploads are listed with their size, and can be removed": {
    how: "only those of one key",
    message: /0 !== 1/,
  },
  "who still works on an upload that is removed is told so": {
    how: "it is not found to be removed",
    message: /expected a rejection/,
  },
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
