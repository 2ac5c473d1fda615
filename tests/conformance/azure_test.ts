import { openAzureStore } from "../../providers/azure/store.ts";
import { startAzuriteForTests } from "../../scripts/servers/azurite.ts";
import { conformance, type StoreUnderTest } from "./suite.ts";

/** Says itself, loudly, why there is none and what would enable it. */
const server = await startAzuriteForTests();

conformance(
  "Azure Blob Storage",
  server === null ? undefined : async (): Promise<StoreUnderTest> => {
    const open = async (container: string) => {
      return (await openAzureStore(`${server.url}/${container}`, { env: server.env })).store;
    };
    const store = await open(await server.newContainer());
    return {
      store,
      missingBucket: () => open(`missing-${crypto.randomUUID()}`),
      async close() {
        await store.close();
        await server.stop();
      },
    };
  },
);
