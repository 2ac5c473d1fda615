import assert from "node:assert/strict";
import { gzipSync } from "node:zlib";
import { formatBackupInfo, newBackupInfo } from "../../../lib/backup/backup_info.ts";
import { command as verify } from "../../../lib/commands/wal_verify.ts";
import { serverLayout } from "../../../lib/layout.ts";
import { scanArchive } from "../../../lib/wal/scan.ts";
import { segmentNameOf } from "../../../lib/wal/segment.ts";
import { verifyArchive } from "../../../lib/wal/verify.ts";
import { withCounting } from "../../../providers/counting.ts";
import { type ListEntry, StoreError } from "../../../providers/object_store.ts";
import { runIn } from "../commands/wal_command_run.ts";
import process from "node:process";
import { altered, type LocalStore, recordingLogger, withLocalStore } from "./stores.ts";
import { MIB, walSegment } from "./wal_files.ts";

const text = (content: string) => new TextEncoder().encode(content);
/** Names of 1 MiB segments, by number. */
const segment = (number: number, timeline = 1) =>
  segmentNameOf(BigInt(number * MIB), timeline, MIB);

function filler({ store, layout }: LocalStore) {
  return {
    async segments(first: number, last: number, timeline = 1, suffix = "") {
      for (let number = first; number <= last; number++) {
        const name = segment(number, timeline);
        const content = suffix.endsWith(".gz") ? gzipSync(walSegment(name)) : walSegment(name);
        await store.put(layout.wal(name) + suffix, content);
      }
    },
    put: (key: string, content: Uint8Array) => store.put(layout.wals + key, content),
    async backup(id: string, begin: number, end: number, timeline = 1, status = "DONE") {
      const info = newBackupInfo({
        status,
        timeline,
        xlogSegmentSize: MIB,
        beginWal: segment(begin, timeline),
        endWal: segment(end, timeline),
      });
      await store.put(layout.backupInfo(id), text(formatBackupInfo(info)));
    },
    keep: (id: string, target: string) => store.put(layout.annotation(id, "keep"), text(target)),
    remove: (...keys: string[]) => store.deleteMany(keys),
    report: () => verifyArchive(store, layout, { log: recordingLogger() }),
  };
}

Deno.test("wal-verify: an archive that is whole", () =>
  withLocalStore(async (local) => {
    const fill = filler(local);
    await fill.segments(3, 9);
    await fill.segments(10, 12, 1, ".gz");
    await fill.put(`${segment(4).slice(0, 16)}/${segment(4)}.00000028.backup`, text("label"));
    await fill.put("strange", text("x"));
    await fill.backup("20260101T000000", 4, 5);
    await fill.backup("20260102T000000", 20, 21, 1, "FAILED");
    const report = await fill.report();
    assert.deepEqual(report.problems, []);
    assert.deepEqual(report.backups, [{
      id: "20260101T000000",
      status: "DONE",
      begin: segment(4),
      end: segment(5),
      missing: null,
      recoverableTo: segment(12),
    }]);
    const [timeline] = report.timelines;
    assert.deepEqual([timeline?.first, timeline?.last, timeline?.segments, timeline?.gaps], [
      segment(3),
      segment(12),
      10,
      0,
    ]);
    const table = await runIn(verify, [local.url, "main"]);
    assert.equal(table.code, 0, table.log.join("\n"));
    assert.match(table.stdout, /^WAL archive of main: 11 files, segments of 1.0 MiB/);
    assert.match(table.stdout, /20260101T000000 .* complete +000000010000000000000009?C?/);
    assert.match(table.stdout, /\nNo problems\n$/);
    const json = await runIn(verify, ["--format", "json", local.url, "main"]);
    assert.equal(json.code, 0);
    const document = JSON.parse(json.stdout);
    assert.deepEqual(Object.keys(document), [
      "server",
      "system_identifier",
      "segment_size",
      "files",
      "timelines",
      "backups",
      "gaps",
      "duplicates",
      "partials",
      "suspects",
      "problems",
    ]);
    assert.equal(document.system_identifier, "7600000000000000001");
    assert.equal(document.backups[0].recoverable_to, segment(12));
  }));

Deno.test("wal-verify: each thing that can be wrong is told, with exit code 1", () =>
  withLocalStore(async (local) => {
    const { store, layout } = local;
    const fill = filler(local);
    await fill.backup("20260101T000000", 5, 6);
    await fill.segments(5, 8);
    const folder = segment(1).slice(0, 16);
    const cases: [RegExp, () => Promise<unknown>, keys: string[]][] = [
      [/segment 000000010000000000000009 is missing/, () => fill.segments(10, 10), []],
      [/3 segments are missing, 000000010000000000000009 to 00000001000000000000000B/, async () => {
        await fill.segments(12, 12);
        await store.deleteMany([layout.wal(segment(10))]);
      }, []],
      [
        /^Backup 20260102T000000 can't be restored: 00000001000000000000000D of/,
        () => fill.backup("20260102T000000", 12, 13),
        [layout.backupInfo("20260102T000000")],
      ],
      [
        /different contents: .*, .*\.gz$/,
        () => store.put(`${layout.wal(segment(5))}.gz`, gzipSync(walSegment(segment(6)))),
        [
          `${layout.wal(segment(5))}.gz`,
        ],
      ],
      [/different contents/, () => store.put(`${layout.wal(segment(5))}.lz4`, text("no lz4")), [
        `${layout.wal(segment(5))}.lz4`,
      ]],
      [
        /000000010000000000000020: it has 5 bytes instead of 1048576/,
        () => fill.put(`${folder}/000000010000000000000020`, text("short")),
        [
          `${layout.wals}${folder}/000000010000000000000020`,
        ],
      ],
      [/it is empty/, () => fill.put(`${folder}/000000010000000000000020.zst`, text("")), [
        `${layout.wals}${folder}/000000010000000000000020.zst`,
      ]],
      [
        /it is not in the folder main\/wals\/0000000100000000\//,
        () => fill.put("000000010000000000000020", text("x")),
        [`${layout.wals}000000010000000000000020`],
      ],
      [
        /its name is in lower case/,
        () => fill.put("0000000A00000001/0000000a0000000100000002", text("x")),
        [
          `${layout.wals}0000000A00000001/0000000a0000000100000002`,
        ],
      ],
      [
        /there is no such segment with a segment size/,
        () => fill.put("0000000100000001/0000000100000001FFFFFFFF.gz", text("x")),
        [
          `${layout.wals}0000000100000001/0000000100000001FFFFFFFF.gz`,
        ],
      ],
      [/Timeline 2 has no history file/, () => fill.segments(12, 12, 2), [
        layout.wal(segment(12, 2)),
      ]],
      [
        /The WAL that backup 20260103T000000 needs is not known/,
        () => store.put(layout.backupInfo("20260103T000000"), text("begin_offset=nowhere\n")),
        [
          layout.backupInfo("20260103T000000"),
        ],
      ],
    ];
    for (const [message, change, keys] of cases) {
      await change();
      const { problems } = await fill.report();
      assert.ok(problems.some((problem) => message.test(problem)), `${message}: ${problems}`);
      const { code, stdout } = await runIn(verify, [local.url, "main"]);
      assert.equal(code, 1);
      assert.ok(problems.every((problem) => stdout.includes(problem)));
      await store.deleteMany(keys);
    }
    assert.equal((await runIn(verify, [local.url, "nobody"])).code, 1);
    await fill.segments(9, 11);
    assert.deepEqual((await fill.report()).problems, []);
  }));

Deno.test("wal-verify: timelines are followed where history files lead", () =>
  withLocalStore(async (local) => {
    const fill = filler(local);
    await fill.backup("20260101T000000", 2, 3);
    await fill.segments(2, 6);
    await fill.put(`${segment(7).slice(0, 16)}/${segment(7)}.partial`, walSegment(segment(7)));
    await fill.put("00000002.history.gz", gzipSync(text("1\t0/00780000\tno recovery target\n")));
    await fill.segments(7, 9, 2);
    const history = "1\t0/00780000\tno\n\n2\t0/00980000\tno\n";
    await fill.put("00000003.history", text(history));
    await fill.segments(9, 11, 3);
    const whole = await fill.report();
    assert.deepEqual(whole.problems, []);
    assert.equal(whole.backups[0]?.recoverableTo, segment(11, 3));
    assert.deepEqual(whole.partials, { items: [segment(7)], total: 1 });
    assert.equal(whole.timelines[1]?.parent?.timeline, 1);

    await fill.remove(local.layout.wal(segment(8, 2)));
    const broken = await fill.report();
    assert.deepEqual(broken.problems, [`Timeline 2: segment ${segment(8, 2)} is missing`]);
    assert.equal(broken.backups[0]?.recoverableTo, segment(7, 2));

    await fill.remove(local.layout.wal(segment(6)));
    const cut = await fill.report();
    assert.match(
      cut.problems.join("\n"),
      /Timeline 1: what is before timeline 2 is missing, from 000000010000000000000006/,
    );
    assert.equal(cut.backups[0]?.recoverableTo, segment(5));
    await fill.remove(local.layout.wal(segment(9, 3)));
    assert.match((await fill.report()).problems.join("\n"), /Timeline 3: its beginning is missing/);
  }));

Deno.test("wal-verify: what is missing after a backup that is kept standalone is meant to be", () =>
  withLocalStore(async (local) => {
    const fill = filler(local);
    await fill.backup("20260101T000000", 2, 3);
    await fill.backup("20260105T000000", 12, 12);
    await fill.segments(2, 3);
    await fill.segments(12, 13);
    assert.equal((await fill.report()).problems.length, 1);
    await fill.keep("20260101T000000", "full");
    assert.equal((await fill.report()).problems.length, 1);
    await fill.keep("20260101T000000", "standalone");
    const report = await fill.report();
    assert.deepEqual(report.problems, []);
    assert.equal(report.gaps.items[0]?.expected, true);
    const { stdout } = await runIn(verify, [local.url, "main"]);
    assert.match(stdout, /Missing by intention/);
  }));

Deno.test("wal-verify: duplicates with the same content are told and are no problem", () =>
  withLocalStore(async (local) => {
    const fill = filler(local);
    await fill.segments(1, 3);
    await fill.segments(2, 3, 1, ".gz");
    const report = await fill.report();
    assert.deepEqual(report.problems, []);
    assert.deepEqual(report.duplicates.items.map(({ segment, same }) => [segment, same]), [
      [segment(2), true],
      [segment(3), true],
    ]);
    assert.equal(report.timelines[0]?.segments, 3);
  }));

Deno.test("wal-verify: a million objects in one listing and bounded memory", async () => {
  await withLocalStore(async (local) => {
    const COUNT = 1_000_000;
    const layout = serverLayout("", "main");
    async function* listing(): AsyncGenerator<ListEntry> {
      for (let number = 1; number <= COUNT; number++) {
        if (number % 1000 === 0) {
          await Promise.resolve();
          continue;
        }
        const key = `${layout.wal(segmentNameOf(BigInt(number) << 24n, 1, 16 * MIB))}.zst`;
        yield { kind: "object", key, size: 100_000 };
      }
    }
    const { store, counts } = withCounting(altered(local.store, { list: listing }));
    const before = process.memoryUsage().heapUsed;
    const scan = await scanArchive(store, layout, 16 * MIB, {});
    const grown = (process.memoryUsage().heapUsed - before) / MIB;
    assert.deepEqual([scan.objects, scan.timelines[0]?.runs.length], [999_000, 1000]);
    assert.equal(counts().calls.list, 1);
    // Keeping the entries would take 200 MiB; what is not collected yet is left out of account.
    assert.ok(grown < 150, `${grown} MiB`);
  });
});

Deno.test("wal-verify: a store that can't tell is not an archive without problems", () =>
  withLocalStore(async ({ store, layout }) => {
    for (const kind of ["unreachable", "denied"] as const) {
      const failing = altered(store, {
        // deno-lint-ignore require-yield -- it fails before
        async *list() {
          throw await Promise.resolve(new StoreError(kind, "No answer"));
        },
      });
      await assert.rejects(verifyArchive(failing, layout, { log: recordingLogger() }), { kind });
    }
    assert.equal(
      (await runIn(verify, ["--endpoint-url", "http://127.0.0.1:1", "s3://b/p", "m"], {
        env: {
          AWS_ACCESS_KEY_ID: "a",
          AWS_SECRET_ACCESS_KEY: "s",
          AWS_REGION: "us-east-1",
          AWS_MAX_ATTEMPTS: "1",
        },
      })).code,
      2,
    );
  }));

Deno.test("wal-verify: a history that is a bomb, or none, is left out with a warning", () =>
  withLocalStore(async (local) => {
    const fill = filler(local);
    await fill.segments(8, 9, 2);
    await fill.segments(8, 9, 3);
    await fill.put("00000002.history.gz", gzipSync(new Uint8Array(64 * MIB)));
    await fill.put("00000003.history", new Uint8Array(2 * MIB).fill(0x31));
    const log = recordingLogger();
    const report = await verifyArchive(local.store, local.layout, { log });
    assert.deepEqual(report.timelines.map(({ parent }) => parent), [null, null]);
    const lines = log.lines.join("\n");
    assert.match(lines, /00000002\.history\.gz: it gives more than the 1048576 bytes/);
    assert.match(lines, /00000003\.history: it has 2097152 bytes/);
  }));
