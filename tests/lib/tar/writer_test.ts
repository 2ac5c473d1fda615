import assert from "node:assert/strict";
import { Buffer } from "node:buffer";
import { spawnSync } from "node:child_process";
import fc from "fast-check";
import {
  checksumOf,
  decodeName,
  encodeName,
  hasEscapedBytes,
  paddingOf,
  paxRecord,
} from "../../../lib/tar/format.ts";
import { endOfArchive, memberHeader, type TarMember } from "../../../lib/tar/writer.ts";

const plain: TarMember = {
  type: "file",
  name: "./PG_VERSION",
  size: 0,
  mode: 0o600,
  uid: 26,
  gid: 27,
  userName: "postgres",
  groupName: "postgres",
  mtime: 1_700_000_000_000_000_000n,
};

/** An archive of members; files are filled with the letter x. */
function archive(members: readonly TarMember[]): Buffer {
  const pieces: Uint8Array[] = [];
  for (const member of members) {
    pieces.push(memberHeader(member));
    pieces.push(new Uint8Array(member.size).fill(0x78), new Uint8Array(paddingOf(member.size)));
  }
  const size = pieces.reduce((sum, piece) => sum + piece.length, 0);
  return Buffer.concat([...pieces, endOfArchive(size)]);
}

interface ReadBack {
  readonly name: string;
  readonly type: string;
  readonly size: number;
  readonly mode: number;
  readonly uid: number;
  readonly gid: number;
  readonly uname: string;
  readonly gname: string;
  readonly mtime: number;
  readonly linkname: string;
  readonly content: string;
}

/** What Python's tarfile reads from a stream, as Barman's restore does; names as hexadecimal bytes. */
function readWithPython(tar: Uint8Array): ReadBack[] {
  const script = `
import sys, tarfile, json, os
out = []
with tarfile.open(fileobj=sys.stdin.buffer, mode="r|") as t:
    for m in t:
        content = t.extractfile(m).read().decode() if m.isreg() else ""
        h = lambda s: s.encode("utf-8", "surrogateescape").hex()
        out.append(dict(name=h(m.name), type=m.type.decode(), size=m.size, mode=m.mode, uid=m.uid, gid=m.gid,
            uname=m.uname, gname=m.gname, mtime=m.mtime, linkname=h(m.linkname), content=content))
json.dump(out, sys.stdout)
`;
  const result = spawnSync("python3", ["-c", script], { input: tar, maxBuffer: 1 << 28 });
  assert.equal(result.status, 0, String(result.stderr));
  return JSON.parse(String(result.stdout));
}

/** Tests that read with other programs are skipped, and shown as such, where those are not installed. */
const installed = (program: string) => spawnSync(program, ["--version"]).status === 0;
const needsPython = { ignore: !installed("python3") };
const needsTar = { ignore: !installed("tar") };

const hex = (name: string) => Buffer.from(encodeName(name)).toString("hex");

Deno.test("a plain member is one ustar block with a right checksum", () => {
  const header = memberHeader(plain);
  assert.equal(header.length, 512);
  const text = Buffer.from(header).toString("latin1");
  assert.equal(text.slice(0, 12), "./PG_VERSION");
  assert.equal(text.slice(100, 108), "0000600\0");
  assert.equal(text.slice(257, 265), "ustar\x0000");
  assert.equal(parseInt(text.slice(148, 154), 8), checksumOf(header));
  assert.equal(
    header.reduce((sum, byte, i) => sum + (i >= 148 && i < 156 ? 32 : byte), 0),
    checksumOf(header),
  );
});

Deno.test("pax records count their own length", () => {
  fc.assert(fc.property(fc.string(), fc.string({ maxLength: 2000 }), (keyword, value) => {
    const record = Buffer.from(paxRecord(keyword, value));
    const digits = /^\d+/.exec(record.toString("latin1"))?.[0];
    assert.equal(Number(digits), record.length);
  }));
  // Around the places where the length gets a digit more.
  for (let size = 0; size < 1100; size++) {
    const record = Buffer.from(paxRecord("k", "x".repeat(size)));
    assert.equal(parseInt(record.toString("latin1"), 10), record.length);
  }
});

Deno.test("names: any bytes survive, valid UTF-8 is itself", () => {
  fc.assert(fc.property(fc.uint8Array({ maxLength: 30 }), (bytes) => {
    assert.deepEqual([...encodeName(decodeName(bytes))], [...bytes]);
  }));
  fc.assert(fc.property(fc.string({ unit: "binary" }), (name) => {
    const bytes = new TextEncoder().encode(name);
    assert.equal(decodeName(bytes), new TextDecoder("utf-8", { ignoreBOM: true }).decode(bytes));
    assert(!hasEscapedBytes(decodeName(bytes)));
  }));
  assert.equal(decodeName(Uint8Array.of(0x61, 0xff, 0xe9, 0x62)), "a\udcff\udce9b");
  assert.equal(decodeName(Uint8Array.of(0xed, 0xa0, 0x80)), "\udced\udca0\udc80");
});

Deno.test("Python's tarfile reads all members from a stream", needsPython, () => {
  const long = "d/".repeat(80) + "file";
  const members: TarMember[] = [
    { ...plain, type: "directory", name: ".", mode: 0o700 },
    { ...plain, size: 5 },
    { ...plain, name: "fraction", mtime: 1_700_000_000_823_295_001n },
    { ...plain, name: "before1970", mtime: -1_500_000_000n, size: 512 },
    { ...plain, name: long, size: 3 },
    { ...plain, name: "x".repeat(100) },
    { ...plain, type: "directory", name: "y".repeat(100) },
    { ...plain, name: "é/世界/💾" },
    { ...plain, name: "raw\udcff\udce9" },
    { ...plain, name: "long-raw/" + "r".repeat(120) + "\udcff" },
    { ...plain, type: "symlink", name: "link", linkTarget: "../é/" + "t".repeat(150), mode: 0o777 },
    { ...plain, name: "ids", uid: 3_000_000, gid: 4_294_967_294 },
    { ...plain, name: "owners", userName: "josé", groupName: "g".repeat(40) },
    { ...plain, name: "sticky", mode: 0o6755 },
    { ...plain, name: "line\nbreak = 12 x" },
  ];
  const read = readWithPython(archive(members));
  assert.equal(read.length, members.length);
  for (const [index, member] of members.entries()) {
    const got = read[index];
    assert(got !== undefined);
    assert.equal(got.name, hex(member.name), member.name);
    assert.equal(got.type, { file: "0", directory: "5", symlink: "2" }[member.type]);
    assert.equal(got.size, member.size);
    assert.equal(got.content, "x".repeat(member.size));
    assert.equal(got.mode, member.mode);
    assert.deepEqual([got.uid, got.gid], [member.uid, member.gid]);
    assert.deepEqual([got.uname, got.gname], [member.userName, member.groupName]);
    assert.equal(got.linkname, hex(member.linkTarget ?? ""));
    assert(Math.abs(got.mtime - Number(member.mtime) / 1e9) < 1e-6, `${got.mtime}`);
  }
});

Deno.test("sizes above 8 GiB are in the extended header", () => {
  const size = 10 * 1024 ** 3;
  const text = Buffer.from(memberHeader({ ...plain, size })).toString("latin1");
  assert(text.includes(` size=${size}\n`));
  const below = Buffer.from(memberHeader({ ...plain, size: 8 ** 11 - 1 })).toString("latin1");
  assert(below.startsWith("./PG_VERSION"));
  assert.equal(below.slice(124, 136), "77777777777\0");
});

Deno.test("GNU tar lists the archive, and it ends on a whole record", needsTar, () => {
  const members: TarMember[] = [
    { ...plain, type: "directory", name: ".", mode: 0o700 },
    { ...plain, size: 700, mtime: 1_700_000_000_123_456_789n },
    { ...plain, name: "d/".repeat(90) + "é", size: 1 },
  ];
  const tar = archive(members);
  assert.equal(tar.length % 10240, 0);
  const result = spawnSync("tar", ["--full-time", "--utc", "-tvf", "-"], {
    input: tar,
    env: { LC_ALL: "C.UTF-8", PATH: "/usr/bin:/bin" },
  });
  assert.equal(result.status, 0, String(result.stderr));
  assert.equal(String(result.stderr), "");
  const lines = String(result.stdout).trimEnd().split("\n");
  assert.equal(lines.length, 3);
  assert.match(
    lines[1] ?? "",
    /postgres\/postgres +700 2023-11-14 22:13:20\.123456789 \.\/PG_VERSION$/,
  );
});

Deno.test("the end has two zero blocks at least and fills a record", () => {
  for (let blocks = 0; blocks < 45; blocks++) {
    const end = endOfArchive(blocks * 512);
    assert(end.length >= 1024 && end.length < 1024 + 10240);
    assert.equal((blocks * 512 + end.length) % 10240, 0);
  }
});

Deno.test("any member is read back by Python as it was written", needsPython, () => {
  const segment = fc.string({ unit: "grapheme", minLength: 1, maxLength: 60 })
    .map((text) => text.replace(/[\0/]/g, "_").replace(/^\.+$/, "_"));
  const member = fc.record({
    type: fc.constant("file" as const),
    name: fc.array(segment, { minLength: 1, maxLength: 5 }).map((parts) => parts.join("/")),
    size: fc.integer({ min: 0, max: 3000 }),
    mode: fc.integer({ min: 0, max: 0o7777 }),
    uid: fc.integer({ min: 0, max: 2 ** 32 - 2 }),
    gid: fc.integer({ min: 0, max: 2 ** 32 - 2 }),
    userName: fc.constantFrom("", "postgres", "日本"),
    groupName: fc.constantFrom("", "postgres"),
    mtime: fc.bigInt({ min: -(10n ** 18n), max: 10n ** 19n }),
  });
  fc.assert(
    fc.property(fc.array(member, { minLength: 1, maxLength: 40 }), (members) => {
      const read = readWithPython(archive(members));
      assert.deepEqual(
        read.map((got) => [got.name, got.size, got.mode, got.uid, got.gid, got.uname, got.gname]),
        members.map((it) => [
          hex(it.name),
          it.size,
          it.mode,
          it.uid,
          it.gid,
          it.userName,
          it.groupName,
        ]),
      );
    }),
    { numRuns: 15 },
  );
});
