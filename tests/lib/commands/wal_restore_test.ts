import assert from "node:assert/strict";
import { Buffer } from "node:buffer";
import { mkdir, readdir, readFile, writeFile } from "node:fs/promises";
import { join, relative } from "node:path";
import { InterruptedError } from "../../../lib/cli/exit_codes.ts";
import { command as restore } from "../../../lib/commands/wal_restore.ts";
import { walBytes, withLocalStore } from "../wal/stores.ts";
import { runIn } from "./wal_command_run.ts";

const SEGMENT = "000000010000000000000001";

Deno.test("wal-restore: exit codes", () =>
  withLocalStore(async (local) => {
    const { url, directory } = local;
    const dest = join(directory, "RECOVERYXLOG");
    await local.store.put(local.layout.wal(SEGMENT), walBytes(1000));
    await local.store.put(local.layout.wal("000000010000000000000002.gz"), walBytes(1000));
    await local.store.put(local.layout.wal("000000010000000000000003.partial"), walBytes(1000));
    const cases: [number, RegExp, string[]][] = [
      [0, /^INFO: Restored .*0001 to .*RECOVERYXLOG \(1000 bytes\)$/, [url, "main", SEGMENT, dest]],
      [0, /Restored/, ["-p", "4", "--spool-dir", "/x", url, "main", SEGMENT, dest]],
      [0, /Restored/, [url, "main", `pg_wal/${SEGMENT}`, dest]],
      [0, /Restored .*\.partial/, [url, "main", "000000010000000000000003", dest]],
      [1, /^INFO: \S+ is not in the archive of main$/, [
        "--no-partial",
        url,
        "main",
        "000000010000000000000003",
        dest,
      ]],
      [1, /^INFO: /, [url, "main", "00000002.history", dest]],
      [1, /^INFO: /, [url, "other", SEGMENT, dest]],
      [3, /is not the name of a WAL file/, [url, "main", "RECOVERYXLOG", dest]],
      [3, /is not the name of a WAL file/, ["-t", url, "main", `${SEGMENT}.gz`, dest]],
      [4, /damaged/, [url, "main", "000000010000000000000002", dest]],
      [4, /Cannot write .*: no such file/, [url, "main", SEGMENT, join(directory, "none", "x")]],
      [4, /ERROR/, [`${url}-none`, "main", SEGMENT, dest]],
      [4, /as an S3 store: write s3:/, ["nowhere", "main", SEGMENT, dest]],
      [0, /Connection to .* works/, ["-t", url, "main", SEGMENT, dest]],
      [1, /There is no directory/, ["-t", `${url}-none`, "main", SEGMENT, dest]],
    ];
    for (const [code, message, words] of cases) {
      const result = await runIn(restore, words);
      assert.equal(result.code, code, `${words} ${result.log} ${result.stderr}`);
      assert.match(result.log.filter((line) => !line.startsWith("DEBUG")).join("\n"), message);
      assert.equal(result.stdout, "");
    }
    for (const words of [[], [url, "main", SEGMENT], ["--partial", url, "main", SEGMENT, dest]]) {
      assert.equal((await runIn(restore, words)).code, 3);
    }
    assert.deepEqual((await readdir(directory)).sort(), ["RECOVERYXLOG", "bucket"]);
  }));

Deno.test("wal-restore: a relative destination is one of the working directory", () =>
  withLocalStore(async (local) => {
    await mkdir(join(local.directory, "pg_wal"));
    await local.store.put(local.layout.wal(SEGMENT), walBytes(1000));
    const destination = relative(process.cwd(), join(local.directory, "pg_wal/RECOVERYXLOG"));
    assert.ok(!destination.startsWith("/"));
    await writeFile(destination, "old");
    assert.equal((await runIn(restore, [local.url, "main", SEGMENT, destination])).code, 0);
    assert.deepEqual(await readFile(destination), Buffer.from(walBytes(1000)));
  }));

Deno.test("wal-restore: stopped by a signal it exits as signals do and leaves nothing", () =>
  withLocalStore(async (local) => {
    await local.store.put(local.layout.wal(SEGMENT), walBytes(64 * 1024 ** 2));
    for (const [signal, code] of [["SIGTERM", 143], ["SIGINT", 130]] as const) {
      for (const after of [0, 5, 20]) {
        const controller = new AbortController();
        setTimeout(() => controller.abort(new InterruptedError(signal)), after);
        const result = await runIn(
          restore,
          [local.url, "main", SEGMENT, join(local.directory, "RECOVERYXLOG")],
          { signal: controller.signal },
        );
        assert.equal(result.code, code);
        assert.deepEqual(await readdir(local.directory), ["bucket"]);
      }
    }
  }));
