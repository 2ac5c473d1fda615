/** The same faults on every store behind a network; the names of the tests say which servers ran. */
import { openAzureStore } from "../../providers/azure/store.ts";
import { openGcsStore } from "../../providers/gcs/store.ts";
import { openS3Store } from "../../providers/s3/store.ts";
import { startAzuriteForTests } from "../../scripts/servers/azurite.ts";
import {
  startFakeGcsServerForTests,
  startGcsFakeForTests,
} from "../../scripts/servers/fake_gcs_server.ts";
import { startS3ForTests } from "../../scripts/servers/s3_for_tests.ts";
import { faults, type FaultyServer } from "./faults.ts";

/** Seconds: more than a busy machine stands still, and no longer than five attempts can be waited for. */
// Each says itself, loudly, why there is none and what would enable it.
const s3 = await startS3ForTests();
const azure = await startAzuriteForTests();
const google = [await startGcsFakeForTests(), await startFakeGcsServerForTests()];

faults(
  "S3",
  s3 === null ? undefined : async (): Promise<FaultyServer> => {
    const bucket = await s3.newBucket();
    return {
      endpoint: s3.endpoint,
      async open(endpointUrl, readTimeout, onNotice) {
        const env = { ...s3.env, AWS_MAX_ATTEMPTS: "5" };
        const options = { endpointUrl, readTimeout, env, onNotice };
        return (await openS3Store(`s3://${bucket}`, options)).store;
      },
      stop: s3.stop,
    };
  },
);

const azurite = azure?.azurite;
faults(
  "Azure Blob Storage",
  azure === null || azurite === undefined ? undefined : async (): Promise<FaultyServer> => {
    const container = await azure.newContainer();
    return {
      endpoint: azurite.origin,
      async open(endpoint, readTimeout, onNotice) {
        const connectionString = azure.connectionString.replace(azurite.origin, endpoint);
        const url = `${azure.url.replace(azurite.origin, endpoint)}/${container}`;
        const env = { AZURE_STORAGE_CONNECTION_STRING: connectionString };
        return (await openAzureStore(url, { env, readTimeout, onNotice })).store;
      },
      stop: azure.stop,
    };
  },
);

for (const server of google) {
  if (server === null) continue;
  faults(`Google Cloud Storage (${server.name})`, async (): Promise<FaultyServer> => {
    const bucket = await server.newBucket();
    return {
      endpoint: server.endpoint,
      async open(endpoint, readTimeout, onNotice) {
        const env = { ...server.env, STORAGE_EMULATOR_HOST: endpoint };
        const options = { env, readTimeout, onNotice };
        return (await openGcsStore(`gs://${bucket}`, options)).store;
      },
      stop: server.stop,
    };
  });
}
