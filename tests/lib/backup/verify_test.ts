import assert from "node:assert/strict";
import { createHash } from "node:crypto";
import { crc32, gzipSync } from "node:zlib";
import { newBackupInfo } from "../../../lib/backup/backup_info.ts";
import { type ManifestFile, ManifestText } from "../../../lib/backup/backup_manifest.ts";
import { type BackupReport, verifyBackup } from "../../../lib/backup/verify.ts";
import { MAX_PROBLEMS } from "../../../lib/backup/verify_archives.ts";
import { verificationText } from "../../../lib/backup/verify_print.ts";
import { formatRecord, parseRecord } from "../../../lib/backup/record.ts";
import { command } from "../../../lib/commands/backup_verify.ts";
import { RestoreError } from "../../../lib/restore/restore_error.ts";
import { type ObjectStore, StoreError } from "../../../providers/object_store.ts";
import { runWords } from "../commands/run_words.ts";
import { dataArchive, dataMembers, LABEL } from "../restore/fixtures.ts";
import { archive, member } from "../restore/raw_tar.ts";
import { AWS_SNAPSHOTS } from "./fixtures.ts";
import { recordingLogger, type TemporaryStore, temporaryStore } from "./temporary_store.ts";

const ID = "20260115T103000";
const INFO = newBackupInfo({
  status: "DONE",
  version: 170002,
  pgdata: "/srv/pg",
  timeline: 1,
  beginXlog: "0/2000028",
  endXlog: "0/2000138",
  dataChecksums: "off",
});

interface Options {
  readonly info?: Partial<typeof INFO>;
  readonly store?: (store: ObjectStore) => ObjectStore;
  readonly jobs?: number;
  readonly signal?: AbortSignal;
}

function verify(temporary: TemporaryStore, options: Options = {}): Promise<BackupReport> {
  return verifyBackup({
    store: options.store?.(temporary.store) ?? temporary.store,
    layout: temporary.layout,
    backupId: ID,
    info: { ...INFO, ...options.info },
    jobs: options.jobs ?? 2,
    wal: "ignore",
    signal: options.signal ?? new AbortController().signal,
    log: recordingLogger(),
  });
}

function put(temporary: TemporaryStore, name: string, content: Uint8Array): Promise<void> {
  return temporary.store.put(temporary.layout.backup(ID) + name, content);
}

function entry(path: string, content: string): ManifestFile {
  return {
    path,
    size: content.length,
    mtime: 0n,
    checksum: { algorithm: "sha256", value: createHash("sha256").update(content).digest("hex") },
  };
}

/** Of `dataMembers`. */
const FILES = [
  entry("PG_VERSION", "17\n"),
  entry("base/5/1249", "a".repeat(100_000)),
  entry("base/5/empty", ""),
  entry("global/pg_control", "c".repeat(8192)),
  entry("backup_label", LABEL),
];

function manifest(files: readonly ManifestFile[]): Uint8Array {
  const text = new ManifestText();
  return new TextEncoder().encode(
    text.begin(1, null) + files.map((file) => text.file(file)).join("") + text.end([]),
  );
}

Deno.test("a backup of Barman, without a manifest: what can be checked is", async () => {
  await using temporary = await temporaryStore();
  await put(temporary, "data.tar.gz", gzipSync(dataArchive()));
  const report = await verify(temporary);
  assert.deepEqual(report.problems, []);
  assert.equal(report.manifest, null);
  assert.deepEqual(report.archives.map(({ members, whole }) => [members, whole]), [[10, true]]);
  assert.match(verificationText(report), /^Manifest {2}none$/m);

  await put(temporary, "data.tar.gz", gzipSync(archive(...dataMembers().slice(0, 5))));
  assert.deepEqual((await verify(temporary)).problems, [
    "No archive holds global/pg_control",
    "No archive holds backup_label",
  ]);
  const withLabel = await verify(temporary, { info: { backupLabel: LABEL } });
  assert.deepEqual(withLabel.problems, ["No archive holds global/pg_control"]);
});

Deno.test("members are compared with the manifest: missing, other, more", async () => {
  await using temporary = await temporaryStore();
  await put(temporary, "data.tar", dataArchive());
  await put(temporary, "backup_manifest", manifest(FILES));
  assert.deepEqual((await verify(temporary)).problems, []);

  const changed = [
    ...FILES.slice(0, 1),
    { ...FILES[1], size: 99_999 } as ManifestFile,
    entry("global/pg_control", "d".repeat(8192)),
    entry("base/5/gone", "x"),
    ...FILES.slice(4),
  ];
  await put(temporary, "backup_manifest", manifest(changed));
  const { problems } = await verify(temporary);
  const expected = [
    /^base\/5\/1249 in .*data\.tar has 100000 bytes, not 99999$/,
    /^base\/5\/empty in .*data\.tar is not in the manifest$/,
    /^global\/pg_control in .*data\.tar has other content than the manifest says/,
    /^base\/5\/gone is in the manifest and in no archive$/,
  ];
  assert.equal(problems.length, expected.length, problems.join("\n"));
  for (const [index, pattern] of expected.entries()) assert.match(problems[index] ?? "", pattern);

  // An algorithm of a newer server: sizes are compared.
  const unknown = FILES.map((file) => ({
    ...file,
    checksum: { algorithm: "blake3", value: "00" },
  }));
  await put(temporary, "backup_manifest", manifest(unknown));
  assert.deepEqual((await verify(temporary)).problems, []);
});

Deno.test("of files at the top that come twice the last one counts, in whatever order they are read", async () => {
  await using temporary = await temporaryStore();
  const conf = (content: string) => member({ name: "./postgresql.conf", content });
  await put(temporary, "data.tar", archive(...dataMembers(conf("old"), conf("older"))));
  await put(temporary, "data_0001.tar", archive(conf("new")));
  const files = [...FILES, entry("postgresql.conf", "new")];
  await put(temporary, "backup_manifest", manifest(files));
  for (const jobs of [1, 2]) assert.deepEqual((await verify(temporary, { jobs })).problems, []);
  await put(temporary, "data_0001.tar", archive(conf("odd")));
  assert.equal((await verify(temporary)).problems.length, 1);
});

Deno.test("tablespaces belong below pg_tblspc", async () => {
  await using temporary = await temporaryStore();
  const tablespaces = [{ name: "one", oid: 16400, location: "/srv/one" }];
  await put(temporary, "data.tar", dataArchive());
  await put(temporary, "16400.tar", archive(member({ name: "PG_17_1/5/1", content: "x" })));
  const files = [...FILES, entry("pg_tblspc/16400/PG_17_1/5/1", "x")];
  await put(temporary, "backup_manifest", manifest(files));
  assert.deepEqual((await verify(temporary, { info: { tablespaces } })).problems, []);
  await temporary.store.deleteMany([`${temporary.layout.backup(ID)}16400.tar`]);
  const { problems } = await verify(temporary, { info: { tablespaces } });
  assert.equal(problems.length, 1, problems.join("\n"));
  assert.match(problems[0] ?? "", /no archive 16400\.tar.* of tablespace one/);
});

Deno.test("archives are compared with what was sent: size, checksum, and how many they were", async () => {
  await using temporary = await temporaryStore();
  const content = dataArchive();
  const more = archive(member({ name: "base/5/2", content: "x" }));
  const record = formatRecord({
    backupId: ID,
    pages: null,
    missingWal: 0,
    archives: [
      { name: "data.tar", size: content.length, crc32: crc32(content) },
      { name: "data_0001.tar", size: more.length, crc32: crc32(more) },
    ],
  });
  await put(temporary, "verification.json", new TextEncoder().encode(record));
  await put(temporary, "data.tar", content);
  await put(temporary, "data_0001.tar", more);
  assert.deepEqual((await verify(temporary)).problems, []);

  // A bit of padding, which nobody misses.
  const changed = content.slice();
  changed[512 + 512 + 100] = 1;
  await put(temporary, "data.tar", changed);
  const { problems, archives } = await verify(temporary);
  assert.equal(problems.length, 1, problems.join("\n"));
  assert.match(problems[0] ?? "", /data\.tar does not have the bytes that were stored/);
  assert.deepEqual(archives.map(({ whole }) => whole), [false, true]);

  const longer = new Uint8Array(content.length + 10_240);
  longer.set(content);
  await put(temporary, "data.tar", longer);
  assert.match((await verify(temporary)).problems.join(), /has \d+ bytes, not the \d+ that were/);

  await put(temporary, "data.tar", content);
  await temporary.store.deleteMany([`${temporary.layout.backup(ID)}data_0001.tar`]);
  assert.match((await verify(temporary)).problems.join(), /^[^,]*data_0001\.tar is missing$/);
  await put(temporary, "data_0001.tar", more);
  await put(temporary, "data_0002.tar", more);
  const added = await verify(temporary);
  assert.match(added.warnings.join(), /data_0002\.tar was not there when the backup was taken/);
});

Deno.test("archives that are no archives, members that lead elsewhere, problems without end", async () => {
  await using temporary = await temporaryStore();
  const cases: readonly [RegExp, Uint8Array][] = [
    [/The archive is empty/, new Uint8Array(0)],
    [/The archive is cut off/, new Uint8Array(512)],
    [/no header where one should be/, new Uint8Array(10_240).fill(65)],
    [/member \.\.\/x: its path leads upwards/, dataArchive(member({ name: "../x" }))],
    [/member \/etc\/x: its path is absolute/, dataArchive(member({ name: "/etc/x" }))],
  ];
  for (const [problem, content] of cases) {
    await put(temporary, "data.tar", content);
    const { problems } = await verify(temporary);
    assert.ok(problems.some((each) => problem.test(each)), problems.join("\n"));
  }
  await put(temporary, "data.tar", dataArchive());
  const more = Array.from({ length: 3000 }, (_, i) => entry(`base/5/${20_000 + i}`, "x"));
  await put(temporary, "backup_manifest", manifest([...FILES, ...more]));
  const report = await verify(temporary);
  assert.equal(report.problemCount, 3000);
  assert.equal(report.problems.length, MAX_PROBLEMS);
  assert.match(verificationText(report), /and 2000 more\n$/);
});

Deno.test("a store that fails is no verdict; the signal ends it; snapshots can't be read", async () => {
  await using temporary = await temporaryStore();
  await put(temporary, "data.tar", dataArchive());
  await put(temporary, "data_0001.tar", archive());
  const broken = (store: ObjectStore): ObjectStore => ({
    ...store,
    get: (key, options) =>
      key.endsWith("_0001.tar")
        ? Promise.reject(new StoreError("unavailable", "busy"))
        : store.get(key, options),
  });
  await assert.rejects(verify(temporary, { store: broken }), /busy/);
  const controller = new AbortController();
  controller.abort(new Error("enough"));
  await assert.rejects(verify(temporary, { signal: controller.signal }), /enough/);
  await temporary.put(temporary.layout.backupInfo(ID), AWS_SNAPSHOTS);
  const { code, log } = await runWords(command, temporary.url, "srv", ID);
  assert.equal(code, 4);
  assert.match(log.join("\n"), /consists of disk snapshots/);
  assert.equal((await runWords(command, temporary.url, "srv", "20990101T000000")).code, 1);
  assert.ok(new RestoreError("invalid", "x") instanceof Error);
});

Deno.test("a backup that is not DONE is a problem, and so is a record that is damaged", async () => {
  await using temporary = await temporaryStore();
  await put(temporary, "data.tar", dataArchive());
  const failed = await verify(temporary, { info: { status: "FAILED" } });
  assert.deepEqual(failed.problems, ["The backup has status FAILED, not DONE"]);
  const texts = ["", "{}", "[]", "null", '{"version":2}', '{"version":1,"page_checksums":{}}'];
  for (const text of texts) {
    assert.throws(() => parseRecord(text), SyntaxError, text);
    await put(temporary, "verification.json", new TextEncoder().encode(text));
    assert.match((await verify(temporary)).problems.join(), /verification\.json is damaged/);
  }
});
