import assert from "node:assert/strict";
import { Buffer } from "node:buffer";
import { appendFileSync } from "node:fs";
import { readdir, readFile, rm, writeFile } from "node:fs/promises";
import { join } from "node:path";
import { InterruptedError } from "../../../lib/cli/exit_codes.ts";
import { command as archive } from "../../../lib/commands/wal_archive.ts";
import { command as restore } from "../../../lib/commands/wal_restore.ts";
import {
  COMPRESSION_NAMES,
  COMPRESSIONS,
  decompressStream,
} from "../../../lib/compression/table.ts";
import { archiveWal, planArchive } from "../../../lib/wal/archive.ts";
import { parseWalName } from "../../../lib/wal/segment.ts";
import type { ObjectStore, Tags } from "../../../providers/object_store.ts";
import {
  altered,
  keysOf,
  type LocalStore,
  recordingLogger,
  walBytes,
  withLocalStore,
} from "../wal/stores.ts";
import { runIn } from "./wal_command_run.ts";

const MIB = 1024 ** 2;
const SEGMENT = "0000000100000002000000FE";

async function localFile(
  { directory }: LocalStore,
  name: string,
  bytes: Uint8Array,
): Promise<string> {
  const path = join(directory, name);
  await writeFile(path, bytes);
  return path;
}

Deno.test("wal-archive and wal-restore: every codec and kind of file comes back as it was", () =>
  withLocalStore(async (local) => {
    const files = [
      [SEGMENT, MIB, `wals/0000000100000002/${SEGMENT}`],
      ["0000000a0000000200000003", 100_000, "wals/0000000A00000002/0000000a0000000200000003"],
      [`${SEGMENT}.partial`, 200_000, `wals/0000000100000002/${SEGMENT}.partial`],
      [
        `${SEGMENT}.00000028.backup`,
        300,
        `wals/0000000100000002/${SEGMENT}.00000028.backup`,
      ],
      ["0000000B.history", 41, "wals/0000000B.history"],
      ["0000000C.history", 0, "wals/0000000C.history"],
    ] as const;
    for (const [name, size, key] of files) {
      const bytes = walBytes(size, size);
      const path = await localFile(local, name, bytes);
      for (const codec of [null, ...COMPRESSION_NAMES]) {
        const suffix = codec === null ? "" : COMPRESSIONS[codec].walSuffix;
        const flags = codec === null ? [] : [`--${codec}`];
        const done = await runIn(archive, [...flags, local.url, "main", path]);
        assert.deepEqual([done.code, done.stdout], [0, ""], done.log.join("\n"));
        assert.deepEqual(await keysOf(local.store), [`main/${key}${suffix}`]);

        const destination = join(local.directory, "RECOVERYXLOG");
        const back = await runIn(restore, [local.url, "main", name, destination]);
        assert.deepEqual([back.code, back.stdout], [0, ""], back.log.join("\n"));
        assert.ok(Buffer.from(bytes).equals(await readFile(destination)), `${name} ${codec}`);
        await rm(destination);
        await local.store.deleteMany([`main/${key}${suffix}`]);
      }
    }
  }));

Deno.test("wal-archive: segments of 1, 4, 16 and 64 MiB, plain and compressed", () =>
  withLocalStore(async (local) => {
    for (const size of [1, 4, 16, 64]) {
      const bytes = walBytes(size * MIB, size);
      const path = await localFile(local, SEGMENT, bytes);
      for (const flags of [[], ["--zstd"], ["--lz4", "--compression-level=low"]]) {
        const done = await runIn(archive, [...flags, local.url, "main", path]);
        assert.equal(done.code, 0, done.log.join("\n"));
        const destination = join(local.directory, "RECOVERYXLOG");
        assert.equal((await runIn(restore, [local.url, "main", SEGMENT, destination])).code, 0);
        assert.ok(Buffer.from(bytes).equals(await readFile(destination)), `${size} ${flags}`);
        await local.store.deleteMany(await keysOf(local.store));
      }
    }
  }));

Deno.test("wal-archive: with --overwrite a file replaces the one that is there, as Barman does", () =>
  withLocalStore(async (local) => {
    for (const bytes of [walBytes(100, 1), walBytes(90, 2)]) {
      const path = await localFile(local, SEGMENT, bytes);
      assert.equal((await runIn(archive, ["--overwrite", local.url, "main", path])).code, 0);
      const key = local.layout.wal(SEGMENT);
      const { body } = await local.store.get(key);
      const chunks: Uint8Array[] = [];
      for await (const chunk of body) chunks.push(chunk);
      assert.deepEqual(Buffer.concat(chunks), Buffer.from(bytes));
    }
  }));

Deno.test("wal-archive: compression levels are words or numbers, clamped", () =>
  withLocalStore(async (local) => {
    const path = await localFile(local, SEGMENT, walBytes(300_000));
    const store = async (...flags: string[]): Promise<Buffer> => {
      const done = await runIn(archive, [...flags, local.url, "main", path]);
      assert.equal(done.code, 0, done.log.join("\n"));
      const [key = ""] = await keysOf(local.store);
      const content = await readFile(join(local.directory, "bucket", key));
      await local.store.deleteMany([key]);
      return content;
    };
    const blockSize = async (...level: string[]) =>
      (await store("-j", ...level)).toString("latin1", 0, 4);
    assert.equal(await blockSize(), "BZh5");
    assert.equal(await blockSize("--compression-level", "low"), "BZh1");
    assert.equal(await blockSize("--compression-level", "HIGH"), "BZh9");
    assert.equal(await blockSize("--compression-level", "7"), "BZh7");
    assert.equal(await blockSize("--compression-level", "99"), "BZh9");
    assert.equal(await blockSize("--compression-level", "-3"), "BZh1");
    // Without levels, and without compression, the option has no meaning but is accepted.
    await store("--snappy", "--compression-level", "high");
    await store("--compression-level=-1");
    const negative = await store("--zstd", "--compression-level", "-22");
    assert.ok(negative.length > (await store("--zstd", "--compression-level", "22")).length);
    // What WAL is compressed with when nothing is said is not what base backups are.
    for (const [codec, level] of [["--zstd", "1"], ["--gzip", "5"], ["--lz4", "0"]] as const) {
      const usual = await store(codec);
      assert.equal(usual.length, (await store(codec, "--compression-level", level)).length);
    }
    const bad = await runIn(archive, ["--compression-level", "best", local.url, "main", path]);
    assert.equal(bad.code, 3);
    assert.match(bad.stderr, /'best' is not a compression level/);
  }));

Deno.test("wal-archive: tags, and those of history files", () =>
  withLocalStore(async (local) => {
    const seen: [string, string, Tags | undefined][] = [];
    const store: ObjectStore = altered(local.store, {
      put(key, body, options) {
        seen.push(["put", key, options?.tags]);
        return local.store.put(key, body, options);
      },
      async putContent(key, content, options) {
        seen.push(["in pieces", key, options?.tags]);
        await local.store.putContent?.(key, content, options);
      },
    });
    const path = await localFile(local, SEGMENT, walBytes(10));
    const tags = [["a", "b"]] as const;
    const wal = parseWalName(SEGMENT);
    assert.ok(wal);
    for (const compression of [null, "gzip", "lz4"] as const) {
      const plan = planArchive(local.layout, { path, wal, compression, tags });
      await archiveWal(store, plan, { log: recordingLogger() });
      await local.store.deleteMany([plan.key]);
    }
    const key = local.layout.wal(SEGMENT);
    assert.deepEqual(seen, [
      ["in pieces", key, tags],
      ["in pieces", `${key}.gz`, tags],
      ["put", `${key}.lz4`, tags],
    ]);

    // Which tags are chosen shows in the usage errors too: each pair excludes the other spelling.
    for (
      const words of [["--tag", "a,b", "--tags", "a,b"], [
        "--history-tag",
        "a,b",
        "--history-tags",
        "a,b",
      ]]
    ) {
      const result = await runIn(archive, [local.url, "main", path, ...words]);
      assert.equal(result.code, 3);
      assert.match(result.stderr, /not allowed with argument/);
    }
  }));

Deno.test("wal-archive: exit codes of the command line", () =>
  withLocalStore(async (local) => {
    const path = await localFile(local, SEGMENT, walBytes(10));
    const nothing = join(local.directory, "0000000100000002000000FF");
    const cases: [number, RegExp, string[]][] = [
      [0, /^INFO: Archived .* as main\/wals\/0000000100000002\/\S+ \(10 of 10 bytes\)$/m, [
        local.url,
        "main",
        path,
      ]],
      [1, /path of the WAL file is missing/, [local.url, "main"]],
      [1, /path of the WAL file is missing/, ["-t", local.url, "main"]],
      [3, /'RECOVERYXLOG' is not the name of a WAL file/, [
        local.url,
        "main",
        "pg_wal/RECOVERYXLOG",
      ]],
      [3, /is not the name of a WAL file/, ["-t", local.url, "main", `${SEGMENT}.gz`]],
      [4, /Cannot read .*FF: no such file or directory/, [local.url, "main", nothing]],
      [4, /--sse-kms-key-id needs/, ["--sse-kms-key-id", "k", local.url, "main", path]],
      [4, /--sse-kms-key-id needs/, [
        "-e",
        "AES256",
        "--sse-kms-key-id",
        "k",
        local.url,
        "main",
        path,
      ]],
      [4, /as an S3 store: write s3:/, ["bucket/path", "main", path]],
      // -t needs a valid name, but no file.
      [0, /^INFO: Connection to directory .* works$/, ["-t", local.url, "main", nothing]],
      [1, /There is no directory/, ["-t", `${local.url}-none`, "main", path]],
      [4, /ERROR/, [`${local.url}-none`, "main", path]],
    ];
    for (const [code, message, words] of cases) {
      const result = await runIn(archive, words);
      assert.equal(result.code, code, `${words} ${result.log} ${result.stderr}`);
      assert.match(result.log.filter((line) => !line.startsWith("DEBUG")).join("\n"), message);
      assert.equal(result.stdout, "");
    }
    for (
      const words of [
        [],
        [local.url],
        ["-z", "-j", local.url, "main", path],
        ["--xz", "--lz4", local.url, "main", path],
        ["-v", "-q", local.url, "main", path],
        ["-h", local.url, "main", path],
        ["--max-block-size", "0", local.url, "main", path],
        ["--max-concurrency", "0", local.url, "main", path],
        ["--max-single-put-size", "1XB", local.url, "main", path],
        ["--tag", "novalue", local.url, "main", path],
        ["-e", "rot13", local.url, "main", path],
      ]
    ) {
      const result = await runIn(archive, words);
      assert.equal(result.code, 3, words.join(" "));
      assert.match(result.stderr, /^usage: barman-cloud-wal-archive /);
    }
  }));

Deno.test("wal-archive: as hook script of Barman the file comes from the environment", () =>
  withLocalStore(async (local) => {
    const path = await localFile(local, SEGMENT, walBytes(10));
    const url = [local.url, "main"];
    for (const hook of ["archive_script", "archive_retry_script"]) {
      const env = { BARMAN_HOOK: hook, BARMAN_PHASE: "pre", BARMAN_FILE: path };
      assert.equal((await runIn(archive, [...url, "/nowhere/else"], { env })).code, 0);
      assert.deepEqual(await keysOf(local.store), [local.layout.wal(SEGMENT)]);
      await local.store.deleteMany(await keysOf(local.store));
    }
    const wrong: Record<string, string>[] = [
      { BARMAN_HOOK: "archive_script", BARMAN_PHASE: "post", BARMAN_FILE: path },
      { BARMAN_HOOK: "backup_script", BARMAN_PHASE: "pre", BARMAN_FILE: path },
      { BARMAN_HOOK: "archive_script", BARMAN_PHASE: "pre" },
    ];
    for (const env of wrong) {
      const result = await runIn(archive, [...url, path], { env });
      assert.equal(result.code, 1);
      assert.match(result.log[0] ?? "", /^ERROR: Cannot run as /);
    }
    // One of the two variables alone is no hook.
    const alone = { BARMAN_HOOK: "backup_script" };
    assert.equal((await runIn(archive, [...url, path], { env: alone })).code, 0);
  }));

Deno.test("wal-archive: a file that shrinks or grows while read is not archived", () =>
  withLocalStore(async (local) => {
    const bytes = walBytes(2 * MIB);
    const wal = parseWalName(SEGMENT);
    assert.ok(wal);
    for (const compression of [null, "gzip", "zstd"] as const) {
      const path = await localFile(local, SEGMENT, bytes);
      const plan = planArchive(local.layout, { path, wal, compression });
      // Looking for copies happens after the file was opened, and before any of it is read.
      const store: ObjectStore = {
        ...local.store,
        list(...args) {
          appendFileSync(path, "x");
          return local.store.list(...args);
        },
      };
      await assert.rejects(
        archiveWal(store, plan, { log: recordingLogger() }),
        /changed from \d+ to \d+ bytes|source was to give/,
      );
      assert.deepEqual(await keysOf(local.store), []);
    }
  }));

Deno.test("wal-archive: stopped by a signal it exits as signals do and leaves nothing", () =>
  withLocalStore(async (local) => {
    const path = await localFile(local, SEGMENT, walBytes(64 * MIB));
    for (const [signal, code] of [["SIGTERM", 143], ["SIGINT", 130]] as const) {
      const controller = new AbortController();
      setTimeout(() => controller.abort(new InterruptedError(signal)), 30);
      const result = await runIn(archive, [
        "--zstd",
        "--compression-level",
        "9",
        local.url,
        "main",
        path,
      ], {
        signal: controller.signal,
      });
      assert.equal(result.code, code);
      assert.deepEqual(await keysOf(local.store), []);
    }
    const left = await readdir(join(local.directory, "bucket"), { recursive: true });
    assert.deepEqual(left.filter((name) => /\.tmp$/.test(name)), []);
  }));

Deno.test("wal-archive: what is stored is one conforming stream of the codec", () =>
  withLocalStore(async (local) => {
    const bytes = walBytes(3 * MIB);
    const path = await localFile(local, SEGMENT, bytes);
    const magic = {
      gzip: "1f8b0800",
      bzip2: "425a6835",
      xz: "fd377a585a000004",
      snappy: "ff060000734e61507059",
      zstd: "28b52ffd",
      lz4: "04224d18",
    };
    for (const codec of COMPRESSION_NAMES) {
      assert.equal((await runIn(archive, [`--${codec}`, local.url, "main", path])).code, 0);
      const key = local.layout.wal(SEGMENT) + COMPRESSIONS[codec].walSuffix;
      const start = await readFile(join(local.directory, "bucket", key));
      assert.ok(start.toString("hex").startsWith(magic[codec]), codec);
      const { body } = await local.store.get(key);
      const chunks: Uint8Array[] = [];
      for await (const chunk of decompressStream(codec, body)) chunks.push(chunk);
      assert.ok(Buffer.concat(chunks).equals(Buffer.from(bytes)), codec);
      await local.store.deleteMany([key]);
    }
  }));
