/** WAL of another cluster, of another segment, or damaged: refused; and whose archive it is. */
import assert from "node:assert/strict";
import { writeFile } from "node:fs/promises";
import { join } from "node:path";
import { formatBackupInfo, newBackupInfo } from "../../../lib/backup/backup_info.ts";
import { command as archive } from "../../../lib/commands/wal_archive.ts";
import { command as check } from "../../../lib/commands/check_wal_archive.ts";
import { parseIdentity } from "../../../lib/wal/identity.ts";
import { runIn } from "../commands/wal_command_run.ts";
import { keysOf, type LocalStore, readObject, walBytes, withLocalStore } from "./stores.ts";
import { MIB, type Segment, SYSTEM_IDENTIFIER, walSegment } from "./wal_files.ts";

const FIRST = "000000010000000000000001";
const SECOND = "000000010000000000000002";
const OTHER = SYSTEM_IDENTIFIER + 1n;

function archiver(local: LocalStore) {
  return async (name: string, content: Segment | Uint8Array = {}, ...flags: string[]) => {
    const path = join(local.directory, name);
    await writeFile(path, content instanceof Uint8Array ? content : walSegment(name, content));
    const { code, log } = await runIn(archive, [...flags, local.url, "main", path]);
    return { code, log: log.filter((line) => !line.startsWith("DEBUG")).join("\n") };
  };
}

async function identityOf({ store, layout }: LocalStore) {
  const identity = parseIdentity(
    new TextDecoder().decode(await readObject(store, layout.identity)),
  );
  assert.ok(identity);
  return identity;
}

Deno.test("identity: the first segment makes the archive its cluster's, another cluster is refused", () =>
  withLocalStore(async (local) => {
    const push = archiver(local);
    assert.equal((await push("00000002.history", walBytes(41))).code, 0);
    assert.deepEqual(await keysOf(local.store), ["main/wals/00000002.history"]);
    assert.equal((await push(FIRST, {}, "--zstd")).code, 0);
    const { since, ...identity } = await identityOf(local);
    assert.ok(since !== null && Math.abs(Date.now() - since.getTime()) < 60_000);
    assert.deepEqual(identity, {
      systemIdentifier: SYSTEM_IDENTIFIER,
      magic: 0xd118,
      suffixes: [".zst"],
      conditionalWrites: null,
    });
    const before = await keysOf(local.store);
    for (const other of [{ systemIdentifier: OTHER }, { magic: 0xd116 }]) {
      const { code, log } = await push(SECOND, other);
      assert.equal(code, 4);
      assert.match(
        log,
        /^ERROR: Refused: the archive of main belongs to the cluster with system identifier 7600000000000000001 \(PostgreSQL 18\) \(by main\/wal-identity.json\), and this WAL is of .*Use another SERVER_NAME; or, .* run this command once by hand with --new-cluster, and take a base backup$/,
      );
    }
    assert.deepEqual(await keysOf(local.store), before);
    assert.equal((await push(SECOND, { systemIdentifier: OTHER }, "--no-wal-check")).code, 0);
    assert.equal((await identityOf(local)).systemIdentifier, SYSTEM_IDENTIFIER);
    // Deleting it hands the archive over only to the cluster of its newest segment.
    await local.store.deleteMany([local.layout.identity]);
    assert.equal((await push("000000010000000000000003")).code, 4);
    assert.equal((await push("000000010000000000000003", { systemIdentifier: OTHER })).code, 0);
    assert.equal((await identityOf(local)).systemIdentifier, OTHER);
  }));

Deno.test("identity: an archive made before by another tool tells by its newest segment or backup", () =>
  withLocalStore(async (local) => {
    const push = archiver(local);
    const info = (systemid: string) =>
      new TextEncoder().encode(formatBackupInfo(newBackupInfo({ systemid })));
    await local.store.put(local.layout.backupInfo("20260101T000000"), info(String(OTHER)));
    await local.store.put(
      local.layout.backupInfo("20260102T000000"),
      info(String(SYSTEM_IDENTIFIER)),
    );
    await local.store.put(local.layout.backupInfo("20260103T000000"), info("None"));
    const refused = await push(FIRST, { systemIdentifier: OTHER });
    assert.equal(refused.code, 4);
    assert.match(refused.log, /by main\/base\/20260102T000000\/backup.info/);
    assert.equal((await push(FIRST, {}, "--gzip")).code, 0);
    await local.store.deleteMany([local.layout.identity]);
    const bySegment = await push(SECOND, { systemIdentifier: OTHER });
    assert.equal(bySegment.code, 4);
    assert.match(bySegment.log, /by main\/wals\/0000000100000000\/000000010000000000000001.gz/);
    // The compressions of the newest segments are known from then on.
    assert.equal((await push(SECOND, {}, "--lz4")).code, 0);
    assert.deepEqual((await identityOf(local)).suffixes, [".gz", ".lz4"]);
    assert.equal((await push(FIRST, { seed: 2 }, "--lz4")).code, 4);
  }));

Deno.test("identity: an archive with nothing left in it goes to the next cluster, as check-wal-archive says", () =>
  withLocalStore(async (local) => {
    const push = archiver(local);
    assert.equal((await push(FIRST)).code, 0);
    assert.equal((await runIn(check, [local.url, "main"])).code, 1);
    await local.store.deleteMany([local.layout.wal(FIRST)]);
    assert.equal((await runIn(check, [local.url, "main"])).code, 0);
    const { code, log } = await push(FIRST, { systemIdentifier: OTHER }, "--lz4");
    assert.equal(code, 0, log);
    assert.match(log, /^WARNING: .* is empty: it now belongs to .*7600000000000000002/);
    assert.deepEqual((await identityOf(local)).suffixes, [".lz4"]);
    assert.equal((await push(SECOND)).code, 4);
  }));

Deno.test("identity: after pg_upgrade the archive goes on with --new-cluster, said once", () =>
  withLocalStore(async (local) => {
    const push = archiver(local);
    // The old cluster had come to timeline 5; the upgraded one begins with 1 again, after the old one's WAL.
    assert.equal((await push("000000050000000000000007", { magic: 0xd116 }, "--gzip")).code, 0);
    const upgraded = { systemIdentifier: OTHER };
    const name = "000000010000000000000008";
    const refused = await push(name, upgraded, "--zstd");
    assert.equal(refused.code, 4);
    assert.match(refused.log, /\(PostgreSQL 17\).*\(PostgreSQL 18\)/);
    const { code, log } = await push(name, upgraded, "--zstd", "--new-cluster");
    assert.equal(code, 0, log);
    assert.match(
      log,
      /^WARNING: .*: it now belongs to the cluster with system identifier \d+ \(PostgreSQL 18\)/,
    );
    const { systemIdentifier, magic, suffixes } = await identityOf(local);
    assert.deepEqual([systemIdentifier, magic, suffixes], [OTHER, 0xd118, [".gz", ".zst"]]);
    // From then on it is as always, and the old cluster is the wrong one.
    assert.equal((await push("000000010000000000000009", upgraded, "--zstd")).code, 0);
    assert.equal((await push("000000050000000000000008", { magic: 0xd116 }, "--gzip")).code, 4);
    // Also where nothing was recorded, but the newest segment tells.
    await local.store.deleteMany([local.layout.identity]);
    assert.equal((await push("00000001000000000000000A", upgraded)).code, 4);
    assert.equal((await push("00000001000000000000000A", upgraded, "--new-cluster")).code, 0);
    assert.equal((await push("00000001000000000000000B", upgraded)).code, 0);
  }));

Deno.test("identity: one that can't be understood stops nobody", () =>
  withLocalStore(async (local) => {
    const push = archiver(local);
    for (const text of ["", "[]", "{}", `{"systemIdentifier":"x"}`, "x".repeat(70_000), "\xff"]) {
      await local.store.put(local.layout.identity, Uint8Array.from(text, (c) => c.charCodeAt(0)));
      const { code, log } = await push(FIRST);
      assert.equal(code, 0, log);
      assert.match(log, /^WARNING: Cannot use main\/wal-identity.json: /);
    }
    assert.equal((await push(FIRST, { seed: 2 })).code, 4);
  }));

Deno.test("wal check: a file that is not what its name says is refused, what is no WAL at all is not", () =>
  withLocalStore(async (local) => {
    const push = archiver(local);
    const firstPage = (name: string) => {
      const content = walSegment(name);
      content.fill(0, 0, 40);
      return content;
    };
    const mixed = walSegment(SECOND);
    mixed[0] = 0x16;
    const refused: [string, Uint8Array, RegExp][] = [
      [SECOND, walSegment(FIRST), /its header is that of segment 000000010000000000000001/],
      [`${SECOND}.partial`, walSegment(FIRST), /its header is that of segment/],
      [SECOND, walSegment(SECOND, { timeline: 2 }), /of timeline 2, which is later/],
      [SECOND, walSegment(SECOND).subarray(0, MIB / 2), /it has 524288 bytes, and its header says/],
      [SECOND, walSegment(SECOND, { size: 2 * MIB }).subarray(0, MIB), /it has 1048576 bytes/],
      [SECOND, firstPage(SECOND), /its second page is WAL, but its first page is not/],
      [SECOND, mixed, /its first pages are of different versions/],
    ];
    for (const [name, content, message] of refused) {
      const { code, log } = await push(name, content);
      assert.equal(code, 4, String(message));
      assert.match(log, message);
      assert.match(log, /--no-wal-check archives it nevertheless/);
    }
    assert.deepEqual(await keysOf(local.store), []);
    await writeFile(join(local.directory, "00000003.history"), "1\t0/480000\tno\n");
    const promoted = "000000030000000000000004";
    assert.match((await push("000000030000000000000003", { timeline: 1 })).log, /did not end in/);
    assert.equal((await push(promoted, { timeline: 1 })).code, 0);
    const unknown = await push(SECOND, { magic: 0xd11f }, "--no-wal-check");
    assert.equal(unknown.code, 0);
    await local.store.deleteMany(await keysOf(local.store));
    const newer = await push(SECOND, { magic: 0xd11f });
    assert.equal(newer.code, 0);
    assert.match(newer.log, /^INFO: .* of a version of PostgreSQL that is not known here/);
    await local.store.deleteMany(await keysOf(local.store));
    for (
      const [content, level] of [[new Uint8Array(MIB), "WARNING"], [walBytes(300), "INFO"]] as const
    ) {
      const { code, log } = await push(SECOND, content);
      assert.equal(code, 0);
      assert.match(
        log,
        new RegExp(`^${level}: .* does not begin with the header of a WAL segment`),
      );
      await local.store.deleteMany(await keysOf(local.store));
    }
    assert.equal((await push(SECOND, walSegment(FIRST), "--no-wal-check")).code, 0);
  }));
