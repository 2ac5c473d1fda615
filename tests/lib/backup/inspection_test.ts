import assert from "node:assert/strict";
import { createHash } from "node:crypto";
import { mkdir, mkdtemp, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { dirname, join } from "node:path";
import type { ManifestFile } from "../../../lib/backup/backup_manifest.ts";
import { inspectionOf } from "../../../lib/backup/inspection.ts";
import { openFile, type OpenMember, systemOwnerNames } from "../../../lib/backup/members.ts";
import { PageFailures } from "../../../lib/backup/page_failures.ts";
import { tarStream } from "../../../lib/backup/tar_stream.ts";
import { pageChecksum, type PageRules } from "../../../lib/postgres/page_checksum.ts";
import { TarReader } from "../../../lib/tar/reader.ts";

const RULES: PageRules = { blockSize: 8192, segmentBlocks: 8, startLsn: 1000n };

/** Pages with right checksums. */
function pages(count: number, firstBlock = 0, fill = 3): Uint8Array {
  const bytes = new Uint8Array(count * 8192).fill(fill);
  for (let page = 0; page < count; page++) {
    const one = bytes.subarray(page * 8192, (page + 1) * 8192);
    one.fill(0, 0, 8);
    new DataView(one.buffer, one.byteOffset).setUint16(
      8,
      pageChecksum(one, firstBlock + page),
      true,
    );
  }
  return bytes;
}

interface Stored {
  readonly failures: PageFailures;
  readonly warnings: readonly string[];
  readonly files: readonly ManifestFile[];
  /** What went into the archive. */
  readonly contents: ReadonlyMap<string, Uint8Array>;
}

async function withFiles(
  files: Readonly<Record<string, Uint8Array>>,
  use: (root: string) => Promise<void>,
): Promise<void> {
  const root = await mkdtemp(join(tmpdir(), "inspection-"));
  try {
    for (const [path, content] of Object.entries(files)) {
      await mkdir(dirname(join(root, path)), { recursive: true });
      await writeFile(join(root, path), content);
    }
    await use(root);
  } finally {
    await rm(root, { recursive: true, force: true });
  }
}

/** Store files as a backup does. */
async function stored(
  root: string,
  paths: readonly string[],
  options: {
    readonly change?: (open: OpenMember) => Promise<void> | void;
    readonly rules?: PageRules | null;
  } = {},
): Promise<Stored> {
  const owners = await systemOwnerNames();
  const warnings: string[] = [];
  const failures = new PageFailures((message) => warnings.push(message));
  const files: ManifestFile[] = [];
  const queue = [...paths];
  const next = async () => {
    const path = queue.shift();
    if (path === undefined) return undefined;
    const open = await openFile(join(root, path), path, owners);
    if (open !== undefined) await options.change?.(open);
    return open;
  };
  const { rules = RULES } = options;
  const stream = tarStream(await next(), next, {
    isFull: () => false,
    onContent: () => {},
    onShrunk: () => {},
    signal: new AbortController().signal,
    inspect: (open) =>
      inspectionOf(open, "", {
        checksum: "sha256",
        onFile: (file) => {
          files.push(file);
          return Promise.resolve();
        },
        pages: rules === null ? null : () => rules,
        failures,
      }),
  });
  const copies = async function* () {
    for await (const chunk of stream) yield chunk.slice();
  };
  const reader = new TarReader(copies());
  const contents = new Map<string, Uint8Array>();
  for (let entry = await reader.next(); entry !== null; entry = await reader.next()) {
    const pieces: Uint8Array[] = [];
    for (let piece = await reader.read(); piece !== null; piece = await reader.read()) {
      pieces.push(piece.slice());
    }
    contents.set(entry.name, new Uint8Array(await new Blob(pieces as BlobPart[]).arrayBuffer()));
  }
  return { failures, warnings, files, contents };
}

/** The manifest tells of what is in the archive. */
function assertSummed({ files, contents }: Stored): void {
  assert.deepEqual(files.map(({ path }) => path), [...contents.keys()]);
  for (const { path, size, checksum } of files) {
    const content = contents.get(path) ?? new Uint8Array();
    assert.equal(size, content.length);
    assert.deepEqual(checksum, {
      algorithm: "sha256",
      value: createHash("sha256").update(content).digest("hex"),
    });
  }
}

Deno.test("files of all sizes, small and large, are summed up and their pages looked at", async () => {
  const files = {
    "base/5/1": pages(1),
    "base/5/2": pages(16),
    "base/5/3": pages(17),
    "base/5/4": pages(300),
    "base/5/4_fsm": pages(3),
    "base/5/4.1": pages(100, 8),
    "base/5/5": new Uint8Array(0),
    "base/5/pg_filenode.map": new Uint8Array(512).fill(1),
    "pg_xact/0000": new Uint8Array(200_000).fill(2),
  };
  await withFiles(files, async (root) => {
    const result = await stored(root, Object.keys(files));
    assert.deepEqual(result.warnings, []);
    assert.equal(result.failures.pages, 1 + 16 + 17 + 300 + 3 + 100);
    for (const [path, content] of Object.entries(files)) {
      assert.deepEqual(result.contents.get(path), content, path);
    }
    assertSummed(result);
    const none = await stored(root, Object.keys(files), { rules: null });
    assert.equal(none.failures.pages, 0);
    assertSummed(none);
  });
});

Deno.test("damaged pages are told by file and block, five of a file, and stored as they are", async () => {
  const small = pages(10, 8);
  small[3 * 8192 + 100] = 9;
  const large = pages(100);
  for (const page of [1, 20, 40, 60, 62, 63, 64, 99]) large[page * 8192 + 4000] = 9;
  await withFiles({ "base/5/1.1": small, "global/2": large }, async (root) => {
    const result = await stored(root, ["base/5/1.1", "global/2"]);
    assert.equal(result.failures.failures, 9);
    assert.deepEqual(result.failures.listed.map(({ file, block }) => `${file} ${block}`), [
      "base/5/1.1 11",
      ...[1, 20, 40, 60, 62, 63, 64, 99].map((block) => `global/2 ${block}`),
    ]);
    assert.equal(result.warnings.length, 1 + 5 + 1);
    assert.match(
      result.warnings[0] ?? "",
      /^Page 11 of base\/5\/1\.1 is damaged: its checksum is [0-9a-f]{4}, not [0-9a-f]{4}$/,
    );
    assert.match(result.warnings.at(-1) ?? "", /^More pages of global\/2 are damaged/);
    assert.deepEqual(result.contents.get("global/2"), large);
    assertSummed(result);
  });
});

Deno.test("a page that was being written is read again, and the whole one is stored", async () => {
  const whole = pages(4);
  const changed = pages(4, 0, 7);
  // An LSN after the start of the backup: WAL will mend it.
  new DataView(changed.buffer).setBigUint64(0, 2000n << 32n, true);
  await withFiles({ "base/5/1": whole, "base/5/2": whole, "base/5/3": whole }, async (root) => {
    const result = await stored(root, ["base/5/1", "base/5/2", "base/5/3"], {
      async change({ member, content }) {
        assert.equal(content.kind, "bytes");
        if (content.kind !== "bytes") return;
        // As if half of a page had been written when it was read.
        content.bytes.fill(5, 1000, 2000);
        if (member.name === "base/5/2") await writeFile(join(root, member.name), changed);
        if (member.name === "base/5/3") await rm(join(root, member.name));
      },
    });
    assert.deepEqual(result.warnings, []);
    assert.deepEqual(result.contents.get("base/5/1"), whole);
    assert.deepEqual(result.contents.get("base/5/2")?.slice(0, 8192), changed.slice(0, 8192));
    assertSummed(result);
  });
});

Deno.test("a file that gets shorter is filled up, and its manifest tells of that", async () => {
  await withFiles({ "base/5/1": pages(100) }, async (root) => {
    const result = await stored(root, ["base/5/1"], {
      change: () => writeFile(join(root, "base/5/1"), pages(50).slice(0, 400_000)),
    });
    assert.deepEqual(result.warnings, []);
    assert.equal(result.contents.get("base/5/1")?.length, 100 * 8192);
    assertSummed(result);
  });
});

Deno.test("pages of unlogged relations are no matter, but for their init fork", async () => {
  const damaged = pages(40);
  damaged[5000] = 9;
  const files = { "base/5/1": damaged, "base/5/1_init": damaged, "base/5/2": damaged };
  await withFiles(files, async (root) => {
    const { failures } = await stored(root, Object.keys(files));
    assert.deepEqual(failures.listed.map(({ file }) => file), ["base/5/1_init", "base/5/2"]);
  });
});
