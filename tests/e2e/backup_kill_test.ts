/**
 * `kill -9` of a backup at many moments: no half backup passes for a whole one, the next backup is fine, and
 * `barman-cloud cleanup` removes all that was left, once it is old enough, and nothing else.
 *
 * `FAULTS=100 deno test -A tests/e2e/backup_kill_test.ts` kills more often.
 */
import assert from "node:assert/strict";
import process from "node:process";
import { setTimeout as sleep } from "node:timers/promises";
import { utimes } from "node:fs/promises";
import { fileURLToPath } from "node:url";
import { executeCleanup, planCleanup } from "../../lib/backup/cleanup.ts";
import { serverLayout } from "../../lib/layout.ts";
import { openStore, type StoreOptions } from "../../providers/open.ts";
import { recordingLogger } from "../lib/backup/temporary_store.ts";
import { type Host, newHost } from "./host.ts";
import { ALL_STORES, testOnStores, type TestStore } from "./stores.ts";

const KILLS = Number(Deno.env.get("FAULTS") ?? "8");
const HOUR_MS = 3600_000;

testOnStores(
  "backup: killed at any moment it leaves nothing that looks whole, and all that it leaves can be removed",
  async (store) => {
    await using host = await newHost(store);
    const server = await host.start({ settings: { max_wal_size: "256MB" } });
    await server.query(
      "create table filler as select repeat(md5(i::text), 30) from generate_series(1, 20000) i",
    );
    const words = [
      ...["--immediate-checkpoint", "--max-archive-size", "10MB", "--jobs", "2"],
      ...["-d", server.conninfo()],
    ];
    const began = performance.now();
    await host.ok("backup", words);
    const usual = performance.now() - began;
    const tally = { injected: 0, completed: 1, withTraces: 0 };
    for (let number = 0; number < KILLS; number++) {
      const before = await traces(store);
      const result = await host.cloud("backup", words, [], {
        onSpawn: (pid) => {
          // The time of all of it, and a little more: some come through.
          setTimeout(() => {
            try {
              process.kill(pid, "SIGKILL");
            } catch {
              // It has ended by itself.
            }
          }, 20 + usual * 1.1 * number / KILLS);
        },
      });
      assert.ok(result.signal === "SIGKILL" || result.code === 0, result.stderr);
      const backups: { status: string }[] = JSON.parse(
        await host.ok("backup-list", ["--format", "json"]),
      ).backups_list;
      for (const { status } of backups) assert.equal(status, "DONE");
      // It may have been killed just after its last write.
      if (result.signal === "SIGKILL") {
        tally.injected++;
        tally.completed = backups.length;
        if ((await traces(store)).length > before.length) tally.withTraces++;
      } else assert.equal(backups.length, ++tally.completed);
      // Ids have seconds; the next one waits by itself, but why.
      await sleep(100);
    }
    assert.ok(tally.injected > KILLS / 2 && tally.withTraces > 0, JSON.stringify(tally));

    // Half backups are told of, and the next backup is fine.
    await host.ok("backup", [...words, "--name", "next"]);
    const paths = await store.paths();
    const half = idsOf(paths).filter((id) =>
      !paths.includes(`${host.serverName}/base/${id}/backup.info`)
    );
    const { stderr } = await host.cloud("backup-list", ["-v"]);
    for (const id of half) {
      assert.match(stderr, new RegExp(`Backup ${id} (has no backup.info|is being taken)`));
      const shown = await host.cloud("backup-show", [], [id]);
      assert.equal(shown.code, 1);
      assert.match(shown.stderr, /has no backup\.info|is being taken/);
    }

    // Nothing is an hour old.
    const everything = await traces(store);
    const young = await host.ok("cleanup", ["--older-than", "1 hour"]);
    assert.equal(young, "");
    assert.deepEqual(await traces(store), everything);
    await cleanUpInAnHour(host);
    const left = await store.paths();
    assert.deepEqual(await store.leftovers(), []);
    assert.deepEqual(
      idsOf(left).filter((id) => !left.includes(`${host.serverName}/base/${id}/backup.info`)),
      [],
    );
    const kept = paths.filter((path) => !half.some((id) => path.includes(`/base/${id}/`)));
    // The server may archive one more segment meanwhile.
    assert.deepEqual(left.filter((path) => path.includes("/base/") || kept.includes(path)), kept);
    const restored = host.newPath("restored");
    await host.ok("restore", [], ["next", restored]);
    const again = await host.startRestored(restored, {
      major: server.major,
      settings: { archive_mode: "off" },
    });
    await again.waitUntilReady({ promoted: true });
    const [row] = await again.query("select count(*)::int as count from filler");
    assert.equal(row?.["count"], 20000);
    console.log(
      `kill -9 of backup (${store.kind}): ${
        JSON.stringify({ ...tally, half: half.length, lost: 0 })
      }`,
    );
  },
  ALL_STORES,
);

/** Objects of backups, and parts of objects. */
async function traces(store: TestStore): Promise<string[]> {
  return [
    ...(await store.paths()).filter((path) => path.includes("/base/")),
    ...await store.leftovers(),
  ].sort();
}

function idsOf(paths: readonly string[]): string[] {
  return [...new Set(paths.flatMap((path) => /\/base\/([^/]+)\//.exec(path)?.[1] ?? []))];
}

/** By the command where files can be made old, else by what the command calls, with the clock put forward. */
async function cleanUpInAnHour(host: Host): Promise<void> {
  const { store, serverName } = host;
  if (store.kind === "file") {
    const old = Date.now() / 1000 - 2 * HOUR_MS / 1000;
    for (const path of [...await store.paths(), ...await store.leftovers()]) {
      await utimes(`${fileURLToPath(store.url)}/${path}`, old, old);
    }
    await host.ok("cleanup", ["--older-than", "1 hour"]);
    return;
  }
  const options: Partial<StoreOptions> = {
    ...(store.endpoint === undefined ? {} : { endpointUrl: store.endpoint }),
    ...(store.kind === "azure" ? { provider: "azure-blob-storage" } : {}),
  };
  const opened = await openStore(store.url, { ...options, env: { ...store.env } });
  try {
    const context = {
      store: opened.store,
      layout: serverLayout(opened.location.prefix, serverName),
      log: recordingLogger(),
      signal: new AbortController().signal,
    };
    const request = {
      olderThanMs: HOUR_MS,
      failed: false,
      now: new Date(Date.now() + 2 * HOUR_MS),
    };
    const plan = await planCleanup(context, request);
    assert.equal((await executeCleanup(context, request, plan)).failed, false);
  } finally {
    await opened.store.close();
  }
}
