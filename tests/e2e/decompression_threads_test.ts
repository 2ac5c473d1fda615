/** Which restores decompress in threads of their own, and that these end with a restore that is stopped. */
import assert from "node:assert/strict";
import { readdir, readFile } from "node:fs/promises";
import process from "node:process";
import { setTimeout as sleep } from "node:timers/promises";
import { startFaultProxy } from "../../scripts/servers/fault_proxy.ts";
import { newHost } from "./host.ts";
import { testOnStores } from "./stores.ts";

/** Of an archive, before the store falls silent: more than a thread has to be worth, and several blocks of bzip2. Bytes. */
const BEFORE_SILENCE = 5_000_000;
/** Milliseconds. */
const PATIENCE = 20_000;

testOnStores(
  "archives of bzip2 are decompressed in all threads, of LZ4 and snappy in one with three jobs",
  async (store) => {
    await using host = await newHost(store);
    const server = await host.start();
    await server.query(
      "create table filler as select md5(i::text) || md5((-i)::text) as t from generate_series(1, 150000) i",
    );
    for (const codec of ["bzip2", "lz4", "snappy"]) {
      await host.ok("backup", [
        ...[`--${codec}`, "--immediate-checkpoint", "--wal-timeout", "0"],
        ...["-n", codec, "-d", server.conninfo()],
      ]);
    }
    const proxy = await startFaultProxy(store.endpoint ?? "", { stallAfterDown: BEFORE_SILENCE });
    try {
      const cases = [
        ["restore", "bzip2", "2", 2],
        ["restore", "lz4", "3", 1],
        ["restore", "snappy", "3", 1],
        ["backup-verify", "bzip2", "3", 3],
        ["backup-verify", "lz4", "3", 1],
      ] as const;
      for (const [command, codec, jobs, threads] of cases) {
        let pid = 0;
        const ended = host.cloud(
          command,
          ["--jobs", jobs],
          command === "restore" ? [codec, host.newPath(codec)] : [codec],
          {
            storeOptions: ["--endpoint-url", proxy.endpoint],
            onSpawn: (spawned) => pid = spawned,
          },
        );
        const deadline = performance.now() + PATIENCE;
        let seen = 0;
        while (seen < threads && performance.now() < deadline) {
          await sleep(20);
          seen = Math.max(seen, await workerThreads(pid));
        }
        process.kill(pid, "SIGTERM");
        const { stderr } = await ended;
        assert.equal(seen, threads, `${command} of ${codec}: ${stderr}`);
        assert.match(stderr, /Stopped by SIGTERM/);
      }
    } finally {
      await proxy.stop();
    }
  },
  ["s3"],
);

/** Worker threads of a process, by the name that the runtime gives them; 0 when it has ended. */
async function workerThreads(pid: number): Promise<number> {
  let count = 0;
  for (const task of await readdir(`/proc/${pid}/task`).catch(() => [])) {
    const name = await readFile(`/proc/${pid}/task/${task}/comm`, "utf8").catch(() => "");
    if (name === "Worker\n") count++;
  }
  return count;
}
