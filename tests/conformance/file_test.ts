import { mkdtemp, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { openFileStore } from "../../providers/file/store.ts";
import { withRetry } from "../../providers/retry.ts";
import { withBandwidthLimit } from "../../providers/bandwidth.ts";
import { withCounting } from "../../providers/counting.ts";
import { conformance, type StoreUnderTest } from "./suite.ts";

conformance("a local directory", openInTemporary);

conformance("a local directory behind all wrappers", async () => {
  const opened = await openInTemporary();
  const wrapped = withRetry(withBandwidthLimit(withCounting(opened.store).store, 1e12));
  return { ...opened, store: wrapped };
});

async function openInTemporary(): Promise<StoreUnderTest> {
  const directory = await mkdtemp(join(tmpdir(), "barman-cloud-conformance-"));
  let count = 0;
  const missingBucket = async () => {
    const { store } = await openFileStore(`file://${directory}/missing ${++count}/x%20y`, {
      env: {},
    });
    return store;
  };
  const store = await missingBucket();
  await store.createBucket();
  return {
    store,
    missingBucket,
    async close() {
      await store.close();
      await rm(directory, { recursive: true });
    },
  };
}
