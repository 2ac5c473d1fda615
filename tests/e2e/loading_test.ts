/**
 * What of the executable is loaded when: SDKs only with the provider that needs them, the clouds' disks only for
 * snapshots, the code of worker threads only where there are some.
 */
import assert from "node:assert/strict";
import { mkdtemp, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { type Metafile, stop } from "esbuild";
import { bundle } from "../../scripts/compile.ts";

/** All that is loaded with the file, what it imports only later excepted. */
function loadedWith({ outputs }: Metafile, entryPoint: string): Set<string> {
  const [start] = Object.entries(outputs).find(([, output]) => output.entryPoint === entryPoint) ??
    [];
  assert.ok(start !== undefined, `${entryPoint} is loaded on its own`);
  const inputs = new Set<string>();
  const seen = new Set<string>();
  const queue = [start];
  for (let path = queue.pop(); path !== undefined; path = queue.pop()) {
    const output = outputs[path];
    if (output === undefined || seen.has(path)) continue;
    seen.add(path);
    for (const input of Object.keys(output.inputs)) inputs.add(input);
    for (const { path: next, kind } of output.imports) {
      if (kind === "import-statement") queue.push(next);
    }
  }
  return inputs;
}

Deno.test({
  name: "code of a provider is loaded when it is used, and no other's",
  // The bundler's process ends with `stop`.
  sanitizeResources: false,
  sanitizeOps: false,
  async fn() {
    const directory = await mkdtemp(join(tmpdir(), "barman-cloud-bundle-"));
    try {
      const metafile = await bundle(directory);
      const without = (entryPoint: string, ...patterns: RegExp[]) => {
        for (const input of loadedWith(metafile, entryPoint)) {
          for (const pattern of patterns) assert.doesNotMatch(input, pattern, entryPoint);
        }
      };
      const [aws, azure, google, disks] = [
        /node_modules\/@aws-sdk|sdk_api\.ts/,
        /node_modules\/@azure|providers\/azure\/store/,
        /node_modules\/google-|providers\/gcs\/store/,
        /(lib|providers)\/snapshots\//,
      ];
      without("main.ts", /node_modules/, /^providers\//, /^lib\/commands\//);
      for (const name of ["backup", "backup_delete", "restore", "wal_archive", "wal_restore"]) {
        without(`lib/commands/${name}.ts`, aws, azure, google, /^providers\/(s3|file)\/store/);
      }
      for (const name of ["backup", "backup_delete", "restore"]) {
        without(`lib/commands/${name}.ts`, disks);
      }
      without("providers/file/store.ts", /node_modules/, disks);
      without("providers/s3/store.ts", aws, azure, google, disks);
      without("providers/gcs/store.ts", aws, azure, disks);
      without("providers/azure/store.ts", aws, google, disks, /node_modules\/@azure\/identity/);
      for (const codec of ["lz4", "snappy"]) {
        without(`lib/compression/${codec}.ts`, /in_pieces|bzip2/);
      }
      // What this test believes is not empty.
      assert.ok(
        [...loadedWith(metafile, "providers/s3/sdk_api.ts")].some((each) => aws.test(each)),
      );
    } finally {
      await stop();
      await rm(directory, { recursive: true, force: true });
    }
  },
});
