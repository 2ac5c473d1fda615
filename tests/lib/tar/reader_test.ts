import assert from "node:assert/strict";
import fc from "fast-check";
import { type TarEntry, TarError, TarReader } from "../../../lib/tar/reader.ts";
import { endOfArchive, memberHeader } from "../../../lib/tar/writer.ts";
import { paddingOf } from "../../../lib/tar/format.ts";
import { archive, bytes, chunks, concat, END, member, pax } from "../restore/raw_tar.ts";

interface ReadMember extends TarEntry {
  readonly content: Uint8Array;
}

/** A source whose chunks are overwritten and taken away as soon as it may. */
async function* overwriting(
  source: AsyncIterable<Uint8Array>,
): AsyncGenerator<Uint8Array, void, void> {
  for await (const chunk of source) {
    const given = chunk.slice();
    yield given;
    given.fill(0xff);
    given.buffer.transfer(0);
  }
}

async function readAll(
  whole: Uint8Array,
  sizes: readonly number[] = [],
  trailing: number[] = [],
): Promise<ReadMember[]> {
  const reader = new TarReader(overwriting(chunks(whole, sizes)), {
    onTrailingData: (position) => trailing.push(position),
  });
  const members: ReadMember[] = [];
  try {
    for (;;) {
      const entry = await reader.next();
      if (entry === null) return members;
      const pieces: Uint8Array[] = [];
      for (;;) {
        const piece = await reader.read();
        if (piece === null) break;
        pieces.push(piece.slice());
      }
      members.push({ ...entry, content: concat(pieces) });
    }
  } finally {
    await reader.close();
  }
}

async function only(...parts: Uint8Array[]): Promise<ReadMember> {
  const [first, ...rest] = await readAll(archive(...parts));
  assert(first !== undefined);
  assert.equal(rest.length, 0);
  return first;
}

async function fails(whole: Uint8Array, message: RegExp): Promise<void> {
  await assert.rejects(readAll(whole), (error) => {
    assert(error instanceof TarError, String(error));
    assert.match(error.message, message);
    return true;
  });
}

const field = (raw: Partial<Record<"size" | "uid" | "mtime" | "checksum", Uint8Array>>) => ({
  size: undefined,
  uid: undefined,
  mtime: undefined,
  checksum: undefined,
  ...raw,
});

Deno.test("reader: all fields of a ustar member, the prefix too", async () => {
  const read = await only(member({
    name: "1249",
    prefix: "base/5",
    content: "hello",
    mode: 0o2640,
    uid: 26,
    gid: 27,
    userName: "postgres",
    groupName: "dba",
    mtime: 1795378770,
  }));
  assert.deepEqual(read, {
    type: "file",
    name: "base/5/1249",
    linkTarget: "",
    size: 5,
    mode: 0o2640,
    uid: 26,
    gid: 27,
    userName: "postgres",
    groupName: "dba",
    mtime: 1795378770,
    content: bytes("hello"),
  });
});

Deno.test("reader: kinds of members", async () => {
  const members = await readAll(archive(
    member({ name: "./", type: "5", mode: 0o700 }),
    member({ name: "old/", type: "\0", magic: "" }),
    member({ name: "oldfile", type: "\0", magic: "", content: "x" }),
    member({ name: "contiguous", type: "7", content: "y" }),
    member({ name: "hard", type: "1", linkTarget: "oldfile" }),
    member({ name: "soft", type: "2", linkTarget: "/etc/postgresql/x" }),
    member({ name: "char", type: "3" }),
    member({ name: "block", type: "4" }),
    member({ name: "fifo", type: "6" }),
  ));
  assert.deepEqual(members.map(({ type, name, linkTarget }) => [type, name, linkTarget]), [
    ["directory", ".", ""],
    ["directory", "old", ""],
    ["file", "oldfile", ""],
    ["file", "contiguous", ""],
    ["hard-link", "hard", "oldfile"],
    ["symlink", "soft", "/etc/postgresql/x"],
    ["character-device", "char", ""],
    ["block-device", "block", ""],
    ["fifo", "fifo", ""],
  ]);
});

Deno.test("reader: pax headers go before the plain one, global ones before nothing", async () => {
  const members = await readAll(archive(
    pax({ uname: "everybody", mtime: "5.25", comment: "x=y" }, "g"),
    pax({ path: "a/".repeat(200) + "é", size: "3", uid: "3000000000", mtime: "1795378770.823295" }),
    member({ name: "cut", content: "abc", userName: "me" }),
    member({ name: "second" }),
    pax({ uname: "", linkpath: "l".repeat(300) }),
    member({ name: "third", userName: "me", type: "2", linkTarget: "cut" }),
  ));
  const [first, second, third] = members;
  assert.equal(first?.name, "a/".repeat(200) + "é");
  assert.equal(first?.uid, 3000000000);
  assert.equal(first?.mtime, 1795378770.823295);
  assert.equal(first?.userName, "everybody");
  assert.equal(second?.mtime, 5.25);
  assert.equal(third?.userName, "me");
  assert.equal(third?.linkTarget, "l".repeat(300));
});

Deno.test("reader: GNU's long names, long links and numbers in base 256", async () => {
  const long = "d/".repeat(150) + "name";
  const read = await only(
    member({
      name: "././@LongLink",
      type: "K",
      content: `${"t".repeat(200)}\0`,
      magic: "ustar  \0",
    }),
    member({ name: "././@LongLink", type: "L", content: `${long}\0`, magic: "ustar  \0" }),
    member({
      name: "d/d/",
      type: "2",
      magic: "ustar  \0",
      // Where POSIX has the prefix GNU has other things.
      prefix: "15000000000",
      raw: field({
        uid: Uint8Array.of(0x80, 0, 0, 0, 0xff, 0xff, 0xff, 0xfe),
        mtime: Uint8Array.of(
          0xff,
          0xff,
          0xff,
          0xff,
          0xff,
          0xff,
          0xff,
          0xff,
          0xff,
          0xff,
          0xff,
          0xfb,
        ),
      }),
    }),
  );
  assert.equal(read.name, long);
  assert.equal(read.linkTarget, "t".repeat(200));
  assert.equal(read.uid, 0xfffffffe);
  assert.equal(read.mtime, -5);
});

Deno.test("reader: a volume label is passed over", async () => {
  const read = await only(member({ name: "label", type: "V" }), member({ name: "f" }));
  assert.equal(read.name, "f");
});

Deno.test("reader: names that are not UTF-8 keep their bytes", async () => {
  const header = member({ name: "xx" });
  const odd = header.slice();
  odd.set([0xff, 0xe9], 0);
  // The same sum of bytes as before is wanted in the checksum field.
  const sum = odd.reduce((total, byte, at) => total + (at >= 148 && at < 156 ? 0x20 : byte), 0);
  odd.set(bytes(`${sum.toString(8).padStart(6, "0")}\0 `), 148);
  const read = await only(odd);
  assert.equal(read.name, "\udcff\udce9");
});

Deno.test("reader: a checksum of signed bytes, as old writers made it", async () => {
  const header = member({ name: "é" });
  const signed = header.reduce(
    (total, byte, at) => total + (at >= 148 && at < 156 ? 0x20 : byte >= 128 ? byte - 256 : byte),
    0,
  );
  header.set(bytes(`${signed.toString(8).padStart(6, "0")}\0 `), 148);
  assert.equal((await only(header)).name, "é");
});

Deno.test("reader: content that is not read is passed over", async () => {
  const whole = archive(
    member({ name: "a", content: "x".repeat(5000) }),
    member({ name: "b", content: "yz" }),
  );
  const reader = new TarReader(chunks(whole, [100]));
  assert.equal((await reader.next())?.name, "a");
  assert.equal((await reader.read())?.length, 88);
  assert.equal((await reader.next())?.name, "b");
  assert.equal(await reader.next(), null);
  assert.equal(reader.position, whole.length);
});

Deno.test("reader: what is damaged or not supported is refused", async () => {
  const good = member({ name: "before", content: "x" });
  const size = (text: string) => member({ name: "f", raw: field({ size: bytes(text) }) });
  await fails(new Uint8Array(0), /^The archive is empty$/);
  await fails(archive(size("-0000000001")), /byte 0, at or after member f: .*malformed size/);
  await fails(archive(size("9999\0")), /malformed size/);
  await fails(
    archive(member({ name: "f", raw: field({ size: new Uint8Array(12).fill(0xff) }) })),
    /size out of range \(-1\)/,
  );
  await fails(
    archive(
      member({ name: "f", raw: field({ size: new Uint8Array(12).fill(0x7f).fill(0x80, 0, 1) }) }),
    ),
    /malformed size/,
  );
  await fails(
    archive(good, member({ name: "f", raw: field({ checksum: bytes("000001\0 ") }) })),
    /byte 1024, at or after member before: .*wrong checksum/,
  );
  await fails(archive(good, member({ name: "s", type: "S" })), /member s is a sparse file/);
  await fails(
    archive(pax({ "GNU.sparse.major": "1" }), member({ name: "s" })),
    /member s is a sparse file/,
  );
  await fails(archive(member({ name: "m", type: "M" })), /only GNU tar itself/);
  await fails(archive(member({ name: "m", type: "?" })), /not supported \(type '\?'\)/);
  await fails(archive(member({ name: "" })), /has no name/);
  await fails(archive(pax({ path: "x" })), /ends with an extended header/);
  await fails(archive(pax({ size: "-1" }), member({ name: "f" })), /size '-1' is out of range/);
  await fails(archive(pax({ size: "1e3" }), member({ name: "f" })), /out of range/);
  await fails(archive(pax({ mtime: "soon" }), member({ name: "f" })), /mtime 'soon'/);
  await fails(archive(pax({ path: "a\0b" }), member({ name: "f" })), /holds a NUL/);
  for (const text of ["5 a=b\n", "99 a=b\n", "0 a=b\n", "x", "6 a=b", "99999999999999999 a=b\n"]) {
    await fails(
      archive(member({ name: "p", type: "x", content: text }), member({ name: "f" })),
      /extended header is damaged/,
    );
  }
  await fails(
    archive(member({ name: "p", type: "x", raw: field({ size: bytes("77777777777") }) })),
    /extended header has 8589934591 bytes/,
  );
  await fails(
    archive(member({ name: "p", type: "L", raw: field({ size: bytes("00010000000") }) })),
    /extended header has 2097152 bytes/,
  );
});

Deno.test("reader: what stands behind the end mark", async () => {
  const file = member({ name: "f", content: "x" });
  const trailing: number[] = [];
  assert.equal((await readAll(concat([file, END]), [], trailing)).length, 1);
  assert.equal((await readAll(concat([file, END, new Uint8Array(700)]), [], trailing)).length, 1);
  assert.deepEqual(trailing, []);
  assert.equal((await readAll(concat([file, END, bytes("garbage")]), [], trailing)).length, 1);
  assert.deepEqual(trailing, [2048]);
  await readAll(concat([file, END, bytes("g".repeat(3000))]), [7], trailing);
  assert.deepEqual(trailing, [2048, 2048]);
  // A hole of zeros in the middle, and two archives one behind the other.
  await fails(concat([file, END, bytes("x".repeat(512)), file, END]), /byte 2560.*more members/);
  await fails(concat([file, new Uint8Array(512), file, END]), /byte 1024.*block of zeros/);
});

Deno.test("reader: cut off anywhere is an error that says where", async () => {
  const parts = [
    pax({ path: "base/5/1249" }),
    member({ name: "x", content: "a".repeat(1300) }),
    member({ name: "dir/", type: "5" }),
    member({ name: "y", content: "b" }),
  ];
  const whole = concat([...parts, END]);
  for (let length = 1; length < whole.length; length += 73) {
    const error = await readAll(whole.subarray(0, length)).then(() => null, (reason) => reason);
    assert(error instanceof TarError, `length ${length}: ${error}`);
    assert.equal(error.position, length);
    assert.match(error.message, new RegExp(`^The archive is cut off at byte ${length}, `));
  }
  for (let length = 512; length < whole.length; length += 512) {
    await assert.rejects(readAll(whole.subarray(0, length), [512]), TarError);
  }
  await fails(whole.subarray(0, 2048), /in member base\/5\/1249, 788 bytes before its end$/);
  await fails(concat(parts), /after member y, in the next header$/);
  await fails(
    concat([...parts, new Uint8Array(512)]),
    /after member y, in the end-of-archive mark/,
  );
  assert.equal((await readAll(whole)).length, 3);
});

Deno.test("reader: errors of the source and aborts come through, leaving closes the source", async () => {
  const whole = archive(member({ name: "f", content: "x".repeat(4000) }));
  let closed = false;
  async function* source() {
    try {
      yield* chunks(whole, [1000]);
    } finally {
      closed = true;
    }
  }
  const reader = new TarReader(source());
  await reader.next();
  await reader.close();
  assert(closed);
  const controller = new AbortController();
  const aborted = new TarReader(chunks(whole, [1000]), { signal: controller.signal });
  await aborted.next();
  controller.abort(new Error("stop"));
  await assert.rejects(aborted.next(), /^Error: stop$/);
});

Deno.test("reader: gets back what the writer wrote, in chunks of any size", async () => {
  const name = fc.string({ unit: "binary", minLength: 1, maxLength: 180 }).map((text) =>
    text.replace(/[\0\ud800-\udfff]/gu, "_").replace(/\/+$/, "_")
  );
  const entry = fc.record({
    type: fc.constantFrom("file" as const, "directory" as const, "symlink" as const),
    name,
    linkTarget: name,
    content: fc.uint8Array({ maxLength: 2000 }),
    mode: fc.integer({ min: 0, max: 0o7777 }),
    uid: fc.integer({ min: 0, max: 2 ** 32 - 2 }),
    gid: fc.integer({ min: 0, max: 2 ** 32 - 2 }),
    userName: fc.string({ maxLength: 40 }).map((text) => text.replaceAll("\0", "_")),
    groupName: fc.string({ maxLength: 40 }).map((text) => text.replaceAll("\0", "_")),
    mtime: fc.bigInt({ min: -(2n ** 40n), max: 2n ** 62n }),
  });
  await fc.assert(fc.asyncProperty(
    fc.array(entry, { maxLength: 6 }),
    fc.array(fc.integer({ min: 1, max: 3000 }), { minLength: 1, maxLength: 5 }),
    async (entries, sizes) => {
      const parts: Uint8Array[] = [];
      for (const each of entries) {
        const content = each.type === "file" ? each.content : new Uint8Array(0);
        const linkTarget = each.type === "symlink" ? each.linkTarget : undefined;
        parts.push(memberHeader({ ...each, size: content.length, linkTarget }), content);
        parts.push(new Uint8Array(paddingOf(content.length)));
      }
      parts.push(endOfArchive(concat(parts).length));
      const read = await readAll(concat(parts), sizes);
      assert.deepEqual(
        read,
        entries.map(({ mtime, content, linkTarget, ...each }) => ({
          ...each,
          linkTarget: each.type === "symlink" ? linkTarget : "",
          size: each.type === "file" ? content.length : 0,
          content: each.type === "file" ? content : new Uint8Array(0),
          mtime: Number(
            `${mtime < 0n ? "-" : ""}${abs(mtime) / 10n ** 9n}.${
              String(abs(mtime) % 10n ** 9n).padStart(9, "0")
            }`,
          ),
        })),
      );
    },
  ));
});

Deno.test("reader: a pax record without a length is refused, also behind a good one", async () => {
  for (const text of ["20 path=base/5/1249\n13!mtime=1.5\n", "0 a=b\n", "x a=b\n", "5=a\n"]) {
    const whole = archive(member({ name: "h", type: "x", content: text }), member({ name: "x" }));
    await assert.rejects(readAll(whole), (error) => {
      assert(error instanceof TarError);
      assert.match(error.message, /is not of the form "LENGTH KEYWORD=VALUE"/);
      return true;
    });
  }
});

Deno.test("reader: random damage never makes it hang or throw anything but TarError", async () => {
  const whole = archive(
    pax({ path: "base/5/1249", mtime: "1.5" }),
    member({ name: "x", content: "a".repeat(700) }),
    member({ name: "y", type: "2", linkTarget: "x" }),
  );
  await fc.assert(
    fc.asyncProperty(
      fc.array(fc.tuple(fc.nat(whole.length - 1), fc.nat(255)), { minLength: 1, maxLength: 8 }),
      async (changes) => {
        const damaged = whole.slice();
        for (const [at, byte] of changes) damaged[at] = byte;
        await readAll(damaged).catch((error) => assert(error instanceof TarError, String(error)));
      },
    ),
    { numRuns: 300 },
  );
});

function abs(value: bigint): bigint {
  return value < 0n ? -value : value;
}

Deno.test("reader: a name of slashes takes no quadratic time, and loses only those at its end", async () => {
  const slashes = "/".repeat(900_000);
  const found = await only(pax({ path: `${slashes}x//` }), member({ name: "y", type: "5" }));
  assert.equal(found.name.length, 900_001);
  assert.equal((await only(pax({ path: slashes }), member({ name: "y", type: "5" }))).name, "/");
});
