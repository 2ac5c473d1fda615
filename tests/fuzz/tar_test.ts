/** Archives: the reader, and what a restore makes of them on disk. */
import assert from "node:assert/strict";
import { spawnSync } from "node:child_process";
import {
  existsSync,
  lstatSync,
  mkdirSync,
  readdirSync,
  readFileSync,
  readlinkSync,
  statSync,
} from "node:fs";
import { mkdtemp, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import fc from "fast-check";
import { RestoreError } from "../../lib/restore/restore_error.ts";
import { Unpacker } from "../../lib/restore/unpack.ts";
import { checksumOf } from "../../lib/tar/format.ts";
import { TarError, TarReader } from "../../lib/tar/reader.ts";
import { endOfArchive, memberHeader } from "../../lib/tar/writer.ts";
import { archive, member, pax } from "../lib/restore/raw_tar.ts";
import {
  ABSURD_NUMBERS,
  bytesNear,
  encoded,
  fuzz,
  inPieces,
  joined,
  NASTY_NAMES,
  outcomeOf,
  pieceSizes,
  shown,
} from "./hostile_inputs.ts";

const ours = (name: string, size: number, type: "file" | "directory" | "symlink" = "file") =>
  memberHeader({
    type,
    name,
    linkTarget: type === "symlink" ? "/srv/ts1" : undefined,
    size,
    mode: 0o600,
    uid: 5_000_000_000 % 2 ** 31,
    gid: 0,
    userName: "postgres",
    groupName: "postgres",
    mtime: 1_768_473_001_123_456_789n,
  });

const written = joined(
  ours("base", 0, "directory"),
  ours("base/1", 700),
  new Uint8Array(1024).fill(65),
  ours("pg_tblspc/16384", 0, "symlink"),
  ours(`long/${"n".repeat(200)}`, 3),
  new Uint8Array(512).fill(66, 0, 3),
);
const SAMPLES = [
  joined(written, endOfArchive(written.length)),
  archive(
    member({ name: "./", type: "5" }),
    pax({ path: "é/long", size: "5", mtime: "1.5", uid: "7" }),
    member({ name: "x", content: "12345" }),
    pax({ gname: "g" }, "g"),
    member({ name: "h", type: "1", linkTarget: "x" }),
    member({ name: "f", type: "6" }),
  ),
  archive(
    member({ name: "././@LongLink", type: "L", content: "a/very/long/name\0", magic: "ustar  \0" }),
    member({ name: "short", content: "abc", magic: "ustar  \0" }),
    member({ name: "././@LongLink", type: "K", content: "target\0", magic: "ustar  \0" }),
    member({ name: "link", type: "2", linkTarget: "t", magic: "ustar  \0" }),
    member({ name: "old", magic: "", content: "old" }),
    member({ name: "label", type: "V", magic: "ustar  \0" }),
  ),
];

/** Where the fields of the first headers are. */
const FIELDS = [0, 512, 1024, 1536, 2048].flatMap((block) =>
  [0, 100, 108, 116, 124, 136, 148, 156, 157, 257, 265, 345].map((field) => block + field)
);

/** Checksums that are right again, so that the edit behind them is looked at. */
function withChecksums(bytes: Uint8Array): Uint8Array {
  const copy = bytes.slice();
  for (let at = 0; at + 512 <= copy.length; at += 512) {
    const block = copy.subarray(at, at + 512);
    if (String.fromCharCode(...block.subarray(257, 262)) !== "ustar") continue;
    block.set(encoded(`${checksumOf(block).toString(8).padStart(6, "0")}\0 `), 148);
  }
  return copy;
}

async function membersOf(whole: Uint8Array, sizes: readonly number[]): Promise<string[]> {
  const reader = new TarReader(inPieces(whole, sizes), { onTrailingData: () => {} });
  const members: string[] = [];
  try {
    for (;;) {
      const entry = await reader.next();
      if (entry === null) return members;
      assert.ok(entry.size >= 0 && entry.uid >= 0 && entry.gid >= 0 && entry.mode <= 0o7777);
      assert.notEqual(entry.name, "");
      let size = 0;
      for (;;) {
        const piece = await reader.read();
        if (piece === null) break;
        size += piece.length;
      }
      assert.equal(size, entry.size);
      members.push(shown(entry));
    }
  } finally {
    await reader.close();
  }
}

fuzz("tar: the reader", {
  runs: 7000,
  input: fc.tuple(
    fc.tuple(bytesNear(SAMPLES, { places: FIELDS }), fc.boolean()).map(([bytes, right]) =>
      right ? withChecksums(bytes) : bytes
    ),
    pieceSizes,
  ),
}, async ([bytes, sizes]) => {
  const read = (sizes: readonly number[]) =>
    outcomeOf(async () => {
      try {
        return await membersOf(bytes, sizes);
      } catch (error) {
        if (error instanceof TarError) return [error.message];
        throw error;
      }
    });
  // How it was cut on the way makes no difference.
  assert.deepEqual(await read(sizes), await read([]));
});

const NAMES = [
  "a",
  "a/b",
  "a/b/c",
  "b",
  "link",
  "link/x",
  "link/x/y",
  "global/pg_control",
  "../outside/secret",
  "/etc/cron.d/x",
  "a/..",
  "a/../../outside/new",
  ".",
  "./a",
  "pg_tblspc/1",
  "pg_tblspc/1/x",
];
const name = fc.oneof(
  { weight: 6, arbitrary: fc.constantFrom(...NAMES) },
  { weight: 2, arbitrary: fc.constantFrom(...NASTY_NAMES) },
);
const target = fc.oneof(
  fc.constantFrom("../outside", "../outside/secret", "OUTSIDE", "OUTSIDE/secret", ".", "a", "a/b"),
  name,
);
const number = fc.constantFrom(...ABSURD_NUMBERS);
const hostileMember = fc.record({
  name,
  target,
  type: fc.constantFrom("0", "0", "5", "2", "2", "1", "1", "3", "6", "7", "\0", "S", "x", "L", "Z"),
  content: fc.constantFrom("", "x", "content\n", "y".repeat(700)),
  mode: fc.constantFrom(0o600, 0o700, 0o777, 0o4755, 0o2777, 0, 0o1777),
  mtime: fc.constantFrom(0, 1, 1_768_473_001, 2 ** 32, 8 ** 11 - 1),
  /** By extended header, where any name fits. */
  extended: fc.constantFrom("none", "pax", "gnu", "global", "numbers"),
  number,
});

/** Flushing to a disk, again and again, would be most of the time. */
const MEMORY = existsSync("/dev/shm") ? "/dev/shm" : undefined;

type HostileMember = typeof hostileMember extends fc.Arbitrary<infer T> ? T : never;

function memberBytes(each: HostileMember, outside: string): Uint8Array {
  const linkTarget = each.target.replace("OUTSIDE", outside);
  const short = (text: string) => new TextDecoder().decode(encoded(text).subarray(0, 100));
  const plain = member({
    ...each,
    content: each.type === "0" || each.type === "\0" ? each.content : "",
    name: short(each.name),
    linkTarget: short(linkTarget),
  });
  switch (each.extended) {
    case "pax":
      return joined(pax({ path: each.name, linkpath: linkTarget }), plain);
    case "global":
      return joined(pax({ path: each.name }, "g"), plain);
    case "numbers":
      return joined(pax({ mtime: each.number, uid: each.number }), plain);
    case "gnu":
      return joined(
        member({ name: "L", type: "L", content: `${each.name}\0` }),
        member({ name: "K", type: "K", content: `${linkTarget}\0` }),
        plain,
      );
    default:
      return plain;
  }
}

fuzz("tar: nothing is written outside of the directory", {
  runs: 800,
  input: fc.record({
    archives: fc.array(fc.array(hostileMember, { minLength: 1, maxLength: 8 }), {
      minLength: 1,
      maxLength: 2,
    }),
    excluded: fc.constantFrom([], ["a"]),
    sizes: pieceSizes,
  }),
}, async ({ archives, excluded, sizes }) => {
  const directory = await mkdtemp(join(MEMORY ?? tmpdir(), "barman-cloud-fuzz-"));
  const [root, outside] = [join(directory, "target"), join(directory, "outside")];
  mkdirSync(root);
  mkdirSync(outside);
  Deno.writeTextFileSync(join(outside, "secret"), "secret");
  const before = statSync(join(outside, "secret"));
  try {
    const { signal } = new AbortController();
    await outcomeOf(
      async () => {
        const unpacker = new Unpacker({
          directory: root,
          owners: { uid: (_, id) => id, gid: (_, id) => id },
          excluded,
          warn: () => {},
        });
        const results = await Promise.allSettled(archives.map((members, rank) => {
          const bytes = archive(...members.map((each) => memberBytes(each, outside)));
          return unpacker.unpack(inPieces(bytes, sizes), { rank, signal });
        }));
        for (const result of results) if (result.status === "rejected") throw result.reason;
        await unpacker.finish(signal);
      },
      RestoreError,
      TarError,
    );
    assert.deepEqual(readdirSync(directory).sort(), ["outside", "target"]);
    assert.deepEqual(readdirSync(outside), ["secret"]);
    assert.equal(readFileSync(join(outside, "secret"), "utf8"), "secret");
    const after = statSync(join(outside, "secret"));
    for (const fact of ["nlink", "mode", "uid", "gid", "mtimeMs"] as const) {
      assert.equal(after[fact], before[fact], fact);
    }
    // Directories that their owner may not enter: root looks into and removes them all the same, others not.
    spawnSync("chmod", ["-R", "u+rwx", directory]);
    noHiddenFiles(root);
  } finally {
    spawnSync("chmod", ["-R", "u+rwx", directory]);
    await rm(directory, { recursive: true, force: true });
  }
});

/** What a restore makes are files, directories and links, none of them with rights of others. */
function noHiddenFiles(directory: string): void {
  for (const entry of readdirSync(directory)) {
    const path = join(directory, entry);
    const facts = lstatSync(path);
    if (facts.isSymbolicLink()) {
      readlinkSync(path);
      continue;
    }
    assert.ok(facts.isFile() || facts.isDirectory(), path);
    assert.equal(facts.mode & 0o4000, 0, `${path} is set-user-ID`);
    if (facts.isDirectory()) noHiddenFiles(path);
  }
}
