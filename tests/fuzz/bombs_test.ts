/** Streams that want more memory than they are worth: whatever comes, memory stays bounded. */
import assert from "node:assert/strict";
import { fileURLToPath } from "node:url";
import { COMPRESSION_NAMES } from "../../lib/compression/table.ts";

const MIB = 1024 ** 2;
const CHILD = fileURLToPath(new URL("bomb_child.ts", import.meta.url));
/** Of the whole process, the runtime's own 60 to 100 MiB included; zstd and xz may keep a window of 128 MiB. */
const MOST_MEMORY = 420;

interface Report {
  /** Bytes, or members of an archive. */
  readonly size: number;
  readonly end: string;
  /** MiB. */
  readonly peak: number;
}

async function explode(...words: readonly string[]): Promise<Report> {
  const { code, stdout, stderr } = await new Deno.Command(Deno.execPath(), {
    args: ["run", "-A", "--no-check", CHILD, ...words],
  }).output();
  assert.equal(code, 0, new TextDecoder().decode(stderr));
  const report: Report = JSON.parse(new TextDecoder().decode(stdout));
  assert.ok(
    report.peak > 0 && report.peak <= MOST_MEMORY,
    `${words.join(" ")}: ${report.peak} MiB`,
  );
  return report;
}

for (const name of COMPRESSION_NAMES) {
  Deno.test(`bomb: ${name}, half a gigabyte of zeros`, async () => {
    assert.deepEqual({ ...await explode("zeros", name), peak: 0 }, {
      size: 512 * MIB,
      end: "the end",
      peak: 0,
    });
  });

  Deno.test(`bomb: ${name}, thousands of streams that each want the most memory`, async () => {
    const { size, end } = await explode("greedy", name);
    assert.equal(end, "the end");
    assert.equal(size, 5000);
  });
}

Deno.test("bomb: an archive of nothing but extended headers", async () => {
  assert.match((await explode("pax")).end, /^TarError: /);
});

Deno.test("bomb: a backup.info of nothing but lines, unknown fields, values", async () => {
  assert.equal((await explode("info", "lines")).end, "the end");
  assert.match(
    (await explode("info", "fields")).end,
    /^MalformedBackupInfo: more than 1000 fields/,
  );
  assert.match((await explode("info", "literal")).end, /^MalformedBackupInfo: .*too many values/);
});
