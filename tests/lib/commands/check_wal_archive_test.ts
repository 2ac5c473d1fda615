import assert from "node:assert/strict";
import { access } from "node:fs/promises";
import { join } from "node:path";
import fc from "fast-check";
import { command as check } from "../../../lib/commands/check_wal_archive.ts";
import { checkConnection, testConnection } from "../../../lib/commands/test_connection.ts";
import { serverLayout } from "../../../lib/layout.ts";
import { findConflict } from "../../../lib/wal/catalogue.ts";
import { type ListEntry, type ListOptions, StoreError } from "../../../providers/object_store.ts";
import { altered, recordingLogger, withLocalStore } from "../wal/stores.ts";
import { runIn } from "./wal_command_run.ts";

const NOTHING = new Uint8Array(0);

Deno.test("check-wal-archive: makes the bucket, but not with -t", () =>
  withLocalStore(async (local) => {
    const url = `${local.url}-new`;
    const there = () => access(join(local.directory, "bucket-new")).then(() => true, () => false);
    assert.equal((await runIn(check, ["-t", url, "main"])).code, 0);
    assert.equal(await there(), false);
    const made = await runIn(check, [url, "main"]);
    assert.equal(made.code, 0, made.log.join("\n"));
    assert.equal(await there(), true);
    assert.equal((await runIn(check, [url, "main"])).code, 0);
    assert.equal((await runIn(check, ["-t", url, "main"])).code, 0);
  }));

Deno.test("check-wal-archive: any WAL, history, partial or label file is a problem, others are not", () =>
  withLocalStore(async (local) => {
    const wals = "main/wals/";
    const strangers = [
      `${wals}README`,
      `${wals}0000000100000000/RECOVERYXLOG`,
      `${wals}0000000100000000/000000010000000000000001.gz.gz`,
      `${wals}0000000100000000/000000010000000000000001.tmp`,
      "main/base/000000010000000000000001",
      "main2/wals/0000000100000000/000000010000000000000001",
    ];
    for (const key of strangers) await local.store.put(key, NOTHING);
    assert.equal((await runIn(check, [local.url, "main"])).code, 0);
    for (
      const key of [
        `${wals}00000002.history`,
        `${wals}00000002.history.gz`,
        `${wals}0000000100000000/000000010000000000000001`,
        `${wals}0000000100000000/000000010000000000000001.partial.zst`,
        `${wals}0000000100000000/000000010000000000000001.00000028.backup.lz4`,
        `${wals}000000010000000000000001.snappy`,
        `${wals}some/where/else/000000010000000000000001.bz2`,
      ]
    ) {
      await local.store.put(key, NOTHING);
      const result = await runIn(check, [local.url, "main"]);
      assert.equal(result.code, 1);
      assert.deepEqual(result.log, [
        `ERROR: The WAL archive of main is not empty: it holds ${key}`,
      ]);
      assert.equal(result.stdout, "");
      // -t looks at nothing.
      assert.equal((await runIn(check, ["-t", local.url, "main"])).code, 0);
      await local.store.deleteMany([key]);
    }
  }));

Deno.test("check-wal-archive: --timeline is decimal, names are hexadecimal", () =>
  withLocalStore(async (local) => {
    await local.store.put(local.layout.wal("000000090000000000000001"), NOTHING);
    await local.store.put(local.layout.wal("0000000a.history"), NOTHING);
    await local.store.put(local.layout.wal("0000000a0000000000000001.gz"), NOTHING);
    const code = async (timeline: string) =>
      (await runIn(check, ["--timeline", timeline, local.url, "main"])).code;
    assert.deepEqual(
      [await code("1"), await code("9"), await code("10"), await code("11"), await code("16")],
      [1, 1, 1, 0, 0],
    );
    assert.equal(await code("4294967296"), 0);
    for (const bad of ["0", "-1", "0x1", "one"]) assert.equal(await code(bad), 3);
    assert.equal((await runIn(check, [local.url])).code, 3);
    assert.equal((await runIn(check, ["nowhere", "main"])).code, 4);
  }));

Deno.test("check-wal-archive: starting the listing at the timeline finds what a full listing finds", async () => {
  const layout = serverLayout("p", "main");
  const digits = fc.integer({ min: 0, max: 0x1FF }).chain((timeline) => {
    const upper = timeline.toString(16).toUpperCase().padStart(8, "0");
    return fc.constantFrom(upper, upper.toLowerCase());
  });
  const keys = fc.oneof(
    digits.map((timeline) => layout.wal(`${timeline}.history`)),
    digits.map((timeline) => layout.wal(`${timeline}000000000000000A.gz`)),
    digits.map((timeline) => `${layout.wals}${timeline}`),
  );
  await withLocalStore(async (local) => {
    await fc.assert(fc.asyncProperty(
      fc.array(keys, { maxLength: 6 }),
      fc.integer({ min: 1, max: 0x1FF }),
      async (present, timeline) => {
        const sorted = [...new Set(present)].sort();
        const store = altered(local.store, {
          list: async function* (prefix: string, options: ListOptions = {}) {
            await Promise.resolve();
            for (const key of sorted) {
              if (!key.startsWith(prefix) || key <= (options.startAfter ?? "")) continue;
              yield { kind: "object", key, size: 0 } satisfies ListEntry;
            }
          },
        });
        const expected = sorted.some((key) => {
          const name = key.slice(key.lastIndexOf("/") + 1).replace(/\.gz$/, "");
          return name.length > 8 && parseInt(name.slice(0, 8), 16) >= timeline;
        });
        assert.equal(await findConflict(store, layout, { timeline }) !== null, expected);
      },
    ));
  });
});

Deno.test("check-wal-archive: the listing ends at the first hit", () =>
  withLocalStore(async (local) => {
    let read = 0;
    const store = altered(local.store, {
      list: async function* () {
        await Promise.resolve();
        while (true) {
          read++;
          const name = `00000001000000000000000${read}`;
          yield { kind: "object", key: local.layout.wal(name), size: 0 } satisfies ListEntry;
        }
      },
    });
    assert.equal((await findConflict(store, local.layout))?.wal.name, "000000010000000000000001");
    assert.equal(read, 1);
  }));

Deno.test("-t: what counts as no connection differs between the providers, as with Barman", () =>
  withLocalStore(async (local) => {
    const answering = (
      provider: "aws-s3" | "azure-blob-storage" | "google-cloud-storage",
      answer: boolean | StoreError["kind"],
    ) =>
      altered(local.store, {
        provider,
        description: "bucket b",
        bucketExists: () =>
          typeof answer === "boolean"
            ? Promise.resolve(answer)
            : Promise.reject(new StoreError(answer, `answer: ${answer}`)),
      });
    for (const provider of ["aws-s3", "azure-blob-storage", "google-cloud-storage"] as const) {
      const log = recordingLogger();
      assert.equal(await testConnection(answering(provider, true), log), 0);
      assert.equal(await testConnection(answering(provider, false), log), 1);
      assert.equal(await testConnection(answering(provider, "unreachable"), log), 2);
      assert.deepEqual(log.lines, [
        "INFO: Connection to bucket b works",
        "ERROR: There is no bucket b; make it, or correct the URL",
        "ERROR: answer: unreachable",
      ]);
      const denied = checkConnection(answering(provider, "denied"), log);
      if (provider === "aws-s3") await assert.rejects(denied, { kind: "denied" });
      else assert.equal(await denied, "no-connection");
    }
  }));
