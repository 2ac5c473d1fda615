/** The contract of stores on the S3 servers that there are, and what these are known not to keep of it. */
import type { ObjectStore } from "../../providers/object_store.ts";
import { openS3Store } from "../../providers/s3/store.ts";
import type { S3ForTests } from "../../scripts/servers/s3_for_tests.ts";
import { withoutAtomicCreation } from "../../scripts/servers/versitygw.ts";
import { type Breach, conformance } from "./suite.ts";

/** As docs/providers.md tells. */
export interface Flaws {
  readonly broken?: Readonly<Record<string, Breach>>;
  /** The store without what the server only seems to have. */
  readonly without?: (store: ObjectStore) => ObjectStore;
}

export const VERSITYGW_FLAWS: Flaws = {
  broken: {
    "readers see one version or the other while it is overwritten": {
      how: "it may open another object than it has announced",
      message: /was replaced in the meantime/,
      sometimes: true,
    },
  },
  without: withoutAtomicCreation,
};

/** `plain`: our own requests; `sdk`: the AWS SDK, which takes over where these will not do, or when it is asked for. */
export type S3Client = "plain" | "sdk";

/** @param start undefined when there is no server, which has been said; the test is then ignored */
export function s3Conformance(
  name: string,
  client: S3Client,
  start:
    | (() => Promise<Pick<S3ForTests, "endpoint" | "env" | "newBucket" | "stop">>)
    | undefined,
  { broken = {}, without = (store) => store }: Flaws = {},
): void {
  conformance(
    client === "plain" ? name : `${name} through the SDK`,
    start === undefined ? undefined : async () => {
      const server = await start();
      const env = client === "plain"
        ? server.env
        : { ...server.env, BARMAN_CLOUD_S3_CLIENT: "sdk" };
      const open = async (bucket: string) =>
        (await openS3Store(`s3://${bucket}`, { endpointUrl: server.endpoint, env })).store;
      const store = await open(await server.newBucket());
      return {
        store: without(store),
        broken,
        missingBucket: () => open(`barman-cloud-missing-${crypto.randomUUID()}`),
        async close() {
          await store.close();
          await server.stop();
        },
      };
    },
  );
}
