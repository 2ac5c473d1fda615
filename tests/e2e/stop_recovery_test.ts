/**
 * A recovery that can't reach the archive must not end as if there were no more WAL: with --stop-recovery-on-error
 * PostgreSQL stops, and goes on when it is started again.
 */
import assert from "node:assert/strict";
import { readdir, readFile } from "node:fs/promises";
import { join } from "node:path";
import { startFaultProxy } from "../../scripts/servers/fault_proxy.ts";
import {
  archiveCurrentSegment,
  compareRows,
  startWriteLoad,
} from "../../scripts/servers/write_load.ts";
import { newHost } from "./host.ts";
import { testOnStores } from "./stores.ts";

testOnStores(
  "recovery stops when the archive is away, and ends right when it is back",
  async (store) => {
    await using host = await newHost(store);
    const primary = await host.start({ major: 17, walSegSizeMb: 1 });
    const load = await startWriteLoad(primary);
    await load.more(50);
    await host.ok("backup", ["-d", primary.conninfo(), "--immediate-checkpoint"]);
    for (let segment = 0; segment < 6; segment++) {
      await load.more(20);
      await primary.query("select pg_switch_wal()");
    }
    await load.stop();
    await archiveCurrentSegment(primary);
    await primary.kill9();

    const proxy = await startFaultProxy(store.endpoint ?? "");
    try {
      // From the third segment on the network is away.
      let away = true;
      const asked: number[] = [];
      proxy.plan((connection) => {
        asked.push(connection);
        return away && connection > 3 ? { drop: true, reset: true } : {};
      });
      const throughProxy = (...options: string[]) =>
        host.restoreCommand("--read-timeout", "2", ...options)
          .replaceAll(store.endpoint ?? "", proxy.endpoint)
          .replace("env -i", "env -i AWS_MAX_ATTEMPTS=2");

      const restored = host.newPath("restored");
      await host.ok("restore", [], ["last", restored]);
      const settings = {
        archive_mode: "off",
        restore_command: throughProxy("--stop-recovery-on-error"),
        logging_collector: "off",
      };
      // Whether the start itself fails or the server ends right after depends on how far it had come.
      const stopped = await host.startRestored(restored, { major: 17, settings }).then(
        async (server) => {
          await assert.rejects(server.waitUntilReady({ promoted: true, timeoutMs: 15_000 }));
          const tail = await server.logTail();
          await server.stop("immediate").catch(() => {});
          return tail;
        },
        (error: unknown) => String(error),
      );
      assert.match(stopped, /restore_command|could not restore file|exit code 126|shutting down/i);
      assert.ok(asked.length > 3, "the network was away before recovery was over");
      const timelines = (await readdir(join(restored, "pg_wal"))).filter((name) =>
        name.startsWith("00000002")
      );
      assert.deepEqual(timelines, [], "no new timeline was begun");
      const label = await readFile(join(restored, "global", "pg_control"));
      assert.ok(label.length > 0);

      away = false;
      const again = await host.startRestored(restored, { major: 17, settings });
      await again.waitUntilReady({ promoted: true });
      const { missing } = await compareRows(again, { present: load.confirmed });
      assert.deepEqual(missing, []);
      await again.stop("immediate");
    } finally {
      await proxy.stop();
    }
  },
  ["s3"],
);
