/** One use of a store with a token, in a process whose environment the test sets. Prints JSON. */
import assert from "node:assert/strict";
import process from "node:process";
import { readAzureConfig } from "../../../providers/azure/config.ts";
import { deleteBlobs } from "../../../providers/azure/delete.ts";
import { containerExists } from "../../../providers/azure/read.ts";
import { openSession } from "../../../providers/azure/session.ts";
import { putBlob } from "../../../providers/azure/write.ts";
import { isStoreError } from "../../../providers/object_store.ts";
import type { StoreOptions } from "../../../providers/open.ts";

const task = JSON.parse(process.argv[2] ?? "{}") as {
  readonly url: string;
  readonly choice: string;
  readonly tokenTimeout?: number;
  readonly use?: boolean;
};
const azureCredential = (task.choice || undefined) as StoreOptions["azureCredential"];
const options: StoreOptions = { env: process.env, azureCredential };

/** The emulator's address takes no identities through the front door. */
const config = task.use === true
  ? {
    ...await readAzureConfig("https://any.example.com/container", options),
    endpoint: task.url,
  }
  : await readAzureConfig(task.url, options);
const session = openSession(config, options, task.tokenTimeout);
let result: { kind: string; message: string };
try {
  if (task.use === true) {
    const settings = { encryptionScope: undefined, onNotice: undefined };
    assert.equal(await containerExists(session, ""), false);
    await session.container.create();
    assert.equal(await containerExists(session, ""), true);
    for (const key of ["a", "b", "c"]) {
      await putBlob(session, settings, config.sizes, key, new Uint8Array(10));
    }
    assert.deepEqual(await deleteBlobs(session, ["a", "b", "c", "d"], 256), []);
  } else await containerExists(session, "");
  result = { kind: "fine", message: "" };
} catch (error) {
  result = {
    kind: isStoreError(error) ? error.kind : "no StoreError",
    message: error instanceof Error ? error.message : String(error),
  };
}
session.close();
// As the program does: a request that was given up must not keep the process alive.
process.stdout.write(JSON.stringify(result), () => process.exit(0));
