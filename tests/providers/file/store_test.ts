import assert from "node:assert/strict";
import { Buffer } from "node:buffer";
import {
  lstat,
  mkdir,
  readdir,
  readFile,
  rm,
  stat,
  symlink,
  truncate,
  utimes,
  writeFile,
} from "node:fs/promises";
import { createHash } from "node:crypto";
import { execFileSync } from "node:child_process";
import fc from "fast-check";
import { renameExclusively } from "../../../providers/file/durable.ts";
import { isReservedName, temporaryName } from "../../../providers/file/keys.ts";
import { openFileStore } from "../../../providers/file/store.ts";
import { isStoreError, type StoreError } from "../../../providers/object_store.ts";
import { rejectsWith } from "../../conformance/checks.ts";
import { bytes, contentOf, namesIn, pattern } from "../../conformance/suite.ts";
import { temporaryStore } from "./temporary_store.ts";

Deno.test("objects are plain files that others may not read", async () => {
  await using subject = await temporaryStore();
  const { store, root } = subject;
  await store.put("server/base/1/backup.info", bytes("content"));
  assert.deepEqual(await readdir(root, { recursive: true }), [
    "server",
    "server/base",
    "server/base/1",
    "server/base/1/backup.info",
  ]);
  assert.equal(await readFile(`${root}/server/base/1/backup.info`, "utf8"), "content");
  assert.equal((await stat(`${root}/server/base/1/backup.info`)).mode & 0o027, 0);
  assert.equal((await stat(`${root}/server/base`)).mode & 0o027, 0);
  await mkdir(`${root}/copied`);
  await writeFile(`${root}/copied/by hand`, "x");
  assert.deepEqual(await contentOf(store, "copied/by hand"), bytes("x"));
});

Deno.test("keys that would leave the root or can't be names are refused by every call", async () => {
  await using subject = await temporaryStore();
  const { store, root } = subject;
  const bad = [
    ...["", "/", "/etc/passwd", "../x", "a/../x", "a/..", ".", "./a", "a/./b", "a//b", "a/"],
    ...["a\0b", "x".repeat(256), "ü".repeat(128), "lone-\ud800", `a/${temporaryName()}`],
    `${temporaryName()}/a`,
  ];
  for (const key of bad) {
    await rejectsWith(store.put(key, bytes("x")), "invalid");
    await rejectsWith(store.get(key), "invalid");
    await rejectsWith(store.head(key), "invalid");
    await rejectsWith(store.startMultipart(key), "invalid");
    const [failure] = await store.deleteMany([key]);
    assert.ok(isStoreError(failure?.error, "invalid"), JSON.stringify(key));
  }
  assert.deepEqual(await readdir(root), []);
  const longPath = Array.from({ length: 40 }, () => "x".repeat(200)).join("/");
  await rejectsWith(store.put(longPath, bytes("x")), "invalid");
  for (const key of ["x".repeat(255), "ü".repeat(127), "..a", "a..", "...", "a\\..\\b"]) {
    await store.put(key, bytes("x"));
  }
});

Deno.test("no key reaches a file outside the root", async () => {
  await using subject = await temporaryStore();
  const { store, root } = subject;
  const inner = await openFileStore(`file://${root}/inner`, { env: {} });
  await inner.store.createBucket();
  await store.put("outside", bytes("secret"));
  const part = fc.constantFrom("..", ".", "", "a", "outside", "inner", "\0", "%2e%2e", "..\\");
  const key = fc.array(part, { minLength: 1, maxLength: 5 }).map((parts) => parts.join("/"));
  await fc.assert(
    fc.asyncProperty(key, async (key) => {
      await inner.store.put(key, bytes("x")).catch((error) => assertStoreError(error));
      await inner.store.deleteMany([key]);
      for await (const entry of inner.store.list(key)) assert.ok(entry.kind === "object");
      assert.deepEqual((await readdir(root)).sort(), ["inner", "outside"]);
      assert.equal(await readFile(`${root}/outside`, "utf8"), "secret");
    }),
    { numRuns: 60 },
  );
});

Deno.test("a key below an object, and one that others go on from, are refused", async () => {
  await using subject = await temporaryStore();
  const { store, root } = subject;
  await store.put("a/b", bytes("x"));
  const below = await rejectsWith(store.put("a/b/c", bytes("y")), "invalid");
  assert.match(below.message, /a part of the path is a file/);
  const above = await rejectsWith(store.put("a", bytes("y")), "invalid");
  assert.match(above.message, /directory/);
  await rejectsWith(store.startMultipart("a/b/c"), "invalid");
  const upload = await store.startMultipart("a");
  await rejectsWith(upload.complete([await upload.uploadPart(1, bytes("y"))]), "invalid");
  await upload.abort();
  assert.deepEqual(await readdir(root, { recursive: true }), ["a", "a/b"]);
});

Deno.test("a missing root is never made by a write", async () => {
  await using subject = await temporaryStore();
  const url = `file://${subject.root}/not/mounted`;
  const { store } = await openFileStore(url, { env: {} });
  const error = await rejectsWith(store.put("a/b", bytes("x")), "no-bucket");
  assert.match(error.message, /not\/mounted does not exist: mount it, or create it/);
  assert.deepEqual(await readdir(subject.root), []);
  await store.createBucket();
  await store.put("a/b", bytes("x"));
  await rm(`${subject.root}/not`, { recursive: true });
  await rejectsWith(store.put("a/c", bytes("x")), "no-bucket");
  await rejectsWith(store.get("a/b"), "no-bucket");
  await rejectsWith(store.head("a/b"), "no-bucket");
});

Deno.test("a root that is a file is refused, not taken for a missing one", async () => {
  await using subject = await temporaryStore();
  await writeFile(`${subject.root}/file`, "x");
  for (const path of ["file", "file/below"]) {
    const { store } = await openFileStore(`file://${subject.root}/${path}`, { env: {} });
    await rejectsWith(store.bucketExists(), "invalid");
    await rejectsWith(store.createBucket(), "invalid", "other");
    await rejectsWith(store.put("x", bytes("x")), "invalid");
    await rejectsWith(store.get("x"), "invalid");
    await rejectsWith(namesIn(store, ""), "invalid");
  }
});

Deno.test("emptied directories go, the root and directories in use stay", async () => {
  await using subject = await temporaryStore();
  const { store, root } = subject;
  await store.put("s/base/1/data.tar", bytes("x"));
  await store.put("s/base/2/data.tar", bytes("x"));
  await store.put("s/wals/w", bytes("x"));
  assert.deepEqual(await store.deleteMany(["s/base/1/data.tar"]), []);
  assert.deepEqual((await readdir(`${root}/s/base`)).sort(), ["2"]);
  assert.deepEqual(await store.deleteMany(["s/base/2/data.tar", "s/wals/w"]), []);
  assert.deepEqual(await readdir(root), []);
  assert.equal(await store.bucketExists(), true);
});

Deno.test("empty directories, files being written and other things are not listed", async () => {
  await using subject = await temporaryStore();
  const { store, root } = subject;
  await mkdir(`${root}/empty/deeper`, { recursive: true });
  await mkdir(`${root}/d`);
  await writeFile(`${root}/d/${temporaryName()}`, "x");
  await symlink("/nowhere", `${root}/dangling`);
  execFileSync("mkfifo", [`${root}/pipe`]);
  assert.deepEqual(await namesIn(store, ""), []);
  assert.deepEqual(await namesIn(store, "", { delimiter: "/" }), []);
  await rejectsWith(store.get("pipe"), "invalid");
  await rejectsWith(store.get("dangling"), "not-found");
});

Deno.test("symbolic links are followed, also out of the root; a loop is an error", async () => {
  await using subject = await temporaryStore();
  await using elsewhere = await temporaryStore();
  const { store, root } = subject;
  await symlink(elsewhere.root, `${root}/other-disk`);
  await store.put("other-disk/a/b", bytes("x"));
  assert.equal(await readFile(`${elsewhere.root}/a/b`, "utf8"), "x");
  assert.deepEqual(await namesIn(store, ""), ["other-disk/a/b"]);
  assert.deepEqual(await namesIn(store, "", { delimiter: "/" }), ["other-disk/"]);
  assert.deepEqual(await store.deleteMany(["other-disk/a/b"]), []);
  assert.ok((await lstat(`${root}/other-disk`)).isSymbolicLink());
  await mkdir(`${root}/d/e`, { recursive: true });
  await symlink("..", `${root}/d/e/loop`);
  const error = await rejectsWith(namesIn(store, ""), "invalid");
  assert.match(error.message, /d\/e\/loop.* symbolic link/);
});

Deno.test("a name that is not UTF-8 is left out with a notice", async () => {
  await using subject = await temporaryStore();
  const { store, root, notices } = subject;
  execFileSync("sh", ["-c", `printf x > "$1/$(printf 'bad\\377name')"`, "sh", root]);
  await store.put("good", bytes("x"));
  await store.put("replacement-\ufffd", bytes("x"));
  assert.deepEqual(await namesIn(store, ""), ["good", "replacement-\ufffd"]);
  assert.equal(notices.length, 1);
  assert.match(notices[0] ?? "", /not UTF-8/);
});

Deno.test("a file that is shortened while it is read is an error", async () => {
  await using subject = await temporaryStore();
  const { store, root } = subject;
  await store.put("x", pattern(3_000_000));
  const error = await rejectsWith(
    (async () => {
      for await (const _ of (await store.get("x")).body) await truncate(`${root}/x`, 1_000_000);
    })(),
    "unreachable",
  );
  assert.equal(error.retryable, true);
  assert.match(error.message, /ended at byte 1000000 of 3000000/);
});

Deno.test("a reader keeps the version that it began with", async () => {
  await using subject = await temporaryStore();
  const { store } = subject;
  await store.put("x", pattern(3_000_000, 1));
  const { body } = await store.get("x");
  await store.put("x", pattern(10, 2));
  let size = 0;
  for await (const chunk of body) size += chunk.length;
  assert.equal(size, 3_000_000);
});

Deno.test("leftovers of dead writers go after a day, those of living ones stay", async () => {
  await using subject = await temporaryStore();
  const { store, root } = subject;
  const yesterday = new Date(Date.now() - 25 * 60 * 60 * 1000);
  const leave = async (directory: string, time: Date) => {
    await mkdir(`${root}/${directory}`, { recursive: true });
    const path = `${root}/${directory}/${temporaryName()}`;
    await writeFile(path, "x");
    await utimes(path, time, time);
  };
  await leave("s/base/killed", yesterday);
  await leave("s/base/running", new Date());
  await leave("s/wals/0001", yesterday);
  await store.put("s/wals/0001/w", bytes("x"));

  const upload = await store.startMultipart("s/base/new/data.tar");
  assert.deepEqual((await readdir(`${root}/s/base`)).sort(), ["new", "running"]);
  await upload.abort();

  assert.deepEqual(await store.deleteMany(["s/wals/0001/w"]), []);
  assert.deepEqual(await readdir(`${root}/s`), ["base"]);
});

Deno.test("an upload that nobody ended is removed when the store is closed", async () => {
  await using subject = await temporaryStore();
  const { store } = await openFileStore(`file://${subject.root}`, { env: {} });
  const upload = await store.startMultipart("d/x");
  await upload.uploadPart(1, pattern(1000));
  await upload.uploadPart(2, pattern(2000));
  assert.equal((await readdir(`${subject.root}/d`)).length, 2);
  await store.close();
  assert.deepEqual(await readdir(`${subject.root}/d`), []);
});

Deno.test("equal parts are completed without a second copy", async () => {
  await using subject = await temporaryStore();
  const { store, root } = subject;
  const upload = await store.startMultipart("d/x");
  const parts = await Promise.all([2, 1, 3].map((number) => {
    return upload.uploadPart(number, pattern(number === 3 ? 7 : 100_000, number));
  }));
  const [temporary, ...more] = await readdir(`${root}/d`);
  assert.ok(temporary !== undefined && isReservedName(temporary) && more.length === 0);
  const { ino } = await stat(`${root}/d/${temporary}`);
  await upload.complete(parts);
  assert.equal((await stat(`${root}/d/x`)).ino, ino);
  assert.deepEqual(await readdir(`${root}/d`), ["x"]);
});

Deno.test("parts of any sizes in any order, some sent twice, come together", async () => {
  await using subject = await temporaryStore();
  const { store, root } = subject;
  const size = fc.integer({ min: 0, max: 300 });
  const sends = fc.array(fc.record({ number: fc.integer({ min: 1, max: 6 }), size }), {
    minLength: 1,
    maxLength: 12,
  });
  let seed = 0;
  await fc.assert(
    fc.asyncProperty(sends, fc.boolean(), async (sends, atOnce) => {
      const upload = await store.startMultipart("d/x");
      const bodies = new Map<number, Uint8Array>();
      const calls = sends.map(({ number, size }) => {
        const body = pattern(size, ++seed);
        bodies.set(number, body);
        return () => upload.uploadPart(number, body);
      });
      const sent = [];
      if (atOnce) sent.push(...await Promise.all(calls.map((call) => call())));
      else for (const call of calls) sent.push(await call());
      const parts = [...new Map(sent.map((part) => [part.number, part])).values()];
      await upload.complete(parts);
      const numbers = [...bodies.keys()].sort((a, b) => a - b);
      const expected = Buffer.concat(numbers.map((number) => bodies.get(number) ?? bytes("")));
      assert.deepEqual(Buffer.from(await contentOf(store, "d/x")), expected);
      assert.deepEqual(await readdir(`${root}/d`), ["x"]);
    }),
    { numRuns: 80 },
  );
});

Deno.test("createOnly works on a file system without hard links", async () => {
  await using subject = await temporaryStore();
  const { root } = subject;
  const noLinks = () => Promise.reject(Object.assign(new Error("no links"), { code: "EPERM" }));
  const won = await Promise.all(Array.from({ length: 16 }, async (_, i) => {
    await writeFile(`${root}/from-${i}`, `${i}`);
    try {
      await renameExclusively(`${root}/from-${i}`, `${root}/to`, noLinks);
      return true;
    } catch (error) {
      assert.equal((error as { code?: string }).code, "EEXIST");
      return false;
    }
  }));
  assert.equal(won.filter(Boolean).length, 1);
  assert.equal(await readFile(`${root}/to`, "utf8"), `${won.indexOf(true)}`);
  assert.deepEqual((await readdir(root)).filter(isReservedName), [], "the lock is gone");

  // A lock that a dead process left is broken.
  const name = createHash("sha256").update("late-target").digest("hex").slice(0, 32);
  const lock = `${root}/.barman-cloud.${name}.lock`;
  await writeFile(lock, "");
  const longAgo = new Date(Date.now() - 120_000);
  await utimes(lock, longAgo, longAgo);
  await writeFile(`${root}/late`, "x");
  await renameExclusively(`${root}/late`, `${root}/late-target`, noLinks);
  assert.equal(await readFile(`${root}/late-target`, "utf8"), "x");
  assert.deepEqual((await readdir(root)).filter(isReservedName), []);
});

function assertStoreError(error: unknown): asserts error is StoreError {
  assert.ok(isStoreError(error, "invalid", "not-found"), String(error));
}
