import assert from "node:assert/strict";
import { readdir, readFile } from "node:fs/promises";
import { join } from "node:path";
import fc from "fast-check";
import {
  damagedPages,
  pageChecksum,
  pageLsn,
  type PageRules,
  relationFile,
  storedChecksum,
} from "../../../lib/postgres/page_checksum.ts";
import { startPostgres } from "../../../scripts/servers/embedded_postgres.ts";

const RULES: PageRules = { blockSize: 8192, segmentBlocks: 131072, startLsn: 0xffffffffffffffffn };

Deno.test("which files have pages, and which of a relation they are", () => {
  const cases: readonly [string, ReturnType<typeof relationFile>][] = [
    ["base/5/16384", { relation: "base/5/16384", segment: 0 }],
    ["base/5/16384.3", { relation: "base/5/16384", segment: 3 }],
    ["base/5/16384_vm", { relation: "base/5/16384", segment: 0 }],
    ["base/5/16384_fsm.1", { relation: "base/5/16384", segment: 1 }],
    ["base/5/16384_init", { relation: "base/5/16384", segment: 0 }],
    ["global/1262", { relation: "global/1262", segment: 0 }],
    ["pg_tblspc/16400/PG_15_202209061/5/16401.2", {
      relation: "pg_tblspc/16400/PG_15_202209061/5/16401",
      segment: 2,
    }],
    ["base/5/pg_filenode.map", null],
    ["base/5/PG_VERSION", null],
    ["base/5/pg_internal.init", null],
    ["base/5/t3_16384", null],
    ["global/pg_control", null],
    ["base/16384", null],
    ["pg_xact/0000", null],
    ["16384", null],
    ["other/base/5/16384", null],
  ];
  for (const [path, expected] of cases) assert.deepEqual(relationFile(path), expected, path);
});

/** Blocks of all relations of a stopped cluster. */
async function* relations(root: string): AsyncGenerator<[path: string, content: Uint8Array]> {
  for (const entry of await readdir(root, { recursive: true, withFileTypes: true })) {
    const path = join(entry.parentPath, entry.name).slice(root.length + 1);
    if (!entry.isFile() || relationFile(path) === null) continue;
    yield [path, new Uint8Array(await readFile(join(root, path)))];
  }
}

for (const major of [13, 18] as const) {
  Deno.test(`PostgreSQL ${major}: every page that the server wrote has the checksum that we compute`, async () => {
    await using server = await startPostgres({ major });
    await server.query(
      "create table t as select i, repeat('x', i) from generate_series(1, 5000) i",
    );
    await server.query("create index on t (i)");
    await server.query("vacuum t");
    await server.stop();
    let pages = 0;
    let unnoticed = 0;
    const kinds = new Set<string>();
    for await (const [path, content] of relations(server.dataDirectory)) {
      assert.deepEqual(damagedPages(content, 0, RULES), [], path);
      pages += content.length / 8192;
      kinds.add(/_\w+/.exec(path)?.[0] ?? "");
      for (let at = 0; at < content.length; at += 8192) {
        const page = content.subarray(at, at + 8192);
        if (page.every((byte) => byte === 0)) continue;
        assert.equal(storedChecksum(page), pageChecksum(page, at / 8192), path);
        // The number of the block is part of it.
        assert.deepEqual(damagedPages(page, at / 8192 + 1, RULES), [0]);
        page[at % 8000] = 1 ^ (page[at % 8000] ?? 0);
        if (at % 8000 < 10 || at % 8000 > 19) {
          if (damagedPages(page, at / 8192, RULES).length === 0) unnoticed++;
        }
        page[at % 8000] = 1 ^ (page[at % 8000] ?? 0);
        // What was changed since the start is not looked at, nor what is exactly there.
        assert.deepEqual(
          damagedPages(page, at / 8192 + 1, { ...RULES, startLsn: pageLsn(page) }),
          [],
        );
        assert.deepEqual(
          damagedPages(page, at / 8192 + 1, { ...RULES, startLsn: pageLsn(page) + 1n }),
          [0],
        );
      }
    }
    assert.ok(pages > 2000, `${pages}`);
    assert.ok(unnoticed <= MOST_UNNOTICED, `${unnoticed}`);
    assert.deepEqual([...kinds].sort(), ["", "_fsm", "_vm"]);
  });
}

/** A checksum has 65,535 values: one change in so many gives the same one. More than a few in some thousand do not. */
const MOST_UNNOTICED = 2;

Deno.test("pages of zeros are new; one without content that is not zero is damaged", () => {
  const pages = new Uint8Array(3 * 8192);
  assert.deepEqual(damagedPages(pages, 0, RULES), []);
  pages[8192 + 5000] = 1;
  assert.deepEqual(damagedPages(pages, 0, RULES), [1]);
  // What is left behind the last whole page is not looked at.
  assert.deepEqual(damagedPages(pages.subarray(0, 8192 + 8000), 0, RULES), []);
});

Deno.test("a change of any byte of a page is found, at any size of pages", () => {
  let unnoticed = 0;
  fc.assert(
    fc.property(
      fc.constantFrom(1024, 2048, 4096, 8192, 16384, 32768),
      fc.infiniteStream(fc.integer({ min: 0, max: 255 })),
      fc.nat(),
      fc.integer({ min: 1, max: 255 }),
      fc.integer({ min: 0, max: 2 ** 32 - 2 }),
      (blockSize, bytes, position, change, block) => {
        const page = Uint8Array.from({ length: blockSize }, () => bytes.next().value);
        page.fill(0, 0, 8);
        page[14] = 7;
        const sum = pageChecksum(page, block);
        new DataView(page.buffer).setUint16(8, sum, true);
        const rules = { blockSize, segmentBlocks: 1024 ** 3 / blockSize, startLsn: 1n };
        assert.deepEqual(damagedPages(page, block, rules), []);
        // The LSN and the mark of a page in use decide whether it is looked at.
        const at = 16 + position % (blockSize - 16);
        page[at] = (page[at] ?? 0) ^ change;
        if (damagedPages(page, block, rules).length === 0) unnoticed++;
      },
    ),
    { numRuns: 300 },
  );
  assert.ok(unnoticed <= MOST_UNNOTICED, `${unnoticed}`);
});
