import http from "node:http";
import assert from "node:assert/strict";
import { openAzureStore } from "../../../providers/azure/store.ts";
import { rejectsWith } from "../../conformance/checks.ts";

Deno.test("Azure over a bad network: no TLS where it was wanted is told", async () => {
  const open = async (endpoint: string) => {
    const env = {
      AZURE_STORAGE_CONNECTION_STRING:
        `BlobEndpoint=${endpoint};SharedAccessSignature=sv=1&sig=c2VjcmV0`,
    };
    return (await openAzureStore("http://127.0.0.1:1/account/container", { env })).store;
  };
  const plain = http.createServer((_, response) => response.end("hello"));
  await new Promise<void>((resolve) => plain.listen(0, "127.0.0.1", resolve));
  const address = plain.address();
  const port = typeof address === "object" ? address?.port : undefined;
  const wrongProtocol = await open(`https://127.0.0.1:${port}`);
  const error = await rejectsWith(wrongProtocol.head("x"), "unreachable");
  assert.equal(error.retryable, false);
  assert.match(error.message, /no TLS or HTTP was spoken there/);
  assert.doesNotMatch(error.message, /c2VjcmV0/);
  await wrongProtocol.close();

  plain.closeAllConnections();
  plain.close();
});
