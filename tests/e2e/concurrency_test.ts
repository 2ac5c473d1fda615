/** Many processes on one archive at the same time. */
import assert from "node:assert/strict";
import { readdir, readFile, stat, writeFile } from "node:fs/promises";
import { basename, join } from "node:path";
import { archiveCurrentSegment, startWriteLoad } from "../../scripts/servers/write_load.ts";
import { makeDirectory, newHost } from "./host.ts";
import { testOnStores } from "./stores.ts";

const SEGMENT = 16 * 1024 ** 2;
const CODECS = ["gzip", "bzip2", "snappy", "zstd", "lz4", "none", "zstd", "lz4"] as const;

testOnStores("8 archive at once, 2 of them the same file, and 4 restore at once", async (store) => {
  await using host = await newHost(store);
  const directory = makeDirectory(host.newPath("pg_wal"), 0o755);
  const names = CODECS.map((_, at) => `0000000100000000000000${(0x10 + at).toString(16)}`);
  const segments = new Map<string, Uint8Array>();
  for (const [at, name] of names.entries()) {
    const bytes = new Uint8Array(SEGMENT);
    // Half noise, half zeros, as segments often are.
    for (let done = 0; done < SEGMENT / 2; done += 65536) {
      crypto.getRandomValues(bytes.subarray(done, done + 65536));
    }
    bytes[SEGMENT - 1] = at;
    segments.set(name, bytes);
    await writeFile(join(directory, name), bytes);
  }
  const archive = (name: string, codec: string) =>
    host.ok("wal-archive", codec === "none" ? [] : [`--${codec}`], [
      join(basename(directory), name),
    ]);
  const twice = names[7] ?? "";
  await Promise.all([
    ...names.map((name, at) => archive(name, CODECS[at] ?? "none")),
    archive(twice, "lz4"),
  ]);
  assert.deepEqual(await store.leftovers(), []);
  assert.equal((await store.paths()).length, 8);

  const target = makeDirectory(host.newPath("restored"));
  for (const four of [names.slice(0, 4), names.slice(4)]) {
    await Promise.all(
      four.map((name) => host.ok("wal-restore", [], [name, join(target, `RECOVERY.${name}`)])),
    );
  }
  // The same destination by two at once: one whole file, nothing else.
  await Promise.all([1, 2].map(() => host.ok("wal-restore", [], [twice, join(target, "same")])));
  for (const [name, bytes] of segments) {
    assert.ok(
      Buffer.compare(await readFile(join(target, `RECOVERY.${name}`)), bytes) === 0,
      `${name} came back changed`,
    );
  }
  assert.equal((await stat(join(target, "same"))).size, SEGMENT);
  assert.equal((await readdir(target)).length, 9, "no temporary files stay");
});

testOnStores("two backups at once, while WAL is archived", async (store) => {
  await using host = await newHost(store);
  const server = await host.start({ walSegSizeMb: 1, wal: ["--lz4"] });
  const load = await startWriteLoad(server);
  const backup = (name: string, codec: string) =>
    host.ok("backup", [codec, "--immediate-checkpoint", "-n", name, "-d", server.conninfo()]);
  await Promise.all([backup("one", "--zstd"), backup("two", "--gzip")]);
  await load.stop();
  await archiveCurrentSegment(server);
  const { backups_list: list } = JSON.parse(await host.ok("backup-list", ["--format", "json"]));
  assert.deepEqual(
    list.map((each: Record<string, unknown>) => [each["backup_name"], each["status"]]).sort(),
    [["one", "DONE"], ["two", "DONE"]],
  );
  assert.notEqual(list[0].backup_id, list[1].backup_id);
  const [failures] = await server.query("select failed_count::int as n from pg_stat_archiver");
  assert.equal(failures?.["n"], 0, await server.logTail());
  for (const name of ["one", "two"]) await host.ok("restore", [], [name, host.newPath(name)]);
});

testOnStores(
  "parts at once: as many as suit the store and the codec, or as --jobs says",
  async (store) => {
    await using host = await newHost(store);
    const server = await host.start({});
    const partsAtOnce = async (...options: string[]) => {
      await host.ok("backup", ["--immediate-checkpoint", ...options, "-d", server.conninfo()]);
      const list = JSON.parse(await host.ok("backup-list", ["--format", "json"]));
      const id = list.backups_list.at(-1).backup_id;
      const info = await store.read(`${host.serverName}/base/${id}/backup.info`);
      return Number(/'number_of_workers': (\d+)/.exec(new TextDecoder().decode(info))?.[1]);
    };
    const local = store.kind === "file";
    assert.equal(await partsAtOnce(), local ? 2 : 6);
    assert.equal(await partsAtOnce("--lz4"), local ? 2 : 4);
    assert.equal(await partsAtOnce("--zstd"), 2);
    assert.equal(await partsAtOnce("--jobs", "3"), 3);
  },
);
