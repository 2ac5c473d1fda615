import assert from "node:assert/strict";
import {
  isStoreError,
  type UnfinishedUpload,
  type UploadedPart,
} from "../../providers/object_store.ts";
import { rejectsWhenAborted, rejectsWith } from "./checks.ts";
import {
  bytes,
  type ConformanceTest,
  contentOf,
  namesIn,
  pattern,
  readAll,
  type Subject,
} from "./suite.ts";

export const multipartTests: readonly ConformanceTest[] = [
  ["nothing is visible before complete", async ({ store, prefix }) => {
    const key = `${prefix}hidden/object`;
    const upload = await store.startMultipart(key);
    assert.equal(upload.key, key);
    const part = await upload.uploadPart(1, bytes("content"));
    assert.equal(part.number, 1);
    assert.equal(part.size, 7);
    await rejectsWith(store.head(key), "not-found");
    await rejectsWith(store.get(key), "not-found");
    assert.deepEqual(await namesIn(store, prefix), []);
    assert.deepEqual(await namesIn(store, prefix, { delimiter: "/" }), []);
    await upload.complete([part]);
    assert.deepEqual(await contentOf(store, key), bytes("content"));
    assert.deepEqual(await namesIn(store, prefix), [key]);
  }],

  ["parts come together in order of their numbers", async (subject) => {
    const bodies = partBodies(subject, 5, 1234);
    const upload = await subject.store.startMultipart(`${subject.prefix}x`);
    const parts = new Map<number, UploadedPart>();
    for (const number of [3, 1, 5, 2, 4]) {
      parts.set(number, await upload.uploadPart(number, bodies[number - 1] ?? bytes("")));
    }
    await upload.complete([...parts.values()].sort((a, b) => a.number - b.number));
    await assertContent(subject, "x", bodies);
  }],

  ["the last part may come first", async (subject) => {
    const bodies = partBodies(subject, 3, 17);
    const upload = await subject.store.startMultipart(`${subject.prefix}x`);
    const last = await upload.uploadPart(3, bodies[2] ?? bytes(""));
    const first = await upload.uploadPart(1, bodies[0] ?? bytes(""));
    const second = await upload.uploadPart(2, bodies[1] ?? bytes(""));
    await upload.complete([first, second, last]);
    await assertContent(subject, "x", bodies);
  }],

  ["parts may be sent at once", async (subject) => {
    const bodies = partBodies(subject, 6, 4321);
    const upload = await subject.store.startMultipart(`${subject.prefix}x`);
    const parts = await Promise.all(bodies.map((body, i) => upload.uploadPart(i + 1, body)));
    await upload.complete(parts);
    await assertContent(subject, "x", bodies);
  }],

  ["a part that is sent again replaces the first", async (subject) => {
    const bodies = partBodies(subject, 3, 99);
    const upload = await subject.store.startMultipart(`${subject.prefix}x`);
    const size = partSize(subject);
    await upload.uploadPart(1, pattern(size, 77));
    await upload.uploadPart(2, pattern(size + 1000, 78));
    await upload.uploadPart(3, pattern(50_000, 79));
    const parts = [];
    for (const [i, body] of bodies.entries()) parts.push(await upload.uploadPart(i + 1, body));
    await upload.complete(parts);
    await assertContent(subject, "x", bodies);
  }],

  ["what completing tells of the object is so", async ({ store, prefix, ...subject }) => {
    for (const count of [1, 3]) {
      const bodies = partBodies({ store, prefix, ...subject }, count, 31);
      const upload = await store.startMultipart(`${prefix}x${count}`);
      const parts = [];
      for (const [i, body] of bodies.entries()) parts.push(await upload.uploadPart(i + 1, body));
      const { etag } = await upload.complete(parts);
      const found = await store.head(`${prefix}x${count}`);
      assert.equal(found.size, bodies.reduce((sum, { length }) => sum + length, 0));
      if (etag !== undefined) assert.equal(found.etag, etag);
      const told = ["aws-s3", "azure-blob-storage"].includes(store.provider);
      assert.equal(etag !== undefined, told, "where the store tells etags, the object's is known");
    }
  }],

  ["numbers may be left out", async (subject) => {
    const bodies = partBodies(subject, 2, 5);
    const upload = await subject.store.startMultipart(`${subject.prefix}x`);
    const first = await upload.uploadPart(2, bodies[0] ?? bytes(""));
    const second = await upload.uploadPart(7, bodies[1] ?? bytes(""));
    await upload.complete([first, second]);
    await assertContent(subject, "x", bodies);
  }],

  ["a single part may be empty", async ({ store, prefix }) => {
    const upload = await store.startMultipart(`${prefix}empty`);
    await upload.complete([await upload.uploadPart(1, new Uint8Array(0))]);
    assert.equal((await store.head(`${prefix}empty`)).size, 0);
  }],

  ["the last part may be empty", async (subject) => {
    const bodies = partBodies(subject, 2, 0);
    const upload = await subject.store.startMultipart(`${subject.prefix}x`);
    const parts = [];
    for (const [i, body] of bodies.entries()) parts.push(await upload.uploadPart(i + 1, body));
    await upload.complete(parts);
    await assertContent(subject, "x", bodies);
  }],

  ["complete replaces an existing object", async ({ store, prefix }) => {
    await store.put(`${prefix}x`, pattern(5000));
    const upload = await store.startMultipart(`${prefix}x`);
    const part = await upload.uploadPart(1, bytes("new"));
    assert.equal((await store.head(`${prefix}x`)).size, 5000);
    await upload.complete([part]);
    assert.deepEqual(await contentOf(store, `${prefix}x`), bytes("new"));
  }],

  ["two uploads of one key do not mix", async ({ store, prefix }) => {
    const key = `${prefix}x`;
    const [one, two] = await Promise.all([store.startMultipart(key), store.startMultipart(key)]);
    const partOne = await one.uploadPart(1, pattern(100_000, 1));
    const partTwo = await two.uploadPart(1, pattern(90_000, 2));
    await one.complete([partOne]);
    assert.deepEqual(await contentOf(store, key), pattern(100_000, 1));
    try {
      await two.complete([partTwo]);
    } catch (error) {
      // On Azure the parts of all uploads lie under one key, and the first that is finished drops the rest.
      assert.ok(
        store.provider === "azure-blob-storage" && isStoreError(error, "not-found"),
        `${error}`,
      );
      assert.deepEqual(await contentOf(store, key), pattern(100_000, 1));
      return;
    }
    assert.deepEqual(await contentOf(store, key), pattern(90_000, 2));
  }],

  ["abort leaves nothing, and may be called again", async ({ store, prefix }) => {
    const upload = await store.startMultipart(`${prefix}dir/x`);
    const part = await upload.uploadPart(1, pattern(100_000));
    await upload.abort();
    await upload.abort();
    assert.deepEqual(await namesIn(store, prefix), []);
    await rejectsWith(upload.uploadPart(2, bytes("late")), "not-found");
    await rejectsWith(upload.complete([part]), "not-found");
    await rejectsWith(store.head(`${prefix}dir/x`), "not-found");
  }],

  ["abort after complete keeps the object", async ({ store, prefix }) => {
    const upload = await store.startMultipart(`${prefix}x`);
    await upload.complete([await upload.uploadPart(1, bytes("stays"))]);
    await upload.abort();
    assert.deepEqual(await contentOf(store, `${prefix}x`), bytes("stays"));
  }],

  ["complete refuses what it was not sent", async ({ store, prefix }) => {
    const upload = await store.startMultipart(`${prefix}x`);
    const part = await upload.uploadPart(1, bytes("x"));
    await rejectsWith(upload.complete([]), "invalid");
    await rejectsWith(upload.complete([part, { ...part, number: 2 }]), "invalid");
    await upload.abort();
    await rejectsWith(store.head(`${prefix}x`), "not-found");
  }],

  ["part numbers outside the limits are refused", async ({ store, prefix }) => {
    const upload = await store.startMultipart(`${prefix}x`);
    for (const number of [0, -1, 1.5, store.limits.maxParts + 1]) {
      await rejectsWith(upload.uploadPart(number, bytes("x")), "invalid");
    }
    await upload.complete([await upload.uploadPart(store.limits.maxParts, bytes("x"))]);
    assert.deepEqual(await contentOf(store, `${prefix}x`), bytes("x"));
  }],

  ["createOnly refuses at complete at the latest", async ({ store, prefix }) => {
    const key = `${prefix}x`;
    await store.put(key, bytes("first"));
    const second = (async () => {
      const upload = await store.startMultipart(key, { createOnly: true });
      try {
        await upload.complete([await upload.uploadPart(1, bytes("second"))]);
      } catch (error) {
        await upload.abort();
        throw error;
      }
    })();
    await rejectsWith(second, "exists");
    assert.deepEqual(await contentOf(store, key), bytes("first"));
    assert.deepEqual(await namesIn(store, prefix), [key]);
  }],

  ["of 8 createOnly uploads one wins, where the store says so", async ({ store, prefix }) => {
    if (!store.capabilities.createOnlyMultipart) return;
    const key = `${prefix}x`;
    const bodies = Array.from({ length: 8 }, (_, i) => pattern(10_000 + i, i + 1));
    const uploads = await Promise.all(bodies.map(async (body) => {
      const upload = await store.startMultipart(key, { createOnly: true });
      return { upload, part: await upload.uploadPart(1, body) };
    }));
    const won = await Promise.all(uploads.map(async ({ upload, part }) => {
      try {
        await upload.complete([part]);
        return true;
      } catch (error) {
        assert.ok(isStoreError(error, "exists"), `loser got ${error}`);
        await upload.abort();
        return false;
      }
    }));
    assert.equal(won.filter(Boolean).length, 1);
    assert.deepEqual(await contentOf(store, key), bodies[won.indexOf(true)]);
  }],

  ["unfinished uploads are listed with their size, and can be removed", async (subject) => {
    const { store, prefix } = subject;
    const size = partSize(subject);
    const began = Date.now();
    const upload = await store.startMultipart(`${prefix}a/left ü+&behind`);
    await upload.uploadPart(1, pattern(size, 1));
    await upload.uploadPart(2, pattern(1000, 2));
    const other = await store.startMultipart(`${prefix}b/other`);
    const part = await other.uploadPart(1, bytes("other"));
    await store.put(`${prefix}a/object`, bytes("object"));
    await store.put(`${prefix}a/empty`, bytes(""));
    const inA = await uploadsIn(subject, "a/");
    assert.equal(inA.length, 1);
    assert.equal((await uploadsIn(subject, "")).length, 2);
    assert.deepEqual(await uploadsIn(subject, "c/"), []);
    const [left] = inA;
    assert.ok(left !== undefined);
    assert.ok(left.key.startsWith(`${prefix}a/`));
    // A directory does not tell the object, only the file.
    if (store.provider !== "local") assert.equal(left.key, upload.key);
    // Azure has a block of one byte that says whose the others are.
    assert.ok(left.size >= size + 1000 && left.size <= size + 1001, String(left.size));
    if (store.provider !== "azure-blob-storage") {
      const age = began - (left.lastActivity?.getTime() ?? 0);
      assert.ok(Math.abs(age) < 60_000, `the store's clock is ${age} ms off`);
    } else assert.equal(left.lastActivity, undefined);
    assert.equal(await store.removeUpload(left), undefined);
    assert.equal(await store.removeUpload(left), undefined);
    assert.deepEqual(await uploadsIn(subject, "a/"), []);
    await other.complete([part]);
    assert.deepEqual(await uploadsIn(subject, ""), []);
    assert.deepEqual(await namesIn(store, prefix), [
      ...[`${prefix}a/empty`, `${prefix}a/object`, `${prefix}b/other`],
    ]);
    assert.deepEqual(await contentOf(store, `${prefix}b/other`), bytes("other"));
  }],

  ["who still works on an upload that is removed is told so", async (subject) => {
    const { store, prefix } = subject;
    const upload = await store.startMultipart(`${prefix}x`);
    const part = await upload.uploadPart(1, bytes("content"));
    for (const each of await uploadsIn(subject, "")) await store.removeUpload(each);
    await rejectsWith(upload.complete([part]));
    await rejectsWith(store.head(`${prefix}x`), "not-found");
  }],

  ["multipart calls can be aborted", async (subject) => {
    const { store, prefix } = subject;
    await assert.rejects(
      store.startMultipart(`${prefix}x`, { signal: AbortSignal.abort(new Error("stop")) }),
      /^Error: stop$/,
    );
    const upload = await store.startMultipart(`${prefix}x`);
    const body = pattern(Math.max(partSize(subject), 30_000_000));
    await rejectsWhenAborted("uploadPart", (signal) => upload.uploadPart(1, body, { signal }));
    const part = await upload.uploadPart(1, body);
    await assert.rejects(
      upload.complete([part], { signal: AbortSignal.abort(new Error("stop")) }),
      /^Error: stop$/,
    );
    await rejectsWith(store.head(`${prefix}x`), "not-found");
    await upload.complete([part]);
    assert.equal((await store.head(`${prefix}x`)).size, body.length);
  }],
];

async function uploadsIn({ store, prefix }: Subject, below: string): Promise<UnfinishedUpload[]> {
  return await Array.fromAsync(store.listUploads(prefix + below));
}

/** Equal parts, as all callers send them, and a last one. */
function partBodies(subject: Subject, count: number, lastSize: number): Uint8Array[] {
  return Array.from({ length: count }, (_, i) => {
    return pattern(i === count - 1 ? lastSize : partSize(subject), i + 1);
  });
}

function partSize({ store }: Subject): number {
  return Math.max(store.limits.minPartSize, 70_000);
}

async function assertContent(
  { store, prefix }: Subject,
  name: string,
  bodies: readonly Uint8Array[],
): Promise<void> {
  let position = 0;
  for (const [i, body] of bodies.entries()) {
    const end = position + body.length;
    const whole = body.length === 0
      ? body
      : await readAll((await store.get(prefix + name, { start: position, end })).body);
    assert.equal(whole.length, body.length, `length of part ${i + 1}`);
    assert.ok(whole.every((byte, at) => byte === body[at]), `content of part ${i + 1}`);
    position = end;
  }
  assert.equal((await store.head(prefix + name)).size, position);
}
