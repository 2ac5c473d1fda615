/**
 * What the WAL commands promise, under faults: exit code 0 means that the archive holds all of the file; whatever happens,
 * it holds the whole file or nothing; and wal-restore never says "not there" (1) when it could not know.
 *
 * `FAULTS=500 deno test -A tests/e2e/wal_faults_test.ts` kills more often; each test prints what it has done.
 */
import assert from "node:assert/strict";
import { spawn } from "node:child_process";
import { Buffer } from "node:buffer";
import { mkdir, mkdtemp, readdir, readFile, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { mapInParallel } from "../../lib/parallel.ts";
import { segmentNameOf } from "../../lib/wal/segment.ts";
import { type ConnectionPlan, startFaultProxy } from "../../scripts/servers/fault_proxy.ts";
import { zstdDecompressSync } from "node:zlib";
import { MIB, walSegment } from "../lib/wal/wal_files.ts";
import { skipUnless } from "../skips.ts";
import { barmanCloud, executablePath, runProgram, type RunResult } from "./executable.ts";
import { type HttpFault, startHttpFaults } from "./http_faults.ts";
import { ALL_STORES, haveS3, newStore, testOnStores, type TestStore } from "./stores.ts";

const KILLS = Number(Deno.env.get("FAULTS") ?? "12");
const NAME = "000000010000000A00000001";
const path = (name: string) => `main/wals/${name.slice(0, 16)}/${name}`;

/** Nothing but what the store needs, and few attempts: faults last longer. */
function envOf(store: TestStore, more: Record<string, string> = {}): Record<string, string> {
  return { ...store.env, AWS_MAX_ATTEMPTS: "3", ...more };
}

async function inDirectory(use: (directory: string) => Promise<void>): Promise<void> {
  const directory = await mkdtemp(join(tmpdir(), "bce2e-faults-"));
  try {
    await use(directory);
  } finally {
    await rm(directory, { recursive: true, force: true });
  }
}

/** What the archive holds under a name; null for nothing. Anything but a whole file fails the test. */
async function stored(store: TestStore, name: string): Promise<Buffer | null> {
  const there = (await store.paths()).filter((each) => each.startsWith(path(name)));
  assert.ok(there.length <= 1, there.join());
  const [key] = there;
  if (key === undefined) return null;
  const content = await store.read(key);
  return key.endsWith(".zst") ? zstdDecompressSync(content) : Buffer.from(content);
}

/** What is acknowledged is there, and what is there is whole. */
async function checkPush(
  store: TestStore,
  name: string,
  content: Uint8Array,
  code: number | null,
): Promise<"stored" | "nothing"> {
  const found = await stored(store, name);
  assert.ok(found !== null || code !== 0, `${name} was acknowledged and is not there`);
  assert.ok(found === null || found.equals(content), `${name} is there and is not whole`);
  return found === null ? "nothing" : "stored";
}

/** Run the executable and kill it after so many milliseconds. */
async function killed(
  words: readonly string[],
  env: Record<string, string>,
  after: number,
): Promise<number | null> {
  const child = spawn(await executablePath(), [...words], { env, stdio: "ignore" });
  const timer = setTimeout(() => child.kill("SIGKILL"), after);
  return await new Promise((resolve, reject) => {
    child.on("error", reject);
    child.on("close", (code) => {
      clearTimeout(timer);
      resolve(code);
    });
  });
}

testOnStores(
  "wal-archive: killed at any moment it leaves a whole file or none",
  (store) =>
    inDirectory(async (directory) => {
      const tally = { injected: 0, acknowledged: 0, lost: 0 };
      const kinds = [
        { size: 16 * MIB, options: [] },
        { size: 16 * MIB, options: ["--zstd"] },
        // In parts.
        { size: 64 * MIB, options: [] },
      ];
      for (const [kind, { size, options }] of kinds.entries()) {
        const words = (name: string) => [
          ...[
            "wal-archive",
            ...options,
            ...store.options,
            store.url,
            "main",
            join(directory, name),
          ],
        ];
        const nameOf = (number: number) =>
          `000000010000000${kind}${number.toString(16).toUpperCase().padStart(8, "0")}`;
        // How long it takes undisturbed, which is also what the kills are spread over.
        const warm = nameOf(0x3f);
        await writeFile(join(directory, warm), walSegment(warm, { size }));
        const began = performance.now();
        assert.equal((await barmanCloud(words(warm), { env: envOf(store) })).code, 0);
        const usual = performance.now() - began;
        await rm(join(directory, warm));
        const kills = Math.ceil(KILLS / kinds.length);
        for (let number = 0; number < kills; number++) {
          const name = nameOf(number % 0x3f);
          const content = walSegment(name, { size, seed: 1 });
          await writeFile(join(directory, name), content);
          const after = 5 + (usual * 1.2 * number) / kills;
          const code = await killed(words(name), envOf(store), after);
          tally.injected += code === 0 ? 0 : 1;
          tally.acknowledged += code === 0 ? 1 : 0;
          await checkPush(store, name, content, code);
          // PostgreSQL's next attempt.
          const again = await barmanCloud(words(name), { env: envOf(store) });
          assert.equal(again.code, 0, again.stderr);
          if (await checkPush(store, name, content, 0) === "nothing") tally.lost++;
          for (const each of await store.paths()) {
            if (each.startsWith(path(name))) await store.remove(each);
          }
          await rm(join(directory, name));
        }
      }
      assert.ok(tally.injected > KILLS / 3, JSON.stringify(tally));
      console.log(`kill -9 of wal-archive (${store.kind}): ${JSON.stringify(tally)}`);
    }),
  ALL_STORES,
);

testOnStores(
  "wal-archive --look-ahead: killed at any moment, nothing is acknowledged that is not there",
  (store) =>
    inDirectory(async (directory) => {
      const pgWal = join(directory, "pg_wal");
      const status = join(pgWal, "archive_status");
      const spool = join(directory, "spool");
      await mkdir(status, { recursive: true });
      const names = Array.from(
        { length: 24 },
        (_, index) => `00000001000000AA000000${index.toString(16).toUpperCase().padStart(2, "0")}`,
      );
      const tally = { injected: 0, acknowledged: 0, wiped: 0, lost: 0 };
      for (let round = 0; round < Math.max(1, KILLS / 30); round++) {
        for (const name of names) {
          await writeFile(join(pgWal, name), walSegment(name, { seed: round + 1 }));
          await writeFile(join(status, `${name}.ready`), "");
        }
        let after = 20;
        for (const [number, name] of names.entries()) {
          const words = [
            ...["wal-archive", "--look-ahead", "6", "--spool-dir", spool, ...store.options],
            ...[store.url, "main", join(pgWal, name)],
          ];
          if (number % 11 === 10) {
            await rm(spool, { recursive: true, force: true });
            tally.wiped++;
          }
          for (let attempt = 1;; attempt++) {
            const code = attempt > 2
              ? (await barmanCloud(words, { env: envOf(store) })).code
              : await killed(words, envOf(store), after);
            after = 10 + (after * 7 + 31) % 110;
            await checkPush(store, name, walSegment(name, { seed: round + 1 }), code);
            if (code === 0) break;
            tally.injected++;
            assert.ok(attempt < 5, "it is never archived");
          }
          tally.acknowledged++;
          await rm(join(status, `${name}.ready`));
        }
        for (const each of await store.paths()) {
          if (each.includes("/wals/")) await store.remove(each);
        }
      }
      assert.ok(tally.injected > 0);
      console.log(`kill -9 of wal-archive --look-ahead (${store.kind}): ${JSON.stringify(tally)}`);
    }),
);

testOnStores(
  "wal-restore: killed at any moment it leaves a whole file or none",
  (store) =>
    inDirectory(async (directory) => {
      const content = walSegment(NAME, { size: 16 * MIB });
      await writeFile(join(directory, NAME), content);
      const place = [...store.options, store.url, "main"];
      const push = ["wal-archive", "--zstd", ...place, join(directory, NAME)];
      assert.equal((await barmanCloud(push, { env: envOf(store) })).code, 0);
      const spool = join(directory, "spool");
      let injected = 0;
      for (let number = 0; number < KILLS; number++) {
        const destination = join(directory, `RECOVERYXLOG${number}`);
        const ahead = number % 2 === 0 ? [] : ["-p", "4", "--spool-dir", spool];
        const words = ["wal-restore", ...ahead, ...place, NAME, destination];
        const code = await killed(words, envOf(store), 5 + number * 200 / KILLS);
        const found = await readFile(destination).catch(() => null);
        assert.ok(found === null || found.equals(content), "part of a file");
        assert.ok(code !== 0 || found !== null);
        if (code !== 0) injected++;
        const again = await barmanCloud(words, { env: envOf(store) });
        assert.equal(again.code, 0, again.stderr);
        assert.ok((await readFile(destination)).equals(content));
        await rm(destination);
      }
      assert.ok(injected > 0);
      console.log(
        `kill -9 of wal-restore (${store.kind}): ${JSON.stringify({ injected, lost: 0 })}`,
      );
    }),
  ALL_STORES,
);

/** One test for both commands behind something that goes wrong. */
async function behindFaults(
  store: TestStore,
  endpoint: string,
  what: string,
  options: {
    readonly push?: { readonly mayWork?: boolean };
    readonly env?: Record<string, string>;
    readonly words?: readonly string[];
  } = {},
): Promise<void> {
  await inDirectory(async (directory) => {
    const size = 16 * MIB;
    const content = walSegment(NAME, { size });
    const file = join(directory, NAME);
    await writeFile(file, content);
    const place = ["--endpoint-url", endpoint, "--read-timeout", "1", ...options.words ?? []];
    const env = { ...envOf(store), ...options.env };
    const pushed = await barmanCloud(["wal-archive", ...place, store.url, "main", file], { env });
    const outcome = await checkPush(store, NAME, content, pushed.code);
    if (options.push?.mayWork !== true) {
      assert.deepEqual([pushed.code, outcome], [4, "nothing"], `${what}: ${pushed.stderr}`);
    } else assert.ok(pushed.code === 0 || pushed.code === 4, `${what}: ${pushed.stderr}`);
    const direct = await barmanCloud(
      ["wal-archive", ...store.options, store.url, "main", file],
      { env: envOf(store) },
    );
    assert.equal(direct.code, 0, direct.stderr);
    for (const ahead of [[], ["-p", "4", "--spool-dir", join(directory, "spool")]]) {
      const destination = join(directory, "RECOVERYXLOG");
      const words = [...place, ...ahead, store.url, "main", NAME, destination];
      const restore = (...more: string[]): Promise<RunResult> =>
        barmanCloud(["wal-restore", ...more, ...words], { env });
      for (const stop of [[], ["--stop-recovery-on-error"]]) {
        const { code, stderr } = await restore(...stop);
        const found = await readFile(destination).catch(() => null);
        if (code === 0) assert.ok(found?.equals(content), what);
        else {
          const allowed = stop.length === 0 ? [2, 4] : [126];
          assert.ok(code !== null && allowed.includes(code), `${what}: ${code} ${stderr}`);
          assert.equal(found, null, `${what}: a file is left`);
        }
        const names = (await readdir(directory)).filter((name) => name.includes("RECOVERYXLOG"));
        assert.deepEqual(names, found === null ? [] : ["RECOVERYXLOG"]);
        await rm(destination, { force: true });
      }
    }
    for (const each of await store.paths()) {
      if (each.includes("/wals/")) await store.remove(each);
    }
  });
}

const CONNECTION_FAULTS: Readonly<Record<string, ConnectionPlan>> = {
  "connections that end at once": { drop: true },
  "connections that are reset at once": { drop: true, reset: true },
  "connections that nobody answers": { blackhole: true },
  "connections that are cut in the request's head": { cutAfterUp: 100 },
  "connections that are cut in the middle of a body": { cutAfterUp: 5 * MIB },
  "connections that are reset in the middle of a body": { cutAfterUp: 1 * MIB, reset: true },
  "half-open connections, which take nothing more": { stallAfterUp: 3 * MIB },
  "answers that are cut in their head": { cutAfterDown: 20 },
  "answers that are cut in the middle": { cutAfterDown: 2 * MIB },
  "answers that never go on": { stallAfterDown: 300 },
};

/** So many at once: most of the time is waiting. */
const AT_ONCE = 5;

Deno.test({
  name: "WAL commands behind connections and answers that break, stall or never come",
  ignore: !haveS3,
  fn: async () => {
    await mapInParallel(Object.entries(CONNECTION_FAULTS), AT_ONCE, async ([what, plan]) => {
      await using store = await newStore("s3");
      assert.ok(store.endpoint !== undefined);
      const proxy = await startFaultProxy(store.endpoint, plan);
      try {
        // Parts of an object may come through, one connection after the other.
        await behindFaults(store, proxy.endpoint, what, { push: { mayWork: true } });
        assert.ok(proxy.connections > 0);
      } finally {
        await proxy.stop();
      }
    });
    console.log(`network: ${Object.keys(CONNECTION_FAULTS).join("; ")}: nothing lost`);
  },
});

const ANSWERS: Readonly<Record<string, HttpFault>> = {
  "503 SlowDown": { status: 503, code: "SlowDown" },
  "500 InternalError": { status: 500, code: "InternalError" },
  "502 of a gateway": { status: 502, code: "BadGateway" },
  "429": { status: 429, code: "TooManyRequests" },
  "expired credentials": { status: 400, code: "ExpiredToken" },
  "credentials that are not known": { status: 403, code: "InvalidAccessKeyId" },
  "404 of something else": { status: 404, code: "NotThisOne" },
  "403": { status: 403, code: "AccessDenied" },
};

Deno.test({
  name: "WAL commands behind a store that refuses everything, and where no name is resolved",
  ignore: !haveS3,
  fn: async () => {
    await mapInParallel(Object.entries(ANSWERS), AT_ONCE, async ([what, fault]) => {
      await using store = await newStore("s3");
      assert.ok(store.endpoint !== undefined);
      await using faults = await startHttpFaults(store.endpoint);
      faults.plan(() => fault);
      await behindFaults(store, faults.endpoint, what);
    });
    await using store = await newStore("s3");
    await behindFaults(store, "http://nowhere.invalid:9000", "no such host");
    console.log(`answers: ${Object.keys(ANSWERS).join("; ")}: nothing lost`);
  },
});

Deno.test({
  name: "WAL commands: a store that fails now and then is tried again, lost answers included",
  ignore: !haveS3,
  fn: async () => {
    await using store = await newStore("s3");
    assert.ok(store.endpoint !== undefined);
    await using faults = await startHttpFaults(store.endpoint);
    await inDirectory(async (directory) => {
      let pushes = 0;
      for (const size of [MIB, 64 * MIB]) {
        for (
          const fault of [
            "answer lost",
            ANSWERS["503 SlowDown"],
            ANSWERS["500 InternalError"],
          ] as const
        ) {
          for (let at = 1; at <= (size === MIB ? 4 : 2); at++) {
            const wal = segmentNameOf(BigInt(++pushes * 64 * MIB), 1, size);
            const content = walSegment(wal, { size });
            await writeFile(join(directory, wal), content);
            faults.plan((number) => number === at ? fault : undefined);
            const { code, stderr } = await barmanCloud([
              ...[
                "wal-archive",
                "--endpoint-url",
                faults.endpoint,
                store.url,
                "main",
                join(directory, wal),
              ],
            ], { env: envOf(store) });
            assert.equal(code, 0, `${JSON.stringify(fault)} at ${at}: ${stderr}`);
            await checkPush(store, wal, content, code);
            for (const each of await store.paths()) {
              if (each.includes("/wals/")) await store.remove(each);
            }
            await rm(join(directory, wal));
          }
        }
      }
      console.log(
        `passing faults: ${JSON.stringify({ pushes, injected: faults.injected, lost: 0 })}`,
      );
      assert.ok(faults.injected >= pushes / 2);
    });
  },
});

const root = process.getuid?.() === 0;
Deno.test({
  name: "WAL commands on a full and on a read-only file system",
  ignore: skipUnless(
    root,
    "small and read-only file systems",
    "run as root with util-linux's unshare",
  ),
  fn: () =>
    inDirectory(async (directory) => {
      const content = walSegment(NAME, { size: 16 * MIB });
      await writeFile(join(directory, NAME), content);
      await mkdir(join(directory, "small"));
      await mkdir(join(directory, "whole"));
      const script = [
        `cd ${directory}`,
        "mount -t tmpfs -o size=10m none small || exit 77",
        'run() { "$@"; echo "$?"; }',
        `P=${await executablePath()}`,
        `run $P wal-archive file://${directory}/whole main ${NAME}`,
        // The store is full.
        `run $P wal-archive file://${directory}/small main ${NAME}`,
        `find small -name '0*01' -o -name '.barman*' | wc -l`,
        // The destination is full, and so is the spool.
        `run $P wal-restore file://${directory}/whole main ${NAME} small/RECOVERYXLOG`,
        `run $P wal-restore --stop-recovery-on-error file://${directory}/whole main ${NAME} small/RECOVERYXLOG`,
        "ls -A small | grep -v ^main | wc -l",
        `run $P wal-restore -p 4 --spool-dir small/spool file://${directory}/whole main ${NAME} out`,
        `cmp out ${NAME} && rm out`,
        "mount -o remount,ro small || exit 77",
        `run $P wal-archive file://${directory}/small main ${NAME}`,
        `run $P wal-restore file://${directory}/whole main ${NAME} small/RECOVERYXLOG`,
        `run $P wal-archive --look-ahead 4 --spool-dir small/spool file://${directory}/whole main ${NAME}`,
      ].join("\n");
      const { code, stdout, stderr } = await runProgram("/usr/bin/unshare", [
        "-m",
        "sh",
        "-c",
        script,
      ], {
        env: { PATH: "/usr/bin:/bin:/usr/sbin:/sbin" },
      });
      assert.equal(code, 0, stderr);
      assert.deepEqual(stdout.trim().split("\n").map((line) => line.trim()), [
        ...["0", "4", "0", "4", "126", "0", "0", "4", "4", "0"],
      ], stderr);
    }),
});
