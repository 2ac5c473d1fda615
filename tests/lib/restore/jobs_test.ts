import assert from "node:assert/strict";
import { threadsFor } from "../../../lib/restore/jobs.ts";

Deno.test("bzip2 and gzip get as many threads as their share of the bytes, and one at least", () => {
  for (const codec of ["bzip2", "gzip"] as const) {
    assert.equal(threadsFor(codec, 4, 1), 4);
    assert.equal(threadsFor(codec, 4, 0.5), 2);
    assert.equal(threadsFor(codec, 2, 0.9), 2);
    assert.equal(threadsFor(codec, 2, 0.01), 1);
    assert.equal(threadsFor(codec, 1, 1), 1);
  }
});

Deno.test("LZ4 and snappy get a thread with more than two jobs", () => {
  for (const codec of ["lz4", "snappy"] as const) {
    assert.equal(threadsFor(codec, 3, 0.1), 1);
    assert.equal(threadsFor(codec, 64, 1), 1);
    assert.equal(threadsFor(codec, 2, 1), 0);
    assert.equal(threadsFor(codec, 1, 1), 0);
  }
});

Deno.test("what is not compressed gets no threads", () => {
  assert.equal(threadsFor(null, 64, 1), 0);
});
