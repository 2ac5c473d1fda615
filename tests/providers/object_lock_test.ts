/** What a store says about locks reaches the one who asks, through every wrapper. */
import assert from "node:assert/strict";
import { once } from "node:events";
import http from "node:http";
import type { AddressInfo } from "node:net";
import { withBandwidthLimit } from "../../providers/bandwidth.ts";
import { withCounting } from "../../providers/counting.ts";
import { isStoreError, type ObjectStore, StoreError } from "../../providers/object_store.ts";
import { withRetry } from "../../providers/retry.ts";
import { openS3Store } from "../../providers/s3/store.ts";
import { scriptedStore } from "./scripted_store.ts";

Deno.test("the wrappers pass the question on, and have none where the store has none", async () => {
  const { store } = scriptedStore();
  const lock = { retainUntil: new Date(0), legalHold: true };
  let failures = 2;
  const asked: string[] = [];
  const locking: ObjectStore = {
    ...store,
    objectLock(key) {
      asked.push(key);
      return failures-- > 0
        ? Promise.reject(new StoreError("unavailable", "later"))
        : Promise.resolve(lock);
    },
  };
  const { store: counted, counts } = withCounting(withBandwidthLimit(locking, 1000));
  const wrapped = withRetry(counted, { sleep: () => Promise.resolve() });
  assert.deepEqual(await wrapped.objectLock?.("a"), lock);
  assert.deepEqual(asked, ["a", "a", "a"]);
  assert.deepEqual(counts().calls, { objectLock: 3 });
  for (const bare of [withRetry(store), withBandwidthLimit(store, 1), withCounting(store).store]) {
    assert.equal(bare.objectLock, undefined);
  }
});

Deno.test("S3's headers: retention in either mode, legal hold, neither; no end is an error", async () => {
  const until = "2027-01-02T03:04:05.000Z";
  const lockHeaders: Record<string, Record<string, string>> = {
    governance: {
      "x-amz-object-lock-mode": "GOVERNANCE",
      "x-amz-object-lock-retain-until-date": until,
    },
    both: {
      "x-amz-object-lock-mode": "COMPLIANCE",
      "x-amz-object-lock-retain-until-date": until,
      "x-amz-object-lock-legal-hold": "ON",
    },
    released: { "x-amz-object-lock-legal-hold": "OFF" },
    free: {},
    endless: { "x-amz-object-lock-mode": "COMPLIANCE" },
  };
  const server = http.createServer((request, response) => {
    const headers = lockHeaders[request.url?.split("/").at(-1)?.split("?")[0] ?? ""];
    response.writeHead(headers === undefined ? 404 : 200, headers);
    response.end();
  });
  server.listen(0, "127.0.0.1");
  await once(server, "listening");
  const { store } = await openS3Store("s3://bucket", {
    endpointUrl: `http://127.0.0.1:${(server.address() as AddressInfo).port}`,
    env: {
      AWS_ACCESS_KEY_ID: "a",
      AWS_SECRET_ACCESS_KEY: "b",
      AWS_REGION: "us-east-1",
      AWS_MAX_ATTEMPTS: "1",
    },
  });
  try {
    const lockOf = (key: string) => store.objectLock?.(key);
    const retainUntil = new Date(until);
    assert.deepEqual(await lockOf("governance"), { retainUntil, legalHold: false });
    assert.deepEqual(await lockOf("both"), { retainUntil, legalHold: true });
    assert.deepEqual(await lockOf("released"), { retainUntil: null, legalHold: false });
    assert.deepEqual(await lockOf("free"), { retainUntil: null, legalHold: false });
    await assert.rejects(async () => await lockOf("endless"), /locked, but not until when/);
    await assert.rejects(
      async () => await lockOf("missing"),
      (error) => isStoreError(error, "not-found", "no-bucket"),
    );
  } finally {
    await store.close();
    server.closeAllConnections();
    server.close();
    await once(server, "close");
  }
});
