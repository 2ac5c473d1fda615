/**
 * Processes that keep and delete one backup at once, some of them killed: whoever was told that a backup is kept finds
 * it whole. On S3 every answer is late by a time that chance chooses, so that the processes meet at every point.
 *
 * `FAULTS=300 deno test -A tests/e2e/keep_delete_test.ts` does it more often.
 */
import assert from "node:assert/strict";
import process from "node:process";
import { startFaultProxy } from "../../scripts/servers/fault_proxy.ts";
import { PLAIN, withLines } from "../lib/backup/fixtures.ts";
import { barmanCloud, type RunResult } from "./executable.ts";
import { testOnStores, type TestStore } from "./stores.ts";

const ROUNDS = Number(Deno.env.get("FAULTS") ?? "12");
const AT_ONCE = 4;

testOnStores(
  "backup-keep and backup-delete at once: no keep is lost, no backup.info dangles",
  async (store) => {
    const proxy = store.endpoint === undefined ? null : await startFaultProxy(
      store.endpoint,
      () => ({ delayMs: Math.floor(Math.random() * 60) }),
    );
    const tally = { rounds: 0, kept: 0, deleted: 0, killed: 0, finishedLater: 0, lost: 0 };
    try {
      const words = proxy === null ? store.options : ["--endpoint-url", proxy.endpoint];
      const round = async (number: number): Promise<void> => {
        const server = `srv${number}`;
        await fill(store, server);
        const run = (
          command: string,
          options: string[],
          positionals: string[],
          wait: number,
          kill?: number,
        ) =>
          after(
            wait,
            () =>
              barmanCloud([command, ...options, ...words, store.url, server, ...positionals], {
                env: { ...store.env },
                ...(kill === undefined ? {} : {
                  onSpawn: (pid: number) => void killAfter(pid, kill),
                }),
              }),
          );
        const chance = () => Math.floor(Math.random() * 150);
        // From before the deletions have begun to after they have ended.
        const span = proxy === null ? 500 : 3000;
        const isKilled = number % 3 === 0;
        const [kept, ...deletions] = await Promise.all([
          run("backup-keep", ["--target", "full"], [ID], span * number / ROUNDS),
          run("backup-delete", ["-b", ID], [], chance(), isKilled ? 60 + 2 * chance() : undefined),
          run("backup-delete", ["-r", "REDUNDANCY 1"], [], chance()),
        ]);
        tally.rounds++;
        const state = await stateOf(store, server);
        const told = JSON.stringify({
          number,
          kept: codeOf(kept),
          deletions: deletions.map(codeOf),
          state,
        });
        if (kept.code === 0) {
          tally.kept++;
          assert.ok(state.info && state.archives === 2 && state.keep, `a keep is lost: ${told}`);
        } else assert.ok(kept.code === 1 || kept.code === 4, `${told} ${kept.stderr}`);
        const killed = deletions.filter(({ signal }) => signal === "SIGKILL").length;
        tally.killed += killed;
        for (const { code, signal, stderr } of deletions) {
          assert.ok(code === 0 || code === 1 || signal === "SIGKILL", `${told} ${stderr}`);
        }
        if (state.info && state.archives < 2) {
          assert.ok(killed > 0, `backup.info without archives: ${told}`);
          // A deletion that is repeated finishes it.
          await barmanCloud(["backup-keep", "--release", ...words, store.url, server, ID], {
            env: { ...store.env },
          });
          const again = await barmanCloud(
            ["backup-delete", "-b", ID, ...words, store.url, server],
            { env: { ...store.env } },
          );
          assert.equal(again.code, 0, again.stderr);
          tally.finishedLater++;
        } else if (!state.info) {
          tally.deleted++;
          assert.equal(state.archives, 0, told);
        }
      };
      const numbers = Array.from({ length: ROUNDS }, (_, index) => index);
      await Promise.all(Array.from({ length: AT_ONCE }, async () => {
        for (let number = numbers.shift(); number !== undefined; number = numbers.shift()) {
          await round(number);
        }
      }));
      console.log(`keep and delete at once (${store.kind}): ${JSON.stringify(tally)}`);
      assert.ok(tally.kept > 0);
    } finally {
      await proxy?.stop();
    }
  },
);

const ID = "20260110T000000";
const NEXT = "20260111T000000";

async function fill(store: TestStore, server: string): Promise<void> {
  const bytes = (text: string) => new TextEncoder().encode(text);
  for (const [id, begin] of [[ID, "02"], [NEXT, "05"]] as const) {
    const base = `${server}/base/${id}`;
    await store.write(`${base}/data.tar`, bytes("data"));
    await store.write(`${base}/data_0001.tar`, bytes("more"));
    const lines =
      `begin_wal=0000000100000000000000${begin}\nend_wal=0000000100000000000000${begin}`;
    await store.write(`${base}/backup.info`, bytes(withLines(PLAIN, lines)));
    await store.write(
      `${server}/wals/0000000100000000/0000000100000000000000${begin}`,
      bytes("wal"),
    );
  }
}

async function stateOf(store: TestStore, server: string) {
  const own = `${server}/base/${ID}/`;
  const names = (await store.paths()).filter((path) => path.startsWith(own))
    .map((path) => path.slice(own.length));
  return {
    info: names.includes("backup.info"),
    archives: names.filter((name) => name.startsWith("data")).length,
    keep: names.includes("annotations/keep"),
  };
}

function codeOf({ code, signal }: RunResult): number | string {
  return code ?? signal ?? "?";
}

async function after<T>(ms: number, action: () => Promise<T>): Promise<T> {
  await new Promise((resolve) => setTimeout(resolve, ms));
  return await action();
}

function killAfter(pid: number, ms: number): void {
  setTimeout(() => {
    try {
      process.kill(pid, "SIGKILL");
    } catch {
      // It has ended by itself.
    }
  }, ms);
}
