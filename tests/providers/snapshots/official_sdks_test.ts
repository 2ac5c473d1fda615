/** Do our fakes speak as the clouds do? Their own SDKs, which we don't ship, say so. */
import assert from "node:assert/strict";
import { execFile } from "node:child_process";
import { fileURLToPath } from "node:url";
import { promisify } from "node:util";
import { startArmFake, TOKEN as ARM_TOKEN } from "../../../scripts/servers/arm_fake.ts";
import { startComputeFake, TOKEN } from "../../../scripts/servers/compute_fake.ts";
import { skipUnless } from "../../skips.ts";

const directory = Deno.env.get("TEST_CLOUD_SDKS");

Deno.test({
  name: "Microsoft's and Google's SDKs understand the fakes, and the fakes them",
  ignore: skipUnless(
    directory !== undefined,
    "The fakes of Azure's and Google's disks under the official SDKs (180 MB)",
    "npm install --prefix DIR @azure/arm-compute@24.1.0 @google-cloud/compute@6.15.0, and TEST_CLOUD_SDKS=DIR",
  ),
  async fn() {
    await using arm = await startArmFake();
    arm.addDisk(arm.addMachine("pg-rg", "db1"), "pgdata", 10);
    arm.behaviour.set("PUT snapshots", { looks: 3, retryAfter: "0" });
    arm.behaviour.set("DELETE snapshots", { looks: 2, onlyLocation: true });
    await using compute = await startComputeFake();
    compute.addDisk(compute.addInstance("db1"), "pgdata");
    compute.behaviour.set("POST snapshots", { looks: 3 });
    const script = fileURLToPath(new URL("official_sdks.mjs", import.meta.url));
    const fakes = {
      arm: { endpoint: arm.endpoint, subscription: arm.subscription, token: ARM_TOKEN },
      compute: {
        endpoint: compute.endpoint,
        project: compute.project,
        zone: compute.zone,
        token: TOKEN,
      },
    };
    const { stdout } = await promisify(execFile)(
      "node",
      [script, directory ?? "", JSON.stringify(fakes)],
      { timeout: 120_000 },
    );
    assert.deepEqual(JSON.parse(stdout), {
      azure: {
        disks: [[10, "pgdata"]],
        disk: ["pgdata", 100],
        snapshot: ["s1", "Succeeded", { a: "b" }],
        attached: [[10, "pgdata"], [3, "new1"]],
        gone: [404, "ResourceNotFound"],
      },
      google: {
        disks: [["persistent-disk-0", true], ["device-of-pgdata", false]],
        disk: ["pgdata", "200", "READY"],
        progress: [100, 100, 100, 100, 100, 100],
        gone: 404,
      },
    });
  },
});
