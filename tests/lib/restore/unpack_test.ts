import assert from "node:assert/strict";
import {
  chmodSync,
  lstatSync,
  mkdirSync,
  readdirSync,
  readFileSync,
  readlinkSync,
  statSync,
  symlinkSync,
} from "node:fs";
import { mkdtemp, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import fc from "fast-check";
import { memberPath, UnsafeMember } from "../../../lib/restore/member_path.ts";
import { RestoreError } from "../../../lib/restore/restore_error.ts";
import { Unpacker, type UnpackTarget } from "../../../lib/restore/unpack.ts";
import { archive, chunks, member, pax } from "./raw_tar.ts";

interface Place {
  /** Unpack into this. */
  readonly target: string;
  /** Beside it; holds a file `secret`, and nothing else may appear in it. */
  readonly outside: string;
  readonly warnings: string[];
  unpack(...archives: readonly Uint8Array[]): Promise<Unpacker>;
}

async function inPlace(
  use: (place: Place) => Promise<void>,
  settings: Partial<UnpackTarget> = {},
): Promise<void> {
  const directory = await mkdtemp(join(tmpdir(), "barman-cloud-unpack-"));
  const [target, outside] = [join(directory, "target"), join(directory, "outside")];
  mkdirSync(target);
  mkdirSync(outside);
  Deno.writeTextFileSync(join(outside, "secret"), "secret");
  const warnings: string[] = [];
  try {
    await use({
      target,
      outside,
      warnings,
      unpack: async (...archives) => {
        const unpacker = new Unpacker({
          directory: target,
          owners: null,
          excluded: [],
          warn: (message) => warnings.push(message),
          ...settings,
        });
        const { signal } = new AbortController();
        for (const [rank, whole] of archives.entries()) {
          await unpacker.unpack(chunks(whole, [3000]), { rank, signal });
        }
        await unpacker.finish(signal);
        return unpacker;
      },
    });
    assert.deepEqual(readdirSync(outside), ["secret"]);
    assert.equal(readFileSync(join(outside, "secret"), "utf8"), "secret");
    assert.equal(statSync(join(outside, "secret")).nlink, 1);
    assert.deepEqual(readdirSync(directory).sort(), ["outside", "target"]);
  } finally {
    await rm(directory, { recursive: true });
  }
}

const text = (...path: string[]) => readFileSync(join(...path), "utf8");
const mode = (...path: string[]) => lstatSync(join(...path)).mode & 0o7777;
const mtime = (...path: string[]) => Math.floor(lstatSync(join(...path)).mtimeMs / 1000);

async function refuses(work: Promise<unknown>, message: RegExp): Promise<void> {
  await assert.rejects(work, (error) => {
    assert(error instanceof RestoreError, String(error));
    assert.equal(error.kind, "archive");
    assert.match(error.message, message);
    return true;
  });
}

Deno.test("unpack: files, directories and links with their modes and times", () =>
  inPlace(async ({ target, unpack, warnings }) => {
    await unpack(archive(
      member({ name: "./", type: "5", mode: 0o750, mtime: 1600000000 }),
      member({ name: "./PG_VERSION", content: "17\n", mode: 0o640, mtime: 1600000001 }),
      member({ name: "ro/", type: "5", mode: 0o500, mtime: 1600000002 }),
      member({ name: "ro/big", content: "z".repeat(700_000), mode: 0o400, mtime: 1600000003 }),
      member({ name: "ro/suid", content: "x", mode: 0o4755 }),
      member({ name: "no/parent/here", content: "y" }),
      member({ name: "soft", type: "2", linkTarget: "/etc/absolute", mtime: 1600000004 }),
      member({ name: "hard", type: "1", linkTarget: "./PG_VERSION" }),
      member({ name: "before-1970", raw: { ...NO_RAW, mtime: new Uint8Array(12).fill(0xff) } }),
    ));
    assert.equal(text(target, "PG_VERSION"), "17\n");
    assert.equal(text(target, "ro/big"), "z".repeat(700_000));
    assert.equal(text(target, "no/parent/here"), "y");
    assert.deepEqual(
      ["", "PG_VERSION", "ro", "ro/big", "ro/suid", "no", "no/parent"].map((path) =>
        mode(target, path)
      ),
      [0o750, 0o640, 0o500, 0o400, 0o755, 0o700, 0o700],
    );
    assert.deepEqual(
      ["", "PG_VERSION", "ro", "ro/big", "soft", "before-1970"].map((path) => mtime(target, path)),
      [1600000000, 1600000001, 1600000002, 1600000003, 1600000004, 0],
    );
    assert.equal(readlinkSync(join(target, "soft")), "/etc/absolute");
    assert.equal(statSync(join(target, "hard")).ino, statSync(join(target, "PG_VERSION")).ino);
    assert.deepEqual(warnings, []);
    // Who is not root could not remove what is in it.
    chmodSync(join(target, "ro"), 0o700);
  }));

Deno.test("unpack: a member that comes twice: the last one counts", () =>
  inPlace(async ({ target, unpack }) => {
    await unpack(archive(
      member({ name: "backup_label", content: "old and longer" }),
      member({ name: "link", type: "2", linkTarget: "backup_label" }),
      member({ name: "keep", content: "1" }),
      member({ name: "hard", type: "1", linkTarget: "keep" }),
      member({ name: "hard", content: "2" }),
      member({ name: "backup_label", content: "new", mode: 0o644 }),
      member({ name: "link", content: "now a file" }),
    ));
    assert.equal(text(target, "backup_label"), "new");
    assert.equal(mode(target, "backup_label"), 0o644);
    assert.equal(text(target, "link"), "now a file");
    assert.deepEqual([text(target, "keep"), text(target, "hard")], ["1", "2"]);
  }));

Deno.test("unpack: of several archives the one of the highest rank has the last word at the top", () =>
  inPlace(async ({ target, unpack }) => {
    const unpacker = await unpack();
    const { signal } = new AbortController();
    const of = (content: string) =>
      chunks(archive(
        member({ name: "./backup_label", content }),
        member({ name: "global/pg_control", content }),
      ));
    await unpacker.unpack(of("last"), { rank: 2, signal });
    await unpacker.unpack(of("first"), { rank: 0, signal });
    await unpacker.unpack(of("second"), { rank: 1, signal });
    await unpacker.finish(signal);
    assert.equal(text(target, "backup_label"), "last");
    assert.equal(text(target, "global/pg_control"), "last");
  }));

Deno.test("unpack: content of excluded directories is left out", () =>
  inPlace(async ({ target, unpack }) => {
    await unpack(archive(
      member({ name: "ts/", type: "5" }),
      member({ name: "ts/PG_17/5/1", content: "x" }),
      member({ name: "ts2/file", content: "x" }),
      member({ name: "a/b/ts/file", content: "x" }),
      member({ name: "a/b/tsx", content: "x" }),
    ));
    assert.deepEqual(readdirSync(target).sort(), ["a", "ts", "ts2"]);
    assert.deepEqual(readdirSync(join(target, "ts")), []);
    assert.deepEqual(readdirSync(join(target, "a/b")), ["tsx"]);
  }, { excluded: ["ts", "a/b/ts"] }));

Deno.test("unpack: devices and pipes are left out with a warning", () =>
  inPlace(async ({ target, unpack, warnings }) => {
    await unpack(archive(
      member({ name: "c", type: "3" }),
      member({ name: "b", type: "4" }),
      member({ name: "f", type: "6" }),
    ));
    assert.deepEqual(readdirSync(target), []);
    assert.equal(warnings.length, 3);
    assert.match(warnings[0] ?? "", /^Left out c: it is a character device/);
  }));

const NO_RAW = { size: undefined, uid: undefined, mtime: undefined, checksum: undefined };

const HOSTILE: readonly (readonly [string, RegExp, (outside: string) => Uint8Array[]])[] = [
  ["a path upwards", /\.\.\/outside\/f: its path leads upwards/, () => [
    member({ name: "../outside/f", content: "x" }),
  ]],
  ["a path upwards from below", /leads upwards/, () => [
    member({ name: "a/../../outside/f", content: "x" }),
  ]],
  ["upwards in a pax header", /leads upwards/, () => [
    pax({ path: "x/../../outside/f" }),
    member({ name: "harmless", content: "x" }),
  ]],
  ["an absolute path", /its path is absolute/, (outside) => [
    member({ name: `${outside}/f`, content: "x" }),
  ]],
  ["an absolute directory", /its path is absolute/, () => [member({ name: "/", type: "5" })]],
  ["a file through a symlink to a directory", /link is in the way, which is no directory/, (
    outside,
  ) => [
    member({ name: "link", type: "2", linkTarget: outside }),
    member({ name: "link/f", content: "x" }),
  ]],
  ["a file through a relative symlink, deeper", /a\/link is in the way/, () => [
    member({ name: "a/", type: "5" }),
    member({ name: "a/link", type: "2", linkTarget: "../../outside" }),
    member({ name: "a/link/b/f", content: "x" }),
  ]],
  ["a directory in place of a symlink", /link is in the way/, (outside) => [
    member({ name: "link", type: "2", linkTarget: outside }),
    member({ name: "link", type: "5", mode: 0o777 }),
    member({ name: "link/f", content: "x" }),
  ]],
  ["a symlink in place of a directory", /Refused member d: a directory is in its place/, (
    outside,
  ) => [
    member({ name: "d/f", content: "x" }),
    member({ name: "d", type: "2", linkTarget: outside }),
    member({ name: "d/g", content: "x" }),
  ]],
  ["a symlink in place of the target", /takes the place of the directory itself/, (outside) => [
    member({ name: ".", type: "2", linkTarget: outside }),
  ]],
  [
    "a file in place of the target",
    /takes the place/,
    () => [
      member({ name: "././.", content: "x" }),
    ],
  ],
  ["a symlink through a symlink", /link is in the way/, (outside) => [
    member({ name: "link", type: "2", linkTarget: outside }),
    member({ name: "link/f", type: "2", linkTarget: "secret" }),
  ]],
  ["a hard link to outside", /its path is absolute/, (outside) => [
    member({ name: "h", type: "1", linkTarget: `${outside}/secret` }),
    member({ name: "h", content: "x" }),
  ]],
  ["a hard link upwards", /leads upwards/, () => [
    member({ name: "h", type: "1", linkTarget: "../outside/secret" }),
  ]],
  ["a hard link through a symlink", /no file restored before/, (outside) => [
    member({ name: "link", type: "2", linkTarget: outside }),
    member({ name: "h", type: "1", linkTarget: "link/secret" }),
  ]],
  ["a hard link to a symlink", /no file restored before/, (outside) => [
    member({ name: "link", type: "2", linkTarget: `${outside}/secret` }),
    member({ name: "h", type: "1", linkTarget: "link" }),
  ]],
  ["a hard link to nothing", /no file restored before/, () => [
    member({ name: "h", type: "1", linkTarget: "later" }),
  ]],
  ["a hard link to a directory", /no file restored before/, () => [
    member({ name: "d/", type: "5" }),
    member({ name: "h", type: "1", linkTarget: "d" }),
  ]],
  ["a file below a file", /f is in the way/, () => [
    member({ name: "f", content: "x" }),
    member({ name: "f/g", content: "x" }),
  ]],
  ["a symlink to nothing", /link to nothing/, () => [member({ name: "l", type: "2" })]],
];

for (const [what, message, members] of HOSTILE) {
  Deno.test(`unpack: refuses ${what}`, () =>
    inPlace(async ({ outside, unpack }) => {
      await refuses(unpack(archive(...members(outside))), message);
    }));
}

Deno.test("unpack: writing over a symlink replaces it instead of following it", () =>
  inPlace(async ({ target, outside, unpack }) => {
    await unpack(archive(
      member({ name: "l", type: "2", linkTarget: `${outside}/secret` }),
      member({ name: "l", content: "mine" }),
      member({ name: "n", type: "2", linkTarget: `${outside}/new` }),
      member({ name: "n", content: "mine", mode: 0o666 }),
    ));
    assert.equal(text(target, "l"), "mine");
    assert(lstatSync(join(target, "n")).isFile());
  }));

Deno.test("unpack: a symlink that is there already is not followed either", () =>
  inPlace(async ({ target, outside, unpack }) => {
    symlinkSync(outside, join(target, "d"));
    await refuses(unpack(archive(member({ name: "d/f", content: "x" }))), /d is in the way/);
  }));

Deno.test("unpack: random hostile archives never touch what is outside", async () => {
  const name = fc.array(fc.constantFrom("..", ".", "", "a", "b", "outside", "secret"), {
    minLength: 1,
    maxLength: 4,
  }).map((parts) => parts.join("/"));
  const link = fc.oneof(name, fc.constantFrom("../outside", "../outside/secret", "..", "a", "a/b"));
  const entry = fc.record({ name, link, type: fc.constantFrom("0", "1", "2", "5") });
  await fc.assert(
    fc.asyncProperty(fc.array(entry, { maxLength: 8 }), (entries) =>
      inPlace(async ({ unpack }) => {
        const members = entries.filter((each) => each.name !== "").map((each) =>
          member({
            name: each.name,
            type: each.type,
            linkTarget: each.link,
            // A "file" whose name ends in a slash is a directory of the oldest format: without content.
            content: each.type === "0" && !each.name.endsWith("/") ? "x" : "",
            mode: 0o777,
          })
        );
        // Whether it is refused does not matter here: `inPlace` looks at what is outside.
        await unpack(archive(...members)).catch((error) =>
          assert(error instanceof RestoreError, String(error))
        );
      })),
    { numRuns: 150 },
  );
});

Deno.test("memberPath: plain, dotted, and what leads away", () => {
  assert.equal(memberPath("."), "");
  assert.equal(memberPath("./"), "");
  assert.equal(memberPath("./PG_VERSION"), "PG_VERSION");
  assert.equal(memberPath("base//5/./1249"), "base/5/1249");
  assert.equal(memberPath("..a/b../.c/..."), "..a/b../.c/...");
  for (const name of ["/", "/a", "..", "a/..", "../a", "a/../b", "a\0b", "./.."]) {
    assert.throws(() => memberPath(name), UnsafeMember, name);
  }
  fc.assert(fc.property(fc.string(), (name) => {
    let path: string;
    try {
      path = memberPath(name);
    } catch (error) {
      assert(error instanceof UnsafeMember);
      return;
    }
    assert(join("/t", path) === (path === "" ? "/t" : `/t/${path}`));
  }));
});

Deno.test("unpack: aborting ends it, an error of the system names the file", async () => {
  await inPlace(async ({ target }) => {
    const unpacker = new Unpacker({
      directory: target,
      owners: null,
      excluded: [],
      warn: () => {},
    });
    const controller = new AbortController();
    async function* endless() {
      yield* chunks(archive(member({ name: "f", content: "x".repeat(5000) })).subarray(0, 2000));
      controller.abort(new Error("stopped"));
      yield new Uint8Array(10);
    }
    const { signal } = controller;
    await assert.rejects(unpacker.unpack(endless(), { rank: 0, signal }), /^Error: stopped$/);
  });
  await assert.rejects(
    new Unpacker({ directory: "/proc/self", owners: null, excluded: [], warn: () => {} }).unpack(
      chunks(archive(member({ name: "new", content: "x" }))),
      { rank: 0, signal: new AbortController().signal },
    ),
    /^RestoreError: Cannot create \/proc\/self\/new: /,
  );
});

Deno.test("unpack: when an archive is unpacked its files have their content and their modes", () =>
  inPlace(async ({ target, warnings }) => {
    const unpacker = new Unpacker({
      directory: target,
      owners: null,
      excluded: [],
      warn: (message) => warnings.push(message),
    });
    const { signal } = new AbortController();
    const size = 30_000_000;
    const last = archive(member({ name: "last", content: "x".repeat(size), mode: 0o640 }));
    await unpacker.unpack(chunks(last, [last.length]), { rank: 0, signal });
    // What comes next may look at them, before all is flushed.
    const { size: written, mode } = statSync(join(target, "last"));
    assert.deepEqual([written, mode & 0o777], [size, 0o640]);
    await unpacker.finish(signal);
  }));

Deno.test("unpack: many files are whole, and none is open in the end", () =>
  inPlace(async ({ target, unpack }) => {
    const content = (i: number) => String(i).repeat(i % 10 === 0 ? 400_000 : i);
    const numbers = Array.from({ length: 200 }, (_, i) => i);
    const files = numbers.map((i) => member({ name: `f${i}`, content: content(i) }));
    await (await unpack(archive(...files))).finish(new AbortController().signal);
    for (const i of numbers) assert.equal(readFileSync(join(target, `f${i}`), "utf8"), content(i));
    const open = readdirSync("/proc/self/fd").flatMap((descriptor) => {
      try {
        return [readlinkSync(`/proc/self/fd/${descriptor}`)];
      } catch {
        return [];
      }
    });
    assert.deepEqual(open.filter((path) => path.startsWith(target)), []);
  }));

Deno.test("unpack: a path deeper than any system takes is refused, not followed", () =>
  inPlace(async ({ target, unpack }) => {
    await refuses(
      unpack(archive(pax({ path: "d/".repeat(200_000) + "x" }), member({ name: "x" }))),
      /too long for any system/,
    );
    await refuses(
      unpack(
        archive(
          member({ name: "y", content: "1" }),
          pax({ linkpath: "d/".repeat(200_000) + "y" }),
          member({ name: "z", type: "1" }),
        ),
      ),
      /too long for any system/,
    );
    assert.deepEqual(readdirSync(target), ["y"]);
  }));
