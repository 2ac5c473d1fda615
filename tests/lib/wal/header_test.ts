import assert from "node:assert/strict";
import { readdir, readFile } from "node:fs/promises";
import { join } from "node:path";
import fc from "fast-check";
import { headerMismatch, majorOfMagic, parseWalHeader } from "../../../lib/wal/header.ts";
import { parseWalName, segmentNameOf } from "../../../lib/wal/segment.ts";
import { startPostgres } from "../../../scripts/servers/embedded_postgres.ts";
import { MIB, SYSTEM_IDENTIFIER, walSegment } from "./wal_files.ts";

function mismatch(content: Uint8Array, name: string, history: string | null = null) {
  const header = parseWalHeader(content);
  const wal = parseWalName(name);
  assert.ok(header !== null && (wal?.kind === "segment" || wal?.kind === "partial"));
  return headerMismatch(header, { ...wal, kind: wal.kind }, content.length, history);
}

for (const major of [13, 14, 15, 16, 17, 18] as const) {
  Deno.test(`WAL header: PostgreSQL ${major} writes what is read here`, async () => {
    await using server = await startPostgres({ major, checksums: false, walSegSizeMb: 1 });
    const [row] = await server.query(
      "select system_identifier::text as id from pg_control_system()",
    );
    const directory = join(server.dataDirectory, "pg_wal");
    const name = (await readdir(directory)).find((file) => /^[0-9A-F]{24}$/.test(file));
    assert.ok(name !== undefined);
    const content = await readFile(join(directory, name));
    const header = parseWalHeader(content);
    assert.ok(header !== null);
    assert.equal(String(header.systemIdentifier), row?.["id"]);
    assert.equal(majorOfMagic(header.magic), major);
    assert.deepEqual([header.segmentSize, header.timeline], [MIB, 1]);
    assert.equal(mismatch(content, name), null);
  });
}

Deno.test("WAL header: any position, size, timeline and byte order agrees with its own name only", () => {
  fc.assert(
    fc.property(
      fc.bigInt({ min: 0n, max: 2n ** 64n - 1n }),
      fc.integer({ min: 1, max: 2 ** 32 - 2 }),
      fc.integer({ min: 0, max: 2 }),
      fc.boolean(),
      (lsn, timeline, power, bigEndian) => {
        const size = MIB * 2 ** power;
        const name = segmentNameOf(lsn, timeline, size);
        const content = walSegment(name, { size, bigEndian });
        assert.equal(parseWalHeader(content)?.systemIdentifier, SYSTEM_IDENTIFIER);
        assert.equal(mismatch(content, name), null);
        assert.equal(mismatch(content, `${name}.partial`), null);
        const other = segmentNameOf(lsn ^ (1n << 40n), timeline, size);
        assert.match(mismatch(content, other) ?? "", new RegExp(`is that of segment ${name}`));
        assert.match(mismatch(content.subarray(0, size - 1), name) ?? "", /segments have/);
        if (timeline > 1) {
          const earlier = segmentNameOf(lsn, timeline - 1, size);
          assert.match(mismatch(content, earlier) ?? "", /which is later/);
        }
      },
    ),
    { numRuns: 100 },
  );
});

Deno.test("WAL header: after a promotion the first segment begins on the older timeline", () => {
  const name = "000000030000000000000005";
  const content = walSegment(name, { timeline: 1 });
  const history = (lsn: string) => `1\t${lsn}\tbefore X\n2\t0/700000\tno recovery target\n`;
  assert.equal(mismatch(content, name), null, "without a history nothing can be said");
  assert.equal(mismatch(content, name, history("0/580000")), null);
  assert.equal(mismatch(content, name, history("0/600000")), null);
  assert.match(mismatch(content, name, history("0/480000")) ?? "", /did not end in this segment/);
});

Deno.test("WAL header: what is none is none", () => {
  fc.assert(fc.property(fc.uint8Array({ maxLength: 100 }), (bytes) => {
    bytes[1] = 0;
    if (bytes.length > 1) bytes[0] = 0;
    assert.equal(parseWalHeader(bytes), null);
  }));
  const content = walSegment("000000010000000000000001");
  assert.ok(parseWalHeader(content));
  assert.equal(parseWalHeader(content.subarray(0, 39)), null);
  const damage: [number, number][] = [[1, 0x42], [2, 0], [3, 1], [33, 1]];
  for (const [at, value] of damage) {
    const damaged = content.slice();
    damaged[at] = value;
    assert.equal(parseWalHeader(damaged), null, `byte ${at}`);
  }
});
